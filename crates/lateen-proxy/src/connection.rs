//! From an accepted socket to the filter chain that serves it.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use socket2::SockRef;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::config::chain_match::Facts;
use crate::flags::Flags;
use crate::http;
use crate::listener::{
    FilterChain, InspectorKind, Listener, ListenerSlot, NetworkFilter, PortPredicate,
};
use crate::proxy_protocol::{AcceptError, Ends};
use crate::record::Record;
use crate::sniff::{self, ClientHello, Verdict};
use crate::stream::Stream;
use crate::telemetry::exchange;
use crate::tls::info::{CertificateInfo, TlsInfo};
use crate::worker::Worker;

/// What is known of a downstream connection.
#[derive(Debug)]
pub(crate) struct ConnectionInfo {
    pub(crate) id: u64,
    /// The client, as a PROXY header may name it.
    pub(crate) remote: SocketAddr,
    /// The ends of the connection itself.
    pub(crate) direct: Ends,
    /// Where the client wanted to go: the original destination when it was restored.
    pub(crate) local: SocketAddr,
    /// The client wanted to go elsewhere and was redirected here, as the system or a PROXY header says.
    pub(crate) restored: bool,
    /// Server name of a TLS client hello, lower case.
    pub(crate) server_name: String,
    /// `tls` or `raw_buffer`, as far as the inspectors looked.
    pub(crate) transport: &'static str,
    /// The protocols that the client offers, in its order; the one that it was seen to speak in plaintext.
    pub(crate) protocols: Vec<String>,
    pub(crate) chain: String,
    /// It is for the workload beside the proxy.
    pub(crate) inbound: bool,
    /// Nothing for plaintext.
    pub(crate) tls: Option<TlsInfo>,
    /// Why the handshake failed.
    pub(crate) transport_failure: String,
}

impl ConnectionInfo {
    /// What filter chains are matched with.
    pub(crate) fn facts(&self) -> Facts<'_> {
        Facts {
            destination: self.local,
            source: self.remote,
            server_name: &self.server_name,
            transport: self.transport,
            protocols: &self.protocols,
        }
    }

    /// The client and where it wanted to go.
    pub(crate) fn ends(&self) -> Ends {
        Ends {
            source: self.remote,
            destination: self.local,
        }
    }

    /// The names in the certificates of this proxy and of the client. Empty without mutual TLS.
    pub(crate) fn principals(&self) -> (&str, &str) {
        let Some(tls) = &self.tls else {
            return ("", "");
        };
        let (local, peer) = (tls.local.as_ref(), tls.peer.as_ref());
        (
            local.map_or("", CertificateInfo::principal),
            peer.map_or("", CertificateInfo::principal),
        )
    }
}

/// What the inspectors found.
#[derive(Debug, Default)]
struct Inspected {
    hello: Option<ClientHello>,
    http: Option<&'static str>,
}

/// Why inspection did not end well.
enum InspectError {
    /// The time was over.
    Timeout,
    /// The connection broke.
    Broken,
}

/// Serves a connection to its end.
pub(crate) async fn serve(
    worker: Rc<Worker>,
    mut stream: TcpStream,
    remote: SocketAddr,
    mut slot: Arc<ListenerSlot>,
    mut listener: Arc<Listener>,
) {
    let _ = stream.set_nodelay(true);
    let Ok(own) = stream.local_addr() else { return };
    let mut local = canonical(own);
    if (listener.use_original_dst || listener.original_dst)
        && let Ok(original) = lateen_sys::original_dst(&stream)
    {
        local = canonical(original);
    }
    if listener.use_original_dst && local != canonical(own) {
        let handed_over = worker
            .shared
            .listeners
            .load()
            .for_destination(local)
            .cloned();
        if let Some((other, state)) =
            handed_over.and_then(|slot| slot.load().map(|state| (slot, state)))
        {
            (slot, listener) = (other, state);
        }
    }
    let stats = listener.stats.clone();
    let started = std::time::Instant::now();
    stats.here().cx_total.inc();
    stats.here().cx_active.inc();
    let direct = Ends {
        source: canonical(remote),
        destination: canonical(own),
    };
    let mut ends = Ends {
        source: direct.source,
        destination: local,
    };
    let id = worker.connection_id();
    let mut prefix = BytesMut::new();
    let inspection = inspect(&mut stream, &mut prefix, &listener, &mut ends).await;
    let chosen = choose(&listener, inspection, ends, direct, id);
    if chosen.is_none() && !prefix.is_empty() {
        // What was sent is not taken: the client sees a reset, as from Envoy, which leaves it in the socket.
        let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    }
    if let Some((chain, info)) = chosen
        && let Some((mut stream, info, mut prefix)) =
            secure(&chain, &listener, info, stream, prefix).await
    {
        let mut peer = Ok(None);
        if chain.tells_peers && stream.alpn() == Some(exchange::PROTOCOL.as_bytes()) {
            let own = &worker.shared.identity;
            peer = exchange::run(&mut stream, &mut prefix, own).await;
        }
        match (&chain.filter, peer) {
            // The connection broke, or the peer breaks the rules: there is nobody to serve.
            (_, Err(error)) => tracing::debug!(%error, "the exchange of metadata failed"),
            (NetworkFilter::Http(manager), Ok(_)) => {
                let manager = manager.clone();
                http::serve(&worker, &slot, &chain, manager, info, stream, prefix).await;
            }
            (NetworkFilter::Tcp(proxy), Ok(peer)) => {
                proxy
                    .serve(&worker, &chain, &info, peer, stream, prefix)
                    .await;
            }
        }
    }
    stats.here().cx_active.dec();
    stats.here().cx_destroy.inc();
    let length = started.elapsed().as_millis();
    stats.here().cx_length.observe(length as u64);
}

/// Shakes hands, if the chain asks for it. What was read before belongs to the handshake then. A client that does not
/// come through is logged and left.
async fn secure(
    chain: &FilterChain,
    listener: &Listener,
    mut info: ConnectionInfo,
    stream: TcpStream,
    prefix: BytesMut,
) -> Option<(Stream, Rc<ConnectionInfo>, BytesMut)> {
    let Some(tls) = &chain.tls else {
        return Some((stream.into(), Rc::new(info), prefix));
    };
    let accepted = tls
        .accept(stream, prefix.freeze(), chain.handshake_timeout)
        .await;
    match accepted {
        Ok((stream, facts)) => {
            info.tls = Some(facts);
            Some((stream, Rc::new(info), BytesMut::new()))
        }
        Err(error) => {
            info.transport_failure = error.reason();
            let record = Record::new(Rc::new(info));
            for log in &listener.access_log {
                log.log(&record);
            }
            None
        }
    }
}

/// The chain for a connection; logs and counts when there is none.
fn choose(
    listener: &Listener,
    inspection: Result<Inspected, InspectError>,
    ends: Ends,
    direct: Ends,
    id: u64,
) -> Option<(Arc<FilterChain>, ConnectionInfo)> {
    let inspected = match inspection {
        Ok(inspected) => inspected,
        Err(InspectError::Timeout) => {
            listener.stats.here().pre_cx_timeout.inc();
            return None;
        }
        Err(InspectError::Broken) => return None,
    };
    let (transport, hello) = match inspected.hello {
        Some(hello) => ("tls", hello),
        None => ("raw_buffer", ClientHello::default()),
    };
    let protocols = match transport {
        "tls" => hello.protocols,
        _ => inspected.http.map(str::to_owned).into_iter().collect(),
    };
    let mut info = ConnectionInfo {
        id,
        remote: ends.source,
        direct,
        local: ends.destination,
        restored: ends.destination != direct.destination,
        server_name: hello.server_name,
        transport,
        protocols,
        chain: String::new(),
        inbound: listener.inbound,
        tls: None,
        transport_failure: String::new(),
    };
    let chain = listener.chain_for(&info.facts()).cloned();
    let Some(chain) = chain else {
        listener.stats.here().no_filter_chain_match.inc();
        let mut record = Record::new(Rc::new(info));
        record.flags.set(Flags::NO_ROUTE);
        record.details = "filter_chain_not_found".into();
        record.log_type = Some("NotSet");
        for log in &listener.access_log {
            log.log(&record);
        }
        return None;
    };
    info.chain.clone_from(&chain.name);
    Some((chain, info))
}

/// Reads a PROXY header, which may change the ends, and as much as the inspectors need. What else was read is left in
/// `prefix`.
async fn inspect(
    stream: &mut TcpStream,
    prefix: &mut BytesMut,
    listener: &Listener,
    ends: &mut Ends,
) -> Result<Inspected, InspectError> {
    let deadline = listener
        .inspect_timeout
        .and_then(|time| tokio::time::Instant::now().checked_add(time));
    let is_off = |disabled: &Option<PortPredicate>, port: u16| {
        disabled
            .as_ref()
            .is_some_and(|predicate| predicate.holds(port))
    };
    if let Some(acceptor) = &listener.proxy_protocol
        && !is_off(&acceptor.disabled, ends.destination.port())
    {
        // Whose connection it is cannot be left open, so that this never goes on after its time.
        let accepted = within(deadline, acceptor.accept(stream, prefix)).await;
        let named = accepted
            .ok_or(InspectError::Timeout)?
            .map_err(|error| match error {
                AcceptError::Read(_) => InspectError::Broken,
                refused => {
                    tracing::debug!(peer = %ends.source, %refused, "refused a connection");
                    InspectError::Broken
                }
            })?;
        if let Some(named) = named {
            *ends = Ends {
                source: canonical(named.source),
                destination: canonical(named.destination),
            };
        }
    }
    let port = ends.destination.port();
    let wants = |kind| {
        let mut inspectors = listener
            .inspectors
            .iter()
            .filter(|inspector| inspector.kind == kind);
        inspectors.any(|inspector| !is_off(&inspector.disabled, port))
    };
    let (tls, http) = (wants(InspectorKind::Tls), wants(InspectorKind::Http));
    let mut found = Inspected::default();
    if !tls && !http {
        return Ok(found);
    }
    let reading = read_until_known(stream, prefix, tls, http, &mut found);
    match within(deadline, reading).await {
        Some(Ok(())) => Ok(found),
        Some(Err(_)) => Err(InspectError::Broken),
        None if listener.continue_on_timeout => Ok(found),
        None => Err(InspectError::Timeout),
    }
}

/// The outcome of a future; nothing when the time is up before.
async fn within<T>(
    deadline: Option<tokio::time::Instant>,
    future: impl Future<Output = T>,
) -> Option<T> {
    match deadline {
        None => Some(future.await),
        Some(deadline) => tokio::time::timeout_at(deadline, future).await.ok(),
    }
}

async fn read_until_known(
    stream: &mut TcpStream,
    prefix: &mut BytesMut,
    tls: bool,
    http: bool,
    found: &mut Inspected,
) -> std::io::Result<()> {
    let (mut tls_known, mut http_known) = (!tls, !http);
    loop {
        if !tls_known && let Verdict::Known(hello) = sniff::tls(prefix) {
            tls_known = true;
            // What is TLS is not HTTP; looking further would only wait.
            http_known |= hello.is_some();
            found.hello = hello;
        }
        if !http_known && let Verdict::Known(protocol) = sniff::http(prefix) {
            http_known = true;
            found.http = protocol;
        }
        if (tls_known && http_known) || prefix.len() >= sniff::MOST_BYTES {
            return Ok(());
        }
        // A client that sends nothing and closes is handled by the chain, as one that says nothing.
        if stream.read_buf(prefix).await? == 0 {
            return Ok(());
        }
    }
}

/// IPv4 addresses of dual-stack sockets as IPv4.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
