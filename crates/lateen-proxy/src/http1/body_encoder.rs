//! Framing bodies that are sent (RFC 9112 sections 6 and 7).

use bytes::Bytes;
use http::{HeaderMap, HeaderName, header};

use super::encode::field;
use super::error::Error;
use super::io::Outgoing;
use super::number;

/// Frames a body.
#[derive(Debug)]
pub(super) enum BodyEncoder {
    /// So many bytes are to come.
    Length(u64),
    Chunked {
        /// Fields that may follow the body.
        trailers: Vec<HeaderName>,
    },
    UntilClose,
}

impl BodyEncoder {
    /// Fields that follow the body have to be announced (RFC 9110 section 6.6.2), so that nobody is surprised.
    pub(super) fn chunked(headers: &HeaderMap, takes_trailers: bool) -> Self {
        let announced = headers.get_all(header::TRAILER).iter();
        let trailers = announced
            .filter(|_| takes_trailers)
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
            .filter(may_follow)
            .collect();
        Self::Chunked { trailers }
    }

    /// Adds a part of the body.
    ///
    /// # Errors
    /// When it is longer than announced.
    pub(super) fn push(&mut self, out: &mut Outgoing, part: Bytes) -> Result<(), Error> {
        if part.is_empty() {
            // An empty chunk would be the last.
            return Ok(());
        }
        match self {
            Self::Length(left) => {
                *left = left
                    .checked_sub(part.len() as u64)
                    .ok_or(Error::BodyLength)?;
                out.push(part, b"");
            }
            Self::Chunked { .. } => {
                number::hexadecimal(&mut out.collected, part.len());
                out.collected.extend_from_slice(b"\r\n");
                out.push(part, b"\r\n");
            }
            Self::UntilClose => out.push(part, b""),
        }
        Ok(())
    }

    /// Ends the body.
    ///
    /// # Errors
    /// When it is shorter than announced.
    pub(super) fn finish(
        &self,
        out: &mut Outgoing,
        fields: Option<&HeaderMap>,
    ) -> Result<(), Error> {
        match self {
            Self::Length(0) | Self::UntilClose => {}
            Self::Length(_) => return Err(Error::BodyLength),
            Self::Chunked { trailers } => {
                let out = &mut out.collected;
                out.extend_from_slice(b"0\r\n");
                for (name, value) in fields.into_iter().flatten() {
                    if trailers.contains(name) {
                        field(out, name, value);
                    }
                }
                out.extend_from_slice(b"\r\n");
            }
        }
        Ok(())
    }

    /// Whether nothing more may come.
    pub(super) fn is_complete(&self) -> bool {
        matches!(self, Self::Length(0))
    }
}

/// Whether a field means the same behind a body as before it (RFC 9110 section 6.5.1).
fn may_follow(name: &HeaderName) -> bool {
    ![
        header::TRANSFER_ENCODING,
        header::CONTENT_LENGTH,
        header::CONTENT_TYPE,
        header::CONTENT_ENCODING,
        header::CONTENT_RANGE,
        header::HOST,
        header::CONNECTION,
        header::TE,
        header::TRAILER,
        header::AUTHORIZATION,
        header::SET_COOKIE,
        header::CACHE_CONTROL,
        header::MAX_FORWARDS,
    ]
    .contains(name)
}

#[cfg(test)]
mod tests {
    use super::super::testing::headers;
    use super::*;

    #[test]
    fn bodies_are_as_long_as_announced() {
        let mut out = Outgoing::default();
        let mut encoder = BodyEncoder::Length(3);
        assert!(encoder.finish(&mut out, None).is_err());
        encoder.push(&mut out, Bytes::from_static(b"abc")).unwrap();
        encoder.finish(&mut out, None).unwrap();
        assert!(encoder.push(&mut out, Bytes::from_static(b"d")).is_err());
        let mut out = Outgoing::default();
        let fields = headers(&[("trailer", "x-t, content-length")]);
        let mut encoder = BodyEncoder::chunked(&fields, true);
        encoder.push(&mut out, Bytes::from(vec![b'x'; 20])).unwrap();
        encoder.push(&mut out, Bytes::new()).unwrap();
        let trailers = headers(&[("x-t", "1"), ("x-u", "1"), ("content-length", "1")]);
        encoder.finish(&mut out, Some(&trailers)).unwrap();
        let expected = b"14\r\nxxxxxxxxxxxxxxxxxxxx\r\n0\r\nx-t: 1\r\n\r\n";
        assert_eq!(&out.collected[..], expected);
    }
}
