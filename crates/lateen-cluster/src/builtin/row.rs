//! How a row of the table of built-in kinds is built.

use std::sync::Arc;

use serde_json::Value;

use super::kind::{Form, Kind, SelectableField};
use super::table::Table;
use super::validate::{self, Check, text as rule};
use super::{convert, defaults, prepare};
use crate::field::FieldError;
use crate::resource::{Resource, Scale, Version};

/// The verbs of most resources, in the order of discovery documents.
const VERBS: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];

/// A row in the making: what differs from the plain stored object.
pub(super) struct Row {
    pub(super) group: &'static str,
    pub(super) version: &'static str,
    pub(super) kind: &'static str,
    pub(super) plural: &'static str,
    pub(super) singular: &'static str,
    pub(super) short: &'static [&'static str],
    pub(super) categories: &'static [&'static str],
    pub(super) verbs: &'static [&'static str],
    pub(super) namespaced: bool,
    pub(super) status: bool,
    pub(super) generation: bool,
    pub(super) name_rule: fn(&str) -> Vec<String>,
    pub(super) default: fn(&mut Value),
    pub(super) create: fn(&mut Value),
    pub(super) update: fn(&mut Value, &Value),
    pub(super) validate: fn(&Check<'_>) -> Vec<FieldError>,
    pub(super) table: Table,
    pub(super) fields: &'static [SelectableField],
    pub(super) scale: Option<Scale>,
    pub(super) deprecation: Option<&'static str>,
    pub(super) others: Vec<Other>,
}

/// A version beside the stored one, perhaps of an old group.
pub(super) struct Other {
    pub(super) group: &'static str,
    pub(super) version: &'static str,
    pub(super) definition: &'static str,
    pub(super) to_storage: fn(&mut Value),
    pub(super) from_storage: fn(&mut Value),
    pub(super) deprecation: Option<&'static str>,
}

impl Row {
    /// A namespaced kind without rules of its own.
    pub(super) fn new(
        group: &'static str,
        version: &'static str,
        kind: &'static str,
        plural: &'static str,
        table: Table,
    ) -> Self {
        Self {
            group,
            version,
            kind,
            plural,
            singular: "",
            short: &[],
            categories: &[],
            verbs: VERBS,
            namespaced: true,
            status: false,
            generation: false,
            name_rule: rule::dns_subdomain,
            default: defaults::none,
            create: prepare::nothing,
            update: prepare::keep,
            validate: validate::none,
            table,
            fields: &[],
            scale: None,
            deprecation: None,
            others: Vec::new(),
        }
    }

    /// The row as the server takes it.
    pub(super) fn build(self) -> Resource {
        let mut versions = vec![Version {
            group: self.group.to_owned(),
            name: self.version.to_owned(),
            deprecation: self.deprecation.map(str::to_owned),
        }];
        let mut forms = vec![Form {
            api_version: api_version(self.group, self.version),
            definition: definition(self.group, self.version, self.kind),
            to_storage: convert::same,
            from_storage: convert::same,
        }];
        for other in self.others {
            versions.push(Version {
                group: other.group.to_owned(),
                name: other.version.to_owned(),
                deprecation: other.deprecation.map(str::to_owned),
            });
            forms.push(Form {
                api_version: api_version(other.group, other.version),
                definition: other.definition.to_owned(),
                to_storage: other.to_storage,
                from_storage: other.from_storage,
            });
        }
        let texts = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Resource {
            group: self.group.to_owned(),
            kind: self.kind.to_owned(),
            plural: self.plural.to_owned(),
            singular: match self.singular {
                "" => self.kind.to_lowercase(),
                singular => singular.to_owned(),
            },
            short_names: texts(self.short),
            categories: texts(self.categories),
            namespaced: self.namespaced,
            versions,
            storage_version: self.version.to_owned(),
            verbs: self.verbs.to_vec(),
            status_subresource: self.status,
            scale: self.scale,
            strategy: Arc::new(Kind {
                name: self.kind,
                forms,
                namespaced: self.namespaced,
                generation: self.generation,
                status: self.status,
                name_rule: self.name_rule,
                default: self.default,
                create: self.create,
                update: self.update,
                validate: self.validate,
                table: self.table,
                fields: self.fields,
            }),
        }
    }
}

fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    }
}

/// Name of a kind's definition: `io.k8s.api.` with the first label of the group.
fn definition(group: &str, version: &str, kind: &str) -> String {
    match group {
        "" => format!("io.k8s.api.core.{version}.{kind}"),
        group => {
            let label = group.split('.').next().unwrap_or(group);
            format!("io.k8s.api.{label}.{version}.{kind}")
        }
    }
}
