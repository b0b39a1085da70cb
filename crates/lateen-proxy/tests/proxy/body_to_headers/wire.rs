//! Requests as they are on the wire, and an upstream that shows what comes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};

use serde_json::{Value, json};

use super::{filter, with_router};
use crate::support::{Answer, Client, PATIENCE, Proxy, merge, to};

/// The upstream. Each request is answered with 200.
pub struct Wire {
    pub address: SocketAddr,
    requests: Receiver<Vec<u8>>,
}

/// A request as it came.
#[derive(Debug)]
pub struct Received {
    /// Lines of the head in lower case.
    pub head: Vec<String>,
    /// Everything behind the head.
    pub rest: Vec<u8>,
}

impl Wire {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, requests) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let sender = sender.clone();
                std::thread::spawn(move || {
                    let mut stream = BufReader::new(stream.unwrap());
                    while let Some(request) = read(&mut stream) {
                        let sent = sender.send(request);
                        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                        if sent.is_err() || stream.get_mut().write_all(answer).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { address, requests }
    }

    /// The next request.
    #[track_caller]
    pub fn next(&self) -> Received {
        let request = self.requests.recv_timeout(PATIENCE).unwrap();
        let end = request.windows(4).position(|end| end == b"\r\n\r\n");
        let (head, rest) = request.split_at(end.unwrap() + 4);
        let head = String::from_utf8_lossy(head).to_lowercase();
        Received {
            head: head.trim_end().split("\r\n").map(str::to_owned).collect(),
            rest: rest.to_vec(),
        }
    }

    /// Whether no complete request has come beside those that were taken.
    pub fn is_quiet(&self) -> bool {
        self.requests.try_recv().is_err()
    }
}

impl Received {
    /// The lines of a header, also of names that differ in underscores.
    pub fn lines(&self, name: &str) -> Vec<&str> {
        let lines = self.head.iter().map(String::as_str);
        lines
            .filter(|line| {
                let found = line.split(':').next().unwrap_or_default();
                found.trim().replace('_', "-") == name
            })
            .collect()
    }

    /// The value of a header that stands once.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.lines(name);
        assert!(lines.len() <= 1, "{:?}", self.head);
        let (found, value) = lines.first()?.split_once(':')?;
        assert_eq!(found, name, "{:?}", self.head);
        Some(value.trim())
    }

    pub fn rest(&self) -> String {
        String::from_utf8_lossy(&self.rest).into_owned()
    }
}

/// Reads a request with its framing; nothing when the connection ends.
fn read(stream: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut request = Vec::new();
    read_lines(stream, &mut request)?;
    let head = String::from_utf8_lossy(&request).to_lowercase();
    let header = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(':'));
        let found = lines.find(|(found, _)| *found == name);
        found.map(|(_, value)| value.trim().to_owned())
    };
    if header("transfer-encoding").is_some() {
        loop {
            let start = request.len();
            stream.read_until(b'\n', &mut request).ok()?;
            let size = String::from_utf8_lossy(&request[start..]).into_owned();
            let size = size.trim().split(';').next().unwrap_or_default();
            let size = usize::from_str_radix(size, 16).ok()?;
            if size == 0 {
                read_lines(stream, &mut request)?;
                return Some(request);
            }
            read_bytes(stream, size + 2, &mut request)?;
        }
    }
    let length = header("content-length").map_or(0, |length| length.parse().unwrap());
    read_bytes(stream, length, &mut request)?;
    Some(request)
}

/// Reads up to and with an empty line.
fn read_lines(stream: &mut impl BufRead, into: &mut Vec<u8>) -> Option<()> {
    loop {
        let start = into.len();
        let count = stream.read_until(b'\n', into).ok()?;
        match &into[start..] {
            _ if count == 0 => return None,
            b"\r\n" => return Some(()),
            _ => {}
        }
    }
}

fn read_bytes(stream: &mut impl Read, count: usize, into: &mut Vec<u8>) -> Option<()> {
    let start = into.len();
    into.resize(start + count, 0);
    stream.read_exact(&mut into[start..]).ok()
}

/// A proxy in front of an upstream, with this filter and more fields of its connection manager.
pub fn start(policy: Value, more: Value) -> (Proxy, Wire, SocketAddr) {
    let upstream = Wire::start();
    let mut proxy = Proxy::start(1);
    proxy.cluster("a", &[upstream.address], json!({}));
    let mut manager = with_router(&[filter(policy)]);
    merge(&mut manager, more);
    let address = proxy.http(json!([to("a", json!({}))]), manager);
    (proxy, upstream, address)
}

/// The same without more fields.
pub fn plain(policy: Value) -> (Proxy, Wire, SocketAddr) {
    start(policy, json!({}))
}

/// A request with a body of a known length.
pub fn post(lines: &[&str], body: &[u8]) -> Vec<u8> {
    let length = format!("content-length: {}", body.len());
    let lines: Vec<&str> = lines.iter().copied().chain([length.as_str()]).collect();
    [head(&lines), body.to_vec()].concat()
}

/// A request whose body comes in chunks, the last of which is not empty.
pub fn chunked(lines: &[&str], chunks: &[&str]) -> Vec<u8> {
    let lines: Vec<&str> = lines
        .iter()
        .copied()
        .chain(["transfer-encoding: chunked"])
        .collect();
    let chunks = chunks
        .iter()
        .map(|chunk| format!("{:x}\r\n{chunk}\r\n", chunk.len()));
    let body: String = chunks.chain(["0\r\n\r\n".to_owned()]).collect();
    [head(&lines), body.into_bytes()].concat()
}

/// The head of a POST request.
pub fn head(lines: &[&str]) -> Vec<u8> {
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    format!("POST / HTTP/1.1\r\nhost: x\r\n{lines}\r\n").into_bytes()
}

/// Sends a request on a connection of its own.
#[track_caller]
pub fn send(address: SocketAddr, request: &[u8]) -> Answer {
    let mut client = Client::connect(address);
    client.0.write_all(request).unwrap();
    client.read(false).unwrap()
}
