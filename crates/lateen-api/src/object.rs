//! The envelope of every kind and the decoding of its served versions.

use std::{borrow::Cow, fmt::Debug};

use k8s_openapi::{NamespaceResourceScope, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// What a specification says about the kind that it belongs to.
pub trait Kind:
    Debug + Clone + Default + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static
{
    /// API group, for example `networking.istio.io`.
    const GROUP: &'static str;
    /// Kind, for example `VirtualService`.
    const KIND: &'static str;
    /// Plural resource name in URLs, for example `virtualservices`.
    const PLURAL: &'static str;
    /// Served versions, the storage version first. All have the same schema.
    const VERSIONS: &'static [&'static str];
    /// Whether objects are of no namespace.
    const CLUSTER_SCOPED: bool = false;
}

/// An object of one of our kinds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Object<S: Kind> {
    /// Group and version that the object was written in.
    pub api_version: String,
    /// Kind as written.
    pub kind: String,
    /// Name, namespace, labels, creation time.
    pub metadata: ObjectMeta,
    /// The wish of the user.
    #[serde(deserialize_with = "null_is_default", bound(deserialize = "S: Kind"))]
    pub spec: S,
    /// What the control plane reports back; kept as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<serde_json::Value>,
}

/// Why an object could not be decoded.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The version is not one of those served.
    #[error("{kind}: version {found:?} is not served; use one of {served}")]
    Version {
        /// Kind that was asked for.
        kind: &'static str,
        /// `apiVersion` of the object.
        found: String,
        /// What would be accepted.
        served: String,
    },
    /// A field has the wrong type or an unknown value.
    #[error("{kind}: {path}: {reason}")]
    Field {
        /// Kind that was asked for.
        kind: &'static str,
        /// Path of the field, for example `spec.http[0].route`.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Decodes an object in any of the kind's served versions.
///
/// # Errors
/// A version that is not served, or the first field that does not fit, with its path.
pub fn decode<S: Kind>(value: &serde_json::Value) -> Result<Object<S>, DecodeError> {
    let object: Object<S> =
        serde_path_to_error::deserialize(value).map_err(|error| DecodeError::Field {
            kind: S::KIND,
            path: error.path().to_string(),
            reason: error.into_inner().to_string(),
        })?;
    let served = |version: &str| S::VERSIONS.contains(&version);
    match object.api_version.split_once('/') {
        Some((group, version)) if group == S::GROUP && served(version) => Ok(object),
        _ => Err(DecodeError::Version {
            kind: S::KIND,
            found: object.api_version,
            served: S::VERSIONS
                .iter()
                .map(|version| format!("{}/{version}", S::GROUP))
                .collect::<Vec<_>>()
                .join(", "),
        }),
    }
}

impl<S: Kind> Object<S> {
    /// An object of the storage version with a name, a namespace and a specification.
    pub fn new(namespace: &str, name: &str, spec: S) -> Self {
        Self {
            api_version: format!("{}/{}", S::GROUP, S::VERSIONS[0]),
            kind: S::KIND.to_owned(),
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            spec,
            status: None,
        }
    }

    /// Name, empty when the object has none yet.
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// Namespace; objects that were never stored count as `default`.
    pub fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or("default")
    }

    /// Creation time in seconds since the epoch; 0 when unknown. Istio breaks ties by age, then by name.
    pub fn created(&self) -> i64 {
        self.metadata
            .creation_timestamp
            .as_ref()
            .map_or(0, |time| time.0.as_second())
    }
}

impl<S: Kind> kube::Resource for Object<S> {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind(_: &()) -> Cow<'_, str> {
        S::KIND.into()
    }

    fn group(_: &()) -> Cow<'_, str> {
        S::GROUP.into()
    }

    fn version(_: &()) -> Cow<'_, str> {
        S::VERSIONS[0].into()
    }

    fn plural(_: &()) -> Cow<'_, str> {
        S::PLURAL.into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// `spec: null` (or an empty YAML key) is an empty specification, as for Kubernetes.
fn null_is_default<'de, D: serde::Deserializer<'de>, S: Kind>(
    deserializer: D,
) -> Result<S, D::Error> {
    Ok(Option::<S>::deserialize(deserializer)?.unwrap_or_default())
}
