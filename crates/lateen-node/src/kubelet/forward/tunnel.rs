//! A WebSocket as a stream of bytes: what its binary messages hold, one after the other.

use std::future::ready;
use std::io;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, TryStreamExt};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};

use crate::kubelet::spdy::Transport;
use crate::kubelet::upgrade::Socket;

/// The stream; shutting it down closes the WebSocket.
pub(super) fn open(socket: Socket) -> impl Transport {
    let (sink, stream) = socket.split();
    let pieces = stream
        .map_err(io::Error::other)
        .try_take_while(|message| ready(Ok(!message.is_close())))
        .try_filter_map(|message| {
            ready(Ok(match message {
                Message::Binary(bytes) => Some(bytes),
                _ => None,
            }))
        });
    let sink = sink
        .sink_map_err(io::Error::other)
        .with(|bytes: Bytes| ready(Ok::<_, io::Error>(Message::Binary(bytes))));
    let writer = SinkWriter::new(CopyToBytes::new(sink));
    tokio::io::join(StreamReader::new(Box::pin(pieces)), writer)
}
