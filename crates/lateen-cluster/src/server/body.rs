//! Request and response bodies.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use serde_json::Value;

use crate::protobuf;
use crate::status::{Result, Status};

/// An error of a body in transit. A type of its own, because futures that hold a boxed error across an await are not
/// recognised as `Send`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BodyError(Box<dyn std::error::Error + Send + Sync>);

impl BodyError {
    /// Wraps what the transport says.
    pub fn new(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(error.into())
    }
}

/// Any body, of a request or a response.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;

/// The most bytes of a request body (`MaxRequestBodyBytes` of Kubernetes).
const LIMIT: usize = 3 * 1024 * 1024;

/// A body that is all there.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// Reads a whole request body.
pub(crate) async fn read(body: Body) -> Result<Bytes> {
    match Limited::new(body, LIMIT).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(Status::new(
            413,
            "RequestEntityTooLarge",
            format!("Request entity too large: limit is {LIMIT}"),
        )),
        Err(error) => Err(Status::bad_request(format!(
            "cannot read the request's body: {error}"
        ))),
    }
}

/// The media type without parameters, in lower case; empty when there is none.
pub(crate) fn media_type(headers: &HeaderMap) -> String {
    let header = headers.get(CONTENT_TYPE);
    let text = header.and_then(|value| value.to_str().ok()).unwrap_or("");
    let media = text.split(';').next().unwrap_or("").trim();
    media.to_ascii_lowercase()
}

/// Decodes an object by its media type.
pub(crate) fn decode(bytes: &Bytes, media: &str) -> Result<Value> {
    match media {
        "application/yaml" => yaml(bytes),
        "application/json" | "" => json(bytes),
        protobuf::MEDIA_TYPE => protobuf::decode(bytes),
        other => Err(Status::new(
            415,
            "UnsupportedMediaType",
            format!(
                "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf; got {other:?}"
            ),
        )),
    }
}

/// Decodes JSON.
pub(crate) fn json(bytes: &Bytes) -> Result<Value> {
    serde_json::from_slice(bytes)
        .map_err(|error| Status::bad_request(format!("cannot decode the body as JSON: {error}")))
}

/// Decodes YAML, of which JSON is a part.
pub(crate) fn yaml(bytes: &Bytes) -> Result<Value> {
    if bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{') {
        return json(bytes);
    }
    serde_saphyr::from_slice(bytes)
        .map_err(|error| Status::bad_request(format!("cannot decode the body as YAML: {error}")))
}
