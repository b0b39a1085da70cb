//! Entering the mesh's own namespaces, as an ordinary user or as root.
//!
//! ```text
//! outer process            host namespaces; calls start(), keeps the channel
//! └─ watcher               new user namespace; only waits          (ended by the kernel with the outer process)
//!    └─ pid 1              new pid, mount, network, ipc, uts namespaces; reaps orphans
//!       └─ inner process   inside() returns here; when it ends, pid 1 ends, and with pid 1 everything
//! ```
//!
//! All four are the same program: [`start`] runs it again with a hidden subcommand, whose first act,
//! before any thread exists, must be [`inside`]. Nothing outlives the outer process, even when it is
//! killed: each process asks the kernel to be killed with its parent, namespaces vanish with their
//! last process, and mounts, links and rules exist only in those namespaces.

mod check;
mod identity;
mod inside;
mod start;

pub use check::{EnterError, find_program};
pub use identity::Identity;
pub use inside::{Inner, inside};
pub use start::{Ended, Inside, Output, Plan, start};

/// Number under which the inner process inherits its end of the channel.
const CHANNEL: i32 = 3;
