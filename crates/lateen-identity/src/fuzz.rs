//! Any request for a certificate, any certificate of a peer, any id and any bundle.

use std::str::FromStr;

use rustls_pki_types::CertificateDer;

use crate::csr::proven_key;
use crate::{SpiffeId, bundle, peer};

/// Requests, and bundles of certificates: both PEM.
#[test]
fn pem() {
    bolero::check!(name = "pem")
        .with_iterations(0)
        .for_each(|bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            let _ = proven_key(&text);
            let _ = bundle::validity_of(&text);
            let _ = bundle::read_certificates(&text);
        });
}

/// An id is read from a certificate only if it is one by the rules.
#[test]
fn certificates() {
    bolero::check!(name = "certificates")
        .with_iterations(0)
        .for_each(|bytes: &[u8]| {
            if let Ok(id) = peer::certificate_id(&CertificateDer::from(bytes)) {
                assert_eq!(SpiffeId::from_str(&id.to_string()), Ok(id));
            }
        });
}

/// An id that is read is written as it came: two spellings of an id would be two names for one caller.
#[test]
fn ids() {
    bolero::check!(name = "ids")
        .with_iterations(0)
        .for_each(|bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            if let Ok(id) = SpiffeId::from_str(&text) {
                assert_eq!(id.to_string(), text);
                if let Some((namespace, account)) = id.namespace_and_account() {
                    let again = SpiffeId::workload(id.trust_domain(), namespace, account);
                    assert_eq!(again, Ok(id));
                }
            }
        });
}
