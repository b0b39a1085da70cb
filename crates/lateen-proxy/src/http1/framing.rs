//! Where a body ends (RFC 9112 section 6.3), and whether its connection goes on (section 9.3).

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, Method, StatusCode, Version, header};

use super::chunked::{ChunkedDecoder, Decoded};
use super::error::Malformed;

/// Names in a head that are fewer than are worth a search.
const SHORT: usize = 16;

/// Takes a body from the buffer of its connection.
#[derive(Debug)]
pub(super) enum Decoder {
    /// So many bytes are left.
    Length(u64),
    Chunked(ChunkedDecoder),
    /// All that comes before the connection ends.
    UntilClose,
    /// Nothing is left.
    Done,
}

impl Decoder {
    /// The body of a request.
    ///
    /// # Errors
    /// When it could be read in more than one way, or has a coding that is not implemented. `chunked` is the only
    /// coding that is taken, as in Envoy.
    pub(super) fn of_request(version: Version, headers: &HeaderMap) -> Result<Self, Malformed> {
        Ok(match announced(version, headers)? {
            Announced::Chunked => Self::Chunked(ChunkedDecoder::new()),
            Announced::Length(length) => Self::of_length(length),
            Announced::Nothing => Self::Done,
        })
    }

    /// The body of a response to a request with this method.
    ///
    /// # Errors
    /// As for requests.
    pub(super) fn of_response(
        method: &Method,
        status: StatusCode,
        version: Version,
        headers: &HeaderMap,
    ) -> Result<Self, Malformed> {
        if method == Method::HEAD || has_no_body(status) {
            // Some readers would take a body there.
            return match status {
                StatusCode::NO_CONTENT => match announced(version, headers)? {
                    Announced::Nothing | Announced::Length(0) => Ok(Self::Done),
                    Announced::Length(_) | Announced::Chunked => Err(Malformed::Length),
                },
                _ => Ok(Self::Done),
            };
        }
        Ok(match announced(version, headers)? {
            Announced::Chunked => Self::Chunked(ChunkedDecoder::new()),
            Announced::Length(length) => Self::of_length(length),
            Announced::Nothing => Self::UntilClose,
        })
    }

    fn of_length(length: u64) -> Self {
        match length {
            0 => Self::Done,
            length => Self::Length(length),
        }
    }

    /// Takes what comes next.
    pub(super) fn decode(&mut self, buffer: &mut BytesMut) -> Result<Decoded, Malformed> {
        match self {
            Self::Done => Ok(Decoded::End),
            Self::Chunked(decoder) => {
                let decoded = decoder.decode(buffer)?;
                if decoder.is_at_end() {
                    *self = Self::Done;
                }
                Ok(decoded)
            }
            _ if buffer.is_empty() => Ok(Decoded::Incomplete),
            Self::UntilClose => Ok(Decoded::Data(buffer.split().freeze())),
            Self::Length(left) => {
                let most = usize::try_from(*left).unwrap_or(usize::MAX);
                let data: Bytes = buffer.split_to(most.min(buffer.len())).freeze();
                *left -= data.len() as u64;
                if *left == 0 {
                    *self = Self::Done;
                }
                Ok(Decoded::Data(data))
            }
        }
    }

    /// Whether the body may end where its connection ended. If so, it has.
    pub(super) fn end_of_input(&mut self) -> bool {
        if matches!(self, Self::UntilClose) {
            *self = Self::Done;
        }
        self.is_done()
    }

    /// Whether nothing is left.
    pub(super) fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// Bytes that are left, if that is known.
    pub(super) fn left(&self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(*left),
            Self::Done => Some(0),
            Self::Chunked(_) | Self::UntilClose => None,
        }
    }
}

/// Whether responses with this status have no body, whatever their fields say.
pub(super) fn has_no_body(status: StatusCode) -> bool {
    status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// The length that a head announces. It has to stand there once, in digits and nothing else.
pub(super) fn content_length(headers: &HeaderMap) -> Result<Option<u64>, Malformed> {
    let mut values = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let digits = value.as_bytes();
    let text = str::from_utf8(digits).map_err(|_| Malformed::Length)?;
    // The parser of numbers takes a sign.
    if values.next().is_some() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Malformed::Length);
    }
    text.parse().map(Some).map_err(|_| Malformed::Length)
}

/// Whether a head announces chunks and, once, a length, too.
pub(super) fn is_chunked_with_length(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let is_chunked = |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"chunked");
    codings.next().is_some_and(is_chunked)
        && codings.next().is_none()
        && lengths.next().is_some()
        && lengths.next().is_none()
}

/// What a head says of its body.
enum Announced {
    Nothing,
    Length(u64),
    Chunked,
}

fn announced(version: Version, headers: &HeaderMap) -> Result<Announced, Malformed> {
    let [has_length, has_coding] =
        may_have(headers, [header::CONTENT_LENGTH, header::TRANSFER_ENCODING]);
    let length = if has_length {
        content_length(headers)?
    } else {
        None
    };
    if !has_coding {
        return Ok(length.map_or(Announced::Nothing, Announced::Length));
    }
    let mut values = headers.get_all(header::TRANSFER_ENCODING).iter();
    let Some(value) = values.next() else {
        return Ok(length.map_or(Announced::Nothing, Announced::Length));
    };
    // Beside a length one of both is a lie. Version 1.0 knows no codings, so that its proxies pass them on unread.
    if length.is_some() {
        return Err(Malformed::LengthAndChunks);
    }
    if version < Version::HTTP_11 {
        return Err(Malformed::Length);
    }
    if values.next().is_some() || !value.as_bytes().eq_ignore_ascii_case(b"chunked") {
        return Err(Malformed::Coding);
    }
    Ok(Announced::Chunked)
}

/// Which of these fields a head may have. One look at the names of a short head is cheaper than a search for each.
pub(super) fn may_have<const COUNT: usize>(
    headers: &HeaderMap,
    wanted: [HeaderName; COUNT],
) -> [bool; COUNT] {
    let mut found = [false; COUNT];
    if headers.keys_len() > SHORT {
        return [true; COUNT];
    }
    for name in headers.keys() {
        for (wanted, found) in wanted.iter().zip(&mut found) {
            *found |= name == wanted;
        }
    }
    found
}

/// Whether the sender of a head lets the connection go on after the message.
pub(super) fn keeps_alive(version: Version, headers: &HeaderMap) -> bool {
    if version == Version::HTTP_11 {
        !has_token(headers, "close")
    } else {
        has_token(headers, "keep-alive") && !has_token(headers, "close")
    }
}

/// Whether `connection` lists this.
fn has_token(headers: &HeaderMap, wanted: &str) -> bool {
    let mut values = headers.get_all(header::CONNECTION).iter();
    values.any(|value| {
        let mut tokens = value.as_bytes().split(|byte| *byte == b',');
        tokens.any(|token| token.trim_ascii().eq_ignore_ascii_case(wanted.as_bytes()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn name(decoder: Decoder) -> String {
        match decoder {
            Decoder::Length(length) => length.to_string(),
            Decoder::Chunked(_) => "chunked".to_owned(),
            Decoder::UntilClose => "until close".to_owned(),
            Decoder::Done => "none".to_owned(),
        }
    }

    #[test]
    fn fields_are_found_in_heads_of_any_length() {
        for others in [0, 3, SHORT, 2 * SHORT] {
            for present in [true, false] {
                let mut headers = HeaderMap::new();
                for index in 0..others {
                    let name = format!("x-{index}").parse::<HeaderName>().unwrap();
                    headers.append(name, "1".parse().unwrap());
                }
                if present {
                    headers.append(header::TE, "trailers".parse().unwrap());
                }
                let [te, other] = may_have(&headers, [header::TE, header::EXPECT]);
                let is_long = others + usize::from(present) > SHORT;
                assert_eq!((te, other), (present || is_long, is_long), "{others}");
            }
        }
    }

    #[test]
    fn requests_end_where_nobody_can_doubt_it() {
        use Malformed::{Coding, Length, LengthAndChunks};
        const TE: &str = "transfer-encoding";
        const CL: &str = "content-length";
        for (fields, expected) in [
            (&[][..], Ok("none")),
            (&[(CL, "0")], Ok("none")),
            (&[(CL, "007")], Ok("7")),
            (&[(TE, "chunked")], Ok("chunked")),
            (&[(TE, "Chunked")], Ok("chunked")),
            (&[(CL, "3"), (TE, "chunked")], Err(LengthAndChunks)),
            (&[(CL, "3"), (TE, "identity")], Err(LengthAndChunks)),
            (&[(CL, "3"), (CL, "3")], Err(Length)),
            (&[(CL, "3"), (CL, "4")], Err(Length)),
            (&[(CL, "3, 3")], Err(Length)),
            (&[(CL, "+3")], Err(Length)),
            (&[(CL, "-3")], Err(Length)),
            (&[(CL, "0x3")], Err(Length)),
            (&[(CL, "3 ")], Err(Length)),
            (&[(CL, "")], Err(Length)),
            (&[(CL, "99999999999999999999")], Err(Length)),
            (&[(TE, "xchunked")], Err(Coding)),
            (&[(TE, "identity")], Err(Coding)),
            (&[(TE, "")], Err(Coding)),
            (&[(TE, "gzip, chunked")], Err(Coding)),
            (&[(TE, "chunked, gzip")], Err(Coding)),
            (&[(TE, "chunked, chunked")], Err(Coding)),
            (&[(TE, "chunked;q=1")], Err(Coding)),
            (&[(TE, "chunked"), (TE, "chunked")], Err(Coding)),
        ] {
            let found = Decoder::of_request(Version::HTTP_11, &headers(fields)).map(name);
            assert_eq!(found, expected.map(str::to_owned), "{fields:?}");
        }
        let old = Decoder::of_request(Version::HTTP_10, &headers(&[(TE, "chunked")]));
        assert_eq!(old.map(name), Err(Length));
    }

    #[test]
    fn responses_end_by_method_status_and_fields() {
        for (method, status, fields, expected) in [
            (Method::GET, 200, &[][..], "until close"),
            (Method::GET, 200, &[("content-length", "5")], "5"),
            (
                Method::GET,
                200,
                &[("transfer-encoding", "chunked")],
                "chunked",
            ),
            (Method::HEAD, 200, &[("content-length", "5")], "none"),
            (Method::GET, 204, &[("content-length", "0")], "none"),
            (
                Method::GET,
                304,
                &[("transfer-encoding", "chunked")],
                "none",
            ),
            (Method::GET, 101, &[], "none"),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let headers = headers(fields);
            let found = Decoder::of_response(&method, status, Version::HTTP_11, &headers);
            assert_eq!(
                found.map(name),
                Ok(expected.to_owned()),
                "{status} {fields:?}"
            );
        }
    }

    #[test]
    fn no_content_is_no_length() {
        for field in [("content-length", "5"), ("transfer-encoding", "chunked")] {
            let (status, headers) = (StatusCode::NO_CONTENT, headers(&[field]));
            let found =
                Decoder::of_response(&Method::GET, status, Version::HTTP_11, &headers).map(name);
            assert_eq!(found, Err(Malformed::Length), "{field:?}");
        }
    }

    #[test]
    fn connections_go_on_as_version_and_fields_say() {
        for (version, value, expected) in [
            (Version::HTTP_11, None, true),
            (Version::HTTP_11, Some("x, Close"), false),
            (Version::HTTP_11, Some("closed"), true),
            (Version::HTTP_10, None, false),
            (Version::HTTP_10, Some("Keep-Alive"), true),
            (Version::HTTP_10, Some("keep-alive, close"), false),
        ] {
            let fields: Vec<_> = value
                .map(|value| ("connection", value))
                .into_iter()
                .collect();
            assert_eq!(
                keeps_alive(version, &headers(&fields)),
                expected,
                "{value:?}"
            );
        }
    }
}
