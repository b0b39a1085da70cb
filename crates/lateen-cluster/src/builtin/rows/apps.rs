//! Kinds whose controllers run pods.

use crate::builtin::read::int;
use crate::builtin::row::{Other, Row};
use crate::builtin::validate::{self, text as rule};
use crate::builtin::{convert, defaults, table};
use crate::resource::{Resource, Scale};

pub(super) fn rows() -> Vec<Resource> {
    let scale = || {
        Some(Scale {
            spec_replicas: ".spec.replicas".to_owned(),
            status_replicas: ".status.replicas".to_owned(),
            label_selector: Some(".spec.selector".to_owned()),
        })
    };
    vec![
        Row {
            short: &["deploy"],
            categories: &["all"],
            status: true,
            generation: true,
            default: defaults::deployment,
            validate: validate::deployment,
            scale: scale(),
            others: vec![
                Other {
                    group: "apps",
                    version: "v1beta1",
                    definition: "io.k8s.api.apps.v1beta1.Deployment",
                    to_storage: convert::from_apps_beta,
                    from_storage: convert::same,
                    deprecation: Some(
                        "apps/v1beta1 Deployment is deprecated in v1.8+, unavailable in v1.16+; use apps/v1 Deployment",
                    ),
                },
                Other {
                    group: "extensions",
                    version: "v1beta1",
                    definition: "io.k8s.api.extensions.v1beta1.Deployment",
                    to_storage: convert::from_extensions,
                    from_storage: convert::same,
                    deprecation: Some(
                        "extensions/v1beta1 Deployment is deprecated in v1.8+, unavailable in v1.16+; use apps/v1 Deployment",
                    ),
                },
            ],
            ..Row::new("apps", "v1", "Deployment", "deployments", table::DEPLOYMENT)
        }
        .build(),
        Row {
            short: &["rs"],
            categories: &["all"],
            status: true,
            generation: true,
            default: defaults::replica_set,
            validate: validate::replica_set,
            scale: scale(),
            fields: &[("status.replicas", |set| int(set, "/status/replicas").to_string())],
            others: vec![Other {
                group: "extensions",
                version: "v1beta1",
                definition: "io.k8s.api.extensions.v1beta1.ReplicaSet",
                to_storage: convert::from_extensions_replica_set,
                from_storage: convert::same,
                deprecation: Some(
                    "extensions/v1beta1 ReplicaSet is deprecated in v1.8+, unavailable in v1.16+; use apps/v1 ReplicaSet",
                ),
            }],
            ..Row::new("apps", "v1", "ReplicaSet", "replicasets", table::REPLICA_SET)
        }
        .build(),
        Row {
            short: &["sts"],
            categories: &["all"],
            status: true,
            generation: true,
            name_rule: rule::dns_label,
            default: defaults::stateful_set,
            validate: validate::stateful_set,
            scale: scale(),
            others: vec![Other {
                group: "apps",
                version: "v1beta1",
                definition: "io.k8s.api.apps.v1beta1.StatefulSet",
                to_storage: convert::from_apps_beta_stateful_set,
                from_storage: convert::same,
                deprecation: Some(
                    "apps/v1beta1 StatefulSet is deprecated in v1.8+, unavailable in v1.16+; use apps/v1 StatefulSet",
                ),
            }],
            ..Row::new("apps", "v1", "StatefulSet", "statefulsets", table::STATEFUL_SET)
        }
        .build(),
        Row {
            validate: validate::controller_revision,
            ..Row::new(
                "apps",
                "v1",
                "ControllerRevision",
                "controllerrevisions",
                table::CONTROLLER_REVISION,
            )
        }
        .build(),
    ]
}
