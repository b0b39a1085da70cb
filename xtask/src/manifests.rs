//! YAML documents as changes to the mesh.

use anyhow::{Context, Result};
use lateen_api::{
    DestinationRule, Gateway, PeerAuthentication, ServiceEntry, Sidecar, VirtualService,
    WorkloadEntry, gateway_api,
};
use lateen_mesh::Change;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The objects of a YAML text.
pub(crate) fn documents(text: &str) -> Result<Vec<Value>> {
    let mut documents = Vec::new();
    for document in text.split("\n---") {
        // A document of comments alone, or the rest of a `---` line.
        let document = document.strip_prefix("---").unwrap_or(document);
        let empty = document
            .lines()
            .all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'));
        if empty {
            continue;
        }
        let value: Value =
            serde_saphyr::from_str(document).with_context(|| format!("in {document:?}"))?;
        if value.is_object() {
            documents.push(value);
        }
    }
    Ok(documents)
}

/// Sets what an API server would have set.
pub(crate) fn stored(object: &mut Value, namespace: &str, created: i64) {
    let metadata = &mut object["metadata"];
    if metadata
        .get("namespace")
        .and_then(Value::as_str)
        .is_none_or(str::is_empty)
    {
        metadata["namespace"] = namespace.into();
    }
    if metadata.get("creationTimestamp").is_none_or(Value::is_null) {
        let (hours, minutes, seconds) = (created / 3600 % 24, created / 60 % 60, created % 60);
        metadata["creationTimestamp"] =
            format!("2026-01-01T{hours:02}:{minutes:02}:{seconds:02}Z").into();
    }
}

/// The change that an object means to the mesh; `None` for kinds that the mesh does not look at.
pub(crate) fn change(object: &Value) -> Result<Option<Change>> {
    fn read<T: DeserializeOwned>(object: &Value) -> Result<T> {
        serde_json::from_value(object.clone()).with_context(|| format!("in {object}"))
    }
    let version = object["apiVersion"].as_str().unwrap_or_default();
    let group = version.split_once('/').map_or("", |(group, _)| group);
    let kind = object["kind"].as_str().unwrap_or_default();
    Ok(Some(match (group, kind) {
        ("", "Namespace") => Change::Namespace(read(object)?),
        ("", "Node") => Change::Node(read(object)?),
        ("", "Pod") => Change::Pod(read(object)?),
        ("", "Service") => Change::Service(read(object)?),
        ("discovery.k8s.io", "EndpointSlice") => Change::EndpointSlice(read(object)?),
        ("networking.istio.io", "Gateway") => Change::Gateway(read::<Gateway>(object)?),
        ("networking.istio.io", "VirtualService") => {
            Change::VirtualService(read::<VirtualService>(object)?)
        }
        ("networking.istio.io", "DestinationRule") => {
            Change::DestinationRule(read::<DestinationRule>(object)?)
        }
        ("networking.istio.io", "ServiceEntry") => {
            Change::ServiceEntry(read::<ServiceEntry>(object)?)
        }
        ("networking.istio.io", "WorkloadEntry") => {
            Change::WorkloadEntry(read::<WorkloadEntry>(object)?)
        }
        ("networking.istio.io", "Sidecar") => Change::Sidecar(read::<Sidecar>(object)?),
        ("security.istio.io", "PeerAuthentication") => {
            Change::PeerAuthentication(read::<PeerAuthentication>(object)?)
        }
        (gateway_api::GROUP, "GatewayClass") => Change::GatewayClass(read(object)?),
        (gateway_api::GROUP, "Gateway") => Change::KubernetesGateway(read(object)?),
        (gateway_api::GROUP, "HTTPRoute") => Change::HttpRoute(read(object)?),
        (gateway_api::GROUP, "GRPCRoute") => Change::GrpcRoute(read(object)?),
        (gateway_api::GROUP, "TCPRoute") => Change::TcpRoute(read(object)?),
        (gateway_api::GROUP, "TLSRoute") => Change::TlsRoute(read(object)?),
        (gateway_api::GROUP, "ReferenceGrant") => Change::ReferenceGrant(read(object)?),
        _ => return Ok(None),
    }))
}
