//! A repair of requests that `h2` refuses.
//!
//! Clients on the C core of gRPC (Python, C++, Ruby) name the path of a unix socket, percent-encoded, as the request's
//! `:authority`; others send the path as it is. Neither is a host name, and `h2` resets the stream before any service
//! sees it. Nothing here uses the authority, so the characters that do not belong are replaced while the bytes pass
//! by. A replacement has the length of what it replaces: frames and the header compression state stay valid.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

/// `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n`
const PREFACE: usize = 24;
const FRAME_HEAD: usize = 9;
const HEADERS: u8 = 1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// Largest frame that a peer may send unless it is told otherwise (RFC 9113, 4.2).
const MAX_FRAME: usize = 16_384;
/// Index of `:authority` in the static table of header compression (RFC 7541, appendix A).
const AUTHORITY: usize = 1;
const READ: usize = 8192;

/// A connection whose requests are repaired as they are read.
#[derive(Debug)]
pub(super) struct Repaired<S> {
    stream: S,
    buffer: Vec<u8>,
    /// How much of the buffer's beginning may be handed on.
    passed: usize,
    /// How many bytes follow those that need no look.
    skip: usize,
}

impl<S> Repaired<S> {
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
            passed: 0,
            skip: PREFACE,
        }
    }

    /// Looks at what was read: whole header frames are repaired, everything else passes as it comes.
    fn scan(&mut self) {
        loop {
            let rest = &mut self.buffer[self.passed..];
            if self.skip > 0 {
                let taken = self.skip.min(rest.len());
                self.passed += taken;
                self.skip -= taken;
                if self.skip > 0 {
                    return;
                }
                continue;
            }
            let Some((head, payload)) = rest.split_at_mut_checked(FRAME_HEAD) else {
                return;
            };
            let length =
                usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            let (kind, flags) = (head[3], head[4]);
            if kind == HEADERS && flags & END_HEADERS != 0 && length <= MAX_FRAME {
                let Some(payload) = payload.get_mut(..length) else {
                    return;
                };
                repair_headers(flags, payload);
            }
            self.skip = FRAME_HEAD + length;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Repaired<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.passed == 0 {
            let mut space = [0; READ];
            let mut read = ReadBuf::new(&mut space);
            ready!(Pin::new(&mut this.stream).poll_read(context, &mut read))?;
            if read.filled().is_empty() {
                // The end: a frame that was cut off is the receiver's to judge.
                this.passed = this.buffer.len();
                break;
            }
            this.buffer.extend_from_slice(read.filled());
            this.scan();
        }
        let taken = this.passed.min(out.remaining());
        out.put_slice(&this.buffer[..taken]);
        this.buffer.drain(..taken);
        this.passed -= taken;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Repaired<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

impl<S: Connected> Connected for Repaired<S> {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self) -> S::ConnectInfo {
        self.stream.connect_info()
    }
}

fn repair_headers(flags: u8, payload: &mut [u8]) {
    let mut start = 0;
    let mut end = payload.len();
    if flags & PADDED != 0 {
        let padding = payload.first().map_or(0, |length| usize::from(*length));
        start += 1;
        end = end.saturating_sub(padding);
    }
    if flags & PRIORITY != 0 {
        start += 5;
    }
    if let Some(block) = payload.get_mut(start..end) {
        // What cannot be followed stays as it is; the receiver says what is wrong with it.
        let _ = repair_block(block);
    }
}

/// Walks a header block (RFC 7541, 6) and repairs the values of `:authority`. `None` where it is malformed.
fn repair_block(block: &mut [u8]) -> Option<()> {
    let mut at = 0;
    while let Some(first) = block.get(at).copied() {
        let prefix = match first {
            // An indexed field, and a change of the table's size, have nothing else.
            0x80.. => {
                integer(block, &mut at, 7)?;
                continue;
            }
            0x20..0x40 => {
                integer(block, &mut at, 5)?;
                continue;
            }
            0x40..0x80 => 6,
            _ => 4,
        };
        let index = integer(block, &mut at, prefix)?;
        let authority = if index == 0 {
            let (name, coded) = string(block, &mut at)?;
            !coded && &*name == b":authority"
        } else {
            index == AUTHORITY
        };
        let (value, coded) = string(block, &mut at)?;
        // None of the clients in question uses Huffman codes for it.
        if authority && !coded {
            for byte in value {
                if !matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' | b'[' | b']' | b'@')
                {
                    *byte = b'-';
                }
            }
        }
    }
    Some(())
}

/// An integer with a prefix of `bits` bits (RFC 7541, 5.1).
fn integer(block: &[u8], at: &mut usize, bits: u32) -> Option<usize> {
    let mask = (1 << bits) - 1;
    let mut value = usize::from(*block.get(*at)?) & mask;
    *at += 1;
    if value < mask {
        return Some(value);
    }
    let mut shift = 0;
    loop {
        let byte = *block.get(*at)?;
        *at += 1;
        value = value.checked_add(usize::from(byte & 0x7f).checked_shl(shift)?)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
        shift += 7;
        // No length or index of a frame needs more.
        if shift > 28 {
            return None;
        }
    }
}

/// A string, and whether it is Huffman-coded (RFC 7541, 5.2).
fn string<'a>(block: &'a mut [u8], at: &mut usize) -> Option<(&'a mut [u8], bool)> {
    let coded = *block.get(*at)? & 0x80 != 0;
    let length = integer(block, at, 7)?;
    let start = *at;
    *at = start.checked_add(length)?;
    Some((block.get_mut(start..*at)?, coded))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// A literal field that enters the table, with an indexed or a written name.
    fn field(index: u8, name: &str, value: &str) -> Vec<u8> {
        let mut bytes = vec![0x40 | index];
        if index == 0 {
            bytes.push(u8::try_from(name.len()).unwrap());
            bytes.extend(name.bytes());
        }
        bytes.push(u8::try_from(value.len()).unwrap());
        bytes.extend(value.bytes());
        bytes
    }

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        let mut bytes = vec![0, 0, length, kind, flags, 0, 0, 0, 1];
        bytes.extend(payload);
        bytes
    }

    /// Sends bytes one by one and whole; both arrive as expected.
    async fn check(sent: &[u8], expected: &[u8]) {
        for chunk in [1, sent.len()] {
            let (mut client, server) = tokio::io::duplex(4096);
            let preface = [b'P'; PREFACE];
            client.write_all(&preface).await.unwrap();
            for part in sent.chunks(chunk) {
                client.write_all(part).await.unwrap();
            }
            drop(client);
            let mut received = Vec::new();
            Repaired::new(server)
                .read_to_end(&mut received)
                .await
                .unwrap();
            assert_eq!(&received[..PREFACE], preface);
            assert_eq!(&received[PREFACE..], expected);
        }
    }

    #[tokio::test]
    async fn authority_becomes_a_host_name_of_the_same_length() {
        let path = |path: &str| [vec![0x83], field(4, "", path)].concat();
        let block = |authority: Vec<u8>| [path("/a%20b"), authority, vec![0x86]].concat();
        let data = frame(0, 0, b"/%/%");
        let case = async |flags: u8, around: &[u8], sent: Vec<u8>, expected: Vec<u8>| {
            let whole = |field: Vec<u8>| {
                let payload = [around, &block(field)].concat();
                [
                    data.clone(),
                    frame(HEADERS, flags | END_HEADERS, &payload),
                    data.clone(),
                ]
                .concat()
            };
            check(&whole(sent), &whole(expected)).await;
        };
        case(
            0,
            b"",
            field(1, "", "%2Ftmp%2Fxds"),
            field(1, "", "-2Ftmp-2Fxds"),
        )
        .await;
        case(0, b"", field(1, "", "/tmp/xds"), field(1, "", "-tmp-xds")).await;
        case(
            0,
            b"",
            field(0, ":authority", "/a"),
            field(0, ":authority", "-a"),
        )
        .await;
        case(PRIORITY, &[0; 5], field(1, "", "/a"), field(1, "", "-a")).await;
        // Valid ones, and other fields, stay as they are.
        case(
            0,
            b"",
            field(1, "", "istiod.istio-system.svc:15010"),
            field(1, "", "istiod.istio-system.svc:15010"),
        )
        .await;
        case(0, b"", field(0, "x-path", "/a%"), field(0, "x-path", "/a%")).await;
    }

    #[tokio::test]
    async fn what_cannot_be_followed_passes_unchanged() {
        // A string longer than its block, an endless integer, a frame cut off.
        for block in [
            vec![0x41, 0x7f, 0x20, b'/'],
            vec![0x41, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        ] {
            let bytes = frame(HEADERS, END_HEADERS, &block);
            check(&bytes, &bytes).await;
        }
        let cut = &frame(HEADERS, END_HEADERS, b"/////")[..11];
        check(cut, cut).await;
    }
}
