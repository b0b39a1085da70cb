//! What differs from one kind to the next: the hooks of a [`Resource`](crate::resource::Resource).
//!
//! The order in which the server calls them on a write: [`Strategy::decode`] (types and unknown fields),
//! [`Strategy::convert_to_storage`], [`Strategy::default`], admission (mutating), [`Strategy::default`] again,
//! [`Strategy::prepare_create`] or [`Strategy::prepare_update`], [`Strategy::validate`], admission (validating), store.

use serde_json::Value;

use crate::field::FieldError;
use crate::status::Result;

/// What the client wants to happen to fields that the schema does not know (`fieldValidation`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldValidation {
    /// Drop them.
    Ignore,
    /// Drop them and warn.
    Warn,
    /// Refuse the object.
    Strict,
}

/// Which part of an object a write may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Everything but what belongs to a subresource.
    Main,
    /// `status` (and metadata that status writers may change).
    Status,
}

/// Where a request stands; given to hooks that need more than the object.
#[derive(Debug, Clone, Copy)]
pub struct RequestInfo<'a> {
    /// Version in the request path, `group/version` or `version`.
    pub api_version: &'a str,
    /// Namespace in the path; empty for cluster-scoped resources.
    pub namespace: &'a str,
    /// Which part the request writes.
    pub part: Part,
}

/// A column of the table that `kubectl get` prints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Heading, e.g. `Ready`.
    pub name: String,
    /// JSON type: `string`, `integer`, `number`, `boolean`, `date`.
    pub type_: &'static str,
    /// Format, e.g. `name` for the first column; may be empty.
    pub format: &'static str,
    /// What the column shows.
    pub description: String,
    /// 0 is always shown, above 0 only with `-o wide`.
    pub priority: i32,
}

/// The kind-specific behaviour of a resource. Objects are in storage version unless said otherwise.
pub trait Strategy: Send + Sync {
    /// Checks the types of all fields and drops (or refuses, see `validation`) unknown and repeated ones. The object is
    /// in the version of the request. Returns warnings for the client.
    fn decode(
        &self,
        object: &mut Value,
        info: RequestInfo<'_>,
        validation: FieldValidation,
    ) -> Result<Vec<String>>;

    /// Brings an object from the version of the request to the storage version.
    fn convert_to_storage(&self, _object: &mut Value, _info: RequestInfo<'_>) -> Result<()> {
        Ok(())
    }

    /// Brings a stored object to `api_version` (`group/version`), setting `apiVersion`.
    fn convert_from_storage(&self, object: &mut Value, api_version: &str) -> Result<()> {
        object["apiVersion"] = Value::String(api_version.to_owned());
        Ok(())
    }

    /// Fills fields that have a default. Idempotent.
    fn default(&self, object: &mut Value);

    /// Sets what only the server decides on a new object (drops `status`, sets `generation`, allocates nothing).
    fn prepare_create(&self, object: &mut Value, info: RequestInfo<'_>);

    /// Carries over what the write may not change, and raises `generation` when the wish changed.
    fn prepare_update(&self, object: &mut Value, old: &Value, info: RequestInfo<'_>);

    /// All field errors of `object`; `old` is given on updates (immutable fields).
    fn validate(
        &self,
        object: &Value,
        old: Option<&Value>,
        info: RequestInfo<'_>,
    ) -> Vec<FieldError>;

    /// Warnings for an object that is accepted.
    fn warnings(&self, _object: &Value) -> Vec<String> {
        Vec::new()
    }

    /// Columns of the table form.
    fn columns(&self, api_version: &str) -> Vec<Column>;

    /// Cells of one object, as many as there are columns. Ages are the plain timestamp of the `date` column's object;
    /// `now` is given in RFC 3339 form for cells that show an age as text (`5m`).
    fn row(&self, object: &Value, api_version: &str, now: &str) -> Vec<Value>;

    /// Field selectors beyond `metadata.name` and `metadata.namespace`: the value of `path` (e.g. `spec.nodeName`), or
    /// `None` when the kind does not support selecting by it. An absent field is the empty string, so that an empty
    /// object tells whether `path` is supported.
    fn selectable_field(&self, _object: &Value, _path: &str) -> Option<String> {
        None
    }

    /// Whether [`Strategy::selectable_field`] knows any field.
    fn has_selectable_fields(&self) -> bool {
        false
    }

    /// Finalizers that an object gets when its deletion is asked for.
    fn deletion_finalizers(&self) -> &'static [&'static str] {
        &[]
    }

    /// Whether strategic merge patches are understood. Kinds of CustomResourceDefinitions say no.
    fn strategic_merge(&self) -> bool {
        true
    }

    /// OpenAPI v3 schema of the kind in `api_version`, with its references resolved below `definitions`, keyed by full
    /// names such as `io.k8s.api.apps.v1.Deployment`. First the name of the kind's own definition.
    fn openapi(&self, api_version: &str) -> Option<(String, serde_json::Map<String, Value>)>;

    /// Merge keys for strategic merge and server-side apply: schema-driven kinds answer for `path` (field names without
    /// indexes, e.g. `["spec", "ports"]`), others `None`: then the table of [`crate::patch::keys`] decides for kinds with
    /// [`Strategy::strategic_merge`], and every list is atomic for the rest. `Atomic` on a path that holds a map makes
    /// the map atomic.
    fn list_type(&self, _path: &[&str]) -> Option<ListType> {
        None
    }
}

/// How a list merges (`x-kubernetes-list-type`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListType {
    /// Replaced as a whole.
    Atomic,
    /// Items are told apart by these fields.
    Map(Vec<String>),
    /// A set of scalars.
    Set,
}
