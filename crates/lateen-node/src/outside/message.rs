//! What the two processes say to each other: JSON, one object a message, over a
//! `SOCK_SEQPACKET` pair. Listeners and connections travel with the answer as descriptors.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Longest message either side sends or accepts, in bytes.
pub(crate) const LONGEST: usize = 128 * 1024;

/// From the process inside the namespaces to the one outside.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FromInside {
    /// Set-up: the user namespace exists and waits for its identity maps.
    Unshared,
    /// Set-up: this step failed with this error number; the process ends.
    Failed { step: String, errno: i32 },
    /// Set-up: all namespaces are ready and the program runs inside them.
    Entered,
    /// Something to be done in the host's network; answered under the same number.
    Ask { number: u64, wish: Wish },
    /// News for the command that the user started, see [`super::Outside::tell`].
    Tell(Value),
}

/// What can be asked of the process outside.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Wish {
    /// A listening TCP socket.
    Listen(SocketAddr),
    /// A listening Unix socket of this mode.
    ListenUnix { path: PathBuf, mode: u32 },
    /// A connection.
    Connect(SocketAddr),
    /// A connection to a host by name or address.
    ConnectName { host: String, port: u16 },
    /// A socket that is connected to the host's `n`th nameserver, counted from 0: datagrams, or a stream.
    Nameserver { n: usize, stream: bool },
}

/// From the process outside to the one inside.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FromOutside {
    /// Set-up, first message: whose child this is, and the configuration.
    Hello { parent: i32, config: Value },
    /// Set-up: the identity maps are written; is there a range of user ids, or only one?
    Mapped { users: u32 },
    /// The answer to a wish: a descriptor comes with it, or an error number.
    Answer { number: u64, errno: Option<i32> },
    /// Please end in good order.
    Stop,
}
