//! The PROXY protocol, versions 1 and 2: a header at the beginning of a connection that says whose bytes follow.
//! <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::listener::PortPredicate;
use crate::sniff::Verdict;
use crate::stats::{PerWorker, ProxyProtocolStats};

/// How a header of version 1 begins, and its longest form with the end of the line (section 2.1).
const V1: &[u8] = b"PROXY ";
const V1_LONGEST: usize = 107;
/// How a header of version 2 begins, and its fixed part (section 2.2).
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_FIXED: usize = 16;
/// Version 2 with its two commands.
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
/// TCP over IPv4 and IPv6, as family and transport. Addresses of datagrams have the same form, and are taken as Envoy does.
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;
const UDP4: u8 = 0x12;
const UDP6: u8 = 0x22;

/// A version of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Version {
    V1,
    V2,
}

/// The two ends of a client's connection: where it comes from, and where it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Ends {
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
}

/// The filter of listeners that takes the header away and goes by its addresses.
#[derive(Debug)]
pub(crate) struct Acceptor {
    /// Connections without a header are served, too.
    pub(crate) optional: bool,
    /// Versions that are recognised.
    pub(crate) v1: bool,
    pub(crate) v2: bool,
    /// It is left out for connections to these destination ports.
    pub(crate) disabled: Option<PortPredicate>,
    pub(crate) stats: Arc<PerWorker<ProxyProtocolStats>>,
}

/// Why a connection is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AcceptError {
    #[error("the connection broke before its PROXY header was complete")]
    Read(#[from] io::Error),
    #[error("there is no PROXY header")]
    Absent,
    #[error("the PROXY header of version {0:?} is malformed")]
    Malformed(Version),
    #[error("PROXY headers of version {0:?} are not allowed")]
    Disallowed(Version),
}

/// What a connection begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beginning {
    /// Something else.
    Absent,
    /// A header of so many bytes, with the client's addresses unless the sender speaks for itself or does not know them.
    Header {
        version: Version,
        length: usize,
        ends: Option<Ends>,
    },
}

impl Acceptor {
    /// Reads the header. What follows it, or everything when there is none, is left in `prefix`.
    ///
    /// # Errors
    /// The connection is not to be served.
    pub(crate) async fn accept(
        &self,
        stream: &mut (impl AsyncRead + Unpin),
        prefix: &mut BytesMut,
    ) -> Result<Option<Ends>, AcceptError> {
        let result = self.read(stream, prefix).await;
        let stats = self.stats.here();
        match &result {
            Ok(Beginning::Absent) => stats.absent_allowed.inc(),
            Ok(Beginning::Header { version, .. }) => match version {
                Version::V1 => stats.v1_found.inc(),
                Version::V2 => stats.v2_found.inc(),
            },
            Err(AcceptError::Absent) => stats.absent_disallowed.inc(),
            Err(AcceptError::Malformed(Version::V1)) => stats.v1_error.inc(),
            Err(AcceptError::Malformed(Version::V2)) => stats.v2_error.inc(),
            Err(AcceptError::Disallowed(Version::V1)) => stats.v1_disallowed.inc(),
            Err(AcceptError::Disallowed(Version::V2)) => stats.v2_disallowed.inc(),
            Err(AcceptError::Read(_)) => {}
        }
        Ok(match result? {
            Beginning::Absent => None,
            Beginning::Header { ends, .. } => ends,
        })
    }

    fn allows(&self, version: Version) -> bool {
        match version {
            Version::V1 => self.v1,
            Version::V2 => self.v2,
        }
    }

    async fn read(
        &self,
        stream: &mut (impl AsyncRead + Unpin),
        prefix: &mut BytesMut,
    ) -> Result<Beginning, AcceptError> {
        // What is not recognised is the connection's own content.
        let ignored = |version| self.optional && !self.allows(version);
        let beginning = loop {
            match parse(prefix, ignored).map_err(AcceptError::Malformed)? {
                Verdict::Known(beginning) => break beginning,
                Verdict::More => fill(stream, prefix).await?,
            }
        };
        match beginning {
            Beginning::Absent if self.optional => Ok(beginning),
            Beginning::Absent => Err(AcceptError::Absent),
            Beginning::Header {
                version, length, ..
            } => {
                if !self.allows(version) {
                    return Err(AcceptError::Disallowed(version));
                }
                // The rest of a header may be long and says nothing that is used: it is not kept.
                let mut left = length;
                while left > prefix.len() {
                    left -= prefix.len();
                    prefix.clear();
                    fill(stream, prefix).await?;
                }
                prefix.advance(left);
                Ok(beginning)
            }
        }
    }
}

async fn fill(
    stream: &mut (impl AsyncRead + Unpin),
    prefix: &mut BytesMut,
) -> Result<(), io::Error> {
    match stream.read_buf(prefix).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

/// Looks at the first bytes of a connection.
fn parse(bytes: &[u8], ignored: impl Fn(Version) -> bool) -> Result<Verdict<Beginning>, Version> {
    for (version, signature) in [(Version::V1, V1), (Version::V2, V2)] {
        let common = bytes.len().min(signature.len());
        if bytes[..common] != signature[..common] || ignored(version) {
            continue;
        }
        return match version {
            _ if common < signature.len() => Ok(Verdict::More),
            Version::V1 => parse_v1(bytes),
            Version::V2 => parse_v2(bytes),
        };
    }
    Ok(Verdict::Known(Beginning::Absent))
}

/// `PROXY TCP4 source destination port port`, or `PROXY UNKNOWN` and anything.
fn parse_v1(bytes: &[u8]) -> Result<Verdict<Beginning>, Version> {
    let bad = Version::V1;
    let seen = &bytes[..bytes.len().min(V1_LONGEST)];
    let Some(end) = seen.windows(2).position(|pair| pair == b"\r\n") else {
        return if seen.len() < V1_LONGEST {
            Ok(Verdict::More)
        } else {
            Err(bad)
        };
    };
    let line = std::str::from_utf8(&seen[V1.len()..end]).map_err(|_| bad)?;
    let port = |text: &str| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|_| digits)
    };
    let fields: Vec<&str> = line.split(' ').collect();
    let ends = match fields[..] {
        ["UNKNOWN", ..] => None,
        [family @ ("TCP4" | "TCP6"), source, destination, from, to] => {
            let ip = |text: &str| {
                let ip: IpAddr = text.parse().ok()?;
                Some(ip).filter(|ip| ip.is_ipv4() == (family == "TCP4"))
            };
            let end =
                |address: &str, number: &str| Some(SocketAddr::new(ip(address)?, port(number)?));
            Some(Ends {
                source: end(source, from).ok_or(bad)?,
                destination: end(destination, to).ok_or(bad)?,
            })
        }
        _ => return Err(bad),
    };
    Ok(Verdict::Known(Beginning::Header {
        version: Version::V1,
        length: end + 2,
        ends,
    }))
}

/// Command, family, length and addresses in binary. A sender that speaks for another has to say for whom: as Envoy does,
/// unspecified addresses are refused there.
fn parse_v2(bytes: &[u8]) -> Result<Verdict<Beginning>, Version> {
    let bad = Version::V2;
    let Some((fixed, rest)) = bytes.split_at_checked(V2_FIXED) else {
        return Ok(Verdict::More);
    };
    let content = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    let ends = match (fixed[12], fixed[13]) {
        (LOCAL, _) => None,
        (PROXY, TCP4 | UDP4) => match addresses::<4>(rest, content)? {
            Verdict::Known(ends) => Some(ends),
            Verdict::More => return Ok(Verdict::More),
        },
        (PROXY, TCP6 | UDP6) => match addresses::<16>(rest, content)? {
            Verdict::Known(ends) => Some(ends),
            Verdict::More => return Ok(Verdict::More),
        },
        _ => return Err(bad),
    };
    Ok(Verdict::Known(Beginning::Header {
        version: Version::V2,
        length: V2_FIXED + content,
        ends,
    }))
}

/// Source, destination and their ports; addresses have `N` bytes.
fn addresses<const N: usize>(rest: &[u8], content: usize) -> Result<Verdict<Ends>, Version>
where
    IpAddr: From<[u8; N]>,
{
    let length = 2 * N + 4;
    if content < length {
        return Err(Version::V2);
    }
    let Some(mut rest) = rest.get(..length) else {
        return Ok(Verdict::More);
    };
    let (mut source, mut destination) = ([0; N], [0; N]);
    rest.copy_to_slice(&mut source);
    rest.copy_to_slice(&mut destination);
    let (from, to) = (rest.get_u16(), rest.get_u16());
    Ok(Verdict::Known(Ends {
        source: SocketAddr::new(source.into(), from),
        destination: SocketAddr::new(destination.into(), to),
    }))
}

/// The header for a connection on behalf of this client. Nobody's is one of the sender itself, `own`: version 2 says so,
/// version 1 can only name its addresses.
pub(crate) fn header(version: Version, ends: Option<Ends>, own: Ends) -> Vec<u8> {
    match version {
        Version::V1 => {
            let Ends {
                source,
                destination,
            } = ends.unwrap_or(own).of_one_family();
            let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
            let (from, to) = (source.port(), destination.port());
            let (source, destination) = (source.ip(), destination.ip());
            format!("PROXY {family} {source} {destination} {from} {to}\r\n").into_bytes()
        }
        Version::V2 => {
            let mut bytes = V2.to_vec();
            let Some(ends) = ends else {
                bytes.extend([LOCAL, 0, 0, 0]);
                return bytes;
            };
            let ends = ends.of_one_family();
            match (ends.source.ip(), ends.destination.ip()) {
                (IpAddr::V4(source), IpAddr::V4(destination)) => {
                    bytes.extend([PROXY, TCP4, 0, 12]);
                    bytes.extend(source.octets());
                    bytes.extend(destination.octets());
                }
                (source, destination) => {
                    bytes.extend([PROXY, TCP6, 0, 36]);
                    bytes.extend(v6(source).octets());
                    bytes.extend(v6(destination).octets());
                }
            }
            bytes.extend(ends.source.port().to_be_bytes());
            bytes.extend(ends.destination.port().to_be_bytes());
            bytes
        }
    }
}

impl Ends {
    /// Headers name one family: an IPv4 address beside an IPv6 one is written as one of these.
    fn of_one_family(self) -> Self {
        if self.source.is_ipv4() == self.destination.is_ipv4() {
            return self;
        }
        let map = |end: SocketAddr| SocketAddr::new(v6(end.ip()).into(), end.port());
        Self {
            source: map(self.source),
            destination: map(self.destination),
        }
    }
}

fn v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => Ipv4Addr::to_ipv6_mapped(&address),
        IpAddr::V6(address) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(source: &str, destination: &str) -> Ends {
        Ends {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
        }
    }

    #[test]
    fn headers_are_read_as_they_are_written() {
        let own = ends("10.0.0.1:1", "10.0.0.2:2");
        for (client, read) in [
            (Some(ends("192.0.2.1:56324", "198.51.100.7:443")), None),
            (Some(ends("[2001:db8::1]:1", "[2001:db8::2]:65535")), None),
            (
                Some(ends("192.0.2.1:1", "[2001:db8::2]:2")),
                Some(ends("[::ffff:192.0.2.1]:1", "[2001:db8::2]:2")),
            ),
        ] {
            for version in [Version::V1, Version::V2] {
                let bytes = header(version, client, own);
                for cut in 0..bytes.len() {
                    assert_eq!(
                        parse(&bytes[..cut], |_| false),
                        Ok(Verdict::More),
                        "{version:?} {cut}"
                    );
                }
                let expected = Beginning::Header {
                    version,
                    length: bytes.len(),
                    ends: read.or(client),
                };
                let more = [&bytes[..], b"GET /"].concat();
                assert_eq!(parse(&more, |_| false), Ok(Verdict::Known(expected)));
            }
        }
        assert_eq!(
            header(Version::V1, None, own),
            b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n"
        );
        assert_eq!(
            header(Version::V2, None, own),
            b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"
        );
    }

    #[test]
    fn headers_that_name_nobody_are_taken_and_malformed_ones_are_not() {
        let v2 = |tail: &[u8]| [V2, tail].concat();
        let nobody = |version: Version, length: usize| {
            Ok(Verdict::Known(Beginning::Header {
                version,
                length,
                ends: None,
            }))
        };
        let absent = || Ok(Verdict::Known(Beginning::Absent));
        let (one, two) = (Version::V1, Version::V2);
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(V1_LONGEST));
        for (bytes, expected) in [
            (b"PROXY UNKNOWN\r\n".to_vec(), nobody(one, 15)),
            (b"PROXY UNKNOWN a b\r\nx".to_vec(), nobody(one, 19)),
            (v2(&[LOCAL, TCP4, 0, 3]), nobody(two, 19)),
            (b"GET / HTTP/1.1\r\n".to_vec(), absent()),
            (b"PROXYING".to_vec(), absent()),
            (b"\r\n\r\nGET".to_vec(), absent()),
            (b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n".to_vec(), Err(one)),
            (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n".to_vec(), Err(one)),
            (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 +2\r\n".to_vec(), Err(one)),
            (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n".to_vec(), Err(one)),
            (b"PROXY TCP4 ::1 ::2 1 2\r\n".to_vec(), Err(one)),
            (b"PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n".to_vec(), Err(one)),
            (b"PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n".to_vec(), Err(one)),
            (b"PROXY  TCP4 1.2.3.4 5.6.7.8 1 2\r\n".to_vec(), Err(one)),
            (b"PROXY \xff\r\n".to_vec(), Err(one)),
            (long.into_bytes(), Err(one)),
            (v2(&[0x11, TCP4, 0, 12]), Err(two)),
            (v2(&[0x22, TCP4, 0, 12]), Err(two)),
            (v2(&[PROXY, 0, 0, 0]), Err(two)),
            (v2(&[PROXY, TCP4, 0, 11]), Err(two)),
            (v2(&[PROXY, TCP6, 0, 12]), Err(two)),
            (v2(&[PROXY, 0x13, 0, 12]), Err(two)),
            (v2(&[PROXY, UDP4, 0, 12]), Ok(Verdict::More)),
            (v2(&[PROXY, UDP6, 0, 12]), Err(two)),
            (v2(&[PROXY, 0x31, 0, 216]), Err(two)),
        ] {
            let text = String::from_utf8_lossy(&bytes);
            assert_eq!(parse(&bytes, |_| false), expected, "{text:?}");
        }
    }
}
