//! Looking at the first bytes of a connection: is it TLS, and for which name; is it HTTP, and which version.
//!
//! The bytes are read into a buffer that is replayed afterwards, so nothing is lost.

/// Most bytes that are read to decide.
pub(crate) const MOST_BYTES: usize = 16 << 10;

/// The client preface of HTTP/2.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The outcome of looking at what was read so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict<T> {
    /// Decided.
    Known(T),
    /// More bytes are needed.
    More,
}

/// What a TLS client hello says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ClientHello {
    /// Server name, lower case.
    pub(crate) server_name: String,
    /// Application protocols in order of preference.
    pub(crate) protocols: Vec<String>,
}

/// Which HTTP version the first bytes are, as the name that filter chains match; nothing when it is not HTTP.
pub(crate) fn http(bytes: &[u8]) -> Verdict<Option<&'static str>> {
    let length = bytes.len().min(PREFACE.len());
    if length > 0 && bytes[..length] == PREFACE[..length] {
        return if length == PREFACE.len() {
            Verdict::Known(Some("h2c"))
        } else {
            Verdict::More
        };
    }
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        // The end of a line may come in two parts.
        let line = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        return if could_be_request_line(line) && bytes.len() < MOST_BYTES {
            Verdict::More
        } else {
            Verdict::Known(None)
        };
    };
    let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
    if !could_be_request_line(line) {
        return Verdict::Known(None);
    }
    Verdict::Known(match line {
        _ if line.ends_with(b" HTTP/1.1") => Some("http/1.1"),
        _ if line.ends_with(b" HTTP/1.0") => Some("http/1.0"),
        _ => None,
    })
}

/// Whether the bytes are the beginning of `METHOD target HTTP/1.x`.
fn could_be_request_line(bytes: &[u8]) -> bool {
    let mut parts = bytes.splitn(2, |byte| *byte == b' ');
    let method = parts.next().unwrap_or_default();
    let method_ok = method.len() <= 32
        && method
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte));
    let rest_ok = parts
        .next()
        .is_none_or(|rest| rest.iter().all(|byte| *byte >= 0x20));
    method_ok && rest_ok && (!method.is_empty() || bytes.is_empty())
}

/// The client hello, if the connection begins with one; nothing when it is not TLS.
pub(crate) fn tls(bytes: &[u8]) -> Verdict<Option<ClientHello>> {
    const HANDSHAKE: u8 = 22;
    match bytes {
        [] => return Verdict::More,
        [kind, ..] if *kind != HANDSHAKE => return Verdict::Known(None),
        [_, major, ..] if *major != 3 => return Verdict::Known(None),
        _ => {}
    }
    // The hello may be spread over several records. What follows it, as early data does, says nothing about it.
    let mut message = Vec::new();
    let mut rest = bytes;
    while let Some((header, body)) = rest.split_at_checked(5) {
        if handshake(&message).is_some() {
            break;
        }
        if header[0] != HANDSHAKE {
            return Verdict::Known(None);
        }
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        message.extend_from_slice(&body[..length.min(body.len())]);
        let Some(next) = body.get(length..) else {
            break;
        };
        rest = next;
    }
    match handshake(&message) {
        // A hello that cannot be read is still TLS; it just names nothing.
        Some((1, hello)) => Verdict::Known(Some(client_hello(hello).unwrap_or_default())),
        None if bytes.len() < MOST_BYTES => Verdict::More,
        _ => Verdict::Known(None),
    }
}

/// The kind and the content of a handshake message; nothing while it is not as long as it says.
fn handshake(message: &[u8]) -> Option<(usize, &[u8])> {
    let mut reader = Reader(message);
    Some((reader.number::<1>()?, reader.vector::<3>()?))
}

/// Reads the extensions of a client hello; nothing when it is cut short.
fn client_hello(bytes: &[u8]) -> Option<ClientHello> {
    let mut reader = Reader(bytes);
    reader.take(2 + 32)?;
    reader.vector::<1>()?;
    reader.vector::<2>()?;
    reader.vector::<1>()?;
    let mut extensions = Reader(reader.vector::<2>()?);
    let mut hello = ClientHello::default();
    while !extensions.0.is_empty() {
        let kind = extensions.number::<2>()?;
        let mut content = Reader(extensions.vector::<2>()?);
        match kind {
            0 => {
                let mut names = Reader(content.vector::<2>()?);
                if names.number::<1>()? == 0 {
                    let name = std::str::from_utf8(names.vector::<2>()?).ok()?;
                    hello.server_name = name.to_ascii_lowercase();
                }
            }
            16 => {
                let mut list = Reader(content.vector::<2>()?);
                while !list.0.is_empty() {
                    let protocol = list.vector::<1>()?;
                    hello
                        .protocols
                        .push(String::from_utf8_lossy(protocol).into_owned());
                }
            }
            _ => {}
        }
    }
    Some(hello)
}

/// Takes pieces from the front of bytes.
struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn take(&mut self, count: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// A number of `N` bytes.
    fn number<const N: usize>(&mut self) -> Option<usize> {
        Some(
            self.take(N)?
                .iter()
                .fold(0, |number, byte| number << 8 | usize::from(*byte)),
        )
    }

    /// Bytes preceded by their length in `N` bytes.
    fn vector<const N: usize>(&mut self) -> Option<&'b [u8]> {
        let length = self.number::<N>()?;
        self.take(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_is_recognised_byte_by_byte() {
        for (bytes, verdict) in [
            (&b""[..], Verdict::More),
            (b"GE", Verdict::More),
            (b"GET / HTTP/1.1\r", Verdict::More),
            (b"GET / HTTP/1.1\r\n", Verdict::Known(Some("http/1.1"))),
            (b"GET / HTTP/1.0\n", Verdict::Known(Some("http/1.0"))),
            (b"GET /\r\n", Verdict::Known(None)),
            (b"PRI * HTTP/2.0\r\n", Verdict::More),
            (PREFACE, Verdict::Known(Some("h2c"))),
            (b"PRIME /x HTTP/1.1\r\n", Verdict::Known(Some("http/1.1"))),
            (b"\x16\x03\x01", Verdict::Known(None)),
            (b"hello\n", Verdict::Known(None)),
            (b"*1\r\n$4\r\nPING\r\n", Verdict::Known(None)),
        ] {
            assert_eq!(http(bytes), verdict, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    /// A hello for `name` that offers `protocols`.
    fn hello(name: &str, protocols: &[&str]) -> Vec<u8> {
        fn sized(width: usize, content: &[u8]) -> Vec<u8> {
            let mut out = content.len().to_be_bytes()[8 - width..].to_vec();
            out.extend_from_slice(content);
            out
        }
        let server_name = sized(2, &[&[0][..], &sized(2, name.as_bytes())].concat());
        let list: Vec<u8> = protocols
            .iter()
            .flat_map(|p| sized(1, p.as_bytes()))
            .collect();
        let extensions = [
            &[0, 0][..],
            &sized(2, &server_name),
            &[0, 16],
            &sized(2, &sized(2, &list)),
        ]
        .concat();
        let body = [
            &[3, 3][..],
            &[0; 32],
            &sized(1, &[]),
            &sized(2, &[19, 1]),
            &sized(1, &[0]),
            &sized(2, &extensions),
        ]
        .concat();
        let message = [&[1][..], &sized(3, &body)].concat();
        [&[22, 3, 1][..], &sized(2, &message)].concat()
    }

    #[test]
    fn a_client_hello_gives_name_and_protocols() {
        let bytes = hello("Foo.Example", &["h2", "http/1.1"]);
        for cut in [1, 4, 10, bytes.len() - 1] {
            assert_eq!(tls(&bytes[..cut]), Verdict::More, "{cut}");
        }
        let Verdict::Known(Some(found)) = tls(&bytes) else {
            panic!("not recognised")
        };
        assert_eq!(found.server_name, "foo.example");
        assert_eq!(found.protocols, ["h2", "http/1.1"]);
        assert_eq!(tls(b"GET /"), Verdict::Known(None));
        // A change of ciphers and early data may come with it.
        let more = [&bytes[..], &[20, 3, 3, 0, 1, 1], &[23, 3, 3, 0, 2, 0, 0]].concat();
        assert_eq!(tls(&more), Verdict::Known(Some(found)));
    }
}
