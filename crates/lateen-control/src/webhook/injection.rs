//! Injection of sidecars into pods that are created.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use super::Verdict;
use crate::engine::World;
use crate::inject::{InjectConfig, Outcome, Owner, inject};

/// Adds the sidecar to the pod of a review.
pub(super) fn review(world: &World, config: &InjectConfig, request: &Value) -> Verdict {
    let pod = &request["object"];
    let namespace = request["namespace"].as_str().unwrap_or("default");
    let owner = Owner::of_pod(pod, namespace);
    match inject(pod, &owner, config) {
        Ok(Outcome::Injected {
            pod: injected,
            warnings,
        }) => {
            world.metrics.injected.add(1);
            let patch = json_patch::diff(pod, &injected);
            // A list of operations always has a JSON form.
            let patch = serde_json::to_vec(&patch).unwrap_or_default();
            let mut additions = json!({"patchType": "JSONPatch", "patch": BASE64.encode(patch)});
            if !warnings.is_empty() {
                additions["warnings"] = warnings.into();
            }
            Ok(additions)
        }
        Ok(Outcome::Skipped(reason)) => {
            world.metrics.injection_skipped.add(1);
            tracing::debug!(namespace, pod = owner.workload, %reason, "pod not injected");
            Ok(json!({}))
        }
        Err(error) => {
            world.metrics.injection_failed.add(1);
            Err(format!("sidecar injection: {error}"))
        }
    }
}
