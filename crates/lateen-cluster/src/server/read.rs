//! `get` and `list`.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Response;
use serde_json::{Value, json};

use super::body::Body;
use super::meta;
use super::query::Query;
use super::respond::encoded;
use super::route::{Call, allow};
use super::target::Target;
use crate::selector::{FieldSelector, LabelSelector};
use crate::status::{Result, Status};

/// Which objects of a resource a request is about.
pub(super) struct Filter {
    namespace: Option<String>,
    name: Option<String>,
    labels: LabelSelector,
    fields: FieldSelector,
}

impl Filter {
    pub(super) fn of(target: &Target, query: &Query) -> Result<Self> {
        let strategy = target.resource.strategy.as_ref();
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Ok(Self {
            namespace: some(&target.namespace),
            name: some(&target.name),
            labels: LabelSelector::parse(query.get("labelSelector").unwrap_or_default())?,
            fields: FieldSelector::parse(query.get("fieldSelector").unwrap_or_default(), strategy)?,
        })
    }

    pub(super) fn matches(&self, object: &Value, target: &Target) -> bool {
        self.namespace
            .as_ref()
            .is_none_or(|namespace| meta(object, "namespace") == namespace)
            && self
                .name
                .as_ref()
                .is_none_or(|name| meta(object, "name") == name)
            && self.labels.matches(object)
            && self
                .fields
                .matches(object, target.resource.strategy.as_ref())
    }

    pub(super) fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }
}

pub(super) fn get(call: &Call<'_>) -> Result<Response<Body>> {
    allow(&call.target, "get")?;
    let object = call
        .api
        .store
        .get(&call.target.key())
        .ok_or_else(|| call.target.not_found())?;
    call.answer(200, &object)
}

pub(super) fn list(call: &Call<'_>) -> Result<Response<Body>> {
    let (target, store) = (&call.target, &call.api.store);
    allow(target, "list")?;
    let filter = Filter::of(target, &call.query)?;
    let token = call.query.get("continue").map(Token::parse).transpose()?;
    let resource = target.resource.storage_key();
    let after = token
        .as_ref()
        .map(|token| (token.namespace.as_str(), token.name.as_str()));
    let (objects, now) = store.list(&resource, filter.namespace(), after);
    // Later pages show the present, but keep the first page's revision: a watch from there repeats what changed since.
    let revision = match &token {
        Some(token) if token.revision < store.oldest_watchable(&resource) => {
            return Err(Status::new(
                410,
                "Expired",
                "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter.",
            ));
        }
        Some(token) => token.revision,
        None => now,
    };
    check_revision(&call.query, now)?;
    let mut matching: Vec<Arc<Value>> = objects
        .into_iter()
        .filter(|object| filter.matches(object, target))
        .collect();
    let mut metadata = json!({"resourceVersion": revision.to_string()});
    let limit = call.query.number("limit")?.unwrap_or(0);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    if limit > 0 && matching.len() > limit {
        let remaining = matching.len() - limit;
        matching.truncate(limit);
        if let Some(last) = matching.last() {
            let token = Token {
                revision,
                namespace: meta(last, "namespace").to_owned(),
                name: meta(last, "name").to_owned(),
            };
            metadata["continue"] = json!(token.encode());
            metadata["remainingItemCount"] = json!(remaining);
        }
    }
    let shown = call.shape.list(target, metadata, &matching)?;
    Ok(encoded(200, &shown, call.shape.accepted.yaml))
}

/// Only the present state is kept: a list of exactly an older one is refused, as is one from the future.
fn check_revision(query: &Query, now: u64) -> Result<()> {
    let Some(asked) = query.number("resourceVersion")? else {
        return Ok(());
    };
    if asked > now {
        let mut status = Status::new(
            504,
            "Timeout",
            format!("Timeout: Too large resource version: {asked}, current: {now}"),
        );
        status.details = json!({
            "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
            "retryAfterSeconds": 1,
        });
        return Err(status);
    }
    if query.get("resourceVersionMatch") == Some("Exact") && asked != now {
        return Err(Status::new(
            410,
            "Expired",
            format!("The resourceVersion for the provided list is too old: {asked} ({now})"),
        ));
    }
    Ok(())
}

/// Where the next page starts.
struct Token {
    revision: u64,
    namespace: String,
    name: String,
}

impl Token {
    fn encode(&self) -> String {
        let text = json!([self.revision, self.namespace, self.name]).to_string();
        URL_SAFE_NO_PAD.encode(text)
    }

    fn parse(text: &str) -> Result<Self> {
        let decoded = URL_SAFE_NO_PAD.decode(text).ok();
        let parts: Option<(u64, String, String)> =
            decoded.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let (revision, namespace, name) = parts.ok_or_else(|| {
            Status::bad_request("continue key is not valid: it was not made by this server")
        })?;
        Ok(Self {
            revision,
            namespace,
            name,
        })
    }
}
