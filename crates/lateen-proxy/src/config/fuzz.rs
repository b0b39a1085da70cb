//! Any resource, as a control plane may send it: it is compiled or refused.

use std::panic::AssertUnwindSafe;

use lateen_route::{Invalid, RouteTable};
use lateen_xds::ResourceType;
use lateen_xds::pb::google::protobuf::Any;
use prost::Message;

use super::cluster::ClusterSpec;
use super::context::Context;
use super::{decode, endpoint, listener};
use crate::{Engine, EngineConfig};

/// The bytes are an `Any`.
#[test]
fn resources() {
    let engine = Engine::start(&EngineConfig::default()).unwrap();
    let context = AssertUnwindSafe(Context::new(&engine.shared));
    bolero::check!(name = "resources")
        .with_iterations(0)
        .for_each(|bytes: &[u8]| {
            let Ok(any) = Any::decode(bytes) else { return };
            // It would be opened wherever the resource says.
            let logs = b"FileAccessLog";
            if bytes.windows(logs.len()).any(|window| window == logs) {
                return;
            }
            if let Some(kind) = ResourceType::from_type_url(&any.type_url)
                && let Err(error) = compile(kind, &any, &context)
            {
                assert!(!error.to_string().is_empty());
            }
        });
}

fn compile(kind: ResourceType, any: &Any, context: &Context<'_>) -> Result<(), Invalid> {
    match kind {
        ResourceType::Listener => listener::compile(decode(any)?, context).map(drop),
        ResourceType::Cluster => ClusterSpec::compile(decode(any)?, context).map(drop),
        ResourceType::Endpoint => endpoint::compile(decode(any)?, &[]).map(drop),
        ResourceType::Route => RouteTable::compile(decode(any)?).map(drop),
        ResourceType::Secret => context.secrets().discovered(decode(any)?),
    }
}
