//! A registry on loopback, with the faults that a test asks for.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use lateen_image::{Connect, Connecting, Digest};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::{INDEX, MANIFEST, Made};

/// Who may pull.
#[derive(Clone, Debug, Default)]
pub enum Auth {
    #[default]
    Everybody,
    /// This `user:password`.
    Basic(&'static str),
    /// Whoever has a token; the server gives one to this `user:password`, to everybody when it is empty, and to the
    /// identity token `identity`. A token is good for so many requests.
    Bearer(&'static str, usize),
    /// An authentication server elsewhere.
    Realm(String),
}

/// What goes wrong with the next blob.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// The connection breaks after so many bytes.
    Cut(usize),
    /// Another status.
    Status(u16),
    /// The range that was asked for is ignored, and nothing else goes wrong.
    Whole,
    /// Another range than the one asked for.
    Shifted,
    /// Nothing comes.
    Silence,
}

#[derive(Debug, Default)]
pub struct State {
    pub auth: Auth,
    /// Paths of manifests and blobs: their type, and what is sent.
    pub content: BTreeMap<String, (String, Vec<u8>)>,
    pub faults: VecDeque<Fault>,
    /// Where blobs are instead; with the path added.
    pub redirect: Option<String>,
    /// Every request: `GET /path STATUS authorization range`.
    pub log: Vec<String>,
    tokens: BTreeMap<String, usize>,
    address: String,
}

/// A registry that ends with the test's runtime.
#[derive(Clone)]
pub struct Registry {
    pub address: SocketAddr,
    pub state: Arc<Mutex<State>>,
}

type Body = UnsyncBoxBody<Bytes, io::Error>;

impl Registry {
    pub async fn start() -> Self {
        Self::serve(None).await
    }

    pub async fn serve(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State {
            address: address.to_string(),
            ..State::default()
        }));
        let registry = Self { address, state };
        let server = registry.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (server, tls) = (server.clone(), tls.clone());
                tokio::spawn(async move {
                    let service = service_fn(move |request| server.clone().answer(request));
                    let server = http1::Builder::new();
                    match tls {
                        None => server
                            .serve_connection(TokioIo::new(stream), service)
                            .await
                            .ok(),
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => server
                                .serve_connection(TokioIo::new(stream), service)
                                .await
                                .ok(),
                            Err(_) => None,
                        },
                    }
                });
            }
        });
        registry
    }

    /// The name of an image here.
    pub fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.address)
    }

    /// Offers an image under a tag.
    pub fn push(&self, repository: &str, tag: &str, made: &Made) {
        self.push_manifest(repository, tag, MANIFEST, &made.manifest);
        for blob in made.blobs() {
            self.push_blob(repository, Digest::of(blob), blob);
        }
    }

    /// Offers a manifest by tag and by digest.
    pub fn push_manifest(&self, repository: &str, tag: &str, kind: &str, bytes: &[u8]) {
        for name in [tag.to_owned(), Digest::of(bytes).to_string()] {
            let path = format!("/v2/{repository}/manifests/{name}");
            let content = (kind.to_owned(), bytes.to_vec());
            self.state.lock().unwrap().content.insert(path, content);
        }
    }

    /// Sends these bytes for a digest.
    pub fn push_blob(&self, repository: &str, digest: Digest, bytes: &[u8]) {
        let path = format!("/v2/{repository}/blobs/{digest}");
        let content = ("application/octet-stream".to_owned(), bytes.to_vec());
        self.state.lock().unwrap().content.insert(path, content);
    }

    pub fn push_index(&self, repository: &str, tag: &str, index: &str) {
        self.push_manifest(repository, tag, INDEX, index.as_bytes());
    }

    /// Requests so far; the log begins anew.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().log)
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let (parts, body) = request.into_parts();
        let form = body.collect().await.unwrap().to_bytes();
        let form = String::from_utf8(form.to_vec()).unwrap();
        let get = |name| {
            let value = parts.headers.get(name);
            value
                .map_or("-", |value| value.to_str().unwrap())
                .to_owned()
        };
        let (authorization, range) = (get(header::AUTHORIZATION), get(header::RANGE));
        let response = {
            let mut state = self.state.lock().unwrap();
            let response = state.answer(parts.uri.path(), &parts.headers, &authorization, &form);
            let status = response
                .as_ref()
                .map_or(0, |response| response.status().as_u16());
            let line = format!(
                "{} {} {status} {authorization} {range}",
                parts.method,
                parts.uri.path_and_query().unwrap()
            );
            state.log.push(line);
            response
        };
        match response {
            Some(response) => Ok(response),
            None => std::future::pending().await,
        }
    }
}

impl State {
    /// `None` is silence.
    fn answer(
        &mut self,
        path: &str,
        headers: &HeaderMap,
        authorization: &str,
        form: &str,
    ) -> Option<Response<Body>> {
        if path == "/token" {
            return Some(self.token(authorization, form));
        }
        if let Some(challenge) = self.refuse(authorization) {
            let body = br#"{"errors":[{"code":"UNAUTHORIZED","message":"who are you?"}]}"#;
            let mut response = plain(401, body);
            let value = challenge.parse().unwrap();
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, value);
            return Some(response);
        }
        let is_blob = path.contains("/blobs/");
        if let Some(target) = self.redirect.as_ref().filter(|_| is_blob) {
            let mut response = plain(307, b"");
            let location = format!("{target}{path}").parse().unwrap();
            response.headers_mut().insert(header::LOCATION, location);
            return Some(response);
        }
        let Some((kind, bytes)) = self.content.get(path).cloned() else {
            return Some(plain(404, br#"{"errors":[{"code":"NOT_FOUND"}]}"#));
        };
        let fault = if is_blob {
            self.faults.pop_front()
        } else {
            None
        };
        let range = headers.get(header::RANGE).and_then(|range| {
            range
                .to_str()
                .unwrap()
                .strip_prefix("bytes=")?
                .strip_suffix('-')?
                .parse::<usize>()
                .ok()
        });
        let (start, status) = match (range, fault) {
            (_, Some(Fault::Silence)) => return None,
            (_, Some(Fault::Status(status))) => {
                let mut response = plain(status, br#"{"errors":[{"message":"busy"}]}"#);
                response
                    .headers_mut()
                    .insert(header::RETRY_AFTER, "0".parse().unwrap());
                return Some(response);
            }
            (None, _) | (Some(_), Some(Fault::Whole)) => (0, 200),
            (Some(start), Some(Fault::Shifted)) => (start - 1, 206),
            (Some(start), _) => (start, 206),
        };
        let rest = bytes[start..].to_vec();
        let length = rest.len();
        let cut = match fault {
            Some(Fault::Cut(cut)) => cut.min(length),
            _ => length,
        };
        let mut response = body(status, rest, cut);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, kind.parse().unwrap());
        headers.insert(header::CONTENT_LENGTH, length.into());
        if status == 206 {
            let range = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
            headers.insert(header::CONTENT_RANGE, range.parse().unwrap());
        }
        Some(response)
    }

    /// The challenge, unless the request has the right proof.
    fn refuse(&mut self, authorization: &str) -> Option<String> {
        match &self.auth {
            Auth::Everybody => None,
            Auth::Basic(user) => {
                let right = format!("Basic {}", STANDARD.encode(user));
                (authorization != right).then(|| r#"Basic realm="test""#.to_owned())
            }
            Auth::Bearer(..) => {
                let token = authorization.strip_prefix("Bearer ").unwrap_or_default();
                match self.tokens.get_mut(token).filter(|left| **left > 0) {
                    Some(left) => {
                        *left -= 1;
                        None
                    }
                    None => Some(format!(
                        r#"Bearer realm="http://{}/token?x=1",service="test",scope="repository:team/x:pull""#,
                        self.address
                    )),
                }
            }
            Auth::Realm(realm) => Some(format!(r#"Bearer realm="{realm}""#)),
        }
    }

    fn token(&mut self, authorization: &str, form: &str) -> Response<Body> {
        let Auth::Bearer(user, uses) = self.auth else {
            return plain(404, b"");
        };
        let right = match user {
            "" => authorization == "-",
            user => authorization == format!("Basic {}", STANDARD.encode(user)),
        };
        let identity = form.contains("refresh_token=identity") && form.contains("client_id=lateen");
        if !right && !identity {
            return plain(401, b"");
        }
        let token = format!("token-{}", self.tokens.len());
        self.tokens.insert(token.clone(), uses);
        let name = if identity { "access_token" } else { "token" };
        plain(200, format!(r#"{{"{name}":"{token}"}}"#).as_bytes())
    }
}

fn plain(status: u16, bytes: &[u8]) -> Response<Body> {
    body(status, bytes.to_vec(), bytes.len())
}

/// A body whose connection breaks after so many bytes.
fn body(status: u16, bytes: Vec<u8>, cut: usize) -> Response<Body> {
    let whole = cut == bytes.len();
    let mut frames: Vec<io::Result<Frame<Bytes>>> = bytes[..cut]
        .chunks(50_000)
        .map(|chunk| Ok(Frame::data(Bytes::copy_from_slice(chunk))))
        .collect();
    if !whole {
        frames.push(Err(io::Error::other("cut")));
    }
    // What was sent before a break must arrive.
    let frames = stream::unfold(frames.into_iter(), async |mut frames| {
        let frame = frames.next()?;
        if frame.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(30)).await;
        }
        Some((frame, frames))
    });
    let mut response = Response::new(BodyExt::boxed_unsync(StreamBody::new(frames)));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

/// Connections by a table of names, as from another process.
#[derive(Debug, Default)]
pub struct Table {
    pub hosts: BTreeMap<String, SocketAddr>,
    pub asked: Mutex<Vec<String>>,
}

impl Connect for Table {
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> Connecting<'a> {
        Box::pin(async move {
            let name = format!("{host}:{port}");
            self.asked.lock().unwrap().push(name.clone());
            let address = self.hosts.get(&name);
            let address = address.ok_or_else(|| io::Error::other("no route"))?;
            let stream = TcpStream::connect(address).await?;
            Ok(Box::new(stream) as Box<dyn lateen_image::Connection>)
        })
    }
}
