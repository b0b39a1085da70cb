//! Certificates for workloads: `istio.v1.auth.IstioCertificateService`.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use lateen_identity::authority::AuthorityError;
use lateen_identity::service::{
    CREATE_CERTIFICATE, CertificateRequest, CertificateResponse, SERVICE,
};
use lateen_xds::server::Caller;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use super::{Authenticator, Authority};

/// Largest request in bytes: a signing request and some metadata.
const MAX_REQUEST: usize = 64 * 1024;

/// How long certificates are valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lifetimes {
    /// When the workload does not say.
    pub(crate) usual: Duration,
    /// At most; who asks for more is refused.
    pub(crate) longest: Duration,
}

impl Default for Lifetimes {
    /// A day, and ninety: Istio's `DEFAULT_WORKLOAD_CERT_TTL` and `MAX_WORKLOAD_CERT_TTL`.
    fn default() -> Self {
        let day = Duration::from_secs(24 * 3600);
        Self {
            usual: day,
            longest: 90 * day,
        }
    }
}

/// The gRPC service.
#[derive(Clone)]
pub(crate) struct CertificateService(Arc<Inner>);

struct Inner {
    authority: Arc<Authority>,
    authenticator: Authenticator,
    lifetimes: Lifetimes,
}

impl CertificateService {
    pub(crate) fn new(
        authority: Arc<Authority>,
        authenticator: Authenticator,
        lifetimes: Lifetimes,
    ) -> Self {
        Self(Arc::new(Inner {
            authority,
            authenticator,
            lifetimes,
        }))
    }

    /// Signs for the identity that the caller proved.
    async fn create(
        &self,
        request: Request<CertificateRequest>,
    ) -> Result<Response<CertificateResponse>, Status> {
        let caller = Caller::of(&request);
        let identity = self.0.authenticator.identify(&caller).await?;
        let request = request.into_inner();
        if request.impersonates() {
            let message = format!("{} may not ask for other identities", identity.id);
            tracing::warn!(?caller, identity = %identity.id, "impersonation refused");
            return Err(Status::unauthenticated(message));
        }
        let lifetime = self.0.lifetimes.of(request.validity_duration)?;
        let signed =
            self.0
                .authority
                .signs()
                .sign(&request.csr, &identity.id, lifetime, SystemTime::now());
        let issued = signed.map_err(|error| {
            tracing::warn!(identity = %identity.id, %error, "no certificate issued");
            status(&error)
        })?;
        tracing::info!(identity = %identity.id, peer = ?caller.peer, "certificate issued");
        let mut cert_chain = issued.chain_pems();
        cert_chain.push(self.0.authority.roots());
        Ok(Response::new(CertificateResponse { cert_chain }))
    }
}

impl Lifetimes {
    /// The lifetime for a wish in seconds.
    fn of(self, seconds: i64) -> Result<Duration, Status> {
        match u64::try_from(seconds) {
            Err(_) | Ok(0) => Ok(self.usual),
            Ok(seconds) if Duration::from_secs(seconds) > self.longest => {
                let longest = self.longest.as_secs();
                let message =
                    format!("{seconds} s are longer than the longest lifetime, {longest} s");
                Err(Status::invalid_argument(message))
            }
            Ok(seconds) => Ok(Duration::from_secs(seconds)),
        }
    }
}

/// What the caller is told about a refusal.
fn status(error: &AuthorityError) -> Status {
    match error {
        AuthorityError::Csr { .. } => Status::invalid_argument(error.to_string()),
        _ => Status::internal(error.to_string()),
    }
}

impl NamedService for CertificateService {
    const NAME: &'static str = SERVICE;
}

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl Service<http::Request<Body>> for CertificateService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if request.uri().path() != CREATE_CERTIFICATE {
            let unknown = Status::unimplemented("the service has only CreateCertificate");
            return Box::pin(async move { Ok(unknown.into_http()) });
        }
        let method = Method(self.clone());
        Box::pin(async move {
            let codec: ProstCodec<CertificateResponse, CertificateRequest> = ProstCodec::default();
            let mut grpc = Grpc::new(codec).max_decoding_message_size(MAX_REQUEST);
            Ok(grpc.unary(method, request).await)
        })
    }
}

/// The method, as the transport calls it.
struct Method(CertificateService);

impl UnaryService<CertificateRequest> for Method {
    type Response = CertificateResponse;
    type Future = BoxFuture<Result<Response<CertificateResponse>, Status>>;

    fn call(&mut self, request: Request<CertificateRequest>) -> Self::Future {
        let service = self.0.clone();
        Box::pin(async move { service.create(request).await })
    }
}
