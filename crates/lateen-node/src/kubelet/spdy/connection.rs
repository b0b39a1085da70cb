//! A connection: its reading task, and the streams that the client opened.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{Mutex, mpsc};
use tokio_util::task::AbortOnDropHandle;

use super::SpdyError;
use super::frame::{self, HEAD, Head, kind};
use super::headers::{Packer, Unpacker};

/// Most streams that a client may have open at once: 256 connections through one port-forward.
const MOST_STREAMS: usize = 512;

/// Largest piece of a stream that is read or written at once, in bytes.
const PIECE: usize = 32 << 10;

/// Pieces of a stream that wait for being read, before the connection waits.
const PIECES: usize = 8;

/// Streams that wait for being taken.
const NEW_STREAMS: usize = 16;

/// What is spoken over.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Send + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + 'static> Transport for T {}

type Io = Pin<Box<dyn Transport>>;

/// A connection, which ends when this is dropped.
pub(crate) struct Connection {
    /// Ends with why the connection ended; nothing when the client closed it.
    reading: AbortOnDropHandle<Result<(), SpdyError>>,
    writer: Arc<Writer>,
}

/// The streams that the client opens, one after the other.
pub(crate) type Incoming = mpsc::Receiver<Stream>;

/// A stream that the client opened, and that was accepted.
pub(crate) struct Stream {
    headers: Vec<(String, String)>,
    pub(crate) reader: StreamReader,
    pub(crate) writer: StreamWriter,
}

/// What the client sends on a stream.
pub(crate) struct StreamReader {
    pieces: mpsc::Receiver<Bytes>,
}

/// What the client gets on a stream.
pub(crate) struct StreamWriter {
    number: u32,
    writer: Arc<Writer>,
}

struct Writer(Mutex<Sending>);

struct Sending {
    io: WriteHalf<Io>,
    packer: Packer,
}

/// The stream as the reading task sees it.
struct Open {
    /// Gone when the client has sent all.
    pieces: Option<mpsc::Sender<Bytes>>,
}

impl Connection {
    /// Serves what is spoken over `io`.
    pub(crate) fn start(io: impl Transport) -> (Self, Incoming) {
        let (reader, writer) = tokio::io::split(Box::pin(io) as Io);
        let writer = Arc::new(Writer(Mutex::new(Sending {
            io: writer,
            packer: Packer::new(),
        })));
        let (found, incoming) = mpsc::channel(NEW_STREAMS);
        let reading = Reading {
            io: reader,
            writer: writer.clone(),
            unpacker: Unpacker::new(),
            streams: HashMap::new(),
            newest: 0,
            found,
        };
        let reading = AbortOnDropHandle::new(tokio::spawn(reading.run()));
        (Self { reading, writer }, incoming)
    }

    /// Waits until the client closes the connection or breaks its rules.
    pub(crate) async fn ended(&mut self) -> Result<(), SpdyError> {
        match (&mut self.reading).await {
            Ok(result) => result,
            Err(_) => Ok(()),
        }
    }

    /// Says good-bye; what was written before arrives.
    pub(crate) async fn close(self) {
        let _ = self
            .writer
            .send(&frame::control(kind::GOAWAY, &[0; 8]))
            .await;
        let mut sending = self.writer.0.lock().await;
        // The client may be gone already.
        let _ = sending.io.shutdown().await;
    }
}

impl Stream {
    /// The value of a header; names are in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

impl StreamReader {
    /// The next piece; nothing when the client has sent all, or is gone.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        self.pieces.recv().await
    }
}

impl StreamWriter {
    /// Sends bytes.
    pub(crate) async fn write(&self, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(PIECE) {
            let frame = frame::data(self.number, false, piece);
            self.writer.send(&frame).await?;
        }
        Ok(())
    }

    /// Tells the client that nothing follows.
    pub(crate) async fn finish(self) -> io::Result<()> {
        self.writer.send(&frame::data(self.number, true, &[])).await
    }

    /// Tells the client that the stream broke off.
    pub(crate) async fn reset(self) -> io::Result<()> {
        self.writer.reset(self.number, status::CANCEL).await
    }
}

/// Reasons of resets (section 2.6.3).
mod status {
    pub(super) const INVALID_STREAM: u32 = 2;
    pub(super) const CANCEL: u32 = 5;
}

impl Writer {
    async fn send(&self, frame: &[u8]) -> io::Result<()> {
        let mut sending = self.0.lock().await;
        sending.io.write_all(frame).await?;
        sending.io.flush().await
    }

    async fn accept(&self, stream: u32) -> io::Result<()> {
        let mut sending = self.0.lock().await;
        let mut content = stream.to_be_bytes().to_vec();
        content.extend(sending.packer.pack(&[]));
        let frame = frame::control(kind::SYN_REPLY, &content);
        sending.io.write_all(&frame).await?;
        sending.io.flush().await
    }

    async fn reset(&self, stream: u32, status: u32) -> io::Result<()> {
        let content = [stream.to_be_bytes(), status.to_be_bytes()].concat();
        self.send(&frame::control(kind::RST_STREAM, &content)).await
    }
}

/// The reading task.
struct Reading {
    io: ReadHalf<Io>,
    writer: Arc<Writer>,
    unpacker: Unpacker,
    streams: HashMap<u32, Open>,
    newest: u32,
    found: mpsc::Sender<Stream>,
}

impl Reading {
    async fn run(mut self) -> Result<(), SpdyError> {
        loop {
            let mut head = [0; HEAD];
            match self.io.read_exact(&mut head).await {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                other => other.map(drop)?,
            }
            match Head::read(head)? {
                Head::Data {
                    stream,
                    last,
                    length,
                } => self.data(stream, last, length).await?,
                Head::Control { kind, last, length } => {
                    let mut content = vec![0; length];
                    self.io.read_exact(&mut content).await?;
                    if self.control(kind, last, &content).await? {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Passes the bytes of a data frame to its stream, piece by piece.
    async fn data(&mut self, stream: u32, last: bool, length: usize) -> Result<(), SpdyError> {
        let mut left = length;
        while left > 0 {
            let mut piece = vec![0; left.min(PIECE)];
            self.io.read_exact(&mut piece).await?;
            left -= piece.len();
            match self.streams.get_mut(&stream) {
                Some(Open { pieces }) => {
                    // Whoever dropped the reader wants no more.
                    if let Some(sender) = pieces
                        && sender.send(piece.into()).await.is_err()
                    {
                        *pieces = None;
                    }
                }
                None if left == 0 => self.writer.reset(stream, status::INVALID_STREAM).await?,
                None => {}
            }
        }
        if last && let Some(open) = self.streams.get_mut(&stream) {
            open.pieces = None;
        }
        Ok(())
    }

    /// Obeys a control frame; true when it is the last one.
    async fn control(&mut self, kind: u16, last: bool, content: &[u8]) -> Result<bool, SpdyError> {
        match kind {
            kind::SYN_STREAM => self.open(last, content).await?,
            kind::RST_STREAM => {
                self.streams.remove(&frame::stream_number(kind, content)?);
            }
            kind::PING => self.writer.send(&frame::control(kind, content)).await?,
            kind::GOAWAY => return Ok(true),
            // Settings, windows and further headers change nothing here.
            _ => {}
        }
        Ok(false)
    }

    async fn open(&mut self, last: bool, content: &[u8]) -> Result<(), SpdyError> {
        let number = frame::stream_number(kind::SYN_STREAM, content)?;
        let block = content.get(10..);
        let block = block.ok_or(SpdyError::ControlTooShort(kind::SYN_STREAM))?;
        // Unpacked in any case: the next block depends on it.
        let headers = self.unpacker.unpack(block)?;
        if number.is_multiple_of(2) || number <= self.newest {
            return Err(SpdyError::StreamNumber(number));
        }
        self.newest = number;
        // A stream is over when both its ends are gone here; the client does not tell.
        self.streams.retain(|_, open| {
            open.pieces
                .as_ref()
                .is_some_and(|pieces| !pieces.is_closed())
        });
        if self.streams.len() >= MOST_STREAMS {
            return Err(SpdyError::TooManyStreams(MOST_STREAMS));
        }
        let (sender, pieces) = mpsc::channel(PIECES);
        let sender = (!last).then_some(sender);
        self.streams.insert(number, Open { pieces: sender });
        self.writer.accept(number).await?;
        let stream = Stream {
            headers,
            reader: StreamReader { pieces },
            writer: StreamWriter {
                number,
                writer: self.writer.clone(),
            },
        };
        // Nobody takes streams any more: the connection is about to end.
        let _ = self.found.send(stream).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::DuplexStream;

    use super::*;

    /// The client's side of a connection.
    struct Client {
        io: DuplexStream,
        packer: Packer,
    }

    impl Client {
        fn start() -> (Self, Connection, Incoming) {
            let (io, server) = tokio::io::duplex(1 << 20);
            let (connection, incoming) = Connection::start(server);
            let packer = Packer::new();
            (Self { io, packer }, connection, incoming)
        }

        async fn open(&mut self, stream: u32, headers: &[(&str, &str)]) {
            let mut content = stream.to_be_bytes().to_vec();
            content.extend([0; 6]);
            content.extend(self.packer.pack(headers));
            self.send(&frame::control(kind::SYN_STREAM, &content)).await;
        }

        async fn send(&mut self, bytes: &[u8]) {
            self.io.write_all(bytes).await.unwrap();
        }

        /// The next frame: its head, and what it holds.
        async fn receive(&mut self) -> (Head, Vec<u8>) {
            let mut head = [0; HEAD];
            self.io.read_exact(&mut head).await.unwrap();
            let head = Head::read(head).unwrap();
            let (Head::Data { length, .. } | Head::Control { length, .. }) = head;
            let mut content = vec![0; length];
            self.io.read_exact(&mut content).await.unwrap();
            (head, content)
        }
    }

    #[tokio::test]
    async fn a_stream_carries_bytes_both_ways_and_ends_both_ways() {
        let (mut client, connection, mut incoming) = Client::start();
        client.open(1, &[("streamtype", "data")]).await;
        client.send(&frame::data(1, false, b"to you")).await;
        client.send(&frame::data(1, true, &[])).await;
        let mut stream = incoming.recv().await.unwrap();
        assert_eq!(stream.header("streamtype"), Some("data"));
        let piece = stream.reader.next().await;
        assert_eq!(piece.as_deref(), Some(&b"to you"[..]));
        assert_eq!(stream.reader.next().await, None);
        let (head, _) = client.receive().await;
        assert!(matches!(
            head,
            Head::Control {
                kind: kind::SYN_REPLY,
                ..
            }
        ));
        stream.writer.write(&vec![7; PIECE + 1]).await.unwrap();
        stream.writer.finish().await.unwrap();
        let mut lengths = Vec::new();
        for _ in 0..3 {
            let (Head::Data { last, .. }, content) = client.receive().await else {
                panic!("no bytes");
            };
            lengths.push((content.len(), last));
        }
        assert_eq!(lengths, [(PIECE, false), (1, false), (0, true)]);
        connection.close().await;
        let (head, _) = client.receive().await;
        assert!(matches!(
            head,
            Head::Control {
                kind: kind::GOAWAY,
                ..
            }
        ));
    }

    #[tokio::test]
    async fn pings_are_answered_and_bytes_for_no_stream_are_refused() {
        let (mut client, _connection, _incoming) = Client::start();
        client.send(&frame::control(kind::PING, b"1234")).await;
        let (_, content) = client.receive().await;
        assert_eq!(content, b"1234");
        client.send(&frame::data(3, false, b"lost")).await;
        let (head, content) = client.receive().await;
        let kind = kind::RST_STREAM;
        assert!(matches!(head, Head::Control { kind: found, .. } if found == kind));
        assert_eq!(content, [0, 0, 0, 3, 0, 0, 0, 2]);
    }

    async fn check(what: &str, play: impl AsyncFnOnce(&mut Client), expected: &str) {
        let (mut client, mut connection, mut incoming) = Client::start();
        // Held: a stream that nobody wants any more does not count.
        let holding = async move {
            let mut held = Vec::new();
            while let Some(stream) = incoming.recv().await {
                held.push(stream);
            }
        };
        tokio::spawn(holding);
        play(&mut client).await;
        let error = connection.ended().await.unwrap_err().to_string();
        assert!(error.contains(expected), "{what}: {error}");
    }

    #[tokio::test]
    async fn what_breaks_the_rules_ends_the_connection() {
        let even = async |client: &mut Client| client.open(2, &[]).await;
        check("an even number", even, "opened stream 2").await;
        let twice = async |client: &mut Client| {
            client.open(1, &[]).await;
            client.open(1, &[]).await;
        };
        check("a number used twice", twice, "opened stream 1").await;
        let short = async |client: &mut Client| client.send(&frame::control(1, &[0; 5])).await;
        check("a short frame", short, "too short").await;
        let version = async |client: &mut Client| client.send(&[0x80, 2, 0, 1, 0, 0, 0, 0]).await;
        check("another version", version, "version 2").await;
        let headers = async |client: &mut Client| {
            let content = [&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], b"no zlib"].concat();
            client.send(&frame::control(1, &content)).await;
        };
        check("no header block", headers, "header block").await;
        let many = async |client: &mut Client| {
            for number in 0..=MOST_STREAMS as u32 {
                client.open(2 * number + 1, &[]).await;
            }
        };
        check("too many streams", many, "streams are open").await;
    }

    /// Fuzzed: whatever a client sends, the connection ends when the client does, and has opened no more than was asked for.
    #[test]
    fn any_frames_are_served_or_end_the_connection() {
        bolero::check!(name = "spdy-frames")
            .with_iterations(0)
            .for_each(|bytes: &[u8]| assert!(opened_by(bytes) <= bytes.len() / HEAD));
    }

    /// Streams that these bytes open, and nobody reads.
    #[tokio::main(flavor = "current_thread")]
    async fn opened_by(bytes: &[u8]) -> usize {
        let (client, server) = tokio::io::duplex(64 << 10);
        let (mut connection, mut incoming) = Connection::start(server);
        let (mut answers, mut sending) = tokio::io::split(client);
        let mut opened = 0;
        tokio::join!(
            async {
                // The server may be gone before everything is sent.
                let _ = sending.write_all(bytes).await;
                let _ = sending.shutdown().await;
            },
            async {
                let _ = tokio::io::copy(&mut answers, &mut tokio::io::sink()).await;
            },
            async {
                while incoming.recv().await.is_some() {
                    opened += 1;
                }
            },
            async {
                let _ = connection.ended().await;
                connection.close().await;
            },
        );
        opened
    }
}
