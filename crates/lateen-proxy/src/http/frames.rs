//! Frames of a client's HTTP/2 connection as they pass, counted so that one whose frames ask for nothing is ended (RFC 9113
//! section 10.5).
//!
//! The codec bounds what may be waiting; what it does at once for a few bytes, such as answering a PING, it would do for ever.
//! Envoy bounds answers that wait (1000), priorities (100 for a stream) and window updates (10 for a frame of data) each for
//! itself. One budget is enough here, as all of these frames cost the same.

use tokio::time::Instant;

/// Frames without content that a connection may send at any time.
const FREE: u64 = 1000;

/// Those that come on top for each frame with content, in either direction: Envoy's ten window updates for a frame of
/// data, on the stream and on the connection.
const PER_CONTENT: u64 = 20;

/// Those that come on top for each second of its age.
const PER_SECOND: u64 = 100;

const HEAD: usize = 9;
const PREFACE: u32 = 24;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;

const ENHANCE_YOUR_CALM: u8 = 11;

/// Finds where frames begin in one direction of a connection.
#[derive(Debug, Default)]
struct Position {
    head: [u8; HEAD],
    /// Bytes of the next head that have passed.
    begun: usize,
    /// Bytes that are left before it.
    left: u32,
    /// Bytes of bodies that have passed.
    data: u64,
}

/// The head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head {
    kind: u8,
    flags: u8,
    stream: u32,
    length: u32,
}

impl Head {
    fn of([high, middle, low, kind, flags, stream @ ..]: [u8; HEAD]) -> Self {
        Self {
            kind,
            flags,
            // The first bit means nothing.
            stream: u32::from_be_bytes(stream) & (u32::MAX >> 1),
            length: u32::from_be_bytes([0, high, middle, low]),
        }
    }

    /// Whether it is the last of its sender on its stream.
    fn ends_stream(self) -> bool {
        match self.kind {
            DATA | HEADERS => self.flags & END_STREAM != 0,
            kind => kind == RST_STREAM,
        }
    }
}

impl Position {
    /// Moves on by these bytes, and shows the head of each frame whose head ends in them.
    fn advance(&mut self, mut bytes: &[u8], mut begins: impl FnMut(Head)) {
        while !bytes.is_empty() {
            let passed = bytes.len().min(self.left as usize);
            self.left -= passed as u32;
            if Head::of(self.head).kind == DATA {
                self.data += passed as u64;
            }
            bytes = &bytes[passed..];
            let count = bytes.len().min(HEAD - self.begun);
            self.head[self.begun..self.begun + count].copy_from_slice(&bytes[..count]);
            self.begun += count;
            bytes = &bytes[count..];
            if self.begun == HEAD {
                let head = Head::of(self.head);
                (self.begun, self.left) = (0, head.length);
                begins(head);
            }
        }
    }

    /// Whether the last frame has passed completely.
    fn is_between(&self) -> bool {
        self.begun == 0 && self.left == 0
    }
}

/// The frames of a connection.
#[derive(Debug)]
pub(super) struct FrameBudget {
    received: Position,
    sent: Position,
    content: u64,
    empty: u64,
    /// The last stream that the client opened.
    stream: u32,
    /// Its streams that have not ended on this side. There are not many more than the codec lets it have.
    open: Vec<u32>,
    since: Instant,
}

impl FrameBudget {
    pub(super) fn new() -> Self {
        Self {
            received: Position {
                left: PREFACE,
                ..Position::default()
            },
            sent: Position::default(),
            content: 0,
            empty: 0,
            stream: 0,
            open: Vec::new(),
            since: Instant::now(),
        }
    }

    /// Counts what the client sent. False when that is too much.
    pub(super) fn receive(&mut self, bytes: &[u8]) -> bool {
        let Self {
            received,
            content,
            empty,
            stream,
            open,
            ..
        } = self;
        received.advance(bytes, |head| match head.kind {
            HEADERS => {
                *content += 1;
                // Others are trailers.
                if head.stream > *stream {
                    *stream = head.stream;
                    open.push(head.stream);
                }
            }
            DATA => *content += u64::from(head.length > 0),
            // The codec has a limit of its own for these.
            CONTINUATION => {}
            kind => {
                *empty += 1;
                if kind == RST_STREAM {
                    close(open, head.stream);
                }
            }
        });
        let allowed = FREE + PER_CONTENT * self.content;
        // The clock is looked at by the few that need it.
        self.empty <= allowed || self.empty <= allowed + PER_SECOND * self.since.elapsed().as_secs()
    }

    /// Counts what the client is sent.
    pub(super) fn send(&mut self, bytes: &[u8]) {
        let Self {
            sent,
            content,
            open,
            ..
        } = self;
        sent.advance(bytes, |head| {
            *content += u64::from(matches!(head.kind, DATA | HEADERS));
            if head.ends_stream() {
                close(open, head.stream);
            }
        });
    }

    /// Streams that have not ended on this side, and bytes of bodies that were sent.
    pub(super) fn outgoing(&self) -> (usize, u64) {
        (self.open.len(), self.sent.data)
    }

    /// The frame that tells the client why its connection ends (RFC 9113 section 6.8). Nothing when it would be taken for
    /// a part of another one.
    pub(super) fn farewell(&self) -> Option<[u8; HEAD + 8]> {
        let [a, b, c, d] = self.stream.to_be_bytes();
        let farewell = [
            0,
            0,
            8,
            GOAWAY,
            0,
            0,
            0,
            0,
            0,
            a,
            b,
            c,
            d,
            0,
            0,
            0,
            ENHANCE_YOUR_CALM,
        ];
        self.sent.is_between().then_some(farewell)
    }
}

fn close(open: &mut Vec<u32>, stream: u32) {
    // The oldest usually ends first.
    if let Some(index) = open.iter().position(|other| *other == stream) {
        open.swap_remove(index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, length: usize) -> Vec<u8> {
        frame_of(kind, 0, 1, length)
    }

    fn frame_of(kind: u8, flags: u8, stream: u8, length: usize) -> Vec<u8> {
        let mut frame = (length as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags, 0x80, 0, 0, stream]);
        frame.resize(HEAD + length, 0xff);
        frame
    }

    #[test]
    fn frames_are_found_however_they_are_cut() {
        let all: Vec<u8> = [(4, 6), (0, 0), (6, 8), (1, 300), (0, 20_000), (8, 4)]
            .into_iter()
            .flat_map(|(kind, length)| frame(kind, length))
            .collect();
        for step in [1, 2, 9, 10, 4096, usize::MAX] {
            let (mut position, mut found) = (Position::default(), Vec::new());
            for part in all.chunks(step.min(all.len())) {
                position.advance(part, |head| found.push((head.kind, head.length)));
            }
            let expected = [(4, 6), (0, 0), (6, 8), (1, 300), (0, 20_000), (8, 4)];
            assert_eq!(found, expected, "{step}");
            assert!(position.is_between());
            assert_eq!(position.data, 20_000, "{step}");
        }
    }

    #[test]
    fn streams_are_open_until_this_side_ends_them() {
        let mut budget = FrameBudget::new();
        assert!(budget.receive(&[0; PREFACE as usize]));
        let mut open = |received: &[Vec<u8>], sent: &[Vec<u8>]| {
            assert!(budget.receive(&received.concat()));
            budget.send(&sent.concat());
            budget.outgoing()
        };
        let head = |stream, flags| frame_of(HEADERS, flags, stream, 10);
        let data = |stream, flags| frame_of(DATA, flags, stream, 7);
        let reset = |stream| frame_of(RST_STREAM, 0, stream, 4);
        assert_eq!(open(&[head(1, 0), data(1, 1), head(3, 1)], &[]), (2, 0));
        // Trailers open nothing, and the client's own end ends one side.
        assert_eq!(open(&[head(3, 1)], &[head(1, 0), data(1, 0)]), (2, 7));
        assert_eq!(open(&[], &[data(1, 1), head(3, 1)]), (0, 14));
        assert_eq!(
            open(&[head(5, 1), reset(5), reset(5), head(7, 0)], &[]),
            (1, 14)
        );
        assert_eq!(open(&[], &[reset(7), reset(7)]), (0, 14));
    }

    /// How many of these frames a connection may send, after some of content.
    #[track_caller]
    fn check(kind: u8, content: usize, expected: u64) {
        let mut budget = FrameBudget::new();
        assert!(budget.receive(&[0; PREFACE as usize]));
        for _ in 0..content {
            assert!(budget.receive(&frame(HEADERS, 10)));
        }
        let flood = frame(kind, 8);
        let allowed = (0..10_000).take_while(|_| budget.receive(&flood)).count();
        assert_eq!(allowed as u64, expected, "{kind}, {content}");
    }

    #[test]
    fn frames_that_ask_for_nothing_are_few_or_go_with_others() {
        for kind in [2, 3, 4, 6, 7, 8, 42] {
            check(kind, 0, FREE);
            check(kind, 3, FREE + 3 * PER_CONTENT);
        }
        check(DATA, 0, 10_000);
    }
}
