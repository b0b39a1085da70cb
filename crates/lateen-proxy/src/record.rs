//! What is known of one request or TCP connection when it ends, for the access log.

mod values;

use std::borrow::Cow;
use std::cell::OnceCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderMap, Version};

use crate::cluster::{Cluster, Host};
use crate::connection::ConnectionInfo;
use crate::flags::Flags;
use crate::http::head::Head;
use crate::telemetry::peer::Workload;
use crate::tls::info::{CertificateInfo, TlsInfo};

/// The collected facts.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) connection: Rc<ConnectionInfo>,
    /// The time of day, when it was asked for.
    started_at: OnceCell<SystemTime>,
    pub(crate) started: Instant,
    /// That of the client. Nothing for TCP connections.
    pub(crate) version: Option<Version>,
    /// Nothing for TCP connections, and for requests whose head could not be read.
    pub(crate) head: Option<Head>,
    pub(crate) status: u16,
    pub(crate) response_headers: HeaderMap,
    pub(crate) trailers: HeaderMap,
    pub(crate) flags: Flags,
    pub(crate) details: Cow<'static, str>,
    pub(crate) upstream_failure: String,
    /// The text of an answer of the proxy itself, while it is worded.
    pub(crate) local_body: String,
    /// What is logged, in Envoy's words, when it is not the end.
    pub(crate) log_type: Option<&'static str>,
    pub(crate) bytes_received: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) upstream: Option<Arc<Host>>,
    pub(crate) cluster: Option<Arc<Cluster>>,
    /// The workload at the other end, when it told.
    pub(crate) peer: Option<Arc<Workload>>,
    /// The client told, or tried to tell, who it is.
    pub(crate) peer_asked: bool,
    /// Messages of a gRPC call.
    pub(crate) request_messages: u64,
    pub(crate) response_messages: u64,
    pub(crate) upstream_local: Option<SocketAddr>,
    pub(crate) upstream_http2: Option<bool>,
    /// Nothing for plaintext.
    pub(crate) upstream_tls: Option<Rc<TlsInfo>>,
    pub(crate) attempts: u32,
    pub(crate) route: String,
    pub(crate) virtual_host: String,
    /// When the last byte of the request and the first byte of the response were seen.
    pub(crate) request_end: Option<Duration>,
    pub(crate) response_start: Option<Duration>,
    /// Set when the request ended; until then durations grow.
    pub(crate) duration: Option<Duration>,
}

impl Record {
    pub(crate) fn new(connection: Rc<ConnectionInfo>) -> Self {
        Self {
            connection,
            started_at: OnceCell::new(),
            started: Instant::now(),
            version: None,
            head: None,
            status: 0,
            response_headers: HeaderMap::new(),
            trailers: HeaderMap::new(),
            flags: Flags::default(),
            details: Cow::Borrowed(""),
            upstream_failure: String::new(),
            local_body: String::new(),
            log_type: None,
            bytes_received: 0,
            bytes_sent: 0,
            upstream: None,
            cluster: None,
            peer: None,
            peer_asked: false,
            request_messages: 0,
            response_messages: 0,
            upstream_local: None,
            upstream_http2: None,
            upstream_tls: None,
            attempts: 0,
            route: String::new(),
            virtual_host: String::new(),
            request_end: None,
            response_start: None,
            duration: None,
        }
    }

    /// The time of day when it began.
    pub(crate) fn started_at(&self) -> SystemTime {
        let begun = || SystemTime::now() - self.started.elapsed();
        *self.started_at.get_or_init(begun)
    }

    /// The status of a gRPC call, if one was seen.
    pub(crate) fn grpc_status(&self) -> Option<u16> {
        let status = self.trailers.get("grpc-status");
        let status = status.or_else(|| self.response_headers.get("grpc-status"));
        status?.to_str().ok()?.parse().ok()
    }

    /// The names in the certificates of this proxy and of the endpoint. Empty without mutual TLS.
    pub(crate) fn upstream_principals(&self) -> (&str, &str) {
        let Some(tls) = &self.upstream_tls else {
            return ("", "");
        };
        let (local, peer) = (tls.local.as_ref(), tls.peer.as_ref());
        (
            local.map_or("", CertificateInfo::principal),
            peer.map_or("", CertificateInfo::principal),
        )
    }
}
