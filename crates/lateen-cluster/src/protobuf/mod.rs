//! Request bodies in Kubernetes' protobuf form.
//!
//! Clients in Go send built-in kinds so: four bytes `k8s\0`, then a `runtime.Unknown` message with the kind and the bytes
//! of the object. Field numbers come from the table of types ([`crate::schema::definitions`]); the result is the JSON
//! form that the same client would have sent.

mod message;
mod wire;

use serde_json::{Value, json};

use crate::schema::{self, definitions};
use crate::status::{Result, Status};

/// Media type of these bodies.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// What every body begins with.
const MAGIC: &[u8] = b"k8s\0";

/// Decodes a body: any kind of the built-in groups, `DeleteOptions`, and the bodies of subresources (`TokenRequest`,
/// `Scale`, `Eviction`, `Binding`, ...). Fails with 400 for bytes that are not such a body.
pub fn decode(bytes: &[u8]) -> Result<Value> {
    let body = bytes.strip_prefix(MAGIC).ok_or_else(|| {
        malformed("it does not begin with the four bytes of Kubernetes' protobuf form")
    })?;
    let envelope = Envelope::read(body).map_err(|fault| malformed(&fault.to_string()))?;
    let name = definition(&envelope.api_version, &envelope.kind);
    let schema = definitions::definition(&name).ok_or_else(|| {
        Status::bad_request(format!(
            "no kind {:?} is registered for version {:?}; send it as JSON",
            envelope.kind, envelope.api_version
        ))
    })?;
    let mut object = message::decode(envelope.raw, schema)
        .map_err(|fault| malformed(&format!("{} {fault}", envelope.kind)))?;
    schema::normalize(&mut object, schema);
    object["apiVersion"] = json!(envelope.api_version);
    object["kind"] = json!(envelope.kind);
    Ok(object)
}

fn malformed(why: &str) -> Status {
    Status::bad_request(format!("cannot decode the body as protobuf: {why}"))
}

/// `runtime.Unknown`.
struct Envelope<'a> {
    api_version: String,
    kind: String,
    raw: &'a [u8],
}

impl<'a> Envelope<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, wire::Fault> {
        let mut envelope = Self {
            api_version: String::new(),
            kind: String::new(),
            raw: &[],
        };
        let mut fields = wire::Fields::new(bytes);
        while let Some((number, value)) = fields.next()? {
            match number {
                1 => {
                    let mut fields = wire::Fields::new(value.bytes()?);
                    while let Some((number, value)) = fields.next()? {
                        match number {
                            1 => envelope.api_version = value.text()?,
                            2 => envelope.kind = value.text()?,
                            _ => {}
                        }
                    }
                }
                2 => envelope.raw = value.bytes()?,
                _ => {}
            }
        }
        Ok(envelope)
    }
}

/// Name of the definition of a kind.
fn definition(api_version: &str, kind: &str) -> String {
    const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
    // These are part of every group.
    if kind == "DeleteOptions" {
        return format!("{META}.{kind}");
    }
    match api_version.split_once('/') {
        None => format!("io.k8s.api.core.{api_version}.{kind}"),
        Some(("apiextensions.k8s.io", version)) => {
            format!("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.{version}.{kind}")
        }
        Some((group, version)) => {
            let label = group.split('.').next().unwrap_or(group);
            format!("io.k8s.api.{label}.{version}.{kind}")
        }
    }
}

#[cfg(test)]
mod tests;
