//! Memory that was freed goes back to the system. One test, as it looks at the whole process.

use lateen_sys::memory::give_back_heap;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Kilobytes of the process that no file backs.
fn anonymous() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let size = line.unwrap().trim().strip_suffix(" kB").unwrap();
    size.parse().unwrap()
}

#[test]
fn freed_memory_goes_back() {
    let before = anonymous();
    let blocks: Vec<Vec<u8>> = (0..100_000)
        .map(|index| vec![1; 16 + index % 600])
        .collect();
    let full = anonymous();
    assert!(full > before + 20_000, "{before} kB, then {full} kB");
    drop(blocks);
    give_back_heap();
    let after = anonymous();
    assert!(
        after < before + 4_000,
        "{before} kB, {full} kB, then {after} kB"
    );
}
