//! One row of the table that drives the server: a served resource.

use std::sync::Arc;

use crate::strategy::Strategy;

/// A resource that the server serves: all versions of one `plural.group`.
#[derive(Clone)]
pub struct Resource {
    /// API group, empty for the core group. Where a group is only an old name (`extensions`), the resource has one row
    /// under its present group and the old name stands in `versions`.
    pub group: String,
    /// Kind, e.g. `Deployment`.
    pub kind: String,
    /// Plural name in paths, e.g. `deployments`.
    pub plural: String,
    /// Singular name, e.g. `deployment`.
    pub singular: String,
    /// Short names, e.g. `deploy`.
    pub short_names: Vec<String>,
    /// Categories, e.g. `all`.
    pub categories: Vec<String>,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Served versions, the preferred one first.
    pub versions: Vec<Version>,
    /// The version that objects are stored in; an entry of `versions`.
    pub storage_version: String,
    /// Verbs that are served, in the order of discovery documents.
    pub verbs: Vec<&'static str>,
    /// Whether `PUT .../status` exists and the main resource leaves `status` alone.
    pub status_subresource: bool,
    /// Where the `scale` subresource reads and writes, if there is one.
    pub scale: Option<Scale>,
    /// How objects are decoded, defaulted, checked and shown.
    pub strategy: Arc<dyn Strategy>,
}

/// A served version of a resource, possibly under an old group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Group under which this version is served (differs from [`Resource::group`] only for old groups).
    pub group: String,
    /// Version, e.g. `v1beta1`.
    pub name: String,
    /// Warning header sent with every request, for deprecated versions.
    pub deprecation: Option<String>,
}

/// JSON paths of the `scale` subresource, with dots, e.g. `.spec.replicas`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scale {
    /// Path of the wished number of replicas.
    pub spec_replicas: String,
    /// Path of the observed number of replicas.
    pub status_replicas: String,
    /// Path of a label selector in string form, if the kind has one.
    pub label_selector: Option<String>,
}

impl Resource {
    /// The name under which objects are stored, and by which messages call the resource: `plural.group`, or the plural
    /// alone for the core group.
    pub fn storage_key(&self) -> String {
        if self.group.is_empty() {
            self.plural.clone()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    /// `apiVersion` as stored: `group/version`, or `version` for the core group.
    pub fn storage_api_version(&self) -> String {
        if self.group.is_empty() {
            self.storage_version.clone()
        } else {
            format!("{}/{}", self.group, self.storage_version)
        }
    }
}
