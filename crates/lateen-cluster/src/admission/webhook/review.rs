//! The `AdmissionReview` that a webhook gets, and its answer.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use json_patch::Patch;
use serde_json::{Value, json};

use crate::admission::Attributes;
use crate::admission::matching::Version;
use crate::admission::request::request;
use crate::names;
use crate::status::Result;

use super::hook::Kind;

const API_VERSION: &str = "admission.k8s.io/v1";

/// Most warnings of one answer that are passed on.
const MAX_WARNINGS: usize = 20;
/// Longest warning that is passed on, in characters.
const MAX_WARNING: usize = 256;

/// A request as one webhook sees it.
pub(crate) struct Review {
    uid: String,
    review: Value,
}

/// What a webhook answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) allowed: bool,
    /// `metav1.Status` of a denial; may be null.
    pub(crate) status: Value,
    pub(crate) patch: Option<Patch>,
    pub(crate) warnings: Vec<String>,
}

impl Review {
    /// A review of the request with its objects in `version`.
    ///
    /// # Errors
    /// An object cannot be brought to the version.
    pub(crate) fn new(
        version: &Version,
        attributes: &Attributes<'_>,
        object: Option<&Value>,
    ) -> Result<Self> {
        let uid = names::uid();
        let request = request(&uid, version, attributes, object)?;
        let review =
            json!({"kind": "AdmissionReview", "apiVersion": API_VERSION, "request": request});
        Ok(Self { uid, review })
    }

    /// The request inside the review.
    pub(crate) fn request(&self) -> &Value {
        &self.review["request"]
    }

    /// The body to send.
    pub(crate) fn body(&self) -> Vec<u8> {
        self.review.to_string().into_bytes()
    }

    /// Reads the answer of a webhook of `kind`.
    ///
    /// # Errors
    /// Why it is no answer to this review.
    pub(crate) fn answer(&self, body: &[u8], kind: Kind) -> Result<Answer, String> {
        let review: Value = serde_json::from_slice(body)
            .map_err(|error| format!("the body is not JSON: {error}"))?;
        let response = &review["response"];
        if !response.is_object() {
            return Err("webhook response was absent".to_owned());
        }
        if response["uid"] != self.uid.as_str() {
            let found = response["uid"].as_str().unwrap_or_default();
            return Err(format!(
                "expected response.uid={:?}, got {found:?}",
                self.uid
            ));
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (version, name) = (text(&review["apiVersion"]), text(&review["kind"]));
        if version != API_VERSION || name != "AdmissionReview" {
            return Err(format!(
                "expected webhook response of {API_VERSION}, Kind=AdmissionReview, got {version}, Kind={name}"
            ));
        }
        let warnings = response["warnings"].as_array().into_iter().flatten();
        Ok(Answer {
            allowed: response["allowed"] == true,
            status: response["status"].clone(),
            patch: patch(response, kind)?,
            warnings: warnings
                .filter_map(Value::as_str)
                .take(MAX_WARNINGS)
                .map(|warning| warning.chars().take(MAX_WARNING).collect())
                .collect(),
        })
    }
}

fn patch(response: &Value, kind: Kind) -> Result<Option<Patch>, String> {
    let given = |key: &str| response[key].as_str().filter(|text| !text.is_empty());
    match (given("patch"), given("patchType")) {
        (None, None) => Ok(None),
        (Some(_), _) if kind == Kind::Validating => {
            Err("validating webhook may not return response.patch".to_owned())
        }
        (None, Some(_)) if kind == Kind::Validating => {
            Err("validating webhook may not return response.patchType".to_owned())
        }
        (Some(_), None) => {
            Err("webhook returned response.patch but not response.patchType".to_owned())
        }
        (None, Some(_)) => {
            Err("webhook returned response.patchType but not response.patch".to_owned())
        }
        (Some(encoded), Some("JSONPatch")) => {
            let decoded = STANDARD
                .decode(encoded)
                .map_err(|error| format!("the patch is not base64: {error}"))?;
            serde_json::from_slice(&decoded)
                .map(Some)
                .map_err(|error| format!("received undecodable patch in webhook response: {error}"))
        }
        (Some(_), Some(other)) => Err(format!(
            "webhook returned invalid response.patchType of {other:?}"
        )),
    }
}
