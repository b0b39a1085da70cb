//! Opening a connection to an endpoint, with the transport that is configured for it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use lateen_xds::pb::google::protobuf::{Struct, Value};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::cluster::{Cluster, Host};
use crate::net::{self, ConnectOptions};
use crate::proxy_protocol::{self, Ends, Version};
use crate::stream::Stream;
use crate::tls::HandshakeError;
use crate::tls::client::{AskedOfTls, ClientTls};
use crate::tls::info::TlsInfo;
use crate::worker::Worker;

/// How the endpoints of a cluster are spoken to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Transports {
    /// For endpoints with fitting metadata; the first that fits counts.
    pub(crate) matches: Vec<TransportMatch>,
    /// For all others.
    pub(crate) other: Transport,
}

/// A transport for endpoints with these values in `envoy.transport_socket_match`.
#[derive(Debug, Clone)]
pub(crate) struct TransportMatch {
    pub(crate) criteria: Vec<(String, Value)>,
    pub(crate) transport: Transport,
}

/// A transport.
#[derive(Debug, Clone, Default)]
pub(crate) struct Transport {
    /// Nothing for plaintext.
    pub(crate) tls: Option<Arc<ClientTls>>,
    /// Connections begin with a header that says whose they are, before TLS.
    pub(crate) proxy_protocol: Option<Version>,
    /// Tells transports of different configuration apart, so that no connection of one is used for another.
    pub(crate) id: u64,
}

impl Transports {
    /// The transport for an endpoint.
    pub(crate) fn of(&self, host: &Host) -> &Transport {
        let fits = |candidate: &&TransportMatch| {
            let metadata = host.transport_metadata.as_ref();
            candidate.criteria.iter().all(|(key, wanted)| {
                metadata.is_some_and(|metadata| metadata.fields.get(key) == Some(wanted))
            })
        };
        self.matches
            .iter()
            .find(fits)
            .map_or(&self.other, |found| &found.transport)
    }

    /// Whether no secret is waited for.
    pub(crate) fn is_settled(&self) -> bool {
        self.all().all(|tls| tls.is_settled())
    }

    /// Whether all endpoints agree on an application protocol in a handshake.
    pub(crate) fn all_negotiate(&self) -> bool {
        let mut matches = self.matches.iter().map(|candidate| &candidate.transport);
        self.other.tls.is_some() && matches.all(|transport| transport.tls.is_some())
    }

    /// Every TLS context.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<ClientTls>> {
        let matches = self.matches.iter().map(|candidate| &candidate.transport);
        matches
            .chain([&self.other])
            .filter_map(|transport| transport.tls.as_ref())
    }
}

impl Transport {
    /// Tells connections apart that must not be used for each other.
    pub(crate) fn key(&self, asked: &Asked) -> u64 {
        let of_tls = self.tls.as_ref().map(|_| &asked.tls);
        let of_tls = of_tls.filter(|asked| **asked != AskedOfTls::default());
        let Some(of_tls) = of_tls else {
            return self.id;
        };
        let mut hasher = DefaultHasher::new();
        (self.id, of_tls).hash(&mut hasher);
        hasher.finish()
    }
}

/// What a connection is asked for beside what the cluster's configuration says.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asked {
    pub(crate) tls: AskedOfTls,
    /// The client in whose name it is opened, for endpoints that are told.
    pub(crate) client: Option<Ends>,
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct Connected {
    pub(crate) stream: Stream,
    /// Nothing for plaintext.
    pub(crate) tls: Option<Rc<TlsInfo>>,
}

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum ConnectError {
    /// The endpoint cannot be reached.
    Connect(io::Error),
    /// The time for connecting, with the handshake, was over.
    Timeout,
    /// The handshake failed.
    Tls(HandshakeError),
}

impl ConnectError {
    /// The reason for logs, in Envoy's words.
    pub(crate) fn reason(&self) -> String {
        match self {
            Self::Connect(error) => {
                // Without the number that the standard library appends.
                let text = error.to_string();
                let text = text.split(" (os error").next().unwrap_or_default();
                format!("delayed connect error: {text}")
            }
            Self::Timeout => String::new(),
            Self::Tls(error) => error.reason(),
        }
    }
}

/// Connects to an endpoint and shakes hands with it, all within the cluster's time for connecting. Failures are counted
/// for cluster and endpoint.
pub(crate) async fn connect(
    worker: &Worker,
    cluster: &Cluster,
    host: &Host,
    asked: &Asked,
    protocols: &[&[u8]],
) -> Result<Connected, ConnectError> {
    let result = tokio::time::timeout(
        cluster.connect_timeout,
        attempt(worker, cluster, host, asked, protocols),
    )
    .await
    .unwrap_or(Err(ConnectError::Timeout));
    if let Err(error) = &result {
        let stats = cluster.shared.stats.here();
        let failed = &host.shared.failed_connections;
        failed.fetch_add(1, Ordering::Relaxed);
        stats.cx_connect_fail.inc();
        if matches!(error, ConnectError::Timeout) {
            stats.cx_connect_timeout.inc();
        }
    }
    result
}

async fn attempt(
    worker: &Worker,
    cluster: &Cluster,
    host: &Host,
    asked: &Asked,
    protocols: &[&[u8]],
) -> Result<Connected, ConnectError> {
    let options = ConnectOptions {
        timeout: cluster.connect_timeout,
        bind: cluster.bind,
        keepalive: cluster.keepalive.as_ref(),
        mark: worker.shared.mark_sockets,
    };
    let connected = net::connect(host.address, options).await;
    let mut stream = connected.map_err(|error| match error.kind() {
        io::ErrorKind::TimedOut => ConnectError::Timeout,
        _ => ConnectError::Connect(error),
    })?;
    let transport = cluster.transports.of(host);
    if let Some(version) = transport.proxy_protocol {
        let written = announce(&mut stream, version, asked.client).await;
        written.map_err(ConnectError::Connect)?;
    }
    let Some(tls) = &transport.tls else {
        return Ok(Connected {
            stream: stream.into(),
            tls: None,
        });
    };
    let shaken = tls
        .connect(stream, host, &asked.tls, protocols, &cluster.shared.ssl)
        .await;
    let (stream, info) = shaken.map_err(ConnectError::Tls)?;
    Ok(Connected {
        stream,
        tls: Some(Rc::new(info)),
    })
}

/// Says whose connection it is.
async fn announce(
    stream: &mut TcpStream,
    version: Version,
    client: Option<Ends>,
) -> io::Result<()> {
    let own = Ends {
        source: stream.local_addr()?,
        destination: stream.peer_addr()?,
    };
    stream
        .write_all(&proxy_protocol::header(version, client, own))
        .await
}

/// The values of an endpoint's metadata that choose its transport.
pub(crate) const MATCH_METADATA: &str = "envoy.transport_socket_match";

/// Metadata that chooses a transport, of an endpoint.
pub(crate) type TransportMetadata = Option<Box<Struct>>;
