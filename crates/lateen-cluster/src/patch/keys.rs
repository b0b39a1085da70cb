//! How the lists of the built-in kinds merge.
//!
//! The field names below have one meaning in all built-in kinds (`ports` apart), so names decide instead of schemas. The
//! table was taken from the `x-kubernetes-list-type` and `x-kubernetes-patch-merge-key` entries of Kubernetes' OpenAPI
//! document.

use crate::strategy::{ListType, Strategy};

/// Lists whose items are told apart by fields, the strategic merge key first.
const MAPS: &[(&str, &[&str])] = &[
    ("addresses", &["type"]),
    ("conditions", &["type"]),
    ("containers", &["name"]),
    ("env", &["name"]),
    ("ephemeralContainers", &["name"]),
    ("hostAliases", &["ip"]),
    ("imagePullSecrets", &["name"]),
    ("initContainers", &["name"]),
    ("matchConditions", &["name"]),
    ("ownerReferences", &["uid"]),
    ("podIPs", &["ip"]),
    ("resourceClaims", &["name"]),
    ("schedulingGates", &["name"]),
    ("secrets", &["name"]),
    (
        "topologySpreadConstraints",
        &["topologyKey", "whenUnsatisfiable"],
    ),
    ("volumeDevices", &["devicePath"]),
    ("volumeMounts", &["mountPath"]),
    ("volumes", &["name"]),
    ("webhooks", &["name"]),
];

/// Lists of scalars that merge as sets.
const SETS: &[&str] = &["finalizers", "podCIDRs"];

/// Maps that are replaced as a whole.
const ATOMIC_MAPS: &[&str] = &[
    "configMapKeyRef",
    "fieldRef",
    "labelSelector",
    "namespaceSelector",
    "nodeSelector",
    "objectSelector",
    "podSelector",
    "resourceFieldRef",
    "scaleTargetRef",
    "secretKeyRef",
    "secretRef",
    "targetRef",
];

/// How the list (or map) at `path` of a built-in kind merges; `None` for lists that are atomic and maps that merge.
pub fn built_in(path: &[&str]) -> Option<ListType> {
    let (field, parents) = path.split_last()?;
    let map = |keys: &[&str]| ListType::Map(keys.iter().map(|&key| key.to_owned()).collect());
    let within = |names: &[&str]| parents.last().is_some_and(|parent| names.contains(parent));
    match *field {
        "ports" if within(&["containers", "initContainers", "ephemeralContainers"]) => {
            return Some(map(&["containerPort", "protocol"]));
        }
        // Of a Service; those of EndpointSlices and NetworkPolicies are atomic.
        "ports" if parents == ["spec"] => return Some(map(&["port", "protocol"])),
        // Taints merge by key in strategic patches but are atomic for server-side apply: see `strategic_key`.
        // A Service's selector is a plain map of labels, but everywhere else it is a LabelSelector.
        "selector" if parents == ["spec"] => return Some(ListType::Atomic),
        // Condition lists of Pod readiness gates and such have the same name only in `status`.
        "conditions" | "addresses" if parents != ["status"] => return None,
        "secrets" if !parents.is_empty() => return None,
        _ => {}
    }
    if ATOMIC_MAPS.contains(field) {
        return Some(ListType::Atomic);
    }
    if SETS.contains(field) {
        return Some(ListType::Set);
    }
    MAPS.iter()
        .find(|(name, _)| name == field)
        .map(|(_, keys)| map(keys))
}

/// How the list or map at `path` merges for objects of `strategy`.
pub fn list_type(strategy: &dyn Strategy, path: &[&str]) -> Option<ListType> {
    if path == ["metadata", "ownerReferences"] || path == ["metadata", "finalizers"] {
        return built_in(path);
    }
    strategy
        .list_type(path)
        .or_else(|| strategy.strategic_merge().then(|| built_in(path)).flatten())
}
