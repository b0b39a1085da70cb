//! The status of a CustomResourceDefinition: which names it got, and whether it is served.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::clock;

/// Brings `status` of `definition` up to date. `others` are the other definitions. Returns whether it is established.
///
/// Names are given to the definition that asked first: one that is taken stays taken until its owner is gone.
pub(crate) fn settle(definition: &mut Value, others: &[&Value]) -> bool {
    let wanted = definition["spec"]["names"].clone();
    let mut accepted = definition["status"]["acceptedNames"].clone();
    let (resources, kinds) = taken(definition, others);
    let mut conflict: Option<(&str, String)> = None;
    for (key, reason, used) in [
        ("plural", "PluralConflict", &resources),
        ("singular", "SingularConflict", &resources),
        ("shortNames", "ShortNamesConflict", &resources),
        ("kind", "KindConflict", &kinds),
        ("listKind", "ListKindConflict", &kinds),
    ] {
        let faults: Vec<String> = names(&wanted[key])
            .filter(|name| used.contains(*name) && !names(&accepted[key]).any(|own| own == *name))
            .map(|name| format!("{name:?} is already in use"))
            .collect();
        if faults.is_empty() {
            copy(&mut accepted, &wanted, key);
        } else {
            let text = match faults.as_slice() {
                [one] => one.clone(),
                many => format!("[{}]", many.join(", ")),
            };
            conflict = Some((reason, text));
        }
    }
    copy(&mut accepted, &wanted, "categories");
    definition["status"]["acceptedNames"] = accepted;

    let named = conflict.is_none();
    let (reason, message) =
        conflict.unwrap_or_else(|| ("NoConflicts", "no conflicts found".to_owned()));
    set_condition(definition, "NamesAccepted", named, reason, &message);
    if is_established(definition) {
        return true;
    }
    if named {
        let message = "the initial names have been accepted";
        set_condition(
            definition,
            "Established",
            true,
            "InitialNamesAccepted",
            message,
        );
    } else {
        set_condition(
            definition,
            "Established",
            false,
            "NotAccepted",
            "not all names are accepted",
        );
    }
    named
}

/// Whether objects of the definition are served.
pub(crate) fn is_established(definition: &Value) -> bool {
    conditions(definition)
        .any(|condition| condition["type"] == "Established" && condition["status"] == "True")
}

/// Sets a condition; the time of its last change moves only when its state does.
pub(crate) fn set_condition(
    definition: &mut Value,
    type_: &str,
    holds: bool,
    reason: &str,
    message: &str,
) {
    let state = if holds { "True" } else { "False" };
    let since = conditions(definition)
        .find(|condition| condition["type"] == type_ && condition["status"] == state)
        .and_then(|condition| condition["lastTransitionTime"].as_str())
        .map_or_else(clock::now, str::to_owned);
    let condition = json!({
        "lastTransitionTime": since,
        "message": message,
        "reason": reason,
        "status": state,
        "type": type_,
    });
    let list = &mut definition["status"]["conditions"];
    if !list.is_array() {
        *list = json!([]);
    }
    let Some(list) = list.as_array_mut() else {
        return;
    };
    match list.iter_mut().find(|condition| condition["type"] == type_) {
        Some(present) => *present = condition,
        None => list.push(condition),
    }
}

fn conditions(definition: &Value) -> impl Iterator<Item = &Value> {
    definition["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
}

/// Names of resources and kinds that other definitions of the group own.
fn taken(definition: &Value, others: &[&Value]) -> (HashSet<String>, HashSet<String>) {
    let (mut resources, mut kinds) = (HashSet::new(), HashSet::new());
    let same_group = others
        .iter()
        .filter(|other| other["spec"]["group"] == definition["spec"]["group"]);
    for other in same_group {
        let accepted = &other["status"]["acceptedNames"];
        for key in ["plural", "singular", "shortNames"] {
            resources.extend(names(&accepted[key]).map(str::to_owned));
        }
        for key in ["kind", "listKind"] {
            kinds.extend(names(&accepted[key]).map(str::to_owned));
        }
    }
    (resources, kinds)
}

/// One name or a list of names; empty ones are none.
fn names(value: &Value) -> impl Iterator<Item = &str> {
    let one = value.as_str().into_iter();
    let many = value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str);
    one.chain(many).filter(|name| !name.is_empty())
}

fn copy(to: &mut Value, from: &Value, key: &str) {
    match (from.get(key), to.as_object_mut()) {
        (Some(value), Some(to)) => drop(to.insert(key.to_owned(), value.clone())),
        (None, Some(to)) => drop(to.shift_remove(key)),
        (_, None) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(plural: &str, kind: &str, short: &str) -> Value {
        json!({
            "spec": {"group": "sail.example", "names": {
                "plural": plural, "singular": kind.to_lowercase(), "kind": kind,
                "listKind": format!("{kind}List"), "shortNames": [short],
            }},
            "status": {"acceptedNames": {"plural": "", "kind": ""}, "conditions": []},
        })
    }

    fn condition<'a>(definition: &'a Value, type_: &str) -> &'a Value {
        conditions(definition)
            .find(|condition| condition["type"] == type_)
            .expect("is there")
    }

    #[test]
    fn the_first_definition_keeps_its_names() {
        let mut first = definition("boats", "Boat", "b");
        assert!(settle(&mut first, &[]));
        assert_eq!(first["status"]["acceptedNames"], first["spec"]["names"]);

        let mut second = definition("barges", "Barge", "b");
        assert!(!settle(&mut second, &[&first]));
        let names = condition(&second, "NamesAccepted");
        assert_eq!(
            (&names["reason"], &names["message"]),
            (
                &json!("ShortNamesConflict"),
                &json!("\"b\" is already in use")
            )
        );
        assert_eq!(condition(&second, "Established")["reason"], "NotAccepted");
        assert_eq!(second["status"]["acceptedNames"]["plural"], "barges");

        assert!(settle(&mut second, &[]));
        assert_eq!(condition(&second, "Established")["status"], "True");
    }
}
