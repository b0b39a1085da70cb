//! The Redis protocol as far as sessions need it: requests as arrays of bulk strings, and the replies to them
//! (<https://redis.io/docs/latest/develop/reference/protocol-spec/>, version 2).

use bytes::{Buf, BytesMut};

/// Longest line of a reply, and longest text in one: no answer that we ask for is near it.
const LONGEST: usize = 4096;

/// A reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    Status(Vec<u8>),
    Error(String),
    Integer(i64),
    Text(Vec<u8>),
    Nothing,
}

/// A reply that cannot be one, or not one to what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server sent what is no reply to what it was asked")]
pub(super) struct Malformed;

/// Appends a request.
pub(super) fn write(out: &mut Vec<u8>, words: &[&[u8]]) {
    let number = |out: &mut Vec<u8>, kind: u8, number: usize| {
        out.push(kind);
        out.extend_from_slice(number.to_string().as_bytes());
        out.extend_from_slice(b"\r\n");
    };
    number(out, b'*', words.len());
    for word in words {
        number(out, b'$', word.len());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

/// Takes the next reply from what was received; nothing while it is incomplete.
pub(super) fn read(input: &mut BytesMut) -> Result<Option<Reply>, Malformed> {
    let within = &input[..input.len().min(LONGEST)];
    let Some(end) = within.windows(2).position(|pair| pair == b"\r\n") else {
        return if within.len() < LONGEST {
            Ok(None)
        } else {
            Err(Malformed)
        };
    };
    let line = within[..end].to_vec();
    let (kind, rest) = line.split_first().ok_or(Malformed)?;
    let text = || String::from_utf8_lossy(rest).into_owned();
    let reply = match kind {
        b'+' => Reply::Status(rest.to_vec()),
        b'-' => Reply::Error(text()),
        b':' => Reply::Integer(text().parse().map_err(|_| Malformed)?),
        b'$' if rest == b"-1" => Reply::Nothing,
        b'$' => {
            let length: usize = text().parse().map_err(|_| Malformed)?;
            if length > LONGEST {
                return Err(Malformed);
            }
            let start = end + 2;
            let Some(body) = input.get(start..start + length + 2) else {
                return Ok(None);
            };
            let body = body.strip_suffix(b"\r\n").ok_or(Malformed)?.to_vec();
            input.advance(start + length + 2);
            return Ok(Some(Reply::Text(body)));
        }
        // Arrays and the types of later versions are not asked for.
        _ => return Err(Malformed),
    };
    input.advance(end + 2);
    Ok(Some(reply))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_arrays_of_texts() {
        let mut out = Vec::new();
        write(&mut out, &[b"GET", b"a\r\nb"]);
        assert_eq!(out, b"*2\r\n$3\r\nGET\r\n$4\r\na\r\nb\r\n");
    }

    #[test]
    fn replies_are_read_however_they_arrive() {
        let all = b"+OK\r\n-ERR no\r\n:7\r\n$4\r\na\r\nb\r\n$-1\r\n$0\r\n\r\n";
        let expected = [
            Reply::Status(b"OK".to_vec()),
            Reply::Error("ERR no".to_owned()),
            Reply::Integer(7),
            Reply::Text(b"a\r\nb".to_vec()),
            Reply::Nothing,
            Reply::Text(Vec::new()),
        ];
        for size in 1..all.len() {
            let (mut input, mut found) = (BytesMut::new(), Vec::new());
            for part in all.chunks(size) {
                input.extend_from_slice(part);
                while let Some(reply) = read(&mut input).unwrap() {
                    found.push(reply);
                }
            }
            assert_eq!(
                (found.as_slice(), input.len()),
                (&expected[..], 0),
                "{size}"
            );
        }
    }

    /// Replies are the same however their bytes arrive, and none is kept that is longer than what is asked for.
    #[test]
    fn any_bytes_are_replies_or_refused() {
        bolero::check!(name = "redis-replies")
            .with_iterations(0)
            .for_each(|bytes: &[u8]| {
                let replies = |size: usize| {
                    let (mut input, mut found) = (BytesMut::new(), Vec::new());
                    for part in bytes.chunks(size) {
                        input.extend_from_slice(part);
                        loop {
                            match read(&mut input) {
                                Ok(Some(reply)) => found.push(reply),
                                Ok(None) => break,
                                Err(Malformed) => return (found, None),
                            }
                        }
                        assert!(input.len() <= 2 * LONGEST + size);
                    }
                    (found, Some(input))
                };
                assert_eq!(replies(1), replies(bytes.len().max(1)));
            });
    }

    #[test]
    fn what_is_no_reply_is_refused_before_it_is_kept() {
        let long = [b'+'; LONGEST];
        for text in [
            &b"*1\r\n"[..],
            b"HTTP/1.1 400 Bad Request\r\n",
            b"\r\n",
            b"$5000000000\r\n",
            b"$5000\r\n",
            b"$-2\r\n",
            b"$x\r\n",
            b":x\r\n",
            b"$1\r\nabc",
            &long,
        ] {
            assert_eq!(read(&mut BytesMut::from(text)), Err(Malformed));
        }
    }
}
