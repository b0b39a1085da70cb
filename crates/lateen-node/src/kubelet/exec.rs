//! `/exec`: a program in a container, its streams over one WebSocket (`v4` and
//! `v5.channel.k8s.io`): each binary message begins with the number of its stream.
//!
//! SPDY, which `kubectl` before 1.31 uses unless `KUBECTL_REMOTE_COMMAND_WEBSOCKETS=true` is set, is
//! refused with a message that says so.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::{Body, Query, bytes, text};
use crate::container::Streams;
use crate::pods::exec::{self, KillOnDrop};
use crate::pods::shared::Shared;
use crate::pods::supervise::Run;

/// Protocols that are served, best first.
const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];

const INPUT: u8 = 0;
const OUTPUT: u8 = 1;
const ERROR: u8 = 2;
const STATUS: u8 = 3;
const RESIZE: u8 = 4;
/// Version 5 only: the stream whose number follows ends.
const CLOSE: u8 = 255;

/// Largest message that a client may send, in bytes.
const LARGEST_MESSAGE: usize = 1 << 20;

/// Size of the pieces in which output is passed on, in bytes.
const PIECE: usize = 32 << 10;

/// How long output may still come after the program's end: something that it left behind may hold
/// the pipes open.
const OUTPUT_REST: Duration = Duration::from_millis(500);

type Socket = WebSocketStream<TokioIo<Upgraded>>;
type Sender = SplitSink<Socket, Message>;
type Receiver = SplitStream<Socket>;

/// What the client wants of the program.
struct Wish {
    command: Vec<String>,
    input: bool,
    output: bool,
    error: bool,
    terminal: bool,
}

/// Answers the request for an upgrade; the session then runs by itself.
pub(super) fn answer(
    request: Request<Incoming>,
    shared: &Arc<Shared>,
    container: &str,
    query: &Query,
) -> Response<Body> {
    let Some(run) = shared.run(container) else {
        return text(
            StatusCode::BAD_REQUEST,
            format!("container {container} is not running"),
        );
    };
    let (key, protocol) = match handshake(request.headers()) {
        Ok(agreed) => agreed,
        Err(message) => return text(StatusCode::BAD_REQUEST, message),
    };
    let wish = Wish {
        command: query.all("command").map(str::to_owned).collect(),
        input: query.is_true("input") || query.is_true("stdin"),
        output: query.is_true("output") || query.is_true("stdout"),
        error: query.is_true("error") || query.is_true("stderr"),
        terminal: query.is_true("tty"),
    };
    tokio::spawn(async move {
        match hyper::upgrade::on(request).await {
            Ok(upgraded) => {
                let mut config = WebSocketConfig::default();
                config.max_message_size = Some(LARGEST_MESSAGE);
                let stream = TokioIo::new(upgraded);
                let socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config));
                // The client is gone: nobody is left to be told.
                let _ = converse(socket.await, &run, wish).await;
            }
            Err(error) => tracing::debug!(%error, "exec: not upgraded"),
        }
    });
    let mut response = bytes(StatusCode::SWITCHING_PROTOCOLS, Vec::new());
    let headers = response.headers_mut();
    headers.clear();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert("sec-websocket-protocol", HeaderValue::from_static(protocol));
    if let Ok(key) = HeaderValue::from_str(&key) {
        headers.insert("sec-websocket-accept", key);
    }
    response
}

/// The accept key and the protocol; the message of a request that cannot be served.
fn handshake(headers: &HeaderMap) -> Result<(String, &'static str), String> {
    let has = |name: &str, wanted: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value| {
                value
                    .split(',')
                    .any(|item| item.trim().eq_ignore_ascii_case(wanted))
            })
    };
    if !has("upgrade", "websocket") {
        return Err(
            "lateen serves exec over WebSocket only: use kubectl 1.31 or newer, or set \
                    KUBECTL_REMOTE_COMMAND_WEBSOCKETS=true"
                .into(),
        );
    }
    let protocol = PROTOCOLS
        .into_iter()
        .find(|known| has("sec-websocket-protocol", known));
    let protocol = protocol.ok_or_else(|| format!("the protocols known are {PROTOCOLS:?}"))?;
    let key = headers
        .get("sec-websocket-key")
        .ok_or("sec-websocket-key is missing")?;
    Ok((derive_accept_key(key.as_bytes()), protocol))
}

/// The ends of the program's streams that stay here.
struct Ends {
    input: Option<pipe::Sender>,
    output: Option<pipe::Receiver>,
    error: Option<pipe::Receiver>,
    terminal: Option<File>,
}

async fn converse(socket: Socket, run: &Run, wish: Wish) -> Result<(), io::Error> {
    let (mut sender, receiver) = socket.split();
    let terminal = wish.terminal;
    let (streams, ends) = open(&wish)?;
    let started = exec::start(run, wish.command, streams, terminal).await;
    let status = match started {
        Ok(running) => {
            // Ends the program when the client is gone.
            let running = KillOnDrop(running);
            let Ends {
                input,
                output,
                error,
                terminal,
            } = ends;
            let code = async {
                let code = running.0.ended().await;
                tokio::time::sleep(OUTPUT_REST).await;
                code
            };
            let outgoing = pass_on(&mut sender, output, error);
            let incoming = take_in(receiver, input, terminal);
            tokio::select! {
                passed = async {
                    // All output first; it ends with the program, or a moment after it.
                    tokio::select! {
                        passed = outgoing => passed,
                        _ = code => Ok(()),
                    }
                } => passed?,
                () = incoming => return Ok(()),
            }
            status(running.0.ended().await)
        }
        Err(error) => json!({
            "metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
            "message": format!("error executing command in container: {error}"),
        }),
    };
    let message = [&[STATUS], status.to_string().as_bytes()].concat();
    sender
        .send(Message::Binary(message.into()))
        .await
        .map_err(io::Error::other)?;
    // kubectl takes an end without a code for a broken connection.
    let normal = CloseFrame {
        code: CloseCode::Normal,
        reason: Utf8Bytes::default(),
    };
    let end = sender.send(Message::Close(Some(normal))).await;
    end.map_err(io::Error::other)
}

/// Makes the program's streams.
fn open(wish: &Wish) -> io::Result<(Streams, Ends)> {
    if wish.terminal {
        let (controller, program) = lateen_sys::pty::open()?;
        fcntl(
            &controller,
            FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK),
        )?;
        let end = |file: &File| Ok::<_, io::Error>(OwnedFd::from(file.try_clone()?));
        let ends = Ends {
            input: Some(pipe::Sender::from_owned_fd_unchecked(end(&controller)?)?),
            output: Some(pipe::Receiver::from_owned_fd_unchecked(end(&controller)?)?),
            error: None,
            terminal: Some(controller),
        };
        let streams = Streams {
            input: program.try_clone()?.into(),
            output: program.try_clone()?.into(),
            error: program.into(),
        };
        return Ok((streams, ends));
    }
    let mut ends = Ends {
        input: None,
        output: None,
        error: None,
        terminal: None,
    };
    let mut streams = Streams {
        input: Stdio::null(),
        output: Stdio::null(),
        error: Stdio::null(),
    };
    if wish.input {
        let (reader, writer) = io::pipe()?;
        streams.input = reader.into();
        ends.input = Some(pipe::Sender::from_owned_fd(writer.into())?);
    }
    for (wanted, stream, end) in [
        (wish.output, &mut streams.output, &mut ends.output),
        (wish.error, &mut streams.error, &mut ends.error),
    ] {
        if wanted {
            let (reader, writer) = io::pipe()?;
            *stream = writer.into();
            *end = Some(pipe::Receiver::from_owned_fd(reader.into())?);
        }
    }
    Ok((streams, ends))
}

/// Sends what the program writes, until both its streams end.
async fn pass_on(
    sender: &mut Sender,
    mut output: Option<pipe::Receiver>,
    mut error: Option<pipe::Receiver>,
) -> io::Result<()> {
    let (mut one, mut two) = (vec![0; PIECE], vec![0; PIECE]);
    while output.is_some() || error.is_some() {
        let (stream, read) = tokio::select! {
            read = read(&mut output, &mut one) => (OUTPUT, read),
            read = read(&mut error, &mut two) => (ERROR, read),
        };
        let (source, buffer) = if stream == OUTPUT {
            (&mut output, &one)
        } else {
            (&mut error, &two)
        };
        match read {
            0 => *source = None,
            length => {
                let message = [&[stream], &buffer[..length]].concat();
                sender
                    .send(Message::Binary(message.into()))
                    .await
                    .map_err(io::Error::other)?;
            }
        }
    }
    Ok(())
}

/// Reads from a stream, for ever if there is none; a failure (a terminal whose program ended) is
/// its end.
async fn read(stream: &mut Option<pipe::Receiver>, buffer: &mut [u8]) -> usize {
    match stream {
        Some(stream) => stream.read(buffer).await.unwrap_or(0),
        None => std::future::pending().await,
    }
}

/// Takes in what the client sends, until it is gone.
async fn take_in(mut receiver: Receiver, mut input: Option<pipe::Sender>, terminal: Option<File>) {
    while let Some(Ok(message)) = receiver.next().await {
        let data = match message {
            Message::Binary(data) => data,
            Message::Close(_) => return,
            _ => continue,
        };
        match (data.first().copied(), data.get(1..).unwrap_or_default()) {
            (Some(INPUT), text) => {
                if let Some(program) = &mut input
                    && program.write_all(text).await.is_err()
                {
                    input = None;
                }
            }
            (Some(CLOSE), [INPUT]) => input = None,
            (Some(RESIZE), size) => {
                if let (Some(terminal), Ok(size)) =
                    (&terminal, serde_json::from_slice::<Size>(size))
                {
                    // A program that just ended needs no size.
                    let _ = lateen_sys::pty::resize(terminal, size.width, size.height);
                }
            }
            _ => {}
        }
    }
}

/// A terminal's size, as clients send it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Size {
    width: u16,
    height: u16,
}

/// The program's end, as Kubernetes tells it.
fn status(code: i32) -> Value {
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
