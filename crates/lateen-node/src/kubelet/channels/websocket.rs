//! Channels in one WebSocket: each binary message begins with the number of its channel.

use std::io;

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::Event;
use crate::kubelet::upgrade::Socket;
use crate::pods::console::Output;

const INPUT: u8 = 0;
const OUTPUT: u8 = 1;
const ERROR: u8 = 2;
const STATUS: u8 = 3;
const RESIZE: u8 = 4;
/// Version 5 only: the channel whose number follows ends.
const CLOSE: u8 = 255;

pub(crate) struct Sender(SplitSink<Socket, Message>);

pub(crate) struct Events(SplitStream<Socket>);

pub(super) fn open(socket: Socket) -> (Sender, Events) {
    let (sender, receiver) = socket.split();
    (Sender(sender), Events(receiver))
}

impl Sender {
    pub(super) async fn write(&mut self, output: Output, bytes: &[u8]) -> io::Result<()> {
        let channel = match output {
            Output::Standard => OUTPUT,
            Output::Error => ERROR,
        };
        self.send(channel, bytes).await
    }

    pub(super) async fn finish(mut self, status: &Value) -> io::Result<()> {
        self.send(STATUS, status.to_string().as_bytes()).await?;
        // kubectl takes an end without a code for a broken connection.
        let normal = CloseFrame {
            code: CloseCode::Normal,
            reason: Utf8Bytes::default(),
        };
        let end = self.0.send(Message::Close(Some(normal))).await;
        end.map_err(io::Error::other)
    }

    async fn send(&mut self, channel: u8, bytes: &[u8]) -> io::Result<()> {
        let message = [&[channel], bytes].concat();
        let sent = self.0.send(Message::Binary(message.into())).await;
        sent.map_err(io::Error::other)
    }
}

impl Events {
    pub(super) async fn next(&mut self) -> Option<Event> {
        loop {
            match self.0.next().await?.ok()? {
                Message::Binary(message) => {
                    if let Some(event) = read(&message) {
                        return Some(event);
                    }
                }
                Message::Close(_) => return None,
                _ => {}
            }
        }
    }
}

/// What a message says; nothing if it is none that is known.
fn read(message: &Bytes) -> Option<Event> {
    match (*message.first()?, &message[1..]) {
        (INPUT, _) => Some(Event::Input(message.slice(1..))),
        (CLOSE, [INPUT]) => Some(Event::InputEnd),
        (RESIZE, size) => serde_json::from_slice(size).ok().map(Event::Resize),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Size;
    use super::*;

    fn check(message: &'static [u8], expected: Option<Event>) {
        assert_eq!(read(&Bytes::from_static(message)), expected, "{message:?}");
    }

    #[test]
    fn messages_are_told_apart_by_their_channel() {
        check(b"\0text", Some(Event::Input(Bytes::from_static(b"text"))));
        check(b"\0", Some(Event::Input(Bytes::new())));
        check(b"\xff\0", Some(Event::InputEnd));
        check(b"\xff\x01", None);
        let size = Size {
            width: 80,
            height: 24,
        };
        let message = b"\x04{\"Width\":80,\"Height\":24}\n";
        check(message, Some(Event::Resize(size)));
        check(b"\x04{}", None);
        check(b"", None);
        check(b"\x09x", None);
    }

    /// Fuzzed: input arrives as it was sent.
    #[test]
    fn any_message_is_read_or_passed_over() {
        bolero::check!(name = "channel-messages")
            .with_iterations(0)
            .for_each(|bytes: &[u8]| {
                let message = Bytes::copy_from_slice(bytes);
                if let Some(Event::Input(input)) = read(&message) {
                    assert_eq!([&[INPUT], &input[..]].concat(), bytes);
                }
            });
    }
}
