//! The delta variant: subscriptions come as differences, responses hold what changed.

use envoy_types::pb::envoy::config::core::v3::{ControlPlane, Node};
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource as WireResource,
};
use envoy_types::pb::google::protobuf::Any;

use super::stream::{Header, Protocol};
use super::watch::{Asked, Reply, WILDCARD, Watch};
use super::{Session, Variant};
use crate::{Names, Resource};

/// Marker of the delta variant.
#[derive(Debug)]
pub(super) struct Delta;

impl Protocol for Delta {
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;

    const VARIANT: Variant = Variant::Delta;

    fn node(request: &mut Self::Request) -> Option<Node> {
        request.node.take()
    }

    fn header(request: &Self::Request) -> Header<'_> {
        Header {
            type_url: &request.type_url,
            nonce: &request.response_nonce,
            error: request
                .error_detail
                .as_ref()
                .map(|status| status.message.as_str()),
            names: &request.resource_names_subscribe,
            resumed: !request.initial_resource_versions.is_empty(),
        }
    }

    /// Changes of the subscription count even in a request whose nonce is stale: they are told only once.
    fn subscribe(watch: &mut Watch, request: Self::Request, _stale: bool) -> Option<Asked> {
        let first = !std::mem::replace(&mut watch.opened, true);
        let mut asked = Asked {
            always: first,
            ..Asked::default()
        };
        if first {
            watch.held = request.initial_resource_versions.into_iter().collect();
            if watch.kind.is_wildcard() && request.resource_names_subscribe.is_empty() {
                watch.wildcard = true;
                asked.names = Names::All;
            }
        }
        for name in request.resource_names_subscribe {
            if name == WILDCARD {
                watch.wildcard = true;
                asked.names = Names::All;
                continue;
            }
            // A name that is asked for again has been forgotten by the client; one that comes with the version it
            // holds, on the first request after a reconnect, has not.
            if !first || !watch.held.contains_key(&name) {
                asked.again.insert(name.clone());
            }
            asked.names.extend(Names::from_iter([name.clone()]));
            watch.revision += u64::from(watch.names.insert(name));
        }
        let mut narrowed = false;
        for name in request.resource_names_unsubscribe {
            if name == WILDCARD {
                narrowed |= std::mem::replace(&mut watch.wildcard, false);
                continue;
            }
            watch.revision += u64::from(watch.names.remove(&name));
            if watch.wildcard {
                // Still covered by the wildcard: the client has to learn which it is, there or gone.
                asked.again.insert(name.clone());
                asked.names.extend(Names::from_iter([name]));
            } else {
                watch.held.remove(&name);
                asked.again.remove(&name);
            }
        }
        if narrowed {
            watch.held.retain(|name, _| watch.names.contains(name));
        }
        asked.names = watch.narrow(asked.names);
        (!asked.names.is_empty()).then_some(asked)
    }

    fn answer(watch: &mut Watch, session: &impl Session, asked: &Asked) -> Option<Reply> {
        let reply = watch.changed(session, asked);
        let empty = reply.resources.is_empty() && reply.removed.is_empty();
        (asked.always || !empty).then_some(reply)
    }

    fn response(
        type_url: &str,
        reply: Reply,
        nonce: String,
        version: String,
        control_plane: ControlPlane,
    ) -> Self::Response {
        DeltaDiscoveryResponse {
            system_version_info: version,
            resources: reply.resources.into_iter().map(wire).collect(),
            type_url: type_url.to_owned(),
            removed_resources: reply.removed,
            nonce,
            control_plane: Some(control_plane),
            ..DeltaDiscoveryResponse::default()
        }
    }

    fn other_response(
        type_url: &str,
        resources: Vec<Any>,
        nonce: String,
        control_plane: ControlPlane,
    ) -> Self::Response {
        let wrap = |body| WireResource {
            resource: Some(body),
            ..WireResource::default()
        };
        DeltaDiscoveryResponse {
            resources: resources.into_iter().map(wrap).collect(),
            type_url: type_url.to_owned(),
            nonce,
            control_plane: Some(control_plane),
            ..DeltaDiscoveryResponse::default()
        }
    }
}

fn wire(resource: Resource) -> WireResource {
    WireResource {
        name: resource.name,
        version: resource.version,
        resource: Some(resource.body),
        ..WireResource::default()
    }
}
