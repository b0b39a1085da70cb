//! Memory of this process that it does not need, or not any more.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::io;
use std::ops::Range;

use nix::libc;
use nix::sys::prctl;

/// From now on no memory of this process is made of huge pages, of which a small process would use a fraction. Children
/// inherit that.
///
/// # Errors
/// What `prctl(2)` says.
pub fn avoid_huge_pages() -> io::Result<()> {
    Ok(prctl::set_thp_disable(true)?)
}

/// Gives memory that was freed back to the system: what the calling thread freed, and what no thread uses. Without it
/// that happens with later allocations, which an idle process does not make.
///
/// It does nothing where the allocator is another one than mimalloc.
pub fn give_back_heap() {
    // SAFETY: mi_collect touches nothing that is allocated, and may be called by any thread at any time.
    unsafe { libmimalloc_sys::mi_collect(true) };
}

/// Takes the code and the constants of this program out of the memory of the process. What is used again is mapped again
/// from the page cache, where it stays, for a fraction of a millisecond in total; the rest, which only the start needed, is
/// not counted and not kept any more.
///
/// Breakpoints that a debugger set before are lost.
///
/// # Errors
/// What `madvise(2)` says.
pub fn give_back_program() -> io::Result<()> {
    for range in constant_segments() {
        let length = range.end - range.start;
        // SAFETY: the range is whole pages of a segment that the program's file says is never written, so that its pages
        // are the file's. Dropping them changes no byte that anybody could read: they are read from the file again.
        let result =
            unsafe { libc::madvise(range.start as *mut c_void, length, libc::MADV_DONTNEED) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Whole pages of the program's segments that are not writable. What the loader relocates and protects afterwards is part
/// of a writable one.
fn constant_segments() -> Vec<Range<usize>> {
    unsafe extern "C" fn visit(
        object: *mut libc::dl_phdr_info,
        _size: usize,
        found: *mut c_void,
    ) -> libc::c_int {
        // SAFETY: the caller below passes the vector, and the system a valid description with as many headers as it says.
        let (object, found, headers) = unsafe {
            let object = &*object;
            let count = usize::from(object.dlpi_phnum);
            let headers = std::slice::from_raw_parts(object.dlpi_phdr, count);
            (object, &mut *found.cast::<Vec<Range<usize>>>(), headers)
        };
        for header in headers {
            if header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0 {
                let start = object.dlpi_addr as usize + header.p_vaddr as usize;
                found.push(start..start + header.p_memsz as usize);
            }
        }
        // The program comes first; libraries are shared with others.
        1
    }
    let mut found: Vec<Range<usize>> = Vec::new();
    // SAFETY: the callback takes the pointer for what it is, and does not outlive the call.
    unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut found).cast()) };
    // SAFETY: sysconf takes an integer and touches no memory of ours.
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
    found
        .into_iter()
        .map(|range| range.start / page * page..range.end / page * page)
        .filter(|range| !range.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kilobytes of the program's constant segments that are in memory.
    fn resident() -> usize {
        let ranges = constant_segments();
        assert!(!ranges.is_empty());
        let mappings = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let (mut inside, mut total) = (false, 0);
        for line in mappings.lines() {
            let first = line.split_whitespace().next().unwrap_or_default();
            if let Some((start, _)) = first.split_once('-') {
                let start = usize::from_str_radix(start, 16).unwrap();
                inside = ranges.iter().any(|range| range.contains(&start));
            } else if inside && let Some(size) = line.strip_prefix("Rss:") {
                let size = size.trim().strip_suffix(" kB").unwrap();
                total += size.parse::<usize>().unwrap();
            }
        }
        total
    }

    #[test]
    fn the_program_goes_on_in_less_memory() {
        // Whatever ran before counts.
        for range in constant_segments() {
            let pages = range.step_by(4096);
            let read = pages.map(|at| {
                // SAFETY: every page of the range is readable.
                u64::from(unsafe { std::ptr::read_volatile(at as *const u8) })
            });
            assert!(read.sum::<u64>() > 0);
        }
        let before = resident();
        give_back_program().unwrap();
        let after = resident();
        assert!(after < before, "{before} kB, then {after} kB");
    }

    #[test]
    fn huge_pages_are_refused_from_then_on() {
        avoid_huge_pages().unwrap();
        assert!(prctl::get_thp_disable().unwrap());
    }
}
