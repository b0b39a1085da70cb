//! Streams of a SPDY connection: the client opens one for each thing that it asked for, and names it in a header.

use std::future::pending;
use std::io;
use std::time::Duration;

use serde_json::Value;

use super::{Event, Wish};
use crate::kubelet::spdy::{Connection, Incoming, Stream, StreamReader, StreamWriter, Transport};
use crate::pods::console::Output;

/// How long the client may take to open its streams; the kubelet's own limit.
const OPENING: Duration = Duration::from_secs(30);

/// How long a client may take to read the end and go.
const CLOSING: Duration = Duration::from_secs(5);

/// Most bytes of a terminal's size that wait for the rest of it.
const LONGEST_SIZE: usize = 1024;

pub(crate) struct Sender {
    output: Option<StreamWriter>,
    error: Option<StreamWriter>,
    status: StreamWriter,
    ended: tokio::sync::watch::Receiver<bool>,
    close: tokio::sync::oneshot::Sender<()>,
}

pub(crate) struct Events {
    input: Option<StreamReader>,
    resize: Option<StreamReader>,
    size: Vec<u8>,
    ended: tokio::sync::watch::Receiver<bool>,
}

/// The streams that a client has opened so far.
#[derive(Default)]
struct Streams {
    input: Option<Stream>,
    output: Option<Stream>,
    error: Option<Stream>,
    status: Option<Stream>,
    resize: Option<Stream>,
}

pub(super) async fn open(io: impl Transport, wish: Wish) -> io::Result<(Sender, Events)> {
    let (mut connection, mut incoming) = Connection::start(io);
    let streams = tokio::time::timeout(OPENING, Streams::collect(&mut incoming, wish));
    let late = || io::Error::new(io::ErrorKind::TimedOut, "the client opens no streams");
    let streams = streams.await.map_err(|_| late())??;
    let status = streams.status.ok_or_else(late)?;
    let (end, ended) = tokio::sync::watch::channel(false);
    let (close, closed) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        tokio::select! {
            reason = connection.ended() => {
                if let Err(error) = reason {
                    tracing::debug!(%error, "a client's streams ended");
                }
                end.send_replace(true);
            }
            // Or the sender is gone.
            _ = closed => {}
        }
        connection.close().await;
    });
    let writer = |stream: Option<Stream>| stream.map(|stream| stream.writer);
    let reader = |stream: Option<Stream>| stream.map(|stream| stream.reader);
    let sender = Sender {
        output: writer(streams.output),
        error: writer(streams.error),
        status: status.writer,
        ended: ended.clone(),
        close,
    };
    let events = Events {
        input: reader(streams.input),
        resize: reader(streams.resize),
        size: Vec::new(),
        ended,
    };
    Ok((sender, events))
}

impl Streams {
    async fn collect(incoming: &mut Incoming, wish: Wish) -> io::Result<Self> {
        let mut streams = Self::default();
        while !streams.complete(wish) {
            let stream = incoming.recv().await;
            let stream = stream.ok_or(io::ErrorKind::ConnectionAborted)?;
            let kind = stream.header("streamtype").unwrap_or_default();
            let place = match kind {
                "stdin" => &mut streams.input,
                "stdout" => &mut streams.output,
                "stderr" => &mut streams.error,
                "error" => &mut streams.status,
                "resize" => &mut streams.resize,
                other => {
                    let message = format!("a stream of the unknown type {other:?}");
                    return Err(io::Error::new(io::ErrorKind::InvalidData, message));
                }
            };
            *place = Some(stream);
        }
        Ok(streams)
    }

    fn complete(&self, wish: Wish) -> bool {
        let has = |wanted: bool, stream: &Option<Stream>| !wanted || stream.is_some();
        has(true, &self.status)
            && has(wish.input, &self.input)
            && has(wish.output, &self.output)
            && has(wish.error && !wish.terminal, &self.error)
            && has(wish.terminal, &self.resize)
    }
}

impl Sender {
    pub(super) async fn write(&mut self, output: Output, bytes: &[u8]) -> io::Result<()> {
        let stream = match output {
            Output::Standard => &mut self.output,
            Output::Error => &mut self.error,
        };
        match stream {
            Some(stream) => stream.write(bytes).await,
            None => Ok(()),
        }
    }

    pub(super) async fn finish(mut self, status: &Value) -> io::Result<()> {
        // Version 4 says nothing of success.
        if status["status"] != "Success" {
            self.status.write(status.to_string().as_bytes()).await?;
        }
        let outputs = [self.output, self.error, Some(self.status)];
        for stream in outputs.into_iter().flatten() {
            stream.finish().await?;
        }
        // The client goes when it has read all; the end of the connection must not overtake it.
        let gone = self.ended.wait_for(|ended| *ended);
        let _ = tokio::time::timeout(CLOSING, gone).await;
        drop(self.close);
        Ok(())
    }
}

impl Events {
    pub(super) async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(size) = self.take_size() {
                return Some(size);
            }
            tokio::select! {
                piece = next(&mut self.input) => {
                    return Some(match piece {
                        Some(bytes) => Event::Input(bytes),
                        None => {
                            self.input = None;
                            Event::InputEnd
                        }
                    });
                }
                piece = next(&mut self.resize) => match piece {
                    Some(bytes) if self.size.len() + bytes.len() <= LONGEST_SIZE => {
                        self.size.extend_from_slice(&bytes);
                    }
                    _ => self.resize = None,
                },
                _ = self.ended.wait_for(|ended| *ended) => return None,
            }
        }
    }

    /// A size that has come whole.
    fn take_size(&mut self) -> Option<Event> {
        loop {
            let end = self.size.iter().position(|byte| *byte == b'\n')?;
            let line: Vec<u8> = self.size.drain(..=end).collect();
            if let Ok(size) = serde_json::from_slice(&line) {
                return Some(Event::Resize(size));
            }
        }
    }
}

/// The next piece of a stream, for ever if there is none.
async fn next(stream: &mut Option<StreamReader>) -> Option<bytes::Bytes> {
    match stream {
        Some(stream) => stream.next().await,
        None => pending().await,
    }
}
