//! Configuration, access, nodes, events and the other small kinds.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::workloads::format_selector;
use super::{
    AGE, ColumnSpec, Description, NAME, Table, age, field_column, name, or_none, since,
    text_column, wide,
};
use crate::builtin::read::{at, int, list, members, text};

/// Kinds without a printer of their own.
pub(in crate::builtin) const PLAIN: Table = Table {
    columns: &[
        NAME,
        field_column("Created At", "date", &["metadata", "creationTimestamp"]),
    ],
    row: |object, _| {
        vec![
            name(object),
            at(object, "/metadata/creationTimestamp").clone(),
        ]
    },
};

pub(in crate::builtin) const ACCOUNT: Table = Table {
    columns: &[NAME, AGE],
    row: |account, now| vec![name(account), age(account, now)],
};

pub(in crate::builtin) const CONFIG_MAP: Table = Table {
    columns: &[NAME, field_column("Data", "string", &["data"]), AGE],
    row: |map, now| {
        let entries = members(map, "/data").count() + members(map, "/binaryData").count();
        vec![name(map), json!(entries), age(map, now)]
    },
};

pub(in crate::builtin) const SECRET: Table = Table {
    columns: &[
        NAME,
        field_column("Type", "string", &["type"]),
        field_column("Data", "string", &["data"]),
        AGE,
    ],
    row: |secret, now| {
        let entries = members(secret, "/data").count();
        vec![
            name(secret),
            json!(text(secret, "/type")),
            json!(entries),
            age(secret, now),
        ]
    },
};

pub(in crate::builtin) const NAMESPACE: Table = Table {
    columns: &[
        NAME,
        text_column("Status", "string", "The status of the namespace"),
        AGE,
    ],
    row: |namespace, now| {
        vec![
            name(namespace),
            json!(text(namespace, "/status/phase")),
            age(namespace, now),
        ]
    },
};

pub(in crate::builtin) const LEASE: Table = Table {
    columns: &[
        NAME,
        field_column("Holder", "string", &["spec", "holderIdentity"]),
        AGE,
    ],
    row: |lease, now| {
        vec![
            name(lease),
            json!(text(lease, "/spec/holderIdentity")),
            age(lease, now),
        ]
    },
};

pub(in crate::builtin) const PRIORITY_CLASS: Table = Table {
    columns: &[
        NAME,
        field_column("Value", "integer", &["value"]),
        field_column("Global-Default", "boolean", &["globalDefault"]),
        AGE,
        field_column("PreemptionPolicy", "string", &["preemptionPolicy"]),
    ],
    row: |class, now| {
        vec![
            name(class),
            json!(int(class, "/value")),
            json!(class["globalDefault"] == true),
            age(class, now),
            json!(text(class, "/preemptionPolicy")),
        ]
    },
};

pub(in crate::builtin) const WEBHOOKS: Table = Table {
    columns: &[
        NAME,
        text_column(
            "Webhooks",
            "integer",
            "Webhooks indicates the number of webhooks registered in this configuration",
        ),
        AGE,
    ],
    row: |configuration, now| {
        vec![
            name(configuration),
            json!(list(configuration, "/webhooks").len()),
            age(configuration, now),
        ]
    },
};

pub(in crate::builtin) const POLICY: Table = Table {
    columns: &[
        NAME,
        text_column(
            "Validations",
            "integer",
            "Validations indicates the number of validation rules defined in this configuration",
        ),
        text_column(
            "ParamKind",
            "string",
            "ParamKind specifies the kind of resources used to parameterize this policy",
        ),
        AGE,
    ],
    row: |policy, now| {
        let kind = at(policy, "/spec/paramKind");
        let kind = if kind.is_object() {
            format!("{}/{}", text(kind, "/apiVersion"), text(kind, "/kind"))
        } else {
            "<unset>".to_owned()
        };
        vec![
            name(policy),
            json!(list(policy, "/spec/validations").len()),
            json!(kind),
            age(policy, now),
        ]
    },
};

pub(in crate::builtin) const POLICY_BINDING: Table = Table {
    columns: &[
        NAME,
        text_column(
            "PolicyName",
            "string",
            "PolicyName indicates the policy definition which the policy binding binded to",
        ),
        text_column(
            "ParamRef",
            "string",
            "ParamRef indicates the param resource which sets the configration param",
        ),
        AGE,
    ],
    row: |binding, now| {
        let reference = at(binding, "/spec/paramRef");
        let shown = match (text(reference, "/name"), text(reference, "/namespace")) {
            ("", _) if reference["selector"].is_object() => format_selector(&reference["selector"]),
            ("", _) => "<unset>".to_owned(),
            (name, "") => format!("*/{name}"),
            (name, namespace) => format!("{namespace}/{name}"),
        };
        vec![
            name(binding),
            json!(text(binding, "/spec/policyName")),
            json!(shown),
            age(binding, now),
        ]
    },
};

pub(in crate::builtin) const BINDING: Table = Table {
    columns: &[
        NAME,
        field_column("Role", "string", &["roleRef"]),
        AGE,
        wide(text_column("Users", "string", "Users in the roleBinding")),
        wide(text_column("Groups", "string", "Groups in the roleBinding")),
        wide(text_column(
            "ServiceAccounts",
            "string",
            "ServiceAccounts in the roleBinding",
        )),
    ],
    row: |binding, now| {
        let of_kind = |kind: &str| {
            let names: Vec<String> = list(binding, "/subjects")
                .iter()
                .filter(|subject| subject["kind"] == kind)
                .map(|subject| match text(subject, "/namespace") {
                    "" => text(subject, "/name").to_owned(),
                    namespace => format!("{namespace}/{}", text(subject, "/name")),
                })
                .collect();
            json!(names.join(", "))
        };
        let role = format!(
            "{}/{}",
            text(binding, "/roleRef/kind"),
            text(binding, "/roleRef/name")
        );
        vec![
            name(binding),
            json!(role),
            age(binding, now),
            of_kind("User"),
            of_kind("Group"),
            of_kind("ServiceAccount"),
        ]
    },
};

pub(in crate::builtin) const NODE: Table = Table {
    columns: &[
        NAME,
        text_column("Status", "string", "The status of the node"),
        text_column("Roles", "string", "The roles of the node"),
        AGE,
        field_column(
            "Version",
            "string",
            &["status", "nodeInfo", "kubeletVersion"],
        ),
        wide(field_column(
            "Internal-IP",
            "string",
            &["status", "addresses"],
        )),
        wide(field_column(
            "External-IP",
            "string",
            &["status", "addresses"],
        )),
        wide(field_column(
            "OS-Image",
            "string",
            &["status", "nodeInfo", "osImage"],
        )),
        wide(field_column(
            "Kernel-Version",
            "string",
            &["status", "nodeInfo", "kernelVersion"],
        )),
        wide(field_column(
            "Container-Runtime",
            "string",
            &["status", "nodeInfo", "containerRuntimeVersion"],
        )),
    ],
    row: node_row,
};

fn node_row(node: &Value, now: OffsetDateTime) -> Vec<Value> {
    let ready = list(node, "/status/conditions")
        .iter()
        .find(|condition| condition["type"] == "Ready");
    let mut status = match ready {
        Some(condition) if condition["status"] == "True" => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if node["spec"]["unschedulable"] == true {
        status.push_str(",SchedulingDisabled");
    }
    let roles: BTreeSet<&str> = members(node, "/metadata/labels")
        .filter_map(
            |(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
                Some(role) => Some(role),
                None if key == "kubernetes.io/role" => value.as_str(),
                None => None,
            },
        )
        .filter(|role| !role.is_empty())
        .collect();
    let roles: Vec<&str> = roles.into_iter().collect();
    let address = |type_: &str| {
        let found = list(node, "/status/addresses")
            .iter()
            .find(|address| address["type"] == type_);
        json!(found.map_or("<none>", |address| text(address, "/address")))
    };
    let info = |field: &str| match text(node, &format!("/status/nodeInfo/{field}")) {
        "" => "<unknown>".to_owned(),
        text => text.to_owned(),
    };
    let mut kernel = info("kernelVersion");
    let architecture = text(node, "/status/nodeInfo/architecture");
    if !architecture.is_empty() {
        kernel = format!("{kernel} ({architecture})");
    }
    vec![
        name(node),
        json!(status),
        json!(or_none(&roles.join(","))),
        age(node, now),
        json!(text(node, "/status/nodeInfo/kubeletVersion")),
        address("InternalIP"),
        address("ExternalIP"),
        json!(info("osImage")),
        json!(kernel),
        json!(info("containerRuntimeVersion")),
    ]
}

pub(in crate::builtin) const EVENT: Table = Table {
    columns: &[
        field_column("Last Seen", "string", &["lastTimestamp"]),
        field_column("Type", "string", &["type"]),
        field_column("Reason", "string", &["reason"]),
        field_column("Object", "string", &["involvedObject"]),
        wide(field_column(
            "Subobject",
            "string",
            &["involvedObject", "fieldPath"],
        )),
        wide(field_column("Source", "string", &["source"])),
        field_column("Message", "string", &["message"]),
        wide(field_column("First Seen", "string", &["firstTimestamp"])),
        wide(field_column("Count", "string", &["count"])),
        ColumnSpec {
            priority: 1,
            name: "Name",
            type_: "string",
            description: Description::Field(&["metadata", "name"]),
        },
    ],
    row: event_row,
};

fn event_row(event: &Value, now: OffsetDateTime) -> Vec<Value> {
    let first = match text(event, "/firstTimestamp") {
        "" => text(event, "/eventTime"),
        first => first,
    };
    let series = at(event, "/series");
    let last = match (series.is_object(), text(event, "/lastTimestamp")) {
        (true, _) => text(series, "/lastObservedTime"),
        (false, "") => first,
        (false, last) => last,
    };
    let count = if series.is_object() {
        int(series, "/count")
    } else {
        int(event, "/count").max(1)
    };
    let kind = text(event, "/involvedObject/kind").to_lowercase();
    let target = match text(event, "/involvedObject/name") {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    let either = |old: &str, new: &str| match text(event, old) {
        "" => text(event, new).to_owned(),
        found => found.to_owned(),
    };
    let component = either("/source/component", "/reportingComponent");
    let instance = either("/source/host", "/reportingInstance");
    let source = if instance.is_empty() {
        component
    } else {
        format!("{component}, {instance}")
    };
    vec![
        json!(since(last, now)),
        json!(text(event, "/type")),
        json!(text(event, "/reason")),
        json!(target),
        json!(text(event, "/involvedObject/fieldPath")),
        json!(source),
        json!(text(event, "/message").trim()),
        json!(since(first, now)),
        json!(count),
        name(event),
    ]
}
