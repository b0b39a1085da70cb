//! Single connections and requests: which listener, filter chain, route and cluster they meet.
//!
//! The translation's own resources are walked the way a proxy walks them; routes are decided by `lateen-route`, the
//! code that decides in the proxy.

mod call;
mod filter_chain;
mod walk;

use anyhow::{Context, Result};
use lateen_mesh::{Index, MeshConfig, Proxy};
use serde_json::Value;

use super::{Case, Outcome, proxy::proxy_of, routes::index_of};
use call::Call;
use walk::walk;

/// Runs all calls of all cases.
pub(crate) fn run(cases: &Value) -> Result<Vec<Case>> {
    let mut results = Vec::new();
    for case in cases.as_array().into_iter().flatten() {
        let text = |field: &str| case[field].as_str().unwrap_or_default();
        let group = format!("{} {}", text("test"), text("name"));
        let dynamic =
            case["meshConfig"]["outboundTrafficPolicy"]["mode"] == "ALLOW_ANY_DYNAMIC_DNS";
        let mesh: MeshConfig = match &case["meshConfig"] {
            Value::Object(_) if !dynamic => {
                serde_json::from_value(case["meshConfig"].clone()).with_context(|| group.clone())?
            }
            _ => MeshConfig::default(),
        };
        let index = index_of(&[text("config"), text("kubeConfig")], mesh);
        for call in case["calls"].as_array().into_iter().flatten() {
            let outcome = match &index {
                _ if dynamic => Outcome::NotServed,
                Ok(index) => compare(index, &proxy_of(&case["proxy"])?, call)?,
                Err(error) => Outcome::Failed(format!("{error:#}")),
            };
            let name = call["name"].as_str().unwrap_or_default().to_owned();
            results.push(Case {
                group: group.clone(),
                name,
                outcome,
            });
        }
    }
    Ok(results)
}

fn compare(index: &Index, proxy: &Proxy, call: &Value) -> Result<Outcome> {
    let met = walk(index, proxy, &Call::of(&call["call"]))?;
    let expected = &call["result"];
    let error = expected["Error"].as_str().unwrap_or_default();
    if error != met.error {
        return Ok(Outcome::Failed(format!(
            "error {:?}, expected {error:?}; met {:?}",
            met.error, met.fields
        )));
    }
    let strict = expected["StrictMatch"] == true;
    for field in [
        "ListenerMatched",
        "FilterChainMatched",
        "RouteConfigMatched",
        "VirtualHostMatched",
        "RouteMatched",
        "ClusterMatched",
    ] {
        let wanted = expected[field].as_str().unwrap_or_default();
        let found = met
            .fields
            .get(field)
            .map(String::as_str)
            .unwrap_or_default();
        if (strict || !wanted.is_empty()) && short(wanted) != short(found) {
            return Ok(Outcome::Failed(format!(
                "{field} {found:?}, expected {wanted:?}"
            )));
        }
    }
    Ok(Outcome::Passed)
}

/// The cases were made in a cluster without a domain.
fn short(name: &str) -> String {
    name.replace(".svc.cluster.local", "")
}
