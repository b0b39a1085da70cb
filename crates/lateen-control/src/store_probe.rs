//! Whether the Redis server of a sticky session answers, for its status. Proxies connect on their own and have
//! statistics; this is the control plane's view.

use std::sync::Arc;
use std::time::Duration;

use lateen_api::lateen::{RedisStore, SecretKeyReference};
use lateen_identity::tls::{TlsError, client_of_server};
use lateen_mesh::index::Condition;
use rustls::pki_types::{InvalidDnsNameError, ServerName};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::identity::NamespaceSecrets;

/// Longest time for the whole question.
const PATIENCE: Duration = Duration::from_secs(2);

/// Longest line that a server may answer with, in bytes.
const LONGEST: u64 = 4096;

/// Why a server is not reached.
#[derive(Debug, thiserror::Error)]
enum ProbeError {
    #[error("the URL {0:?} is malformed")]
    Url(String),
    #[error("Secret {0} has no entry {1}")]
    Secret(String, String),
    #[error("the authorities in Secret {0} cannot be read: {1}")]
    Authorities(String, #[source] TlsError),
    #[error("the name of the server: {0}")]
    ServerName(#[from] InvalidDnsNameError),
    #[error("{0}")]
    Connection(#[from] std::io::Error),
    #[error("the server refuses: {0}")]
    Refused(String),
    #[error("no answer within {} s", PATIENCE.as_secs())]
    Silent,
}

/// Asks the server, and says what came of it.
pub(crate) async fn condition(store: &RedisStore, secrets: &NamespaceSecrets) -> Condition {
    let asked = timeout(PATIENCE, probe(store, secrets)).await;
    let outcome = asked.unwrap_or(Err(ProbeError::Silent));
    let (reason, message) = match &outcome {
        Ok(()) => ("Reachable", format!("{} answers", store.url)),
        Err(error) => (
            "Unreachable",
            format!(
                "{}: {error}; proxies that do not reach it either keep their sessions to themselves",
                store.url
            ),
        ),
    };
    Condition {
        kind: "StoreReachable",
        holds: outcome.is_ok(),
        reason,
        message,
    }
}

async fn probe(store: &RedisStore, secrets: &NamespaceSecrets) -> Result<(), ProbeError> {
    let (host, port, _) = store
        .address()
        .ok_or_else(|| ProbeError::Url(store.url.clone()))?;
    let password = match &store.password_secret_ref {
        Some(reference) => Some(entry(secrets, reference, "password")?),
        None => None,
    };
    let stream = TcpStream::connect((host, port)).await?;
    match &store.tls {
        None => greet(stream, password.as_deref()).await,
        Some(tls) => {
            let reference = &tls.ca_secret_ref;
            let authorities = entry(secrets, reference, "ca.crt")?;
            let authorities = String::from_utf8_lossy(&authorities);
            let config = client_of_server(&authorities, &[])
                .map_err(|error| ProbeError::Authorities(reference.name.clone(), error))?;
            let connector = TlsConnector::from(Arc::new(config));
            let name = tls.server_name.as_deref().unwrap_or(host);
            let name = ServerName::try_from(name.to_owned())?;
            greet(connector.connect(name, stream).await?, password.as_deref()).await
        }
    }
}

fn entry(
    secrets: &NamespaceSecrets,
    reference: &SecretKeyReference,
    usual: &str,
) -> Result<Vec<u8>, ProbeError> {
    let key = reference.key.as_deref().unwrap_or(usual);
    secrets
        .entry(&reference.name, key)
        .ok_or_else(|| ProbeError::Secret(reference.name.clone(), key.to_owned()))
}

/// Says the password and `PING`; each is answered with one line.
async fn greet(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    password: Option<&[u8]>,
) -> Result<(), ProbeError> {
    let mut stream = BufReader::new(stream);
    let mut request = Vec::new();
    if let Some(password) = password {
        request.extend(format!("*2\r\n$4\r\nAUTH\r\n${}\r\n", password.len()).into_bytes());
        request.extend_from_slice(password);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"*1\r\n$4\r\nPING\r\n");
    stream.write_all(&request).await?;
    stream.flush().await?;
    let answers = if password.is_some() { 2 } else { 1 };
    let mut limited = tokio::io::AsyncReadExt::take(stream, LONGEST);
    for _ in 0..answers {
        let mut line = Vec::new();
        limited.read_until(b'\n', &mut line).await?;
        if !line.starts_with(b"+") {
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_start_matches('-').trim();
            return Err(ProbeError::Refused(if text.is_empty() {
                "it closes the connection".to_owned()
            } else {
                text.to_owned()
            }));
        }
    }
    Ok(())
}
