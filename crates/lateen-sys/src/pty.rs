//! Pseudo terminals.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::libc;

/// Opens a pseudo terminal: the controlling side, and the side that a program gets. Both are
/// close-on-exec.
///
/// # Errors
/// When `/dev/ptmx` cannot be opened or the system has no more terminals.
pub fn open() -> io::Result<(File, OwnedFd)> {
    let controller = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/ptmx")?;
    let unlock: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one integer through the pointer, which is live during the call.
    let result =
        unsafe { libc::ioctl(controller.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlock) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes flags as an integer and returns a new descriptor or -1.
    let fd = unsafe { libc::ioctl(controller.as_raw_fd(), libc::TIOCGPTPEER, flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just opened this descriptor for us alone.
    Ok((controller, unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// Tells a terminal its size in characters.
///
/// # Errors
/// When the descriptor is no terminal.
pub fn resize<F: AsFd>(terminal: F, columns: u16, rows: u16) -> io::Result<()> {
    let size = libc::winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCSWINSZ reads the structure through the pointer, which is live during the call.
    let result = unsafe {
        libc::ioctl(
            terminal.as_fd().as_raw_fd(),
            libc::TIOCSWINSZ,
            &raw const size,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
