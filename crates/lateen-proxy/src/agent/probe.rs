//! Probes of the application, asked for by the kubelet at `/app-health/CONTAINER/livez` and the like.
//!
//! Injection moves probes here (`ISTIO_KUBE_APP_PROBERS`), so that the kubelet, which has no certificate, can ask even
//! where only mutual TLS is accepted.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use tokio::time::timeout;
use tonic::codegen::http::uri::PathAndQuery;
use tonic_prost::ProstCodec;

use super::http_get::{Answer, Get, dial};

/// Source addresses of what the proxy hands to the application: the redirection lets them pass.
const FROM: (IpAddr, IpAddr) = (
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6)),
    IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6)),
);
/// Longest body that is handed on, in bytes: the kubelet reads no more.
const MAX_BODY: usize = 10 << 10;
/// Largest body that is read.
const MAX_READ: usize = 1 << 20;
/// Redirects that are followed, as in the kubelet.
const MAX_REDIRECTS: usize = 10;
/// Longest text of `ISTIO_KUBE_APP_PROBERS`.
const MAX_TEXT: usize = 1 << 20;
const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";
/// `SERVING` of the health protocol.
const SERVING: i32 = 1;

/// Why probes cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProbeError {
    #[error("ISTIO_KUBE_APP_PROBERS is not valid JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("ISTIO_KUBE_APP_PROBERS is longer than {MAX_TEXT} bytes")]
    TooLong,
    #[error(
        "ISTIO_KUBE_APP_PROBERS: `{0}` is not /app-health/CONTAINER/livez, readyz or startupz, or /app-lifecycle/CONTAINER/prestopz or poststartz"
    )]
    Path(String),
    #[error("ISTIO_KUBE_APP_PROBERS: `{0}` must have exactly one of httpGet, tcpSocket and grpc")]
    Kind(String),
}

/// Probes by path.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Probes {
    by_path: BTreeMap<String, Probe>,
    /// Where the application listens: the address of the pod.
    application: Option<IpAddr>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Probe {
    http_get: Option<HttpGet>,
    tcp_socket: Option<TcpSocket>,
    grpc: Option<Grpc>,
    timeout_seconds: u64,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct HttpGet {
    port: u16,
    #[serde(default)]
    path: String,
    #[serde(default)]
    scheme: String,
    #[serde(default)]
    http_headers: Vec<HttpHeader>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct HttpHeader {
    name: String,
    #[serde(default)]
    value: String,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct TcpSocket {
    port: u16,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Grpc {
    port: u16,
    #[serde(default)]
    service: Option<String>,
}

impl Probes {
    /// Reads the environment's JSON. `application` is the pod's address.
    pub(crate) fn parse(text: &str, application: IpAddr) -> Result<Self, ProbeError> {
        if text.len() > MAX_TEXT {
            return Err(ProbeError::TooLong);
        }
        let by_path: BTreeMap<String, Probe> = serde_json::from_str(text)?;
        for (path, probe) in &by_path {
            if !is_probe_path(path) {
                return Err(ProbeError::Path(path.clone()));
            }
            let kinds = usize::from(probe.http_get.is_some())
                + usize::from(probe.tcp_socket.is_some())
                + usize::from(probe.grpc.is_some());
            if kinds != 1 {
                return Err(ProbeError::Kind(path.clone()));
            }
        }
        Ok(Self {
            by_path,
            application: Some(application),
        })
    }

    /// Whether a path belongs to probes at all.
    pub(crate) fn serves(path: &str) -> bool {
        path.starts_with("/app-health/") || path.starts_with("/app-lifecycle/")
    }

    /// Probes the application for the request of a kubelet: a status, and what the application said.
    pub(crate) async fn answer(&self, path: &str, asked: &HeaderMap) -> (StatusCode, Bytes) {
        let found = self.by_path.get(path).zip(self.application);
        let Some((probe, application)) = found else {
            let text = format!("app prober config does not exists for {path}");
            return (StatusCode::BAD_REQUEST, text.into());
        };
        let limit = Duration::from_secs(probe.timeout_seconds.max(1));
        match timeout(limit, probe.run(application, asked)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                tracing::debug!(path, %error, "probe failed");
                (StatusCode::INTERNAL_SERVER_ERROR, Bytes::new())
            }
            Err(_) => {
                tracing::debug!(path, "probe timed out");
                (StatusCode::INTERNAL_SERVER_ERROR, Bytes::new())
            }
        }
    }
}

impl Probe {
    async fn run(&self, address: IpAddr, asked: &HeaderMap) -> io::Result<(StatusCode, Bytes)> {
        let from = if address.is_ipv4() { FROM.0 } else { FROM.1 };
        // On loopback there is no redirection to pass, and the source of IPv6 does not exist there.
        let from = (!address.is_loopback()).then_some(from);
        let nothing = Bytes::new();
        if let Some(probe) = &self.http_get {
            let answer = probe.run(address, from, asked).await?;
            if answer.status.is_redirection() {
                return Ok((StatusCode::OK, nothing));
            }
            let body = answer.body.slice(..answer.body.len().min(MAX_BODY));
            return Ok((answer.status, body));
        }
        if let Some(probe) = &self.tcp_socket {
            dial(SocketAddr::new(address, probe.port), from).await?;
            return Ok((StatusCode::OK, nothing));
        }
        if let Some(probe) = &self.grpc {
            let status = probe
                .check(SocketAddr::new(address, probe.port), from)
                .await?;
            if status == SERVING {
                return Ok((StatusCode::OK, nothing));
            }
        }
        Ok((StatusCode::INTERNAL_SERVER_ERROR, nothing))
    }
}

impl HttpGet {
    /// Follows redirects within the application; one that leads elsewhere is the answer.
    async fn run(
        &self,
        address: IpAddr,
        from: Option<IpAddr>,
        asked: &HeaderMap,
    ) -> io::Result<Answer> {
        let address = SocketAddr::new(address, self.port);
        let mut path = format!("/{}", self.path.trim_start_matches('/'));
        let headers = self.headers(address, asked);
        for _ in 0..=MAX_REDIRECTS {
            let get = Get {
                address,
                from,
                tls: self.scheme.eq_ignore_ascii_case("HTTPS"),
                path: &path,
                headers: headers.clone(),
                limit: MAX_READ,
            };
            let answer = get.send().await?;
            let next = answer
                .status
                .is_redirection()
                .then(|| answer.headers.get(header::LOCATION)?.to_str().ok())
                .flatten()
                .and_then(|location| within(location, address));
            match next {
                Some(next) => path = next,
                None => return Ok(answer),
            }
        }
        Err(io::Error::other("too many redirects"))
    }

    /// The kubelet's own headers and those of the probe. A host that names the status port names the application's.
    fn headers(&self, address: SocketAddr, asked: &HeaderMap) -> HeaderMap {
        let mut headers = asked.clone();
        for name in [
            header::CONNECTION,
            header::TRANSFER_ENCODING,
            header::CONTENT_LENGTH,
        ] {
            headers.remove(name);
        }
        if let Ok(host) = address.to_string().parse() {
            headers.insert(header::HOST, host);
        }
        for HttpHeader { name, value } in &self.http_headers {
            let pair = name
                .parse::<http::HeaderName>()
                .ok()
                .zip(value.parse::<http::HeaderValue>().ok());
            if let Some((name, value)) = pair {
                headers.insert(name, value);
            }
        }
        headers
    }
}

/// Path and query of a redirect to the same application; `None` when it leads elsewhere.
fn within(location: &str, address: SocketAddr) -> Option<String> {
    if location.starts_with('/') && !location.starts_with("//") {
        return Some(location.to_owned());
    }
    let uri: http::Uri = location.parse().ok()?;
    let same = uri.host()?.trim_matches(['[', ']']) == address.ip().to_string()
        && uri.port_u16() == Some(address.port());
    same.then(|| {
        uri.path_and_query()
            .map_or("/", PathAndQuery::as_str)
            .to_owned()
    })
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

impl Grpc {
    async fn check(&self, address: SocketAddr, from: Option<IpAddr>) -> io::Result<i32> {
        let connector = tower::service_fn(move |_: http::Uri| async move {
            let stream = dial(address, from).await?;
            Ok::<_, io::Error>(hyper_util::rt::TokioIo::new(stream))
        });
        let uri = format!("http://{address}");
        let endpoint = tonic::transport::Endpoint::from_shared(uri).map_err(io::Error::other)?;
        let channel = endpoint
            .connect_with_connector(connector)
            .await
            .map_err(io::Error::other)?;
        let mut grpc = tonic::client::Grpc::new(channel);
        grpc.ready().await.map_err(io::Error::other)?;
        let request = tonic::Request::new(HealthCheckRequest {
            service: self.service.clone().unwrap_or_default(),
        });
        let path = PathAndQuery::from_static(HEALTH_CHECK);
        let codec: ProstCodec<HealthCheckRequest, HealthCheckResponse> = ProstCodec::default();
        let answered = grpc.unary(request, path, codec).await;
        Ok(answered.map_err(io::Error::other)?.into_inner().status)
    }
}

fn is_probe_path(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    let ["", area, container, kind] = parts[..] else {
        return false;
    };
    let kinds: &[&str] = match area {
        "app-health" => &["livez", "readyz", "startupz"],
        "app-lifecycle" => &["prestopz", "poststartz"],
        _ => return false,
    };
    !container.is_empty() && kinds.contains(&kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn probes_that_cannot_be_followed_are_refused() {
        let parse = |text: &str| Probes::parse(text, LOCAL);
        assert!(parse(r#"{"/app-health/web/livez": {"httpGet": {"port": 80}}}"#).is_ok());
        assert!(parse(r#"{"/app-lifecycle/web/prestopz": {"httpGet": {"port": 80}}}"#).is_ok());
        for text in [
            "",
            "[]",
            r#"{"/app-health/web/livez": {}}"#,
            r#"{"/app-health/web/livez": {"httpGet": {"port": "http"}}}"#,
            r#"{"/app-health/web/livez": {"httpGet": {"port": 1}, "grpc": {"port": 2}}}"#,
            r#"{"/app-health/web/other": {"grpc": {"port": 2}}}"#,
            r#"{"/app-health//livez": {"grpc": {"port": 2}}}"#,
            r#"{"/health/web/livez": {"grpc": {"port": 2}}}"#,
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn redirects_are_followed_within_the_application() {
        let address = SocketAddr::new(LOCAL, 8080);
        for (location, expected) in [
            ("/there?x=1", Some("/there?x=1")),
            ("http://127.0.0.1:8080/there", Some("/there")),
            ("http://127.0.0.1:8081/there", None),
            ("http://example.com/there", None),
            ("//example.com/there", None),
        ] {
            assert_eq!(within(location, address).as_deref(), expected, "{location}");
        }
    }
}
