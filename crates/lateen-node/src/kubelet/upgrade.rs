//! Turning a request into a stream: WebSocket (RFC 6455) or SPDY/3.1, whichever the client asks for.

use http::header::{CONNECTION, UPGRADE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::{Body, bytes};

/// Largest message that a client may send over a WebSocket, in bytes.
const LARGEST_MESSAGE: usize = 1 << 20;

/// The header in which clients of SPDY name the protocols within.
const STREAM_PROTOCOL: &str = "x-stream-protocol-version";

/// A WebSocket to a client.
pub(super) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// The protocols that are served, best first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Served {
    /// Subprotocols of WebSockets.
    pub(super) websocket: &'static [&'static str],
    /// Protocols within SPDY.
    pub(super) spdy: &'static [&'static str],
}

/// What client and node agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Agreed {
    WebSocket {
        protocol: &'static str,
        accept: String,
    },
    Spdy {
        protocol: &'static str,
    },
}

/// A connection that was upgraded.
pub(super) enum Link {
    WebSocket(Box<Socket>),
    Spdy(TokioIo<Upgraded>),
}

impl Served {
    /// What to speak with this client.
    ///
    /// # Errors
    /// What the request lacks.
    pub(super) fn agree(self, headers: &HeaderMap) -> Result<Agreed, String> {
        if names(headers, "upgrade", "websocket") {
            let protocol = choose(self.websocket, headers, "sec-websocket-protocol")?;
            let key = headers
                .get("sec-websocket-key")
                .ok_or("sec-websocket-key is missing")?;
            return Ok(Agreed::WebSocket {
                protocol,
                accept: derive_accept_key(key.as_bytes()),
            });
        }
        if names(headers, "upgrade", "spdy/3.1") {
            let protocol = choose(self.spdy, headers, STREAM_PROTOCOL)?;
            return Ok(Agreed::Spdy { protocol });
        }
        Err("unable to upgrade: the request asks for neither a WebSocket nor SPDY/3.1".to_owned())
    }
}

impl Agreed {
    /// The answer that makes the connection a stream.
    pub(super) fn response(&self) -> Response<Body> {
        let mut response = bytes(StatusCode::SWITCHING_PROTOCOLS, Vec::new());
        let headers = response.headers_mut();
        headers.clear();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        match self {
            Self::WebSocket { protocol, accept } => {
                headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert("sec-websocket-protocol", HeaderValue::from_static(protocol));
                if let Ok(accept) = HeaderValue::from_str(accept) {
                    headers.insert("sec-websocket-accept", accept);
                }
            }
            Self::Spdy { protocol } => {
                headers.insert(UPGRADE, HeaderValue::from_static("SPDY/3.1"));
                headers.insert(STREAM_PROTOCOL, HeaderValue::from_static(protocol));
            }
        }
        response
    }

    /// The stream, once the answer was sent.
    ///
    /// # Errors
    /// When the client went before.
    pub(super) async fn open(&self, upgrade: OnUpgrade) -> Result<Link, hyper::Error> {
        let stream = TokioIo::new(upgrade.await?);
        if let Self::Spdy { .. } = self {
            return Ok(Link::Spdy(stream));
        }
        let mut config = WebSocketConfig::default();
        config.max_message_size = Some(LARGEST_MESSAGE);
        let socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config));
        Ok(Link::WebSocket(Box::new(socket.await)))
    }
}

/// The best protocol that the client offers.
fn choose(
    served: &'static [&'static str],
    headers: &HeaderMap,
    header: &str,
) -> Result<&'static str, String> {
    let chosen = served.iter().find(|known| names(headers, header, known));
    chosen
        .copied()
        .ok_or_else(|| format!("{header} names no protocol that is served here: {served:?}"))
}

/// Is the word in this header, which may be several lines and lists?
fn names(headers: &HeaderMap, header: &str, word: &str) -> bool {
    headers
        .get_all(header)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|item| item.trim().eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVED: Served = Served {
        websocket: &["v5.channel.k8s.io", "v4.channel.k8s.io"],
        spdy: &["v4.channel.k8s.io"],
    };

    fn check(headers: &[(&'static str, &'static str)], expected: Result<Agreed, &str>) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        match (SERVED.agree(&map), expected) {
            (Err(error), Err(part)) => assert!(error.contains(part), "{headers:?}: {error}"),
            (agreed, expected) => {
                assert_eq!(agreed, expected.map_err(str::to_owned), "{headers:?}")
            }
        }
    }

    #[test]
    fn the_best_protocol_that_both_know_is_agreed_on() {
        let key = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        let accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".to_owned();
        let websocket = ("upgrade", "websocket");
        check(
            &[
                websocket,
                key,
                (
                    "sec-websocket-protocol",
                    "v4.channel.k8s.io, v5.channel.k8s.io",
                ),
            ],
            Ok(Agreed::WebSocket {
                protocol: "v5.channel.k8s.io",
                accept,
            }),
        );
        check(
            &[
                ("upgrade", "SPDY/3.1"),
                (STREAM_PROTOCOL, "v5.channel.k8s.io"),
                (STREAM_PROTOCOL, "v4.channel.k8s.io"),
            ],
            Ok(Agreed::Spdy {
                protocol: "v4.channel.k8s.io",
            }),
        );
        check(
            &[("upgrade", "SPDY/3.1"), (STREAM_PROTOCOL, "channel.k8s.io")],
            Err("x-stream-protocol-version"),
        );
        check(
            &[websocket, ("sec-websocket-protocol", "v4.channel.k8s.io")],
            Err("key"),
        );
        check(&[("upgrade", "h2c")], Err("neither"));
        check(&[], Err("neither"));
    }
}
