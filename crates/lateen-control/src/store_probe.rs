//! Whether the Redis server of a sticky session answers, for its status. Proxies connect on their own and have
//! statistics; this is the control plane's view.

use std::sync::Arc;
use std::time::Duration;

use lateen_api::lateen::RedisStore;
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

/// Characters of a server's error that are shown.
const SHOWN: usize = 200;

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
    #[error("it does not answer as a Redis server does")]
    Stranger,
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
    let password = store.password().map(|place| entry(secrets, place));
    let password = password.transpose()?;
    let stream = TcpStream::connect((host, port)).await?;
    match &store.tls {
        None => greet(stream, password.as_deref()).await,
        Some(tls) => {
            let place = tls.authorities();
            let authorities = entry(secrets, place)?;
            let authorities = String::from_utf8_lossy(&authorities);
            let config = client_of_server(&authorities, &[])
                .map_err(|error| ProbeError::Authorities(place.0.to_owned(), error))?;
            let connector = TlsConnector::from(Arc::new(config));
            let name = tls.server_name.as_deref().unwrap_or(host);
            let name = ServerName::try_from(name.to_owned())?;
            greet(connector.connect(name, stream).await?, password.as_deref()).await
        }
    }
}

fn entry(secrets: &NamespaceSecrets, (secret, key): (&str, &str)) -> Result<Vec<u8>, ProbeError> {
    secrets
        .entry(secret, key)
        .ok_or_else(|| ProbeError::Secret(secret.to_owned(), key.to_owned()))
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
        match line.split_first() {
            Some((b'+', _)) => {}
            Some((b'-', error)) => {
                let text = String::from_utf8_lossy(error);
                return Err(ProbeError::Refused(
                    text.trim().chars().take(SHOWN).collect(),
                ));
            }
            None => return Err(ProbeError::Refused("it closes the connection".to_owned())),
            // Whoever may write a policy must not read here what other servers say.
            Some(_) => return Err(ProbeError::Stranger),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    #[tokio::test]
    async fn only_the_errors_of_redis_servers_are_shown() {
        let check = async |password: Option<&[u8]>, answer: &[u8], expected: Result<(), &str>| {
            let (near, mut far) = duplex(1 << 16);
            far.write_all(answer).await.expect("room for it");
            far.shutdown().await.expect("closed");
            let found = greet(near, password)
                .await
                .map_err(|error| error.to_string());
            assert_eq!(found, expected.map_err(str::to_owned), "{answer:?}");
        };
        check(None, b"+PONG\r\n", Ok(())).await;
        check(Some(b"pw"), b"+OK\r\n+PONG\r\n", Ok(())).await;
        let wrong = "the server refuses: WRONGPASS no";
        check(Some(b"pw"), b"-WRONGPASS no\r\n-NOAUTH\r\n", Err(wrong)).await;
        let gone = "the server refuses: it closes the connection";
        check(None, b"", Err(gone)).await;
        let stranger = "it does not answer as a Redis server does";
        check(None, b"220 mail.internal ESMTP secret\r\n", Err(stranger)).await;
        check(None, &[b'x'; 10_000], Err(stranger)).await;
        let long = [b"-", &[b'e'; 1000][..], b"\r\n"].concat();
        let cut = format!("the server refuses: {}", "e".repeat(SHOWN));
        check(None, &long, Err(&cut)).await;
    }
}
