//! Identities: the mesh's certificate authority, who calls, and what is issued and shown to whom.
//!
//! A caller proves who it is with a service-account token (checked by the API server) or with a certificate of this
//! authority (checked in the handshake). Everything that it gets follows from that proof, nothing from what it says.

mod authority;
mod caller;
pub(crate) mod gateway_certificates;
mod issue;
mod namespace_secrets;
mod root_certificate;
mod secret_content;
mod secrets;
pub(crate) mod store_secrets;

pub(crate) use authority::{Authority, load};
pub(crate) use caller::{Authenticator, Identity};
pub(crate) use issue::{CertificateService, Lifetimes};
pub(crate) use namespace_secrets::NamespaceSecrets;
pub(crate) use root_certificate::keep as keep_root_certificate;
pub(crate) use secrets::GatewaySecrets;
