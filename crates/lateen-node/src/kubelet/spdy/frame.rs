//! Frames: how they are written, and the head that tells what follows.

use super::SpdyError;

/// Longest control frame that is taken, in bytes.
pub(super) const LONGEST_CONTROL: usize = 32 << 10;

/// Bytes before what a frame holds.
pub(super) const HEAD: usize = 8;

/// The flag of a frame that is the last of its stream.
pub(super) const LAST: u8 = 1;

/// The version that is spoken.
const VERSION: u16 = 3;

/// Types of control frames (section 2.6).
pub(super) mod kind {
    pub(crate) const SYN_STREAM: u16 = 1;
    pub(crate) const SYN_REPLY: u16 = 2;
    pub(crate) const RST_STREAM: u16 = 3;
    pub(crate) const PING: u16 = 6;
    pub(crate) const GOAWAY: u16 = 7;
}

/// The head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Head {
    /// Bytes of a stream.
    Data {
        stream: u32,
        last: bool,
        length: usize,
    },
    /// Anything else.
    Control {
        kind: u16,
        last: bool,
        length: usize,
    },
}

impl Head {
    pub(super) fn read(bytes: [u8; HEAD]) -> Result<Self, SpdyError> {
        let [a, b, c, d, flags, length @ ..] = bytes;
        let last = flags & LAST != 0;
        let [e, f, g] = length;
        let length = u32::from_be_bytes([0, e, f, g]) as usize;
        if a & 0x80 == 0 {
            let stream = u32::from_be_bytes([a, b, c, d]);
            return Ok(Self::Data {
                stream,
                last,
                length,
            });
        }
        match u16::from_be_bytes([a & 0x7f, b]) {
            VERSION if length > LONGEST_CONTROL => Err(SpdyError::ControlTooLong(length)),
            VERSION => Ok(Self::Control {
                kind: u16::from_be_bytes([c, d]),
                last,
                length,
            }),
            other => Err(SpdyError::Version(other)),
        }
    }
}

/// A control frame; `content` has at most [`LONGEST_CONTROL`] bytes.
pub(super) fn control(kind: u16, content: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEAD + content.len());
    frame.extend_from_slice(&(0x8000 | VERSION).to_be_bytes());
    frame.extend_from_slice(&kind.to_be_bytes());
    frame.extend_from_slice(&(content.len() as u32).to_be_bytes());
    frame.extend_from_slice(content);
    frame
}

/// A frame with bytes of a stream, of which there are less than 16Mi.
pub(super) fn data(stream: u32, last: bool, content: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEAD + content.len());
    frame.extend_from_slice(&stream.to_be_bytes());
    let flags = if last { LAST } else { 0 };
    frame.extend_from_slice(&(content.len() as u32 | u32::from(flags) << 24).to_be_bytes());
    frame.extend_from_slice(content);
    frame
}

/// The first number of a control frame, as a stream's.
pub(super) fn stream_number(kind: u16, content: &[u8]) -> Result<u32, SpdyError> {
    let bytes = content.first_chunk::<4>();
    let bytes = bytes.ok_or(SpdyError::ControlTooShort(kind))?;
    Ok(u32::from_be_bytes(*bytes) & 0x7fff_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_as_they_were_written() {
        let head = |frame: Vec<u8>| Head::read(*frame.first_chunk().unwrap()).unwrap();
        assert_eq!(
            head(data(5, true, b"abc")),
            Head::Data {
                stream: 5,
                last: true,
                length: 3
            }
        );
        assert_eq!(
            head(control(kind::PING, &[0; 4])),
            Head::Control {
                kind: kind::PING,
                last: false,
                length: 4
            }
        );
    }

    #[test]
    fn other_versions_and_endless_frames_are_refused() {
        for (bytes, text) in [
            ([0x80, 2, 0, 1, 0, 0, 0, 0], "version 2"),
            ([0x80, 3, 0, 1, 0, 0xff, 0, 0], "bytes"),
        ] {
            let error = Head::read(bytes).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
        assert!(stream_number(3, &[0, 0]).is_err());
    }
}
