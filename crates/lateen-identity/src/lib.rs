//! SPIFFE ids, the certificate authority, trust bundles and mutual TLS between workloads.
//!
//! * [`SpiffeId`] names a workload; [`spiffe`] holds the grammar and its limits.
//! * [`WorkloadKey`] makes a key pair in the proxy and asks for a certificate with a CSR; the private key never leaves.
//! * [`CertificateAuthority`] signs that CSR for an identity that the *caller* proved. Nothing but the public key is
//!   taken from the request.
//! * [`TrustBundle`] holds the roots of each trust domain, [`tls`] builds rustls configurations that check a peer's
//!   chain and its one SPIFFE id, and [`rotation`] decides when a certificate is due for renewal.
//!
//! Everything fails closed: an empty bundle, an empty allow-list, or a peer without exactly one SPIFFE id is refused
//! by every function here. There is no I/O and no clock, apart from the one that rustls reads in handshakes; callers
//! pass the time in.

pub mod allow;
pub mod alpn;
pub mod authority;
pub mod bundle;
mod csr;
#[cfg(test)]
mod fuzz;
pub mod key;
pub mod peer;
pub mod rotation;
pub mod service;
mod signatures;
pub mod signer;
pub mod spiffe;
pub mod tls;
mod verifier;

pub use allow::{AllowList, IdMatch};
pub use authority::{CertificateAuthority, IssuedCertificate};
pub use bundle::TrustBundle;
pub use csr::{CsrError, MAX_CSR};
pub use key::{Identity, WorkloadKey};
pub use signer::Signer;
pub use spiffe::{SpiffeId, TrustDomain};
