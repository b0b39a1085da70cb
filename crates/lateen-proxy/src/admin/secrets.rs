//! `/certs`, and the secrets of `/config_dump`. Private keys and passwords are never shown.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::reply::pretty;
use crate::secret::{Material, SecretSlot};
use crate::shared::Shared;
use crate::tls::info::CertificateInfo;
use crate::tls::names::NameKind;

const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

/// The certificates in use, as the `envoy.admin.v3.Certificates` message.
pub(super) fn certificates(shared: &Shared) -> String {
    let all = slots(shared).into_iter().filter_map(|slot| {
        Some(match &*slot.load()? {
            Material::Certificate(certificate) => json!({
                "ca_cert": [],
                "cert_chain": details(&certificate.key.cert),
            }),
            Material::Trust(validation) => json!({
                "ca_cert": details(&validation.authorities.as_ref()?.certificates),
                "cert_chain": [],
            }),
            Material::Generic(_) => return None,
        })
    });
    let all: Vec<Value> = all.collect();
    pretty(&json!({ "certificates": all }))
}

/// The section of `/config_dump`.
pub(super) fn dump(shared: &Shared, wanted: &dyn Fn(&str) -> bool) -> Value {
    let (mut active, mut warming) = (Vec::new(), Vec::new());
    for slot in slots(shared).into_iter().filter(|slot| wanted(&slot.name)) {
        let mut item = json!({ "name": slot.name, "version_info": slot.version().to_string() });
        if let Some(at) = slot.changed_at() {
            item["last_updated"] = json!(super::dump::timestamp(at));
        }
        item["secret"] = json!({ "@type": SECRET, "name": slot.name });
        match slot.load().as_deref() {
            Some(Material::Certificate(certificate)) => {
                item["secret"]["tls_certificate"] = json!({
                    "certificate_chain": { "inline_bytes": STANDARD.encode(pem(&certificate.key.cert)) },
                    "private_key": { "inline_bytes": STANDARD.encode("[redacted]") },
                });
                active.push(item);
            }
            Some(Material::Trust(validation)) => {
                let authorities = validation.authorities.as_ref();
                let text = authorities.map_or_else(String::new, |all| pem(&all.certificates));
                item["secret"]["validation_context"] = json!({
                    "trusted_ca": { "inline_bytes": STANDARD.encode(text) },
                });
                active.push(item);
            }
            Some(Material::Generic(_)) => {
                item["secret"]["generic_secret"] = json!({
                    "secret": { "inline_bytes": STANDARD.encode("[redacted]") },
                });
                active.push(item);
            }
            None => warming.push(item),
        }
    }
    let mut section = json!({ "@type": "type.googleapis.com/envoy.admin.v3.SecretsConfigDump" });
    for (key, list) in [
        ("dynamic_active_secrets", active),
        ("dynamic_warming_secrets", warming),
    ] {
        if !list.is_empty() {
            section[key] = list.into();
        }
    }
    section
}

fn slots(shared: &Shared) -> Vec<Arc<SecretSlot>> {
    let mut slots = shared.secrets.all();
    slots.sort_by(|left, right| left.name.cmp(&right.name));
    slots
}

fn details(chain: &[CertificateDer<'static>]) -> Vec<Value> {
    let certificates = chain.iter().filter_map(CertificateInfo::read);
    let detail = |certificate: CertificateInfo| {
        let left = certificate.not_after - OffsetDateTime::now_utc();
        let names: Vec<_> = certificate
            .names
            .iter()
            .map(|name| match name.kind {
                NameKind::Uri => json!({ "uri": name.value }),
                NameKind::Ip => json!({ "ip_address": name.value }),
                _ => json!({ "dns": name.value }),
            })
            .collect();
        json!({
            "path": "<inline>",
            "serial_number": certificate.serial,
            "subject_alt_names": names,
            "days_until_expiration": left.whole_days().max(0).to_string(),
            "valid_from": time(certificate.not_before),
            "expiration_time": time(certificate.not_after),
        })
    };
    certificates.map(detail).collect()
}

fn time(at: OffsetDateTime) -> String {
    at.format(&Rfc3339).unwrap_or_default()
}

/// The certificates as they are given in configurations.
fn pem(chain: &[CertificateDer<'static>]) -> String {
    let mut text = String::new();
    for certificate in chain {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let encoded = STANDARD.encode(certificate);
        for line in encoded.as_bytes().chunks(64) {
            // Base64 is ASCII.
            text.push_str(&String::from_utf8_lossy(line));
            text.push('\n');
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}
