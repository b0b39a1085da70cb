//! Fields of bodies as headers: a filter before all others, which runs before the route is chosen.
//!
//! The filter `lateen.body_to_headers` is a `TypedStruct` of the type [`TYPE`]: `fields` (each with `pointer` and
//! `header`), `content_types`, `max_bytes`, `overwrite` and `reject`.

use lateen_api::BodyToHeaders;
use lateen_api::lateen::OnUnreadable;
use lateen_xds::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpFilter, http_filter,
};
use lateen_xds::pb::google::protobuf::value::Kind;
use lateen_xds::pb::google::protobuf::{ListValue, Value};

use super::build::{boolean, fields, text};
use super::telemetry::{structure, typed_struct};
use crate::Proxy;

/// The filter and the extension that proxies list when they have it.
const NAME: &str = "lateen.body_to_headers";

const TYPE: &str = "type.googleapis.com/lateen.body_to_headers.v1.BodyToHeaders";

/// Longest body that is looked at when the policy says nothing, in bytes.
const MAX_BYTES: u64 = 64 * 1024;

/// The filters of policies, for proxies that have them.
pub(super) fn filters(proxy: &Proxy, policies: &[&BodyToHeaders]) -> Vec<HttpFilter> {
    if !proxy.has(NAME) {
        return Vec::new();
    }
    policies.iter().map(|policy| filter(policy)).collect()
}

fn filter(policy: &BodyToHeaders) -> HttpFilter {
    let spec = &policy.spec;
    let field = |field: &lateen_api::lateen::BodyField| {
        structure(fields([
            ("pointer", text(field.pointer.clone())),
            ("header", text(field.header.to_ascii_lowercase())),
        ]))
    };
    let types = match spec.content_types.as_slice() {
        [] => vec![text("application/json")],
        types => types.iter().map(|media| text(media.clone())).collect(),
    };
    let most = spec.max_bytes.map_or(MAX_BYTES, |most| most.0);
    let options = fields([
        ("fields", list(spec.fields.iter().map(field).collect())),
        ("content_types", list(types)),
        (
            "max_bytes",
            Value {
                kind: Some(Kind::NumberValue(most as f64)),
            },
        ),
        ("overwrite", boolean(spec.overwrites())),
        (
            "reject",
            boolean(spec.on_unreadable == OnUnreadable::Reject),
        ),
    ]);
    HttpFilter {
        name: NAME.to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(typed_struct(
            TYPE, options,
        ))),
        ..HttpFilter::default()
    }
}

fn list(values: Vec<Value>) -> Value {
    Value {
        kind: Some(Kind::ListValue(ListValue { values })),
    }
}
