//! A proxy in this process, upstreams on loopback, and clients that see bytes.

use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use lateen_proxy::{Engine, EngineConfig};
use lateen_xds::client::{Handler, Rejection, Update};
use lateen_xds::pb::envoy::config::core::v3::Node;
use lateen_xds::{Resource, ResourceType, json};
use serde_json::{Value, json};

/// Longest time for anything on loopback.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// An engine that is configured like a control plane would.
pub struct Proxy {
    pub engine: Engine,
    handler: Box<dyn Handler>,
    version: usize,
}

impl Proxy {
    /// Starts an engine with this many workers.
    pub fn start(workers: usize) -> Self {
        Self::start_as(workers, Node::default())
    }

    /// The same for a proxy that presents itself as this node.
    pub fn start_as(workers: usize, node: Node) -> Self {
        Self::start_with(&EngineConfig {
            workers,
            node,
            ..EngineConfig::default()
        })
    }

    /// Starts an engine with these options.
    pub fn start_with(config: &EngineConfig) -> Self {
        let engine = Engine::start(config).unwrap();
        let handler = Box::new(engine.handler());
        Self {
            engine,
            handler,
            version: 0,
        }
    }

    /// Sends resources of one type, given as JSON without their `@type`. The name is taken from the resource.
    pub fn send(&mut self, kind: ResourceType, resources: &[Value]) -> Vec<Rejection> {
        self.version += 1;
        let changed = resources
            .iter()
            .map(|resource| {
                let mut resource = resource.clone();
                let key = if kind == ResourceType::Endpoint {
                    "clusterName"
                } else {
                    "name"
                };
                let name = resource[key].as_str().unwrap_or_default().to_owned();
                resource["@type"] = json!(kind.type_url());
                let body = json::to_any(&resource).unwrap();
                Resource {
                    name,
                    version: self.version.to_string(),
                    body,
                }
            })
            .collect();
        let version = self.version.to_string();
        self.handler.update(Update {
            kind,
            changed,
            removed: Vec::new(),
            version,
        })
    }

    /// Sends resources that must be accepted.
    #[track_caller]
    pub fn accept(&mut self, kind: ResourceType, resources: &[Value]) {
        assert_eq!(self.send(kind, resources), [], "{resources:#?}");
    }

    /// Removes a resource.
    pub fn remove(&mut self, kind: ResourceType, name: &str) {
        let removed = vec![name.to_owned()];
        let rejected = self.handler.update(Update {
            kind,
            changed: Vec::new(),
            removed,
            version: String::new(),
        });
        assert_eq!(rejected, []);
    }

    /// Names that the discovery client would subscribe to.
    pub fn wanted(&self, kind: ResourceType) -> std::collections::BTreeSet<String> {
        self.handler.wanted(kind)
    }

    /// A cluster whose endpoints are listed, with more fields.
    pub fn cluster(&mut self, name: &str, endpoints: &[SocketAddr], more: Value) {
        self.accept(ResourceType::Cluster, &[cluster(name, endpoints, more)]);
    }

    /// An HTTP listener on a free port, with these routes and more fields of the connection manager.
    pub fn http(&mut self, routes: Value, more: Value) -> SocketAddr {
        let hosts = json!([{ "name": "all", "domains": ["*"], "routes": routes }]);
        self.http_hosts(hosts, more)
    }

    /// The same with these virtual hosts.
    pub fn http_hosts(&mut self, hosts: Value, more: Value) -> SocketAddr {
        let address = free_address();
        self.accept(ResourceType::Listener, &[http_listener("l", address, more)]);
        self.accept(
            ResourceType::Route,
            &[json!({ "name": "r", "virtualHosts": hosts })],
        );
        wait_for_listener(address);
        address
    }
}

/// A cluster resource.
pub fn cluster(name: &str, endpoints: &[SocketAddr], more: Value) -> Value {
    let mut cluster = json!({
        "name": name,
        "type": "STATIC",
        "connectTimeout": "2s",
        "loadAssignment": assignment(name, endpoints),
    });
    merge(&mut cluster, more);
    cluster
}

/// A load assignment resource.
pub fn assignment(name: &str, endpoints: &[SocketAddr]) -> Value {
    let endpoints: Vec<_> = endpoints
        .iter()
        .map(|address| json!({ "endpoint": { "address": socket_address(*address) } }))
        .collect();
    json!({ "clusterName": name, "endpoints": [{ "lbEndpoints": endpoints }] })
}

/// A listener whose connection manager asks for the routes `r`.
pub fn http_listener(name: &str, address: SocketAddr, more: Value) -> Value {
    json!({
        "name": name,
        "address": socket_address(address),
        "filterChains": [{ "filters": [http_filter(more)] }],
    })
}

/// A connection manager that asks for the routes `r`.
pub fn http_filter(more: Value) -> Value {
    let mut manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "statPrefix": "test",
        "rds": { "routeConfigName": "r", "configSource": { "ads": {} } },
        "httpFilters": [{
            "name": "router",
            "typedConfig": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
        }],
    });
    merge(&mut manager, more);
    json!({ "name": "http", "typedConfig": manager })
}

/// The filters of a connection manager before its router, by name and typed configuration.
pub fn filters(filters: &[(&str, Value)]) -> Value {
    let router =
        json!({ "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" });
    let all = filters.iter().cloned().chain([("router", router)]);
    let all: Vec<_> = all
        .map(|(name, config)| json!({ "name": name, "typedConfig": config }))
        .collect();
    json!({ "httpFilters": all })
}

/// A route for every path to a cluster, with more fields of the action.
pub fn to(cluster: &str, more: Value) -> Value {
    let mut action = json!({ "cluster": cluster });
    merge(&mut action, more);
    json!({ "match": { "prefix": "/" }, "route": action })
}

pub fn socket_address(address: SocketAddr) -> Value {
    json!({ "socketAddress": { "address": address.ip().to_string(), "portValue": address.port() } })
}

pub fn merge(into: &mut Value, more: Value) {
    if let (Value::Object(into), Value::Object(more)) = (into, more) {
        into.extend(more);
    }
}

/// An address that nothing listens on.
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

/// Waits until connections are accepted.
#[track_caller]
pub fn wait_for_listener(address: SocketAddr) {
    eventually(|| TcpStream::connect(address).is_ok());
}

/// Waits until a condition holds.
#[track_caller]
pub fn eventually(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(
            Instant::now() < deadline,
            "the condition did not become true in time"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// An upstream that answers with its name and what it saw, as JSON, in either HTTP version.
pub struct Upstream {
    pub address: SocketAddr,
    pub requests: Arc<AtomicUsize>,
    _runtime: tokio::runtime::Runtime,
}

impl Upstream {
    pub fn start(name: &str) -> Self {
        let any = "127.0.0.1:0".parse().unwrap();
        Self::start_at(name, any).expect("a port of loopback is free")
    }

    /// The same at an address, unless it is taken.
    pub fn start_at(name: &str, at: SocketAddr) -> Option<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = TcpListener::bind(at).ok()?;
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(AtomicUsize::new(0));
        let (name, count) = (name.to_owned(), requests.clone());
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (name, count) = (name.clone(), count.clone());
                let service = service_fn(move |request| echo(name.clone(), count.clone(), request));
                tokio::spawn(async move {
                    let builder =
                        hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    let _ = builder
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Some(Self {
            address,
            requests,
            _runtime: runtime,
        })
    }

    pub fn count(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

/// Bytes of a request's body that upstreams show.
const SHOWN_OF_BODY: usize = 1024;

async fn echo(
    name: String,
    count: Arc<AtomicUsize>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let number = count.fetch_add(1, Ordering::SeqCst) + 1;
    let (parts, body) = request.into_parts();
    let (trailers, body) = match body.collect().await {
        Ok(body) => (body.trailers().cloned(), body.to_bytes()),
        Err(_) => Default::default(),
    };
    let query = parts.uri.query().unwrap_or_default();
    let parameter = |wanted: &str| {
        query
            .split('&')
            .find_map(|pair| pair.split_once('=').filter(|(k, _)| *k == wanted))
            .map(|(_, v)| v)
    };
    if let Some(millis) = parameter("sleep").and_then(|millis| millis.parse().ok()) {
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }
    // The first requests fail, for tests of retries.
    let fail = parameter("fail")
        .and_then(|most| most.parse::<usize>().ok())
        .is_some_and(|n| number <= n);
    let seen = json!({
        "name": name,
        "method": parts.method.as_str(),
        "path": parts.uri.path_and_query().map(|path| path.as_str()),
        "authority": parts.uri.authority().map(|authority| authority.as_str()),
        "version": format!("{:?}", parts.version),
        "headers": shown(&parts.headers),
        "trailers": shown(&trailers.unwrap_or_default()),
        "body": body.len(),
        "text": String::from_utf8_lossy(&body[..body.len().min(SHOWN_OF_BODY)]),
    });
    let mut response = Response::new(Full::new(Bytes::from(seen.to_string())));
    if fail {
        *response.status_mut() = hyper::StatusCode::SERVICE_UNAVAILABLE;
    }
    Ok(response)
}

/// Headers as JSON; the last of those with one name.
fn shown(headers: &hyper::HeaderMap) -> Value {
    let pair = |(name, value): (&hyper::header::HeaderName, &hyper::header::HeaderValue)| {
        (
            name.to_string(),
            json!(String::from_utf8_lossy(value.as_bytes())),
        )
    };
    headers.iter().map(pair).collect()
}

/// A response as it was on the wire.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// The body as JSON: what the upstream saw.
    #[track_caller]
    pub fn seen(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The upstream that answered.
    #[track_caller]
    pub fn name(&self) -> String {
        self.seen()["name"].as_str().unwrap().to_owned()
    }
}

/// A client on one connection.
pub struct Client(pub TcpStream);

impl Client {
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }

    /// Sends a GET request with these header lines.
    pub fn get(&mut self, path: &str, headers: &[&str]) -> std::io::Result<Answer> {
        let host = if headers.iter().any(|line| line.starts_with("host:")) {
            ""
        } else {
            "host: test\r\n"
        };
        let lines: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
        self.send(&format!("GET {path} HTTP/1.1\r\n{host}{lines}\r\n"))
    }

    /// Sends bytes and reads one response.
    pub fn send(&mut self, bytes: &str) -> std::io::Result<Answer> {
        self.0.write_all(bytes.as_bytes())?;
        self.read(bytes.starts_with("HEAD"))
    }

    /// Reads one response with a length, chunked, or up to the end.
    pub fn read(&mut self, head_only: bool) -> std::io::Result<Answer> {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            self.0.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines
            .next()
            .unwrap()
            .split(' ')
            .nth(1)
            .unwrap()
            .parse()
            .unwrap();
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let mut answer = Answer {
            status,
            headers,
            body: String::new(),
        };
        if head_only || status == 204 || status == 304 || status == 101 {
            return Ok(answer);
        }
        let mut body = Vec::new();
        if let Some(length) = answer.header("content-length") {
            body.resize(length.parse().unwrap(), 0);
            self.0.read_exact(&mut body)?;
        } else if answer.header("transfer-encoding").is_some() {
            loop {
                let mut size = Vec::new();
                while !size.ends_with(b"\r\n") {
                    self.0.read_exact(&mut byte)?;
                    size.push(byte[0]);
                }
                let size = String::from_utf8_lossy(&size);
                let size = usize::from_str_radix(size.trim(), 16).unwrap();
                let mut chunk = vec![0; size + 2];
                self.0.read_exact(&mut chunk)?;
                if size == 0 {
                    break;
                }
                body.extend_from_slice(&chunk[..size]);
            }
        } else {
            self.0.read_to_end(&mut body)?;
        }
        answer.body = String::from_utf8_lossy(&body).into_owned();
        Ok(answer)
    }

    /// Whether the other side has closed.
    pub fn is_closed(&mut self) -> bool {
        matches!(self.0.read(&mut [0]), Ok(0) | Err(_))
    }
}

/// One request on a connection of its own.
#[track_caller]
pub fn get(address: SocketAddr, path: &str, headers: &[&str]) -> Answer {
    Client::connect(address).get(path, headers).unwrap()
}
