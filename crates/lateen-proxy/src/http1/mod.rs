//! HTTP/1.1 and 1.0 (RFC 9112): the codec of clients ([`server`]) and of endpoints ([`client`]).
//!
//! Written for a proxy: one task carries an exchange from the client's socket to the endpoint's and back. Bodies read
//! straight from the buffers of their connections and are passed on as slices of them, so that a message needs no task,
//! channel or lock of its own. Everything runs on the thread of its worker.
//!
//! Messages whose framing can be read in more than one way are refused, not repaired: that is where smuggling begins
//! (RFC 9112 section 11.2). What is sent is framed anew.

mod body_encoder;
mod chunked;
mod client;
mod date;
mod encode;
mod error;
mod framing;
mod io;
mod names;
mod number;
mod parse;
mod search;
mod server;
mod target;
mod tunnel;

pub(crate) use client::{Client, ClientBody};
pub(crate) use encode::{Opens, OutgoingHead};
pub(crate) use error::{Error, Malformed};
pub(crate) use parse::RequestHead;
#[cfg(test)]
pub(crate) use parse::request;
pub(crate) use server::{Ended, Refusal, Server, ServerBody, Settings};
pub(crate) use target::is_authority;

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use http::Version;

    use super::chunked::Decoded;
    use super::framing::Decoder;
    use super::parse;

    /// What a connection carries when its bytes come in parts of these lengths: requests with their bodies, and whether
    /// it ends with a refusal.
    pub(super) fn read(bytes: &[u8], mut next_length: impl FnMut() -> usize) -> Vec<String> {
        let (mut buffer, mut left, mut body) = (BytesMut::new(), bytes, None);
        let mut found = Vec::new();
        loop {
            let step = match &mut body {
                None => match parse::request(&mut buffer, 10) {
                    Ok(None) => Ok(false),
                    Ok(Some(head)) => {
                        Decoder::of_request(Version::HTTP_11, &head.headers).map(|decoder| {
                            found
                                .push(format!("{} {} {:?} ", head.method, head.path, head.headers));
                            body = Some(decoder);
                            true
                        })
                    }
                    Err(error) => Err(error),
                },
                Some(decoder) => decoder.decode(&mut buffer).map(|decoded| match decoded {
                    Decoded::Incomplete => false,
                    Decoded::Data(data) => {
                        let text = data.escape_ascii().to_string();
                        found.last_mut().unwrap().push_str(&text);
                        true
                    }
                    Decoded::Trailers(_) | Decoded::End => {
                        body = None;
                        true
                    }
                }),
            };
            match step {
                Ok(true) => {}
                Ok(false) if left.is_empty() => return found,
                Ok(false) => {
                    let (part, rest) = left.split_at(next_length().min(left.len()));
                    buffer.extend_from_slice(part);
                    left = rest;
                }
                Err(_) => {
                    found.push("refused".to_owned());
                    return found;
                }
            }
        }
    }

    #[test]
    fn how_bytes_are_cut_changes_nothing() {
        let seeds: [&[u8]; 4] = [
            b"GET /a HTTP/1.1\r\nhost: a\r\nx: y\r\n\r\nGET /b HTTP/1.1\r\nhost: b\r\n\r\n",
            b"POST /a HTTP/1.1\r\ncontent-length: 5\r\n\r\nabcdeGET /b HTTP/1.1\r\n\r\n",
            b"POST /a HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\nt: u\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            b"PUT /a HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\na\r\n0123456789\r\n00\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        ];
        let marks = b"\r\n\t :;,0123456789abcx-+\0\x7f\xff";
        let mut random = fastrand::Rng::with_seed(1);
        for round in 0..20_000 {
            let mut bytes = seeds[round % seeds.len()].to_vec();
            for _ in 0..random.usize(..4) {
                let at = random.usize(..bytes.len());
                let mark = marks[random.usize(..marks.len())];
                match random.u8(..3) {
                    0 => bytes[at] = mark,
                    1 => bytes.insert(at, mark),
                    _ => drop(bytes.remove(at)),
                }
            }
            let whole = read(&bytes, || usize::MAX);
            let cut = read(&bytes, || random.usize(1..8));
            assert_eq!(whole, cut, "{:?}", String::from_utf8_lossy(&bytes));
        }
    }
}

#[cfg(test)]
mod testing {
    use http::{HeaderMap, HeaderName};

    pub(super) fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
            .collect()
    }
}
