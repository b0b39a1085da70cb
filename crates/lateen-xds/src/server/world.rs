//! The state-of-the-world variant: every request lists all names, listeners and clusters come all at once.

use std::collections::BTreeSet;

use envoy_types::pb::envoy::config::core::v3::{ControlPlane, Node};
use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use envoy_types::pb::google::protobuf::Any;

use super::stream::{Header, Protocol};
use super::watch::{Asked, Reply, WILDCARD, Watch};
use super::{Session, Variant};
use crate::Names;

/// Marker of the state-of-the-world variant.
#[derive(Debug)]
pub(super) struct World;

impl Protocol for World {
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;

    const VARIANT: Variant = Variant::StateOfTheWorld;

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
            names: &request.resource_names,
            resumed: !request.version_info.is_empty(),
        }
    }

    /// A request with a stale nonce is ignored as a whole: the client sends its names again with the next one.
    fn subscribe(watch: &mut Watch, request: Self::Request, stale: bool) -> Option<Asked> {
        if stale {
            return None;
        }
        let first = !std::mem::replace(&mut watch.opened, true);
        let spontaneous = request.response_nonce.is_empty();
        let before = watch.wanted();
        let names: Vec<String> = request.resource_names;
        watch.explicit |= names.iter().any(|name| name != WILDCARD);
        let legacy = names.is_empty() && watch.kind.is_wildcard() && !watch.explicit;
        watch.wildcard = legacy || names.iter().any(|name| name == WILDCARD);
        let named: BTreeSet<String> = names.into_iter().filter(|name| name != WILDCARD).collect();
        if named != watch.names {
            watch.names = named;
            watch.revision += 1;
        }
        if !watch.wildcard {
            watch.held.retain(|name, _| watch.names.contains(name));
        }
        // Names that were added are sent even when this stream sent them before: the client dropped them in between.
        let (names, always) = if spontaneous || first {
            (watch.wanted(), true)
        } else {
            match (before, watch.wanted()) {
                (Names::All, _) => return None,
                (_, Names::All) => (Names::All, true),
                (Names::Only(before), Names::Only(now)) => (
                    Names::Only(now.difference(&before).cloned().collect()),
                    true,
                ),
            }
        };
        let again = match &names {
            Names::Only(names) => names.clone(),
            Names::All => watch.held.keys().cloned().collect(),
        };
        (!names.is_empty()).then_some(Asked {
            names,
            again,
            always,
            keep: false,
        })
    }

    fn answer(watch: &mut Watch, session: &impl Session, asked: &Asked) -> Option<Reply> {
        // Absence means deletion in these types only, so only these are always sent whole.
        if watch.kind.is_wildcard() {
            return watch.whole(session, asked);
        }
        let reply = watch.changed(session, asked);
        (asked.always || !reply.resources.is_empty()).then_some(reply)
    }

    fn response(
        type_url: &str,
        reply: Reply,
        nonce: String,
        version: String,
        control_plane: ControlPlane,
    ) -> Self::Response {
        DiscoveryResponse {
            version_info: version,
            resources: reply
                .resources
                .into_iter()
                .map(|resource| resource.body)
                .collect(),
            type_url: type_url.to_owned(),
            nonce,
            control_plane: Some(control_plane),
            ..DiscoveryResponse::default()
        }
    }

    fn other_response(
        type_url: &str,
        resources: Vec<Any>,
        nonce: String,
        control_plane: ControlPlane,
    ) -> Self::Response {
        DiscoveryResponse {
            version_info: nonce.clone(),
            resources,
            type_url: type_url.to_owned(),
            nonce,
            control_plane: Some(control_plane),
            ..DiscoveryResponse::default()
        }
    }
}
