//! The proxy's identity: a key made here, a certificate from the mesh's authority, and its renewal in time.
//!
//! The key never leaves the process. A certificate is replaced at half of its lifetime, while the old one is good for
//! the other half; attempts that fail are repeated with growing pauses, and the old certificate stays in use meanwhile.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lateen_identity::bundle::{BundleError, validity_of};
use lateen_identity::key::KeyError;
use lateen_identity::rotation::Renewal;
use lateen_identity::service::{CREATE_CERTIFICATE, CertificateRequest, CertificateResponse};
use lateen_identity::{SpiffeId, WorkloadKey, tls};
use lateen_xds::client::{PrepareSocket, Security, Target, chain, connect};
use tokio::time::timeout;
use tonic::codegen::http::uri::PathAndQuery;
use tonic_prost::ProstCodec;

use super::{AgentState, SecureDiscovery};
use crate::secret::{SecretError, Secrets};

/// Name under which TLS contexts find the proxy's certificate.
const CERTIFICATE: &str = "default";
/// Name under which they find the mesh's authorities.
const AUTHORITIES: &str = "ROOTCA";
/// Longest time for one attempt.
const ATTEMPT: Duration = Duration::from_secs(10);
/// Shortest time between two certificates, however short-lived they are.
const SHORTEST_WAIT: Duration = Duration::from_millis(500);
/// First and longest pause while there is no certificate at all: nothing works before there is one.
const FIRST_PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Where an identity comes from.
#[derive(Debug, Clone)]
pub struct CertificateConfig {
    /// The authority (`CA_ADDR`).
    pub authority: Target,
    /// How it is spoken to.
    pub security: SecureDiscovery,
    /// The identity that is asked for. The authority gives the one that the token proves.
    pub id: SpiffeId,
    /// Lifetime that is asked for (`SECRET_TTL`).
    pub lifetime: Duration,
    /// When certificates are renewed (`SECRET_GRACE_PERIOD_RATIO` and its jitter).
    pub renewal: Renewal,
}

/// Why there is no (new) certificate.
#[derive(Debug, thiserror::Error)]
enum ObtainError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("cannot reach the authority")]
    Connect(#[source] tonic::transport::Error),
    #[error("the authority refuses: {}: {}", .0.code(), .0.message())]
    Refused(#[from] tonic::Status),
    #[error("the authority does not answer in time")]
    Late,
    #[error("the authority's answer has no certificate with its root")]
    Incomplete,
    #[error("the certificate cannot be read")]
    Read(#[from] BundleError),
    #[error("the certificate cannot be used")]
    Use(#[from] SecretError),
}

/// Keeps the certificate in the secrets of an engine, for ever.
pub(crate) async fn keep(
    config: CertificateConfig,
    secrets: Secrets,
    state: Arc<AgentState>,
    prepare: Option<PrepareSocket>,
) {
    let security = security(&config.security);
    let mut failures = 0_u32;
    let mut ends: Option<SystemTime> = None;
    loop {
        let now = SystemTime::now();
        let pause = match obtain(&config, &security, prepare.clone(), &secrets).await {
            Ok(not_after) => {
                failures = 0;
                ends = Some(not_after);
                state.certificate_arrived();
                // From now and not from the start of validity, which lies back for slow clocks.
                let due = config.renewal.due(now, not_after, fastrand::f64());
                let pause = due.duration_since(now).unwrap_or_default();
                tracing::info!(id = %config.id, next = ?pause, "certificate in use");
                pause.max(SHORTEST_WAIT)
            }
            Err(error) => {
                failures = failures.saturating_add(1);
                let pause = match ends {
                    Some(ends) => config.renewal.retry(failures, now, ends),
                    None => first_pause(failures),
                };
                let error = chain(&error);
                tracing::warn!(authority = %config.authority, error, ?pause, "no certificate");
                pause
            }
        };
        tokio::time::sleep(pause).await;
    }
}

fn first_pause(failures: u32) -> Duration {
    let (first, longest) = FIRST_PAUSES;
    let bound = first.saturating_mul(1 << failures.min(8)).min(longest);
    // Between half and all of it, so that proxies do not return in step.
    bound.mul_f64(0.5 + fastrand::f64() / 2.0)
}

/// Makes a key, gets a certificate for it and puts both to use. Returns when the certificate ends.
async fn obtain(
    config: &CertificateConfig,
    security: &Security,
    prepare: Option<PrepareSocket>,
    secrets: &Secrets,
) -> Result<SystemTime, ObtainError> {
    let key = WorkloadKey::generate()?;
    let request = CertificateRequest {
        csr: key.request(&config.id)?,
        validity_duration: i64::try_from(config.lifetime.as_secs()).unwrap_or(i64::MAX),
        metadata: None,
    };
    let asked = ask(&config.authority, security, prepare, request);
    let answer = timeout(ATTEMPT, asked)
        .await
        .map_err(|_| ObtainError::Late)??;
    let (chain, root) = answer.split().ok_or(ObtainError::Incomplete)?;
    let (_, not_after) = validity_of(&chain)?;
    // First the authorities: a certificate of a new one is of no use without it.
    secrets.put_trust(AUTHORITIES, root)?;
    secrets.put_certificate(CERTIFICATE, &chain, &key.pem())?;
    Ok(not_after)
}

async fn ask(
    authority: &Target,
    security: &Security,
    prepare: Option<PrepareSocket>,
    message: CertificateRequest,
) -> Result<CertificateResponse, ObtainError> {
    let channel = connect(authority, prepare, Some(security))
        .await
        .map_err(ObtainError::Connect)?;
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.map_err(ObtainError::Connect)?;
    let mut request = tonic::Request::new(message);
    security.authorize(&mut request);
    let path = PathAndQuery::from_static(CREATE_CERTIFICATE);
    let codec: ProstCodec<CertificateRequest, CertificateResponse> = ProstCodec::default();
    Ok(grpc.unary(request, path, codec).await?.into_inner())
}

/// TLS as the files say at the time of each connection.
pub(crate) fn security(config: &SecureDiscovery) -> Security {
    let (roots, token) = (config.roots.clone(), config.token.clone());
    Security {
        tls: Arc::new(move || {
            let pem = read(&roots)?;
            let made =
                tls::client_of_server(&pem, &[b"h2"]).map_err(|error| named(&roots, error))?;
            Ok(Arc::new(made))
        }),
        server_name: config.server_name.clone(),
        token: Arc::new(move || match read(&token) {
            Ok(text) => Some(text.trim().to_owned()),
            Err(error) => {
                tracing::warn!(%error, "no token to show to the control plane");
                None
            }
        }),
    }
}

fn read(path: &Path) -> io::Result<String> {
    std::fs::read_to_string(path).map_err(|error| named(&PathBuf::from(path), error))
}

fn named(path: &Path, error: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("{}: {error}", path.display()))
}
