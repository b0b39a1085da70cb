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
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;

const ENHANCE_YOUR_CALM: u8 = 11;

/// Finds where frames begin in one direction of a connection.
#[derive(Debug, Default)]
struct Position {
    head: [u8; HEAD],
    /// Bytes of the next head that have passed.
    begun: usize,
    /// Bytes that are left before it.
    left: u32,
}

impl Position {
    /// Moves on by these bytes, and shows kind, length and stream of each frame whose head ends in them.
    fn advance(&mut self, mut bytes: &[u8], mut begins: impl FnMut(u8, u32, u32)) {
        while !bytes.is_empty() {
            let passed = bytes.len().min(self.left as usize);
            self.left -= passed as u32;
            bytes = &bytes[passed..];
            let count = bytes.len().min(HEAD - self.begun);
            self.head[self.begun..self.begun + count].copy_from_slice(&bytes[..count]);
            self.begun += count;
            bytes = &bytes[count..];
            if self.begun == HEAD {
                let [high, middle, low, kind, _, stream @ ..] = self.head;
                (self.begun, self.left) = (0, u32::from_be_bytes([0, high, middle, low]));
                begins(kind, self.left, u32::from_be_bytes(stream));
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
            since: Instant::now(),
        }
    }

    /// Counts what the client sent. False when that is too much.
    pub(super) fn receive(&mut self, bytes: &[u8]) -> bool {
        let (mut content, mut empty, last) = (0, 0, &mut self.stream);
        self.received
            .advance(bytes, |kind, length, stream| match kind {
                HEADERS => {
                    content += 1;
                    *last = stream.max(*last);
                }
                DATA if length > 0 => content += 1,
                // The codec has limits of its own for these.
                DATA | CONTINUATION => {}
                _ => empty += 1,
            });
        self.content += content;
        self.empty += empty;
        let allowed = FREE + PER_CONTENT * self.content;
        // The clock is looked at by the few that need it.
        self.empty <= allowed || self.empty <= allowed + PER_SECOND * self.since.elapsed().as_secs()
    }

    /// Counts what the client is sent.
    pub(super) fn send(&mut self, bytes: &[u8]) {
        let content = &mut self.content;
        self.sent.advance(bytes, |kind, _, _| {
            *content += u64::from(kind == DATA || kind == HEADERS);
        });
    }

    /// The frame that tells the client why its connection ends (RFC 9113 section 6.8). Nothing when it would be taken for
    /// a part of another one.
    pub(super) fn farewell(&self) -> Option<[u8; HEAD + 8]> {
        let [a, b, c, d] = (self.stream & (u32::MAX >> 1)).to_be_bytes();
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

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, length: usize) -> Vec<u8> {
        let mut frame = (length as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, 0, 0, 0, 0, 1]);
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
                position.advance(part, |kind, length, _| found.push((kind, length)));
            }
            let expected = [(4, 6), (0, 0), (6, 8), (1, 300), (0, 20_000), (8, 4)];
            assert_eq!(found, expected, "{step}");
            assert!(position.is_between());
        }
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
