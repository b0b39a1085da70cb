//! HTTP/2 by hand (RFC 9113): frames as they are wanted, and what comes back.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::support::PATIENCE;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

pub(crate) const NO_ERROR: u32 = 0;
pub(crate) const CANCEL: u32 = 8;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Asked to learn whether the connection goes on.
const PROBE: &[u8; 8] = b"are you ";

/// One frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Fields as literals that touch no table (RFC 7541 section 6.2.2).
pub(crate) fn block(fields: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            number(&mut block, 0, 7, text.len());
            block.extend(*text);
        }
    }
    block
}

/// A number behind the bits of a prefix (RFC 7541 section 5.1).
pub(crate) fn number(block: &mut Vec<u8>, bits: u8, prefix: u32, mut number: usize) {
    let most = (1 << prefix) - 1;
    if number < most {
        block.push(bits | number as u8);
        return;
    }
    block.push(bits | most as u8);
    number -= most;
    while number >= 128 {
        block.push(number as u8 | 128);
        number >>= 7;
    }
    block.push(number as u8);
}

/// The block of a request.
pub(crate) fn request(method: &str, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let pseudo = [
        (":method", method),
        (":scheme", "http"),
        (":authority", "a.test"),
        (":path", path),
    ];
    let all = pseudo.iter().chain(more);
    let all: Vec<(&[u8], &[u8])> = all
        .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
        .collect();
    block(&all)
}

/// The frames of a request without a body.
pub(crate) fn get(stream: u32, path: &str) -> Vec<u8> {
    frame(
        HEADERS,
        END_HEADERS | END_STREAM,
        stream,
        &request("GET", path, &[]),
    )
}

/// The head of a request whose body follows.
pub(crate) fn post(stream: u32, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &request("POST", path, more))
}

pub(crate) fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())
}

pub(crate) fn window(stream: u32, more: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &more.to_be_bytes())
}

fn settings(values: &[(u16, u32)]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (key, value) in values {
        payload.extend(key.to_be_bytes());
        payload.extend(value.to_be_bytes());
    }
    frame(SETTINGS, 0, 0, &payload)
}

/// What came on a stream.
#[derive(Debug, Default, Clone)]
pub(crate) struct Stream {
    pub(crate) status: Option<u16>,
    pub(crate) data: usize,
    pub(crate) reset: Option<u32>,
    pub(crate) is_complete: bool,
}

impl Stream {
    /// Whether nothing more comes.
    pub(crate) fn is_over(&self) -> bool {
        self.is_complete || self.reset.is_some()
    }

    /// Whether the request was refused, by an answer or without one.
    pub(crate) fn is_refused(&self) -> bool {
        self.reset.is_some() || self.status.is_some_and(|status| status >= 400)
    }
}

/// What came on a connection.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) streams: BTreeMap<u32, Stream>,
    pub(crate) goaway: Option<u32>,
    /// The connection ended.
    pub(crate) is_closed: bool,
    /// Answers to pings.
    pub(crate) pongs: usize,
}

impl Seen {
    pub(crate) fn stream(&self, stream: u32) -> Stream {
        self.streams.get(&stream).cloned().unwrap_or_default()
    }
}

/// A client of one connection.
pub(crate) struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
    pub(crate) seen: Seen,
}

impl Connection {
    /// Connects with these settings.
    #[track_caller]
    pub(crate) fn open(address: SocketAddr, values: &[(u16, u32)]) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let mut connection = Self {
            stream,
            received: Vec::new(),
            seen: Seen::default(),
        };
        connection.send(&[PREFACE, &settings(values)].concat());
        connection
    }

    /// Sends bytes. A peer that is gone shows in what comes back.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        if let Err(error) = self.stream.write_all(bytes) {
            assert!(is_gone(&error), "{error}");
        }
    }

    /// Takes frames until a condition holds or the connection ends. Says whether the condition holds.
    pub(crate) fn until(&mut self, condition: impl Fn(&Seen) -> bool) -> bool {
        let end = Instant::now() + PATIENCE;
        let mut buffer = vec![0; 1 << 16];
        while !condition(&self.seen) {
            let left = end.saturating_duration_since(Instant::now());
            if self.seen.is_closed || left.is_zero() {
                return false;
            }
            let left = left.max(Duration::from_millis(1));
            self.stream.set_read_timeout(Some(left)).unwrap();
            match self.stream.read(&mut buffer) {
                Ok(0) => self.seen.is_closed = true,
                Ok(read) => {
                    self.received.extend(&buffer[..read]);
                    let acknowledged = self.take_frames();
                    self.send(&acknowledged);
                }
                Err(error) if is_gone(&error) => self.seen.is_closed = true,
                Err(_) => return false,
            }
        }
        true
    }

    /// Whether the connection answers once more. All that was sent before has been read then.
    pub(crate) fn goes_on(&mut self) -> bool {
        let before = self.seen.pongs;
        self.send(&frame(PING, 0, 0, PROBE));
        self.until(|seen| seen.pongs > before || seen.goaway.is_some())
            && self.seen.goaway.is_none()
    }

    /// Whether the peer ends the connection.
    pub(crate) fn is_ended(&mut self) -> bool {
        self.until(|seen| seen.is_closed)
    }

    /// Sends parts one after the other while the answers are read, until all are sent or the peer is gone, and says what came
    /// until the connection ended or `condition` held.
    pub(crate) fn flood(
        mut self,
        parts: impl Iterator<Item = Vec<u8>> + Send,
        condition: impl Fn(&Seen) -> bool,
    ) -> Seen {
        let mut writer = self.stream.try_clone().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for part in parts {
                    if let Err(error) = writer.write_all(&part) {
                        assert!(is_gone(&error), "{error}");
                        return;
                    }
                }
            });
            self.until(condition);
            // Whoever still writes is not waited for.
            let _ = self.stream.shutdown(Shutdown::Both);
        });
        self.seen
    }

    /// Takes complete frames from what was received. The acknowledgements to send come back.
    fn take_frames(&mut self) -> Vec<u8> {
        let mut answers = Vec::new();
        let mut at = 0;
        while let Some(head) = self.received.get(at..at + 9) {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let (kind, flags) = (head[3], head[4]);
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            let Some(payload) = self.received.get(at + 9..at + 9 + length) else {
                break;
            };
            let seen = &mut self.seen;
            let word = |at: usize| {
                let bytes = payload.get(at..at + 4).and_then(|it| it.try_into().ok());
                bytes.map(u32::from_be_bytes)
            };
            match kind {
                SETTINGS if flags & ACK == 0 => answers.extend(frame(SETTINGS, ACK, 0, &[])),
                PING if flags & ACK != 0 => seen.pongs += 1,
                GOAWAY => seen.goaway = word(4),
                RST_STREAM => seen.streams.entry(stream).or_default().reset = word(0),
                DATA | HEADERS => {
                    let entry = seen.streams.entry(stream).or_default();
                    match kind {
                        DATA => entry.data += length,
                        _ if entry.status.is_none() => entry.status = Some(status(payload)),
                        _ => {}
                    }
                    entry.is_complete |= flags & END_STREAM != 0;
                }
                _ => {}
            }
            at += 9 + length;
        }
        self.received.drain(..at);
        answers
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted
    )
}

/// The status that a block begins with, if it is in the static table or written out. Others are 1.
fn status(block: &[u8]) -> u16 {
    const STATIC: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    match block {
        [first @ 0x88..=0x8e, ..] => STATIC[usize::from(first - 0x88)],
        [0x48 | 0x08 | 0x18, length, value @ ..] if length & 0x80 != 0 => {
            digits(&value[..usize::from(length & 0x7f)])
        }
        [0x48 | 0x08 | 0x18, 3, value @ ..] => {
            let text = str::from_utf8(&value[..3]).ok();
            text.and_then(|text| text.parse().ok()).unwrap_or(1)
        }
        _ => 1,
    }
}

/// A number in the code of RFC 7541, appendix B, where digits have five or six bits.
fn digits(bytes: &[u8]) -> u16 {
    let bits: Vec<u8> = bytes
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1))
        .collect();
    let value = |bits: &[u8]| {
        bits.iter()
            .fold(0, |value, bit| value << 1 | u16::from(*bit))
    };
    let (mut at, mut found) = (0, 0);
    for _ in 0..3 {
        let Some(short) = bits.get(at..at + 5).map(value) else {
            return 1;
        };
        let digit = if short <= 2 {
            at += 5;
            short
        } else {
            at += 6;
            match bits.get(at - 6..at).map(value) {
                Some(long @ 0x19..=0x1f) => long - 0x19 + 3,
                _ => return 1,
            }
        };
        found = found * 10 + digit;
    }
    found
}
