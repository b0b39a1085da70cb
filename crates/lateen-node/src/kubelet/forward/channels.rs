//! Port-forward over a WebSocket alone: each port of the request has two channels, for its bytes and for what goes wrong,
//! which begin with the port's number. A port is connected once.

use std::io;
use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;

use super::connect;
use crate::kubelet::upgrade::Socket;
use crate::network::PodNetwork;

/// Most ports of one request: channels are numbered by one byte.
const MOST_PORTS: usize = 64;

/// Size of the pieces in which bytes are passed on.
const PIECE: usize = 32 << 10;

/// Messages that wait for the client.
const MESSAGES: usize = 16;

/// The ports that a request names: numbers, separated by commas, in one parameter or several.
pub(super) fn ports<'a>(parameters: impl Iterator<Item = &'a str>) -> Result<Vec<u16>, String> {
    let mut ports = Vec::new();
    for text in parameters.flat_map(|parameter| parameter.split(',')) {
        let port = text.parse().ok().filter(|port| *port > 0);
        ports.push(port.ok_or_else(|| format!("{text:?} in `ports` is no port"))?);
    }
    match ports.len() {
        0 => Err("query parameter `ports` is missing".into()),
        1..=MOST_PORTS => Ok(ports),
        count => Err(format!("{count} ports; at most {MOST_PORTS} are served")),
    }
}

/// Serves until all connections have ended or the client goes.
pub(super) async fn serve(socket: Socket, network: Arc<PodNetwork>, ports: Vec<u16>) {
    let (mut sink, mut stream) = socket.split();
    let (to_client, mut messages) = mpsc::channel::<Vec<u8>>(MESSAGES);
    let mut inputs = Vec::new();
    let mut forwards = JoinSet::new();
    for (index, port) in ports.into_iter().enumerate() {
        let (input, from_client) = mpsc::channel(MESSAGES);
        inputs.push(input);
        // At most 64 of them.
        let data = 2 * index as u8;
        let forward = forward(network.clone(), port, data, from_client, to_client.clone());
        forwards.spawn(forward);
    }
    drop(to_client);
    let sending = async {
        while let Some(message) = messages.recv().await {
            let sent = sink.send(Message::Binary(message.into())).await;
            if sent.is_err() {
                return;
            }
        }
        // All connections have ended.
        let _ = sink.close().await;
    };
    let receiving = async {
        while let Some(Ok(message)) = stream.next().await {
            match message {
                Message::Binary(message) if !message.is_empty() => {
                    let channel = usize::from(message[0]);
                    let input = inputs.get(channel / 2);
                    if let Some(input) = input.filter(|_| channel.is_multiple_of(2)) {
                        // A connection that has ended takes nothing more.
                        let _ = input.send(message.slice(1..)).await;
                    }
                }
                Message::Close(_) => return,
                _ => {}
            }
        }
    };
    tokio::select! {
        () = sending => {}
        () = receiving => {}
    }
}

async fn forward(
    network: Arc<PodNetwork>,
    port: u16,
    channel: u8,
    mut from_client: mpsc::Receiver<bytes::Bytes>,
    to_client: mpsc::Sender<Vec<u8>>,
) {
    let send = async |channel: u8, bytes: &[u8]| {
        let message = [&[channel], bytes].concat();
        to_client.send(message).await.map_err(io::Error::other)
    };
    for channel in [channel, channel + 1] {
        if send(channel, &port.to_le_bytes()).await.is_err() {
            return;
        }
    }
    let stream = match connect(&network, port).await {
        Ok(stream) => stream,
        Err(error) => {
            // The client may be gone.
            let _ = send(channel + 1, error.to_string().as_bytes()).await;
            return;
        }
    };
    let (mut reader, mut writer): (OwnedReadHalf, _) = stream.into_split();
    let incoming = async {
        while let Some(piece) = from_client.recv().await {
            if writer.write_all(&piece).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    let outgoing = async {
        let mut buffer = vec![0; PIECE];
        while let Ok(length @ 1..) = reader.read(&mut buffer).await {
            if send(channel, &buffer[..length]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = incoming => {}
        () = outgoing => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(parameters: &[&str], expected: Result<&[u16], &str>) {
        match (ports(parameters.iter().copied()), expected) {
            (Ok(ports), Ok(expected)) => assert_eq!(ports, expected, "{parameters:?}"),
            (Err(error), Err(part)) => assert!(error.contains(part), "{parameters:?}: {error}"),
            (found, _) => panic!("{parameters:?}: {found:?}"),
        }
    }

    #[test]
    fn ports_are_numbers_in_one_parameter_or_several() {
        check(&["80"], Ok(&[80]));
        check(&["80,443", "8080"], Ok(&[80, 443, 8080]));
        check(&[], Err("missing"));
        check(&["0"], Err("no port"));
        check(&["80,"], Err("no port"));
        check(&["65536"], Err("no port"));
        let many = vec!["1"; MOST_PORTS + 1];
        check(&many, Err("at most"));
    }
}
