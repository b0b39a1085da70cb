//! What a request path names: a resource, and perhaps a namespace, an object and a subresource.

use std::sync::Arc;

use super::query::decode;
use crate::registry::Table;
use crate::resource::Resource;
use crate::status::Status;
use crate::store::Key;
use crate::strategy::{Part, RequestInfo};

/// A resource path, understood.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) resource: Arc<Resource>,
    /// Group and version of the path, which differ from the row's for old versions.
    pub(crate) group: String,
    pub(crate) version: String,
    /// Empty for cluster-scoped resources and for requests across namespaces.
    pub(crate) namespace: String,
    /// Empty for requests about the whole collection.
    pub(crate) name: String,
    /// Empty for the object itself.
    pub(crate) subresource: String,
    pub(crate) deprecation: Option<String>,
}

/// What a path is.
pub(crate) enum Path {
    Resource(Box<Target>),
    /// `/api/..` or `/apis/..` that no row serves.
    Unserved,
    /// Discovery, health and so on.
    Other,
}

impl Path {
    pub(crate) fn parse(path: &str, table: &Table) -> Self {
        let parts: Vec<String> = path
            .split('/')
            .filter(|part| !part.is_empty())
            .map(|part| decode(part, false))
            .collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let (group, version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] if !rest.is_empty() => ("", *version, rest),
            ["apis", group, version, rest @ ..] if !rest.is_empty() => (*group, *version, rest),
            _ => return Self::Other,
        };
        let (namespace, plural, rest) = match rest {
            ["namespaces", _, "status" | "finalize", ..] => ("", "namespaces", &rest[1..]),
            ["namespaces", namespace, plural, rest @ ..] => (*namespace, *plural, rest),
            [plural, rest @ ..] => ("", *plural, rest),
            [] => return Self::Other,
        };
        let Some((resource, served)) = table.find(group, version, plural) else {
            return Self::Unserved;
        };
        if !namespace.is_empty() && !resource.namespaced {
            return Self::Unserved;
        }
        let mut rest = rest.iter();
        let name = rest.next().copied().unwrap_or_default();
        let subresource = rest.next().copied().unwrap_or_default();
        if rest.next().is_some() {
            return Self::Unserved;
        }
        Self::Resource(Box::new(Target {
            resource: resource.clone(),
            group: group.to_owned(),
            version: version.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            subresource: subresource.to_owned(),
            deprecation: served.deprecation.clone(),
        }))
    }
}

impl Target {
    /// `group/version`, or `version` for the core group.
    pub(crate) fn api_version(&self) -> String {
        join(&self.group, &self.version)
    }

    /// Where the object that the path names lies.
    pub(crate) fn key(&self) -> Key {
        self.key_of(&self.namespace, &self.name)
    }

    pub(crate) fn key_of(&self, namespace: &str, name: &str) -> Key {
        Key {
            resource: Arc::from(self.resource.storage_key()),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    pub(crate) fn info<'a>(&'a self, api_version: &'a str) -> RequestInfo<'a> {
        RequestInfo {
            api_version,
            namespace: &self.namespace,
            part: if self.subresource == "status" {
                Part::Status
            } else {
                Part::Main
            },
        }
    }

    /// Whether the path names `plural` of `group`.
    pub(crate) fn is(&self, group: &str, plural: &str) -> bool {
        self.resource.group == group && self.resource.plural == plural
    }

    pub(crate) fn not_found(&self) -> Status {
        Status::not_found(&self.resource.group, &self.resource.plural, &self.name)
    }

    pub(crate) fn conflict(&self, why: &str) -> Status {
        Status::conflict(&self.resource.group, &self.resource.plural, &self.name, why)
    }

    /// 403 with the words of `admission.NewForbidden`.
    pub(crate) fn forbidden(&self, name: &str, why: &str) -> Status {
        let qualified = self.resource.storage_key();
        let mut status = Status::forbidden(format!("{qualified} {name:?} is forbidden: {why}"));
        status.details = serde_json::json!({"name": name, "kind": self.resource.plural});
        if !self.resource.group.is_empty() {
            status.details["group"] = serde_json::json!(self.resource.group);
        }
        status
    }
}

/// `group/version`, or `version` for the core group.
pub(crate) fn join(group: &str, version: &str) -> String {
    if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    }
}
