//! The status of the Gateway API's objects, as it is written.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use lateen_api::gateway_api::GROUP;
use lateen_mesh::Key;
use lateen_mesh::index::{
    GATEWAY_CONTROLLER, ListenerStatus, ObjectStatus, ParentStatus, StatusContent,
};
use serde_json::{Map, Value, json};

use crate::status::with_times;

/// The fields to write, unless the current status says the same. Fields beside them, and what other controllers say of
/// their parents of a route, stay.
pub(crate) fn wanted(status: &ObjectStatus, now: Timestamp) -> Option<Value> {
    let nothing = Value::Null;
    let current = status.current.as_ref().unwrap_or(&nothing);
    let generation = status.generation;
    let timed = |wanted: &[_], current: &Value| -> Vec<Condition> {
        let current: Vec<Condition> = serde_json::from_value(current.clone()).unwrap_or_default();
        with_times(wanted, generation, &current, now)
    };
    let mut fields = Map::new();
    match &status.content {
        StatusContent::Class(conditions) => {
            let conditions = timed(conditions, &current["conditions"]);
            fields.insert("conditions".to_owned(), json!(conditions));
        }
        StatusContent::Gateway {
            conditions,
            addresses,
            listeners,
        } => {
            let conditions = timed(conditions, &current["conditions"]);
            let addresses: Vec<Value> = addresses.iter().map(|one| address(one)).collect();
            let listeners: Vec<Value> = listeners
                .iter()
                .map(|one| {
                    let before = entry(&current["listeners"], |old| old["name"] == one.name);
                    listener(one, &timed(&one.conditions, &before["conditions"]))
                })
                .collect();
            fields.insert("conditions".to_owned(), json!(conditions));
            fields.insert("addresses".to_owned(), json!(addresses));
            fields.insert("listeners".to_owned(), json!(listeners));
        }
        StatusContent::Route(parents) => {
            let current = &current["parents"];
            let foreign = current.as_array().into_iter().flatten();
            let mut all: Vec<Value> = foreign
                .filter(|parent| parent["controllerName"] != GATEWAY_CONTROLLER)
                .cloned()
                .collect();
            all.extend(parents.iter().map(|one| {
                let reference = json!(one.reference);
                let before = entry(current, |old| {
                    old["controllerName"] == GATEWAY_CONTROLLER && old["parentRef"] == reference
                });
                parent(one, &timed(&one.conditions, &before["conditions"]))
            }));
            fields.insert("parents".to_owned(), json!(all));
        }
    }
    let same = fields.iter().all(|(name, value)| current[name] == *value);
    (!same).then_some(Value::Object(fields))
}

/// Says of listeners whose certificates cannot be used what is wrong with those.
pub(crate) fn look_at_certificates(
    status: &mut ObjectStatus,
    problem: impl Fn(&Key) -> Option<String>,
) {
    let StatusContent::Gateway { listeners, .. } = &mut status.content else {
        return;
    };
    for listener in listeners {
        let problems: Vec<String> = listener.certificates.iter().filter_map(&problem).collect();
        if !problems.is_empty() {
            listener.without_certificate(problems.join("; "));
        }
    }
}

/// The entry of a list that was there before; nothing when there was none.
fn entry(list: &Value, is_same: impl Fn(&Value) -> bool) -> Value {
    let entries = list.as_array().into_iter().flatten();
    let mut same = entries.filter(|entry| is_same(entry));
    same.next().cloned().unwrap_or_default()
}

fn address(value: &str) -> Value {
    let kind = match value.parse::<std::net::IpAddr>() {
        Ok(_) => "IPAddress",
        Err(_) => "Hostname",
    };
    json!({"type": kind, "value": value})
}

fn listener(status: &ListenerStatus, conditions: &[Condition]) -> Value {
    let kinds: Vec<Value> = status
        .kinds
        .iter()
        .map(|kind| json!({"group": GROUP, "kind": kind}))
        .collect();
    json!({
        "name": status.name,
        "supportedKinds": kinds,
        "attachedRoutes": status.attached,
        "conditions": conditions,
    })
}

fn parent(status: &ParentStatus, conditions: &[Condition]) -> Value {
    json!({
        "parentRef": status.reference,
        "controllerName": GATEWAY_CONTROLLER,
        "conditions": conditions,
    })
}

#[cfg(test)]
mod tests {
    use lateen_api::gateway_api::ParentReference;
    use lateen_mesh::ObjectKind;
    use lateen_mesh::index;

    use super::*;

    /// A route at one parent, with the status that it has.
    fn route(holds: bool, current: Option<Value>) -> ObjectStatus {
        ObjectStatus {
            kind: ObjectKind::HttpRoute,
            key: Key::new("shop", "a"),
            generation: 2,
            content: StatusContent::Route(vec![ParentStatus {
                reference: ParentReference {
                    name: "edge".to_owned(),
                    ..ParentReference::default()
                },
                conditions: vec![index::Condition {
                    kind: "Accepted",
                    holds,
                    reason: "Reason",
                    message: String::new(),
                }],
            }]),
            current,
        }
    }

    #[test]
    fn parents_of_others_and_times_of_transitions_stay() {
        let at = |second| Timestamp::from_second(second).expect("a time");
        let time = |status: &Value, place: usize| {
            status["parents"][place]["conditions"][0]["lastTransitionTime"].clone()
        };
        let foreign =
            json!({"controllerName": "other.example/controller", "parentRef": {"name": "edge"}});
        let before = json!({"parents": [foreign]});
        let first = wanted(&route(true, Some(before)), at(10)).expect("news");
        assert_eq!(first["parents"][0], foreign);
        assert_eq!(first["parents"][1]["controllerName"], GATEWAY_CONTROLLER);
        assert_eq!(wanted(&route(true, Some(first.clone())), at(20)), None);
        let second = wanted(&route(false, Some(first.clone())), at(20)).expect("news");
        assert_eq!(second["parents"].as_array().map(Vec::len), Some(2));
        assert_ne!(time(&first, 1), time(&second, 1));
    }
}
