//! Refusal of configuration that cannot work, before it is stored.

use lateen_api::validation::{Problem, validate};
use serde_json::{Value, json};

use super::Verdict;
use crate::engine::World;

/// Checks the object of a review. Kinds that are not the mesh's pass.
pub(super) fn review(world: &World, request: &Value) -> Verdict {
    let object = &request["object"];
    // An object from before the rules must not lose its labels or finalizers for what its specification says.
    let is_kept = request["operation"] == "UPDATE"
        && object["spec"] == request["oldObject"]["spec"]
        && object["apiVersion"] == request["oldObject"]["apiVersion"];
    let problems = match validate(object) {
        Some(problems) if !is_kept => problems,
        _ => Vec::new(),
    };
    if problems.is_empty() {
        world.metrics.validation_passed.add(1);
        return Ok(json!({}));
    }
    world.metrics.validation_failed.add(1);
    Err(format!("configuration is invalid: {}", list(&problems)))
}

/// All problems in the shape that Istio's users know: one is told in the line, several below each other.
fn list(problems: &[Problem]) -> String {
    if let [only] = problems {
        return only.to_string();
    }
    let lines: String = problems
        .iter()
        .map(|problem| format!("\t* {problem}\n"))
        .collect();
    format!("{} errors occurred:\n{lines}\n", problems.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use lateen_mesh::MeshConfig;

    fn gateway(port: u32) -> Value {
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": "Gateway", "metadata": {"name": "a"},
            "spec": {"servers": [{"hosts": ["*"], "port": {"number": port, "name": "http", "protocol": "HTTP"}}]},
        })
    }

    fn check(request: Value, expected: Result<(), &str>) {
        let world = World::new(MeshConfig::default());
        let verdict = review(&world, &request);
        match expected {
            Ok(()) => assert_eq!(verdict, Ok(json!({})), "{request}"),
            Err(part) => assert!(
                verdict.as_ref().is_err_and(|text| text.contains(part)),
                "{verdict:?} of {request}"
            ),
        }
    }

    #[test]
    fn refuses_what_cannot_work_and_lets_the_rest_pass() {
        let create = |object: Value| json!({"operation": "CREATE", "object": object});
        check(create(gateway(80)), Ok(()));
        check(
            create(gateway(0)),
            Err("configuration is invalid: spec.servers[0].port.number: "),
        );
        check(create(json!({"apiVersion": "v1", "kind": "Pod"})), Ok(()));
        let mut two = gateway(0);
        two["spec"]["servers"][0]["hosts"] = json!([]);
        check(
            create(two),
            Err("configuration is invalid: 2 errors occurred:\n\t* "),
        );
    }

    #[test]
    fn an_old_object_may_change_what_is_not_its_specification() {
        let update = |old: Value, new: Value| json!({"operation": "UPDATE", "oldObject": old, "object": new});
        let mut labelled = gateway(0);
        labelled["metadata"]["labels"] = json!({"a": "b"});
        check(update(gateway(0), labelled), Ok(()));
        check(update(gateway(80), gateway(0)), Err("port.number"));
    }
}
