//! SPDY/3.1 as Kubernetes' streams use it: the protocol of exec and attach before kubectl 1.31, and, within a WebSocket
//! or without, of port-forward to this day.
//!
//! Of the protocol (the Chromium project's draft 3.1) this is the part that `spdystream`, the library of all clients,
//! speaks: streams that the client opens, with headers and without windows. A stream that is not read holds up its
//! whole connection, as it does there.

mod connection;
mod frame;
mod headers;

pub(super) use connection::{Connection, Incoming, Stream, StreamReader, StreamWriter, Transport};

use std::io;

use thiserror::Error;

/// Why a connection cannot go on.
#[derive(Debug, Error)]
pub(super) enum SpdyError {
    /// Reading or writing failed.
    #[error("the connection failed: {0}")]
    Connection(#[from] io::Error),
    /// Not SPDY/3.
    #[error("the peer speaks version {0} of SPDY; only 3 is served")]
    Version(u16),
    /// A control frame longer than any needs to be.
    #[error("a control frame of {0} bytes; at most {most} are taken", most = frame::LONGEST_CONTROL)]
    ControlTooLong(usize),
    /// A control frame that ends before what it has to say.
    #[error("a control frame of type {0} is too short")]
    ControlTooShort(u16),
    /// A header block that cannot be unpacked.
    #[error("a header block is broken: {0}")]
    Headers(&'static str),
    /// A stream number that is not the client's, or was used before.
    #[error("the client opened stream {0}, which it may not")]
    StreamNumber(u32),
    /// More streams at once than are served.
    #[error("more than {0} streams are open")]
    TooManyStreams(usize),
}
