//! Content negotiation: which form of an object the client wants.

use http::HeaderMap;
use http::header::ACCEPT;

use crate::status::{Result, Status};

/// The shape of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// The object or list itself.
    Object,
    /// `meta.k8s.io/v1` Table, for printing.
    Table,
    /// `PartialObjectMetadata` or a list of them.
    Partial,
}

/// What was agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Accepted {
    pub(crate) form: Form,
    pub(crate) yaml: bool,
}

impl Accepted {
    /// Takes the first entry of `Accept` that the server can give. Weights are ignored, as Kubernetes' clients order
    /// their entries.
    pub(crate) fn negotiate(headers: &HeaderMap) -> Result<Self> {
        let mut given = false;
        for header in headers.get_all(ACCEPT) {
            let text = header.to_str().unwrap_or_default();
            for entry in text
                .split(',')
                .map(str::trim)
                .filter(|text| !text.is_empty())
            {
                given = true;
                if let Some(accepted) = Self::of(entry) {
                    return Ok(accepted);
                }
            }
        }
        if given {
            return Err(Status::new(
                406,
                "NotAcceptable",
                "only the following media types are accepted: application/json, application/yaml",
            ));
        }
        Ok(Self {
            form: Form::Object,
            yaml: false,
        })
    }

    fn of(entry: &str) -> Option<Self> {
        let (media, parameters) = entry.split_once(';').unwrap_or((entry, ""));
        let yaml = match media.trim() {
            "application/json" | "application/*" | "*/*" => false,
            "application/yaml" => true,
            _ => return None,
        };
        let parameter = |name: &str| {
            parameters.split(';').find_map(|pair| {
                let (key, value) = pair.trim().split_once('=')?;
                (key == name).then_some(value)
            })
        };
        let form = match (parameter("as"), parameter("g"), parameter("v")) {
            (None, ..) => Form::Object,
            (Some("Table"), Some("meta.k8s.io"), Some("v1" | "v1beta1")) => Form::Table,
            (
                Some("PartialObjectMetadata" | "PartialObjectMetadataList"),
                Some("meta.k8s.io"),
                Some("v1" | "v1beta1"),
            ) => Form::Partial,
            _ => return None,
        };
        Some(Self { form, yaml })
    }
}
