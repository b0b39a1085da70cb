//! The table of built-in kinds, as Kubernetes lists them in discovery documents.

mod apps;

use serde_json::Value;

use super::kind::SelectableField;
use super::read::{at, text};
use super::row::{Other, Row};
use super::table;
use super::validate::{self, Check, text as rule};
use super::{convert, defaults, prepare};
use crate::field::FieldError;
use crate::resource::Resource;

/// Namespaces go one by one.
const VERBS_OF_NAMESPACES: &[&str] = &[
    "create", "delete", "get", "list", "patch", "update", "watch",
];

/// All built-in resources but CustomResourceDefinitions, which bring a row of their own.
///
/// Left out, and refused: kinds that need a controller which is not there (DaemonSet, Job, Ingress, ...) and kinds whose
/// rules nobody would apply (NetworkPolicy, ResourceQuota, LimitRange, volumes and their classes; so StatefulSets may not
/// claim volumes). Stored without an effect: Role, ClusterRole and their bindings (every client may do everything), PodDisruptionBudget
/// (evictions are not held back) and PriorityClass (there is one node and no preemption).
pub fn rows() -> Vec<Resource> {
    let mut rows = core();
    rows.extend(apps::rows());
    rows.extend(scaling());
    rows.extend(access());
    rows.extend(machinery());
    rows
}

fn core() -> Vec<Resource> {
    vec![
        Row {
            short: &["ns"],
            namespaced: false,
            status: true,
            name_rule: rule::dns_label,
            default: defaults::namespace,
            create: prepare::create_namespace,
            update: prepare::update_namespace,
            validate: validate::namespace,
            fields: &[
                ("status.phase", |namespace| {
                    text(namespace, "/status/phase").to_owned()
                }),
                ("name", |namespace| {
                    text(namespace, "/metadata/name").to_owned()
                }),
            ],
            verbs: VERBS_OF_NAMESPACES,
            ..Row::new("", "v1", "Namespace", "namespaces", table::NAMESPACE)
        }
        .build(),
        Row {
            short: &["no"],
            namespaced: false,
            status: true,
            default: defaults::node,
            fields: &[("spec.unschedulable", |node| {
                (node["spec"]["unschedulable"] == true).to_string()
            })],
            ..Row::new("", "v1", "Node", "nodes", table::NODE)
        }
        .build(),
        Row {
            short: &["po"],
            categories: &["all"],
            status: true,
            generation: true,
            default: defaults::pod,
            create: prepare::create_pod,
            validate: validate::pod,
            fields: POD_FIELDS,
            ..Row::new("", "v1", "Pod", "pods", table::POD)
        }
        .build(),
        Row {
            short: &["svc"],
            categories: &["all"],
            status: true,
            name_rule: rule::dns_label,
            default: defaults::service,
            create: prepare::create_service,
            update: prepare::update_service,
            validate: validate::service,
            fields: &[
                ("spec.clusterIP", |service| {
                    text(service, "/spec/clusterIP").to_owned()
                }),
                ("spec.type", |service| {
                    text(service, "/spec/type").to_owned()
                }),
            ],
            ..Row::new("", "v1", "Service", "services", table::SERVICE)
        }
        .build(),
        Row {
            short: &["ep"],
            default: defaults::endpoints,
            validate: validate::endpoints,
            singular: "endpoints",
            deprecation: Some(
                "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
            ),
            ..Row::new("", "v1", "Endpoints", "endpoints", table::ENDPOINTS)
        }
        .build(),
        Row {
            short: &["cm"],
            validate: validate::config_map,
            ..Row::new("", "v1", "ConfigMap", "configmaps", table::CONFIG_MAP)
        }
        .build(),
        Row {
            default: defaults::secret,
            validate: validate::secret,
            fields: &[("type", |secret| text(secret, "/type").to_owned())],
            ..Row::new("", "v1", "Secret", "secrets", table::SECRET)
        }
        .build(),
        Row {
            short: &["sa"],
            ..Row::new(
                "",
                "v1",
                "ServiceAccount",
                "serviceaccounts",
                table::ACCOUNT,
            )
        }
        .build(),
        Row {
            short: &["ev"],
            validate: validate::event,
            fields: EVENT_FIELDS,
            others: vec![Other {
                group: "events.k8s.io",
                version: "v1",
                definition: "io.k8s.api.events.v1.Event",
                to_storage: convert::event_from_events,
                from_storage: convert::event_to_events,
                deprecation: None,
            }],
            ..Row::new("", "v1", "Event", "events", table::EVENT)
        }
        .build(),
    ]
}

const POD_FIELDS: &[SelectableField] = &[
    ("spec.nodeName", |pod| {
        text(pod, "/spec/nodeName").to_owned()
    }),
    ("spec.restartPolicy", |pod| {
        text(pod, "/spec/restartPolicy").to_owned()
    }),
    ("spec.schedulerName", |pod| {
        text(pod, "/spec/schedulerName").to_owned()
    }),
    ("spec.serviceAccountName", |pod| {
        text(pod, "/spec/serviceAccountName").to_owned()
    }),
    ("spec.hostNetwork", |pod| {
        (pod["spec"]["hostNetwork"] == true).to_string()
    }),
    ("status.phase", |pod| text(pod, "/status/phase").to_owned()),
    ("status.podIP", |pod| text(pod, "/status/podIP").to_owned()),
    ("status.podIPs", |pod| text(pod, "/status/podIP").to_owned()),
    ("status.nominatedNodeName", |pod| {
        text(pod, "/status/nominatedNodeName").to_owned()
    }),
];

const EVENT_FIELDS: &[SelectableField] = &[
    ("involvedObject.kind", |event| {
        text(event, "/involvedObject/kind").to_owned()
    }),
    ("involvedObject.namespace", |event| {
        text(event, "/involvedObject/namespace").to_owned()
    }),
    ("involvedObject.name", |event| {
        text(event, "/involvedObject/name").to_owned()
    }),
    ("involvedObject.uid", |event| {
        text(event, "/involvedObject/uid").to_owned()
    }),
    ("involvedObject.apiVersion", |event| {
        text(event, "/involvedObject/apiVersion").to_owned()
    }),
    ("involvedObject.resourceVersion", |event| {
        text(event, "/involvedObject/resourceVersion").to_owned()
    }),
    ("involvedObject.fieldPath", |event| {
        text(event, "/involvedObject/fieldPath").to_owned()
    }),
    ("regarding.kind", |event| {
        text(event, "/involvedObject/kind").to_owned()
    }),
    ("regarding.namespace", |event| {
        text(event, "/involvedObject/namespace").to_owned()
    }),
    ("regarding.name", |event| {
        text(event, "/involvedObject/name").to_owned()
    }),
    ("regarding.uid", |event| {
        text(event, "/involvedObject/uid").to_owned()
    }),
    ("reason", |event| text(event, "/reason").to_owned()),
    ("reportingComponent", |event| {
        text(event, "/reportingComponent").to_owned()
    }),
    ("source", |event| match text(event, "/source/component") {
        "" => text(event, "/reportingComponent").to_owned(),
        component => component.to_owned(),
    }),
    ("type", |event| text(event, "/type").to_owned()),
];

fn scaling() -> Vec<Resource> {
    vec![
        Row {
            short: &["hpa"],
            categories: &["all"],
            status: true,
            default: defaults::autoscaler,
            validate: validate::autoscaler,
            others: vec![Other {
                group: "autoscaling",
                version: "v1",
                definition: "io.k8s.api.autoscaling.v1.HorizontalPodAutoscaler",
                to_storage: convert::autoscaler_from_v1,
                from_storage: convert::autoscaler_to_v1,
                deprecation: None,
            }],
            ..Row::new(
                "autoscaling",
                "v2",
                "HorizontalPodAutoscaler",
                "horizontalpodautoscalers",
                table::AUTOSCALER,
            )
        }
        .build(),
        Row {
            short: &["pdb"],
            status: true,
            generation: true,
            validate: validate::disruption_budget,
            ..Row::new(
                "policy",
                "v1",
                "PodDisruptionBudget",
                "poddisruptionbudgets",
                table::DISRUPTION_BUDGET,
            )
        }
        .build(),
        Row {
            short: &["pc"],
            namespaced: false,
            generation: true,
            default: defaults::priority_class,
            validate: validate::priority_class,
            ..Row::new(
                "scheduling.k8s.io",
                "v1",
                "PriorityClass",
                "priorityclasses",
                table::PRIORITY_CLASS,
            )
        }
        .build(),
    ]
}

fn access() -> Vec<Resource> {
    const GROUP: &str = "rbac.authorization.k8s.io";
    let role = |kind, plural, namespaced| {
        Row {
            namespaced,
            name_rule: rule::path_segment,
            validate: validate::role,
            ..Row::new(GROUP, "v1", kind, plural, table::PLAIN)
        }
        .build()
    };
    let binding = |kind, plural, namespaced| {
        Row {
            namespaced,
            name_rule: rule::path_segment,
            default: defaults::binding,
            validate: validate::role_binding,
            ..Row::new(GROUP, "v1", kind, plural, table::BINDING)
        }
        .build()
    };
    vec![
        role("ClusterRole", "clusterroles", false),
        binding("ClusterRoleBinding", "clusterrolebindings", false),
        role("Role", "roles", true),
        binding("RoleBinding", "rolebindings", true),
    ]
}

fn machinery() -> Vec<Resource> {
    const ADMISSION: &str = "admissionregistration.k8s.io";
    let admission = |kind, plural, table, default, validate, status| {
        Row {
            categories: &["api-extensions"],
            namespaced: false,
            generation: true,
            status,
            default,
            validate,
            ..Row::new(ADMISSION, "v1", kind, plural, table)
        }
        .build()
    };
    vec![
        Row {
            generation: true,
            default: defaults::endpoint_slice,
            validate: validate::endpoint_slice,
            ..Row::new(
                "discovery.k8s.io",
                "v1",
                "EndpointSlice",
                "endpointslices",
                table::ENDPOINT_SLICE,
            )
        }
        .build(),
        Row {
            validate: validate::lease,
            fields: &[("spec.holderIdentity", |lease| {
                at(lease, "/spec/holderIdentity")
                    .as_str()
                    .unwrap_or_default()
                    .to_owned()
            })],
            ..Row::new("coordination.k8s.io", "v1", "Lease", "leases", table::LEASE)
        }
        .build(),
        admission(
            "MutatingWebhookConfiguration",
            "mutatingwebhookconfigurations",
            table::WEBHOOKS,
            defaults::webhooks as fn(&mut Value),
            validate::webhooks as fn(&Check<'_>) -> Vec<FieldError>,
            false,
        ),
        admission(
            "ValidatingAdmissionPolicy",
            "validatingadmissionpolicies",
            table::POLICY,
            defaults::policy,
            validate::policy,
            true,
        ),
        admission(
            "ValidatingAdmissionPolicyBinding",
            "validatingadmissionpolicybindings",
            table::POLICY_BINDING,
            defaults::policy_binding,
            validate::none,
            false,
        ),
        admission(
            "ValidatingWebhookConfiguration",
            "validatingwebhookconfigurations",
            table::WEBHOOKS,
            defaults::webhooks,
            validate::webhooks,
            false,
        ),
    ]
}
