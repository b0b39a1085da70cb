//! Linux system calls that the safe crates cannot express, or express awkwardly.
//!
//! This is the only crate of the project that may hold `unsafe`; each block states why it is
//! sound. Everything here is a thin wrapper: no policy, no async, no state.
//!
//! * [`socket`]: original destination of a redirected connection, the proxy's packet mark,
//!   descriptor passing over Unix sockets.
//! * [`namespace`]: joining and leaving namespaces, identity maps of a user namespace.
//! * [`allocation`]: an allocator that counts, for tests of how much memory something takes.
//! * [`memory`]: giving back what the process does not need.
//! * [`mount`]: bind mounts, tmpfs, read-only trees, changing the root.
//! * [`process`]: fork, death of the parent, capabilities, limits.
//! * [`pty`]: pseudo terminals.
//! * [`spawn`]: descriptors that a child process inherits.

pub mod allocation;
pub mod memory;
pub mod mount;
pub mod namespace;
pub mod process;
pub mod pty;
pub mod socket;
pub mod spawn;

pub use socket::{PROXY_MARK, mark_own_socket, original_dst};
