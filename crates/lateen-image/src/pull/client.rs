//! One request after another: connections, TLS, time limits and redirects.
//!
//! Each request has a connection of its own. An image is some twenty requests, most of them long.

use std::{collections::BTreeSet, future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, Method, Request, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, LOCATION, RETRY_AFTER, USER_AGENT},
};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::{sync::OnceCell, task::AbortHandle, time::timeout};
use tokio_rustls::TlsConnector;

use super::{
    PullError,
    connect::{Connect, Connection},
    url::{Url, plain_allowed},
};

/// Most redirects of one request.
const MAX_REDIRECTS: usize = 5;
/// Most bytes of an error's body that are read.
const MAX_MESSAGE: u64 = 64 << 10;

/// Sends requests.
#[derive(Debug)]
pub(super) struct Client {
    connect: Arc<dyn Connect>,
    insecure: BTreeSet<String>,
    authorities: Vec<CertificateDer<'static>>,
    /// How long a connection, an answer, or the next part of a body may take.
    patience: Duration,
    /// Made for the first secure connection: the system's certificates are in hundreds of files.
    tls: OnceCell<Arc<ClientConfig>>,
}

/// What to send.
#[derive(Debug, Clone, Default)]
pub(super) struct Ask {
    pub(super) headers: HeaderMap,
    /// The body of a POST; a GET has none.
    pub(super) form: Option<String>,
}

/// An answer whose body is still to be read.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// Who answered, after redirects.
    pub(super) url: Url,
    body: Incoming,
    patience: Duration,
    _transport: Transport,
}

/// The task that moves the bytes of a connection; it ends with this.
#[derive(Debug)]
struct Transport(AbortHandle);

impl Drop for Transport {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Client {
    pub(super) fn new(
        connect: Arc<dyn Connect>,
        insecure: BTreeSet<String>,
        authorities: Vec<CertificateDer<'static>>,
        patience: Duration,
    ) -> Self {
        Self {
            connect,
            insecure,
            authorities,
            patience,
            tls: OnceCell::new(),
        }
    }

    /// The address of a registry.
    pub(super) fn registry(&self, registry: &str) -> Result<Url, PullError> {
        let host = match registry {
            // The registry behind the name of Docker's index.
            "docker.io" => "registry-1.docker.io",
            other => other,
        };
        let refuse = |why: String| PullError::Address {
            from: registry.to_owned(),
            why,
        };
        let plain = Url::parse(&format!("http://{host}/v2/")).map_err(refuse)?;
        if plain_allowed(&plain.host, plain.port, &self.insecure) {
            return Ok(plain);
        }
        Url::parse(&format!("https://{host}/v2/")).map_err(refuse)
    }

    /// Asks, and follows redirects of a GET. The header `Authorization` goes to the first server only.
    pub(super) async fn send(&self, url: &Url, ask: &Ask) -> Result<Answer, PullError> {
        let mut url = url.clone();
        let mut ask = ask.clone();
        for _ in 0..=MAX_REDIRECTS {
            let answer = self.once(&url, &ask).await?;
            let moved = matches!(answer.status.as_u16(), 301 | 302 | 303 | 307 | 308);
            if !moved || ask.form.is_some() {
                return Ok(answer);
            }
            let refuse = |why: String| PullError::Address {
                from: url.to_string(),
                why,
            };
            let location = answer
                .headers
                .get(LOCATION)
                .and_then(|value| value.to_str().ok());
            let location = location.ok_or_else(|| refuse("it has no location".to_owned()))?;
            let next = url.join(location).map_err(refuse)?;
            if url.secure && !next.secure {
                return Err(refuse(format!("{next} is not secure")));
            }
            if !url.same_origin(&next) {
                ask.headers.remove(AUTHORIZATION);
            }
            url = next;
        }
        Err(PullError::Address {
            from: url.to_string(),
            why: format!("there were more than {MAX_REDIRECTS} redirects"),
        })
    }

    async fn once(&self, url: &Url, ask: &Ask) -> Result<Answer, PullError> {
        if !url.secure && !plain_allowed(&url.host, url.port, &self.insecure) {
            return Err(PullError::Address {
                from: url.to_string(),
                why: "it is not secure; if the network is trusted, list the host as insecure"
                    .to_owned(),
            });
        }
        let broken = |why: String| PullError::Exchange {
            url: url.to_string(),
            why,
        };
        let stream = self.within(self.open(url), url).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| broken(error.to_string()))?;
        // Its errors show in the answer too.
        let task = tokio::spawn(async move {
            let _ = connection.await;
        });
        let transport = Transport(task.abort_handle());
        let request = request(url, ask).map_err(|error| broken(error.to_string()))?;
        let sent = async {
            sender
                .send_request(request)
                .await
                .map_err(|error| broken(reasons(&error)))
        };
        let (parts, body) = self.within(sent, url).await?.into_parts();
        Ok(Answer {
            status: parts.status,
            headers: parts.headers,
            url: url.clone(),
            body,
            patience: self.patience,
            _transport: transport,
        })
    }

    async fn open(&self, url: &Url) -> Result<Box<dyn Connection>, PullError> {
        let (host, port) = (url.host.clone(), url.port);
        let stream = match self.connect.connect(&url.host, url.port).await {
            Ok(stream) => stream,
            Err(source) => return Err(PullError::Connect { host, port, source }),
        };
        if !url.secure {
            return Ok(stream);
        }
        let tls = self
            .tls
            .get_or_try_init(|| trust(self.authorities.clone()))
            .await?;
        let name = ServerName::try_from(host.clone()).map_err(|error| PullError::Address {
            from: url.to_string(),
            why: error.to_string(),
        })?;
        match TlsConnector::from(Arc::clone(tls))
            .connect(name, stream)
            .await
        {
            Ok(stream) => Ok(Box::new(stream)),
            Err(source) => Err(PullError::Tls { host, port, source }),
        }
    }

    async fn within<T>(
        &self,
        work: impl Future<Output = Result<T, PullError>>,
        url: &Url,
    ) -> Result<T, PullError> {
        match timeout(self.patience, work).await {
            Ok(done) => done,
            Err(_) => Err(silent(url, self.patience)),
        }
    }
}

impl Answer {
    /// The next part of the body; `None` at its end.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, PullError> {
        loop {
            let frame = match timeout(self.patience, self.body.frame()).await {
                Ok(None) => return Ok(None),
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) => {
                    return Err(PullError::Exchange {
                        url: self.url.to_string(),
                        why: reasons(&error),
                    });
                }
                Err(_) => return Err(silent(&self.url, self.patience)),
            };
            // What is no data is a trailer.
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
    }

    /// The whole of a small body; `None` when it is larger than the limit in bytes.
    pub(super) async fn read(mut self, limit: u64) -> Result<Option<Vec<u8>>, PullError> {
        let mut bytes = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            if (bytes.len() + chunk.len()) as u64 > limit {
                return Ok(None);
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(Some(bytes))
    }

    /// The error that this answer is, with what its body says (distribution-spec, "Error Codes").
    pub(super) async fn into_error(self) -> PullError {
        let (url, status) = (self.url.to_string(), self.status);
        let seconds = self
            .headers
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.parse().ok());
        let retry_after = seconds.map(Duration::from_secs);
        let body = self
            .read(MAX_MESSAGE)
            .await
            .ok()
            .flatten()
            .unwrap_or_default();
        PullError::Status {
            url,
            status,
            message: message(&body),
            retry_after,
        }
    }
}

/// The messages in an error's body; empty when it is of another form.
fn message(body: &[u8]) -> String {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let errors = body["errors"].as_array().into_iter().flatten();
    let messages: Vec<&str> = errors
        .filter_map(|error| error["message"].as_str().or_else(|| error["code"].as_str()))
        .collect();
    let text: String = messages
        .join(", ")
        .chars()
        .filter(|c| !c.is_control())
        .take(300)
        .collect();
    if text.is_empty() {
        text
    } else {
        format!(": {text}")
    }
}

fn request(url: &Url, ask: &Ask) -> http::Result<Request<Full<Bytes>>> {
    let method = if ask.form.is_some() {
        Method::POST
    } else {
        Method::GET
    };
    let mut request = Request::builder()
        .method(method)
        .uri(&url.path)
        .header(HOST, url.authority())
        .header(USER_AGENT, concat!("lateen/", env!("CARGO_PKG_VERSION")))
        .body(Full::new(Bytes::from(ask.form.clone().unwrap_or_default())))?;
    request.headers_mut().extend(ask.headers.clone());
    if ask.form.is_some() {
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers_mut().insert(CONTENT_TYPE, form);
    }
    Ok(request)
}

/// A configuration that trusts the system's authorities and these.
async fn trust(authorities: Vec<CertificateDer<'static>>) -> Result<Arc<ClientConfig>, PullError> {
    let load = tokio::task::spawn_blocking(move || {
        let system = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        // One bad file among a system's hundreds is no reason to trust none.
        roots.add_parsable_certificates(system.certs);
        roots.add_parsable_certificates(authorities);
        if roots.is_empty() {
            let errors: Vec<String> = system.errors.iter().map(ToString::to_string).collect();
            return Err(PullError::Authorities(errors.join(", ")));
        }
        let mut config =
            ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .map_err(|error| PullError::Authorities(error.to_string()))?
                .with_root_certificates(roots)
                .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    });
    load.await
        .unwrap_or_else(|error| Err(PullError::Authorities(error.to_string())))
}

fn silent(url: &Url, patience: Duration) -> PullError {
    PullError::Exchange {
        url: url.to_string(),
        why: format!("nothing came for {} s", patience.as_secs_f32()),
    }
}

/// An error with what caused it: hyper's own text is only the outermost.
fn reasons(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
