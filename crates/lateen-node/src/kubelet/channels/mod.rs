//! The streams of exec and attach as a client has them: its side of a program's input, output, error, and terminal.

mod spdy;
mod websocket;

use std::io;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use super::upgrade::{Link, Served};
use crate::pods::console::Output;

/// The protocols of exec and attach: version 5 has a message for the end of input, which SPDY has by itself.
pub(super) const PROTOCOLS: Served = Served {
    websocket: &["v5.channel.k8s.io", "v4.channel.k8s.io"],
    spdy: &["v4.channel.k8s.io"],
};

/// What the client wants to be connected with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish {
    pub(super) input: bool,
    pub(super) output: bool,
    pub(super) error: bool,
    pub(super) terminal: bool,
}

/// What a client does.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// It sends input.
    Input(Bytes),
    /// Its input is over.
    InputEnd,
    /// Its terminal has this size.
    Resize(Size),
}

/// A terminal's size in characters, as clients send it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Size {
    pub(super) width: u16,
    pub(super) height: u16,
}

/// What goes to the client.
pub(super) enum Sender {
    WebSocket(websocket::Sender),
    Spdy(spdy::Sender),
}

/// What comes from the client.
pub(super) enum Events {
    WebSocket(websocket::Events),
    Spdy(spdy::Events),
}

/// Both ways of a connection.
///
/// # Errors
/// When a client of SPDY does not open the streams that it asked for.
pub(super) async fn open(link: Link, wish: Wish) -> io::Result<(Sender, Events)> {
    match link {
        Link::WebSocket(socket) => {
            let (sender, events) = websocket::open(*socket);
            Ok((Sender::WebSocket(sender), Events::WebSocket(events)))
        }
        Link::Spdy(io) => {
            let (sender, events) = spdy::open(io, wish).await?;
            Ok((Sender::Spdy(sender), Events::Spdy(events)))
        }
    }
}

impl Sender {
    /// Sends what the program wrote.
    pub(super) async fn write(&mut self, output: Output, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::WebSocket(sender) => sender.write(output, bytes).await,
            Self::Spdy(sender) => sender.write(output, bytes).await,
        }
    }

    /// Tells how the program ended, a `Status`, and closes.
    pub(super) async fn finish(self, status: &Value) -> io::Result<()> {
        match self {
            Self::WebSocket(sender) => sender.finish(status).await,
            Self::Spdy(sender) => sender.finish(status).await,
        }
    }
}

impl Events {
    /// What the client does next; nothing when it is gone.
    pub(super) async fn next(&mut self) -> Option<Event> {
        match self {
            Self::WebSocket(events) => events.next().await,
            Self::Spdy(events) => events.next().await,
        }
    }
}
