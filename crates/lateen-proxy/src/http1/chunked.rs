//! The chunked transfer coding (RFC 9112 section 7.1).

use bytes::{Bytes, BytesMut};
use http::HeaderMap;

use super::error::Malformed;
use super::parse;

/// Length of the line that begins a chunk.
const MOST_LINE: usize = 4 << 10;

/// Bytes that the extensions of all chunks of a body have together. They carry nothing and are dropped.
const MOST_EXTENSIONS: usize = 16 << 10;

/// Length of the fields after the last chunk.
const MOST_TRAILERS: usize = 8 << 10;

/// How many these are.
const MOST_TRAILER_FIELDS: usize = 100;

/// Where a body is.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// Before the line that begins a chunk.
    Size,
    /// In a chunk that has so many bytes left.
    Data(u64),
    /// Before the end of the line after a chunk.
    DataEnd,
    /// After the last chunk.
    Trailers,
    End,
}

/// Takes a body apart, as it comes.
#[derive(Debug)]
pub(super) struct ChunkedDecoder {
    place: Place,
    extensions: usize,
}

/// What a decoder finds at the front of its buffer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decoded {
    Data(Bytes),
    /// Nothing follows them.
    Trailers(HeaderMap),
    End,
    /// The buffer is used up.
    Incomplete,
}

impl ChunkedDecoder {
    pub(super) fn new() -> Self {
        Self {
            place: Place::Size,
            extensions: 0,
        }
    }

    /// Whether nothing follows.
    pub(super) fn is_at_end(&self) -> bool {
        matches!(self.place, Place::End)
    }

    /// Takes what comes next.
    pub(super) fn decode(&mut self, buffer: &mut BytesMut) -> Result<Decoded, Malformed> {
        loop {
            match self.place {
                Place::Size => {
                    let Some((line, length)) = size_line(buffer)? else {
                        return Ok(Decoded::Incomplete);
                    };
                    self.extensions += line.extension;
                    if self.extensions > MOST_EXTENSIONS {
                        return Err(Malformed::Chunk);
                    }
                    let _ = buffer.split_to(length);
                    self.place = match line.size {
                        0 => Place::Trailers,
                        size => Place::Data(size),
                    };
                }
                Place::Data(left) => {
                    if buffer.is_empty() {
                        return Ok(Decoded::Incomplete);
                    }
                    let length =
                        usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
                    let data = buffer.split_to(length).freeze();
                    self.place = match left - length as u64 {
                        0 => Place::DataEnd,
                        left => Place::Data(left),
                    };
                    return Ok(Decoded::Data(data));
                }
                Place::DataEnd => {
                    if !starts_with_line_end(buffer)? {
                        return Ok(Decoded::Incomplete);
                    }
                    let _ = buffer.split_to(2);
                    self.place = Place::Size;
                }
                Place::Trailers => {
                    if starts_with_line_end(buffer) == Ok(true) {
                        let _ = buffer.split_to(2);
                        self.place = Place::End;
                        return Ok(Decoded::End);
                    }
                    let end = buffer
                        .windows(4)
                        .take(MOST_TRAILERS)
                        .position(|it| it == b"\r\n\r\n");
                    let Some(end) = end else {
                        if buffer.len() >= MOST_TRAILERS {
                            return Err(Malformed::Chunk);
                        }
                        return Ok(Decoded::Incomplete);
                    };
                    let block = buffer.split_to(end + 4);
                    self.place = Place::End;
                    return parse::trailers(block, MOST_TRAILER_FIELDS).map(Decoded::Trailers);
                }
                Place::End => return Ok(Decoded::End),
            }
        }
    }
}

/// Whether the buffer begins with the end of a line; an error if it begins with something else.
fn starts_with_line_end(buffer: &[u8]) -> Result<bool, Malformed> {
    match buffer {
        [b'\r', b'\n', ..] => Ok(true),
        [] | [b'\r'] => Ok(false),
        _ => Err(Malformed::Chunk),
    }
}

/// The line that begins a chunk.
struct SizeLine {
    size: u64,
    /// Bytes that mean nothing.
    extension: usize,
}

/// Reads it, with its length; nothing while it is not complete.
fn size_line(buffer: &[u8]) -> Result<Option<(SizeLine, usize)>, Malformed> {
    let digits = buffer
        .iter()
        .take_while(|byte| byte.is_ascii_hexdigit())
        .count();
    // Sixteen digits are the largest size that can be counted.
    if digits > 16 || (digits == 0 && !buffer.is_empty()) {
        return Err(Malformed::Chunk);
    }
    let rest = &buffer[digits..];
    // Some servers fill the line with spaces.
    if let Some(first) = rest.first()
        && !matches!(first, b'\r' | b';' | b' ' | b'\t')
    {
        return Err(Malformed::Chunk);
    }
    let Some(extension) = rest.iter().take(MOST_LINE).position(|byte| *byte == b'\n') else {
        if rest.len() >= MOST_LINE {
            return Err(Malformed::Chunk);
        }
        return Ok(None);
    };
    // A line that ends with a bare newline, or has a bare return in it, ends elsewhere for others.
    let (Some(b'\r'), inside) = (
        extension.checked_sub(1).map(|last| rest[last]),
        &rest[..extension.saturating_sub(1)],
    ) else {
        return Err(Malformed::Chunk);
    };
    let is_text = |byte: &u8| *byte == b'\t' || (b' '..=b'~').contains(byte) || *byte >= 0x80;
    let blank = |byte: &&u8| matches!(byte, b' ' | b'\t');
    let named = inside.iter().find(|byte| !blank(byte));
    if !inside.iter().all(is_text) || named.is_some_and(|byte| *byte != b';') {
        return Err(Malformed::Chunk);
    }
    let text = str::from_utf8(&buffer[..digits]).map_err(|_| Malformed::Chunk)?;
    let size = u64::from_str_radix(text, 16).map_err(|_| Malformed::Chunk)?;
    let line = SizeLine {
        size,
        extension: inside.len(),
    };
    Ok(Some((line, digits + extension + 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a body holds, given in one piece and byte by byte, and what is left behind it.
    #[track_caller]
    fn check(text: &str, expected: Result<(&str, Option<&str>), Malformed>) {
        for step in [usize::MAX, 1] {
            let mut buffer = BytesMut::new();
            let mut decoder = ChunkedDecoder::new();
            let (mut data, mut trailer) = (Vec::new(), None);
            let mut result = Ok(());
            for part in text.as_bytes().chunks(step.min(text.len())) {
                buffer.extend_from_slice(part);
                loop {
                    match decoder.decode(&mut buffer) {
                        Ok(Decoded::Data(part)) => data.extend_from_slice(&part),
                        Ok(Decoded::Trailers(fields)) => {
                            trailer = fields
                                .get("t")
                                .map(|value| value.to_str().unwrap().to_owned());
                            break;
                        }
                        Ok(Decoded::End | Decoded::Incomplete) => break,
                        Err(error) => {
                            result = Err(error);
                            break;
                        }
                    }
                }
                if result.is_err() {
                    break;
                }
            }
            let found = result.map(|()| {
                assert!(
                    decoder.is_at_end() && &buffer[..] == b"rest",
                    "{text:?} by {step}"
                );
                (String::from_utf8(data).unwrap(), trailer)
            });
            let expected =
                expected.map(|(data, trailer)| (data.to_owned(), trailer.map(str::to_owned)));
            assert_eq!(found, expected, "{text:?} by {step}");
        }
    }

    #[test]
    fn chunks_are_joined_and_what_follows_is_left() {
        check("0\r\n\r\nrest", Ok(("", None)));
        check("3\r\nabc\r\n0\r\n\r\nrest", Ok(("abc", None)));
        check(
            "3\r\nabc\r\n00A \r\n0123456789\r\n0\r\n\r\nrest",
            Ok(("abc0123456789", None)),
        );
        check("3;x=\"y\"\r\nabc\r\n0 ;z\r\n\r\nrest", Ok(("abc", None)));
        check("1\r\na\r\n0\r\nT: u\r\n\r\nrest", Ok(("a", Some("u"))));
    }

    #[test]
    fn doubtful_chunks_are_refused() {
        for text in [
            "xyz\r\n",
            "\r\n",
            "-1\r\n",
            "0x3\r\nabc\r\n",
            "3 3\r\nabc\r\n",
            "3\nabc\r\n0\r\n\r\n",
            "3\r\nabcd\r\n0\r\n\r\n",
            "3\r\nabc\n0\r\n\r\n",
            "3;a\rb\r\nabc\r\n0\r\n\r\n",
            "3;a\0\r\nabc\r\n0\r\n\r\n",
            "fffffffffffffffff\r\n",
            "0\r\nno colon\r\n\r\n",
            "0\r\na b: c\r\n\r\n",
        ] {
            check(text, Err(Malformed::Chunk));
        }
        let extension = format!("1;{}\r\na\r\n", "x".repeat(MOST_LINE - 10));
        check(&extension.repeat(5), Err(Malformed::Chunk));
        check(
            &format!("1;{}", "x".repeat(MOST_LINE)),
            Err(Malformed::Chunk),
        );
        check(
            &format!("0\r\nt: {}", "x".repeat(MOST_TRAILERS)),
            Err(Malformed::Chunk),
        );
    }
}
