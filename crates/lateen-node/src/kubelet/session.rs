//! A client and a program, connected: output goes out, input comes in, until one of them ends.

use std::fs::File;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

use super::channels::{Event, Events, Sender};
use crate::container::Running;
use crate::pods::console::{Input, Output, Piece};

/// Size of the pieces in which output is passed on, in bytes.
const PIECE: usize = 32 << 10;

/// How long output may still come after the program's end: something that it left behind may hold
/// the pipes open.
const OUTPUT_REST: Duration = Duration::from_millis(500);

/// Where a program's output comes from.
pub(super) enum Source {
    /// From its own pipes; an output that is not there gives nothing.
    Pipes {
        output: Option<pipe::Receiver>,
        error: Option<pipe::Receiver>,
    },
    /// From a container that runs anyway; only these outputs are wanted.
    Followed {
        pieces: mpsc::Receiver<Piece>,
        output: bool,
        error: bool,
    },
}

/// Where what the client sends goes to.
pub(super) struct Target {
    pub(super) input: Option<Input>,
    /// Does the program's input end with the client's?
    pub(super) closes: bool,
    pub(super) terminal: Option<File>,
}

/// How a session went.
pub(super) enum Ended {
    /// The program ended with this code, and all that it wrote was sent.
    Program(i32),
    /// The client is gone.
    Client,
}

/// Connects the two.
///
/// # Errors
/// When the client cannot be written to.
pub(super) async fn connect(
    sender: &mut Sender,
    mut events: Events,
    running: &Running,
    mut source: Source,
    target: Target,
) -> io::Result<Ended> {
    let outgoing = async {
        while let Some((output, bytes)) = source.next().await {
            sender.write(output, &bytes).await?;
        }
        Ok::<_, io::Error>(())
    };
    // All output first; it ends with the program, or a moment after it.
    let end = async {
        running.ended().await;
        tokio::time::sleep(OUTPUT_REST).await;
    };
    tokio::select! {
        passed = async {
            tokio::select! {
                passed = outgoing => passed,
                () = end => Ok(()),
            }
        } => passed?,
        () = target.take(&mut events) => return Ok(Ended::Client),
    }
    // What closed its outputs may go on, and read what the client sends.
    tokio::select! {
        code = running.ended() => Ok(Ended::Program(code)),
        () = target.take(&mut events) => Ok(Ended::Client),
    }
}

impl Source {
    /// The next piece of output; nothing when no more comes.
    async fn next(&mut self) -> Option<Piece> {
        match self {
            Self::Pipes { output, error } => loop {
                if output.is_none() && error.is_none() {
                    return None;
                }
                let (which, piece) = tokio::select! {
                    piece = read(output) => (Output::Standard, piece),
                    piece = read(error) => (Output::Error, piece),
                };
                match (which, piece) {
                    (which, Some(piece)) => return Some((which, piece)),
                    (Output::Standard, None) => *output = None,
                    (Output::Error, None) => *error = None,
                }
            },
            Self::Followed {
                pieces,
                output,
                error,
            } => loop {
                let piece = pieces.recv().await?;
                let wanted = match piece.0 {
                    Output::Standard => *output,
                    Output::Error => *error,
                };
                if wanted {
                    return Some(piece);
                }
            },
        }
    }
}

impl Target {
    /// Takes in what the client sends, until it is gone.
    async fn take(&self, events: &mut Events) {
        while let Some(event) = events.next().await {
            match event {
                Event::Input(bytes) => {
                    if let Some(input) = &self.input {
                        input.write(&bytes).await;
                    }
                }
                Event::InputEnd => self.end_input().await,
                Event::Resize(size) => {
                    if let Some(terminal) = &self.terminal {
                        // A program that just ended needs no size.
                        let _ = lateen_sys::pty::resize(terminal, size.width, size.height);
                    }
                }
            }
        }
        self.end_input().await;
    }

    async fn end_input(&self) {
        if self.closes
            && let Some(input) = &self.input
        {
            input.close().await;
        }
    }
}

/// Reads from a stream, for ever if there is none; a failure (a terminal whose program ended) is
/// its end.
async fn read(stream: &mut Option<pipe::Receiver>) -> Option<Bytes> {
    let Some(stream) = stream else {
        return std::future::pending().await;
    };
    let mut piece = bytes::BytesMut::with_capacity(PIECE);
    match stream.read_buf(&mut piece).await {
        Ok(length) if length > 0 => Some(piece.freeze()),
        _ => None,
    }
}

/// The program's end, as Kubernetes tells it.
pub(super) fn status(code: i32) -> Value {
    if code == 0 {
        return json!({"metadata": {}, "status": "Success"});
    }
    json!({
        "metadata": {},
        "status": "Failure",
        "reason": "NonZeroExitCode",
        "message": format!("command terminated with non-zero exit code: exit status {code}"),
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
    })
}

/// Something that went wrong here, as Kubernetes tells it.
pub(super) fn failure(message: String) -> Value {
    json!({
        "metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
        "message": message,
    })
}
