//! Group `security.istio.io`.

mod peer_authentication;

pub use peer_authentication::{MutualTls, MutualTlsMode, PeerAuthenticationSpec};

use crate::Object;

/// Which connections a workload accepts: mutual TLS, plain text or both.
pub type PeerAuthentication = Object<PeerAuthenticationSpec>;
