//! Changes of protocol: upgrades of HTTP/1.1 (RFC 9110 section 7.8), tunnels of CONNECT (section 9.3.6), and both in
//! HTTP/2 (RFC 9113 section 8.5, RFC 8441). Once both sides agree, they exchange plain bytes; before, none flows.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::Instant;

use super::finish::{Lease, Tail};
use super::incoming::Incoming;
use crate::http1::{Opens, RequestHead};
use crate::relay::{Broken, Moved, idle_for, pump};
use crate::stats::{HttpStats, PerWorker};

/// What tunnels are called where upgrades are configured.
pub(super) const CONNECT: &str = "connect";

/// Time until it is looked whether a client of HTTP/2 that ended its side has reset it, and between two later looks.
const FIRST_PROBE: Duration = Duration::from_millis(50);
const PROBES: Duration = Duration::from_secs(1);

/// What a client asks for.
pub(super) struct Upgrade {
    /// The protocol, lower case; `connect` for a tunnel.
    pub(super) protocol: String,
    /// The client's stream, if it speaks HTTP/2: there once it was told that it has what it wants.
    on_accept: Option<OnUpgrade>,
    #[allow(dead_code, reason = "it counts until it is dropped")]
    counted: Option<Counted>,
}

impl Upgrade {
    /// What the head of a request asks for.
    pub(super) fn of(
        method: &Method,
        headers: &HeaderMap,
        stream: Option<OnUpgrade>,
    ) -> Option<Self> {
        let protocol = if method == Method::CONNECT {
            CONNECT.to_owned()
        } else {
            asked(headers)?
        };
        Some(Self {
            protocol,
            on_accept: stream,
            counted: None,
        })
    }

    /// What is asked of an endpoint for it.
    pub(super) fn opens(&self) -> Opens {
        match self.is_connect() {
            true => Opens::Tunnel,
            false => Opens::Protocol,
        }
    }

    pub(super) fn is_connect(&self) -> bool {
        self.protocol == CONNECT
    }

    /// Counts it as allowed.
    pub(super) fn count(&mut self, stats: &Arc<PerWorker<HttpStats>>) {
        self.counted = Some(Counted::new(stats));
    }
}

/// The protocol that fields ask for, lower case. HTTP/2 is none: whoever can speak it may go on without (RFC 9113
/// section 3.1), as in Envoy.
fn asked(headers: &HeaderMap) -> Option<String> {
    let connection = headers.get_all(header::CONNECTION).iter();
    let asked = connection
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|token| token.trim().eq_ignore_ascii_case("upgrade"));
    let upgrade = headers.get(header::UPGRADE)?.to_str().ok()?;
    let protocol = upgrade.to_ascii_lowercase();
    (asked && !protocol.is_empty() && protocol != "h2c").then_some(protocol)
}

/// The extended CONNECT of HTTP/2 is what an upgrade is in HTTP/1.1, which is how everything sees it.
pub(super) fn from_http2(head: &mut RequestHead, protocol: &Protocol) {
    if let Ok(protocol) = HeaderValue::from_bytes(protocol.as_ref()) {
        head.method = Method::GET;
        set_fields(&mut head.headers, protocol);
    }
}

/// The other way round: the protocol for an extended CONNECT, in the place of the fields.
pub(super) fn to_http2(headers: &mut HeaderMap) -> Option<Protocol> {
    headers.remove(header::CONNECTION);
    let protocol = headers.remove(header::UPGRADE)?;
    // There is no body (RFC 9113 section 8.5).
    headers.remove(header::CONTENT_LENGTH);
    Some(Protocol::from(protocol.to_str().ok()?))
}

/// Adds the fields of HTTP/1.1.
pub(super) fn set_fields(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, protocol);
}

/// A connection, or a stream of one, that carries plain bytes.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Duplex for T {}

/// The endpoint's side of a tunnel.
pub(super) struct Side {
    pub(super) stream: Box<dyn Duplex>,
    /// The endpoint ends a tunnel by closing its connection, so that nobody knows whether all came. Streams of HTTP/2,
    /// and what is not HTTP, have an end of their own.
    ends_abruptly: bool,
}

impl Side {
    pub(super) fn new(stream: impl Duplex + 'static, ends_abruptly: bool) -> Self {
        Self {
            stream: Box::new(stream),
            ends_abruptly,
        }
    }
}

/// The endpoint's side, if it agreed.
pub(super) async fn agreed(
    opens: Opens,
    response: &mut Response<Incoming>,
    lease: &mut Lease,
) -> Option<Side> {
    let status = response.status();
    let is_accepted = match opens {
        Opens::Nothing => false,
        Opens::Protocol => status == StatusCode::SWITCHING_PROTOCOLS,
        Opens::Tunnel => status.is_success(),
    };
    match lease {
        Lease::Http1(connection) => is_accepted.then(|| Side::new(connection.codec.tunnel(), true)),
        Lease::Http2(_) => {
            let stream = response.extensions_mut().remove::<OnUpgrade>()?;
            Some(Side::new(TokioIo::new(stream.await.ok()?), false))
        }
        Lease::Tcp(connection) => Some(Side::new(connection.stream.take()?, false)),
    }
}

/// A tunnel that the client is about to be told of.
pub(crate) struct Switched {
    side: Side,
    upgrade: Upgrade,
    /// Its request, which ends with it.
    tail: Box<Tail>,
    is_over: bool,
}

/// Why a tunnel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The endpoint said that it is done.
    Complete,
    /// The endpoint's connection broke.
    Broken,
    ClientLeft,
    Idle,
    TooLong,
}

impl Switched {
    pub(super) fn new(side: Side, upgrade: Upgrade, tail: Box<Tail>) -> Self {
        Self {
            side,
            upgrade,
            tail,
            is_over: false,
        }
    }

    /// Relays as soon as the client's stream of HTTP/2 is there, in a task of its own.
    pub(super) fn relay_http2(mut self) {
        let stream = self.upgrade.on_accept.take();
        tokio::task::spawn_local(async move {
            if let Some(stream) = stream
                && let Ok(stream) = stream.await
            {
                self.relay(TokioIo::new(stream), true).await;
            }
        });
    }

    /// Relays between client and endpoint until one ends. `half_closes`: the client can end its side alone.
    pub(super) async fn relay(mut self, client: impl Duplex, half_closes: bool) {
        let moved = Moved::default();
        let idle = self.tail.idle.as_ref().map(|(limit, _)| *limit);
        let end = tokio::select! {
            end = relay(client, &mut self.side, half_closes, idle, &moved) => end,
            () = self.tail.late() => End::TooLong,
        };
        let tail = &mut self.tail;
        if let Some(hold) = tail.upstream.as_ref().filter(|_| end != End::Complete) {
            hold.count_reset();
        }
        tail.record.bytes_received = moved.received.get();
        tail.record.bytes_sent = moved.sent.get();
        match end {
            End::Complete | End::ClientLeft => {}
            End::Broken => tail.upstream_broken(),
            End::Idle => tail.give_up_idle(),
            End::TooLong => tail.give_up_late(),
        }
        self.finish(end == End::ClientLeft);
    }

    fn finish(&mut self, unread: bool) {
        if !std::mem::replace(&mut self.is_over, true) {
            self.tail.finish(unread);
        }
    }
}

impl Drop for Switched {
    fn drop(&mut self) {
        // The client left before it was told.
        self.finish(true);
    }
}

async fn relay(
    client: impl Duplex,
    side: &mut Side,
    half_closes: bool,
    idle: Option<Duration>,
    counts: &Moved,
) -> End {
    let moved = Cell::new(Instant::now());
    let mut down_read = Shared(Rc::new(RefCell::new(client)));
    let (mut down_write, mut probe) = (down_read.clone(), down_read.clone());
    let (mut up_read, mut up_write) = tokio::io::split(&mut side.stream);
    let abrupt = if side.ends_abruptly {
        End::Broken
    } else {
        End::Complete
    };
    let upload = async {
        match pump(&mut down_read, &mut up_write, &counts.received, &moved).await {
            // The endpoint may have more to say.
            Ok(()) if half_closes => {
                reset(&mut probe).await;
                End::ClientLeft
            }
            Err(Broken::Writer) => End::Broken,
            Ok(()) | Err(Broken::Reader) => End::ClientLeft,
        }
    };
    let download = async {
        match pump(&mut up_read, &mut down_write, &counts.sent, &moved).await {
            Ok(()) => abrupt,
            Err(Broken::Reader) => End::Broken,
            Err(Broken::Writer) => End::ClientLeft,
        }
    };
    tokio::select! {
        end = download => end,
        end = upload => end,
        () = idle_for(idle, &moved) => End::Idle,
    }
}

/// Returns when a stream of HTTP/2 that has ended was reset. Both look alike to who reads, and nothing tells who does not
/// write, but flushing does: without, a client could leave tunnels behind as fast as it resets them.
async fn reset(stream: &mut Shared<impl Duplex>) {
    let mut wait = FIRST_PROBE;
    while stream.flush().await.is_ok() {
        tokio::time::sleep(wait).await;
        wait = PROBES;
    }
}

/// A stream that is read and written in different places.
struct Shared<T>(Rc<RefCell<T>>);

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Shared<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_read(context, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Shared<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_shutdown(context)
    }
}

/// An upgrade that was allowed, counted until it is over.
struct Counted(Arc<PerWorker<HttpStats>>);

impl Counted {
    fn new(stats: &Arc<PerWorker<HttpStats>>) -> Self {
        stats.here().cx_upgrades.inc();
        stats.here().cx_upgrades_active.inc();
        Self(stats.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.here().cx_upgrades_active.dec();
    }
}
