//! Requests that ask instead of store: access reviews, token reviews, and tokens of service accounts.
//!
//! This development server lets every authenticated user do everything, so every access review is answered with yes.

use std::sync::Arc;

use http::Response;
use serde_json::{Map, Value, json};

use super::body::Body;
use super::respond::json_response;
use super::target::Target;
use super::{Api, metadata};
use crate::clock;
use crate::field::FieldError;
use crate::resource::{Resource, Version};
use crate::status::{Result, Status};
use crate::store::Key;
use crate::strategy::{Column, FieldValidation, RequestInfo, Strategy};
use crate::tokens::{ISSUER, TokenRequest};
use crate::user::User;

/// The resources that are answered here: group, kind, plural, namespaced.
const REVIEWS: [(&str, &str, &str, bool); 6] = [
    (
        "authentication.k8s.io",
        "SelfSubjectReview",
        "selfsubjectreviews",
        false,
    ),
    (
        "authentication.k8s.io",
        "TokenReview",
        "tokenreviews",
        false,
    ),
    (
        "authorization.k8s.io",
        "LocalSubjectAccessReview",
        "localsubjectaccessreviews",
        true,
    ),
    (
        "authorization.k8s.io",
        "SelfSubjectAccessReview",
        "selfsubjectaccessreviews",
        false,
    ),
    (
        "authorization.k8s.io",
        "SelfSubjectRulesReview",
        "selfsubjectrulesreviews",
        false,
    ),
    (
        "authorization.k8s.io",
        "SubjectAccessReview",
        "subjectaccessreviews",
        false,
    ),
];

/// The rows of the resources that are answered here.
pub(crate) fn rows() -> Vec<Resource> {
    REVIEWS
        .into_iter()
        .map(|(group, kind, plural, namespaced)| Resource {
            group: group.to_owned(),
            kind: kind.to_owned(),
            plural: plural.to_owned(),
            singular: kind.to_lowercase(),
            short_names: Vec::new(),
            categories: Vec::new(),
            namespaced,
            versions: vec![Version {
                group: group.to_owned(),
                name: "v1".to_owned(),
                deprecation: None,
            }],
            storage_version: "v1".to_owned(),
            verbs: vec!["create"],
            status_subresource: false,
            scale: None,
            strategy: Arc::new(Unstored { table: None }),
        })
        .collect()
}

/// Answers that are never stored: at most their table is to be decided about.
pub(super) struct Unstored {
    /// Columns and cells, where objects are listed.
    pub(super) table: Option<UnstoredTable>,
}

/// How unstored objects are shown in a table.
pub(super) struct UnstoredTable {
    pub(super) columns: fn() -> Vec<Column>,
    pub(super) row: fn(&Value) -> Vec<Value>,
}

impl Strategy for Unstored {
    fn decode(&self, _: &mut Value, _: RequestInfo<'_>, _: FieldValidation) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn default(&self, _: &mut Value) {}

    fn prepare_create(&self, _: &mut Value, _: RequestInfo<'_>) {}

    fn prepare_update(&self, _: &mut Value, _: &Value, _: RequestInfo<'_>) {}

    fn validate(&self, _: &Value, _: Option<&Value>, _: RequestInfo<'_>) -> Vec<FieldError> {
        Vec::new()
    }

    fn columns(&self, _: &str) -> Vec<Column> {
        let table = self.table.as_ref();
        table.map_or_else(Vec::new, |table| (table.columns)())
    }

    fn row(&self, object: &Value, _: &str, _: &str) -> Vec<Value> {
        let table = self.table.as_ref();
        table.map_or_else(Vec::new, |table| (table.row)(object))
    }

    fn openapi(&self, _: &str) -> Option<(String, Map<String, Value>)> {
        None
    }
}

/// Whether a resource is answered here instead of being stored.
pub(super) fn is_review(target: &Target) -> bool {
    REVIEWS
        .iter()
        .any(|(group, _, plural, _)| target.is(group, plural))
}

/// Answers a review.
pub(super) fn answer(
    api: &Arc<Api>,
    target: &Target,
    user: &User,
    mut review: Value,
) -> Result<Response<Body>> {
    let status = match target.resource.plural.as_str() {
        "selfsubjectrulesreviews" => json!({
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
            "incomplete": false,
        }),
        "selfsubjectreviews" => json!({"userInfo": user.to_info()}),
        "tokenreviews" => review_token(api, &review["spec"]),
        _ => json!({
            "allowed": true,
            "reason": "this development server allows everything to authenticated users",
        }),
    };
    let metadata = metadata::ensure(&mut review)?;
    metadata.insert("creationTimestamp".to_owned(), json!(clock::now()));
    review["kind"] = json!(target.resource.kind);
    review["apiVersion"] = json!(target.api_version());
    review["status"] = status;
    Ok(json_response(201, &review))
}

fn review_token(api: &Arc<Api>, spec: &Value) -> Value {
    let token = spec["token"].as_str().unwrap_or_default();
    let mut audiences = texts(&spec["audiences"]);
    if audiences.is_empty() {
        audiences.push(ISSUER.to_owned());
    }
    match api.tokens.identify(token, &audiences, &api.store) {
        Some((user, good)) => json!({
            "authenticated": true,
            "user": user.to_info(),
            "audiences": good,
        }),
        None => json!({
            "authenticated": false,
            "user": {},
            "error": "the token is not valid for any of the audiences",
        }),
    }
}

/// Answers `serviceaccounts/{name}/token`.
pub(super) fn token(api: &Arc<Api>, target: &Target, mut request: Value) -> Result<Response<Body>> {
    let account = api
        .store
        .get(&target.key())
        .ok_or_else(|| target.not_found())?;
    let bound = &request["spec"]["boundObjectRef"];
    let pod = match bound["kind"].as_str() {
        None | Some("") => None,
        Some("Pod") => Some(bound_pod(api, target, bound)?),
        Some(other) => {
            return Err(Status::bad_request(format!(
                "tokens can be bound to pods, not to a {other}"
            )));
        }
    };
    let (token, expires) = api.tokens.issue(TokenRequest {
        namespace: &target.namespace,
        account: &target.name,
        account_uid: account["metadata"]["uid"].as_str().unwrap_or_default(),
        audiences: texts(&request["spec"]["audiences"]),
        seconds: request["spec"]["expirationSeconds"].as_i64(),
        pod,
    })?;
    if !request.is_object() {
        return Err(Status::bad_request("the body must be an object"));
    }
    request["kind"] = json!("TokenRequest");
    request["apiVersion"] = json!("authentication.k8s.io/v1");
    request["metadata"] = json!({
        "name": target.name,
        "namespace": target.namespace,
        "creationTimestamp": clock::now(),
    });
    request["status"] = json!({"token": token, "expirationTimestamp": expires});
    Ok(json_response(201, &request))
}

/// Name and uid of the pod that a token is bound to.
fn bound_pod(api: &Arc<Api>, target: &Target, bound: &Value) -> Result<(String, String)> {
    let name = bound["name"].as_str().unwrap_or_default();
    let key = Key {
        resource: "pods".into(),
        namespace: target.namespace.clone(),
        name: name.to_owned(),
    };
    let pod = api
        .store
        .get(&key)
        .ok_or_else(|| Status::not_found("", "pods", name))?;
    let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
    if bound["uid"].as_str().is_some_and(|wanted| wanted != uid) {
        return Err(Status::conflict(
            "",
            "pods",
            name,
            &format!(
                "the UID in the bound object reference does not match the UID in record ({uid})"
            ),
        ));
    }
    Ok((name.to_owned(), uid.to_owned()))
}

fn texts(list: &Value) -> Vec<String> {
    let items = list.as_array().into_iter().flatten();
    items
        .filter_map(|item| item.as_str().map(str::to_owned))
        .collect()
}
