//! An endpoint that takes HTTP/1.1 by the letter, framed as this proxy frames it, and nothing else.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};

use crate::support::PATIENCE;

/// The endpoint. Each request is answered with 200.
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    seen: Receiver<Seen>,
}

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// A request.
    Request(Request),
    /// One that breaks off.
    Half,
    /// Bytes that are none, and why.
    Wrong(String),
}

/// A request that was understood.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// Method, target and version.
    pub(crate) line: String,
    pub(crate) fields: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn field(&self, name: &str) -> Option<&[u8]> {
        let mut fields = self.fields.iter();
        let found = fields.find(|(found, _)| found == name);
        found.map(|(_, value)| value.as_slice())
    }
}

impl Endpoint {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, seen) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (sender, stream) = (sender.clone(), stream.unwrap());
                std::thread::spawn(move || {
                    let mut reader = BufReader::new(stream);
                    loop {
                        let seen = match request(&mut reader) {
                            Ok(None) => return,
                            Ok(Some(request)) => Seen::Request(request),
                            Err(Broken::Half) => Seen::Half,
                            Err(Broken::Wrong(why)) => Seen::Wrong(why),
                        };
                        let goes_on = matches!(seen, Seen::Request(_));
                        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                        if sender.send(seen).is_err()
                            || !goes_on
                            || reader.get_mut().write_all(answer).is_err()
                        {
                            return;
                        }
                    }
                });
            }
        });
        Self { address, seen }
    }

    /// What comes next.
    #[track_caller]
    pub(crate) fn next(&self) -> Seen {
        self.seen.recv_timeout(PATIENCE).expect("something comes")
    }

    /// The next request.
    #[track_caller]
    pub(crate) fn request(&self) -> Request {
        match self.next() {
            Seen::Request(request) => request,
            other => panic!("instead of a request: {other:?}"),
        }
    }

    /// Requests that have come and were not taken, and bytes that are none. Those that broke off are left out.
    pub(crate) fn rest(&self) -> Vec<Seen> {
        let all = self.seen.try_iter();
        all.filter(|seen| *seen != Seen::Half).collect()
    }
}

enum Broken {
    Half,
    Wrong(String),
}

impl From<std::io::Error> for Broken {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset => Self::Half,
            _ => Self::Wrong(error.to_string()),
        }
    }
}

fn wrong(why: &str, bytes: &[u8]) -> Broken {
    Broken::Wrong(format!("{why}: {:?}", String::from_utf8_lossy(bytes)))
}

/// Reads a request; nothing when the connection ends before it.
fn request(reader: &mut BufReader<TcpStream>) -> Result<Option<Request>, Broken> {
    match reader.fill_buf() {
        Ok([]) => return Ok(None),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(None),
        Ok(_) => {}
        Err(error) => return Err(error.into()),
    }
    let first = line(reader)?;
    let parts: Vec<&[u8]> = first.split(|byte| *byte == b' ').collect();
    let [method, target, b"HTTP/1.1"] = parts[..] else {
        return Err(wrong("a request line", &first));
    };
    if !is_token(method) || target.is_empty() || !target.iter().all(u8::is_ascii_graphic) {
        return Err(wrong("a request line", &first));
    }
    let fields = fields(reader)?;
    let values = |name: &str| -> Vec<&[u8]> {
        let found = fields.iter().filter(|(found, _)| found == name);
        found.map(|(_, value)| value.as_slice()).collect()
    };
    let framing = (values("content-length"), values("transfer-encoding"));
    let body = match (&framing.0[..], &framing.1[..]) {
        ([], []) => Vec::new(),
        ([length], []) if !length.is_empty() && length.iter().all(u8::is_ascii_digit) => {
            let length = String::from_utf8_lossy(length).parse().unwrap();
            bytes(reader, length)?
        }
        ([], [b"chunked"]) => chunks(reader)?,
        _ => return Err(Broken::Wrong(format!("framed as {framing:?}"))),
    };
    let line = String::from_utf8(first).map_err(|error| wrong("text", error.as_bytes()))?;
    Ok(Some(Request { line, fields, body }))
}

fn is_token(text: &[u8]) -> bool {
    let may_be = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !text.is_empty() && text.iter().all(may_be)
}

/// Reads up to the end of a line, which has a carriage return before it and nowhere else.
fn line(reader: &mut BufReader<TcpStream>) -> Result<Vec<u8>, Broken> {
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line)?;
    match line.strip_suffix(b"\r\n") {
        Some(text) if !text.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) => {
            Ok(text.to_vec())
        }
        None if !line.ends_with(b"\n") => Err(Broken::Half),
        _ => Err(wrong("a line", &line)),
    }
}

/// Reads fields up to the empty line after them.
fn fields(reader: &mut BufReader<TcpStream>) -> Result<Vec<(String, Vec<u8>)>, Broken> {
    let mut fields = Vec::new();
    loop {
        let line = line(reader)?;
        if line.is_empty() {
            return Ok(fields);
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let (name, value) = line.split_at(colon.ok_or_else(|| wrong("a field", &line))?);
        if !is_token(name) {
            return Err(wrong("a name", &line));
        }
        let name = String::from_utf8_lossy(name).to_lowercase();
        fields.push((name, value[1..].trim_ascii().to_vec()));
    }
}

fn chunks(reader: &mut BufReader<TcpStream>) -> Result<Vec<u8>, Broken> {
    let mut body = Vec::new();
    loop {
        let size = line(reader)?;
        let text = String::from_utf8_lossy(&size).into_owned();
        // The proxy writes digits alone.
        let is_size = !size.is_empty() && size.iter().all(u8::is_ascii_hexdigit);
        let size = usize::from_str_radix(&text, 16).ok().filter(|_| is_size);
        let size = size.ok_or_else(|| wrong("a size", text.as_bytes()))?;
        if size == 0 {
            fields(reader)?;
            return Ok(body);
        }
        body.extend(bytes(reader, size)?);
        if !line(reader)?.is_empty() {
            return Err(Broken::Wrong("no line ends a chunk".to_owned()));
        }
    }
}

fn bytes(reader: &mut BufReader<TcpStream>, count: usize) -> Result<Vec<u8>, Broken> {
    let mut bytes = vec![0; count];
    reader.read_exact(&mut bytes)?;
    Ok(bytes)
}
