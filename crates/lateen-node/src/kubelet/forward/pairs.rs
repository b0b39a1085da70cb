//! Port-forward over SPDY: for each connection the client opens two streams of one request id, one for its bytes and one
//! for what goes wrong.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::JoinSet;

use super::connect;
use crate::kubelet::spdy::{Connection, Stream, StreamReader, StreamWriter, Transport};
use crate::network::PodNetwork;

/// Most connections whose second stream has not come yet.
const MOST_HALVES: usize = 64;

/// Size of the pieces in which bytes are passed on.
const PIECE: usize = 32 << 10;

/// The streams of a connection that is not complete.
#[derive(Default)]
struct Half {
    data: Option<Stream>,
    error: Option<Stream>,
}

/// Serves the connections of one client until it goes.
pub(super) async fn serve(io: impl Transport, network: Arc<PodNetwork>) {
    let (mut connection, mut incoming) = Connection::start(io);
    let mut halves: HashMap<String, Half> = HashMap::new();
    let mut forwards = JoinSet::new();
    let reason = loop {
        tokio::select! {
            Some(stream) = incoming.recv() => {
                match pair(&mut halves, stream) {
                    Ok(Some((port, data, error))) => {
                        forwards.spawn(forward(network.clone(), port, data, error));
                    }
                    Ok(None) => {}
                    Err(reason) => break Some(reason),
                }
            }
            Some(_) = forwards.join_next() => {}
            ended = connection.ended() => break ended.err().map(|error| error.to_string()),
        }
    };
    if let Some(reason) = reason {
        tracing::debug!(reason, "port-forward ended");
    }
    connection.close().await;
}

/// The port and both streams of a connection that is complete now.
fn pair(
    halves: &mut HashMap<String, Half>,
    stream: Stream,
) -> Result<Option<(u16, Stream, Stream)>, String> {
    let port = stream.header("port").unwrap_or_default().to_owned();
    let id = format!("{} {port}", stream.header("requestid").unwrap_or_default());
    let half = halves.entry(id.clone()).or_default();
    match stream.header("streamtype") {
        Some("data") => half.data = Some(stream),
        Some("error") => half.error = Some(stream),
        other => return Err(format!("a stream of the unknown type {other:?}")),
    }
    match halves.remove(&id) {
        Some(Half {
            data: Some(data),
            error: Some(error),
        }) => {
            let number = port.parse().ok().filter(|port| *port > 0);
            let number = number.ok_or_else(|| format!("{port:?} is no port"))?;
            Ok(Some((number, data, error)))
        }
        Some(half) if halves.len() < MOST_HALVES => {
            halves.insert(id, half);
            Ok(None)
        }
        _ => Err(format!(
            "more than {MOST_HALVES} streams without their other"
        )),
    }
}

async fn forward(network: Arc<PodNetwork>, port: u16, data: Stream, error: Stream) {
    let report = error.writer;
    let moved = match connect(&network, port).await {
        Ok(stream) => {
            let (reader, writer) = stream.into_split();
            relay(reader, writer, data).await
        }
        Err(problem) => {
            let told = report.write(problem.to_string().as_bytes()).await;
            told.and(data.writer.finish().await)
        }
    };
    // A client that is gone needs to know nothing.
    if moved.is_ok() {
        let _ = report.finish().await;
    }
}

/// Moves bytes until the pod's side has ended: clients wait for that end, and then close theirs.
async fn relay(reader: OwnedReadHalf, writer: OwnedWriteHalf, data: Stream) -> io::Result<()> {
    let Stream {
        reader: from_client,
        writer: to_client,
        ..
    } = data;
    let incoming = take_in(from_client, writer);
    let outgoing = pass_on(reader, to_client);
    tokio::pin!(incoming);
    tokio::select! {
        result = outgoing => result,
        // Never ends by itself.
        () = &mut incoming => Ok(()),
    }
}

async fn pass_on(mut reader: OwnedReadHalf, to_client: StreamWriter) -> io::Result<()> {
    let mut buffer = vec![0; PIECE];
    loop {
        match reader.read(&mut buffer).await {
            Ok(0) => return to_client.finish().await,
            Ok(length) => to_client.write(&buffer[..length]).await?,
            Err(_) => return to_client.reset().await,
        }
    }
}

async fn take_in(mut from_client: StreamReader, mut writer: OwnedWriteHalf) {
    while let Some(piece) = from_client.next().await {
        if writer.write_all(&piece).await.is_err() {
            break;
        }
    }
    // The pod may still answer.
    let _ = writer.shutdown().await;
    std::future::pending().await
}
