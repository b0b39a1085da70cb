//! From method and path to the handler.

use std::sync::Arc;

use http::header::HeaderMap;
use http::{Method, Request, Response};
use hyper::upgrade::OnUpgrade;
use serde_json::Value;

use super::accept::Accepted;
use super::body::{self, Body};
use super::query::Query;
use super::respond::{Include, Shape, encoded, with_type};
use super::target::{Path, Target};
use super::write::{Source, Write};
use super::{Api, delete, discovery, read, review, subresource, usage, watch};
use crate::apply::Manager;
use crate::field::FieldError;
use crate::patch;
use crate::schema;
use crate::status::{Result, Status};
use crate::strategy::{FieldValidation, Strategy};
use crate::user::User;

/// One request about a resource.
pub(super) struct Call<'a> {
    pub(super) api: &'a Arc<Api>,
    pub(super) target: Target,
    pub(super) query: Query,
    pub(super) headers: HeaderMap,
    pub(super) user: User,
    pub(super) shape: Shape,
    pub(super) warnings: &'a mut Vec<String>,
}

impl Call<'_> {
    /// The object in the shape that the client asked for.
    pub(super) fn answer(&self, code: u16, object: &Value) -> Result<Response<Body>> {
        let shown = self.shape.object(&self.target, object)?;
        Ok(encoded(code, &shown, self.shape.accepted.yaml))
    }
}

pub(super) async fn route(
    api: &Arc<Api>,
    request: Request<Body>,
    user: Option<User>,
    warnings: &mut Vec<String>,
) -> Result<Response<Body>> {
    let table = api.registry.table();
    let (mut parts, body) = request.into_parts();
    let upgrade = parts.extensions.remove::<OnUpgrade>();
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    let path = parts.uri.path();
    if let Some(answer) = discovery::public(path) {
        return Ok(answer);
    }
    let Some(user) = user else {
        return Err(Status::new(401, "Unauthorized", "Unauthorized"));
    };
    let target = match Path::parse(path, &table) {
        Path::Resource(target) => *target,
        Path::Unserved => return Ok(page_not_found()),
        Path::Other => {
            return Ok(discovery::answer(api, &table, &parts).unwrap_or_else(page_not_found));
        }
    };
    warnings.extend(target.deprecation.clone());
    let shape = Shape {
        accepted: Accepted::negotiate(&parts.headers)?,
        include: Include::parse(query.get("includeObject"))?,
    };
    let call = Call {
        api,
        target,
        query,
        headers: parts.headers,
        user,
        shape,
        warnings,
    };
    if usage::is_usage(&call.target.resource.group) {
        usage::answer(&call, &parts.method).await
    } else if call.target.name.is_empty() {
        collection(call, &parts.method, body).await
    } else if call.target.subresource.is_empty() || call.target.subresource == "status" {
        object(call, &parts.method, body).await
    } else {
        subresource::answer(call, &parts.method, body, upgrade).await
    }
}

async fn collection(mut call: Call<'_>, method: &Method, body: Body) -> Result<Response<Body>> {
    match *method {
        Method::GET if call.query.flag("watch") => watch::watch(&call),
        Method::GET => read::list(&call),
        Method::POST => {
            allow(&call.target, "create")?;
            let bytes = body::read(body).await?;
            let object = object_of(&mut call, &bytes)?;
            if review::is_review(&call.target) {
                return review::answer(call.api, &call.target, &call.user, object);
            }
            let stored = writing(&mut call)?.create(object).await?;
            call.answer(201, &stored)
        }
        Method::DELETE => {
            allow(&call.target, "deletecollection")?;
            let bytes = body::read(body).await?;
            delete::collection(&mut call, &bytes).await
        }
        _ => Err(not_allowed()),
    }
}

async fn object(mut call: Call<'_>, method: &Method, body: Body) -> Result<Response<Body>> {
    if call.target.subresource == "status" && !call.target.resource.status_subresource {
        return Err(no_such_path());
    }
    match *method {
        Method::GET if call.query.flag("watch") => watch::watch(&call),
        Method::GET => read::get(&call),
        Method::PUT => {
            allow(&call.target, "update")?;
            let bytes = body::read(body).await?;
            let object = object_of(&mut call, &bytes)?;
            let stored = writing(&mut call)?.update(Source::Replace(&object)).await?;
            call.answer(200, &stored)
        }
        Method::PATCH => {
            allow(&call.target, "patch")?;
            let bytes = body::read(body).await?;
            patch_object(&mut call, &bytes).await
        }
        Method::DELETE => {
            if !call.target.subresource.is_empty() {
                return Err(not_allowed());
            }
            allow(&call.target, "delete")?;
            let bytes = body::read(body).await?;
            delete::object(&mut call, &bytes).await
        }
        _ => Err(not_allowed()),
    }
}

/// Decodes an object that is to be stored. A field that stands twice is an error or a warning, as the client wishes.
fn object_of(call: &mut Call<'_>, bytes: &bytes::Bytes) -> Result<Value> {
    let media = body::media_type(&call.headers);
    let object = body::decode(bytes, &media)?;
    let validation = call.query.field_validation()?;
    if validation == FieldValidation::Ignore || media != "application/json" {
        return Ok(object);
    }
    let repeated: Vec<String> = schema::duplicate_fields(bytes)
        .iter()
        .map(|field| format!("duplicate field {field:?}"))
        .collect();
    if repeated.is_empty() {
        return Ok(object);
    }
    if validation == FieldValidation::Strict {
        let (kind, version) = (&call.target.resource.kind, &call.target.version);
        return Err(Status::bad_request(format!(
            "{kind} in version {version:?} cannot be handled as a {kind}: strict decoding error: {}",
            repeated.join(", ")
        )));
    }
    call.warnings.extend(repeated);
    Ok(object)
}

async fn patch_object(call: &mut Call<'_>, bytes: &bytes::Bytes) -> Result<Response<Body>> {
    let media = body::media_type(&call.headers);
    let force = call.query.get("force").map(|text| text == "true");
    if media == "application/apply-patch+yaml" {
        if call.query.get("fieldManager").is_none() {
            return Err(invalid_option(&FieldError::required(
                "fieldManager",
                "is required for apply patch",
            )));
        }
        let config = body::yaml(bytes)?;
        let (stored, created) = writing(call)?
            .apply(&config, force.unwrap_or(false))
            .await?;
        return call.answer(if created { 201 } else { 200 }, &stored);
    }
    if force.is_some() {
        return Err(invalid_option(&FieldError::forbidden(
            "force",
            "may not be specified for non-apply patch",
        )));
    }
    let strategy = call.target.resource.strategy.clone();
    let edit = patch_of(&media, bytes, strategy.as_ref())?;
    let stored = writing(call)?.update(Source::Edit(&edit)).await?;
    call.answer(200, &stored)
}

/// A change of an object, as a patch describes it.
pub(super) type Edit<'s> = Box<dyn Fn(&mut Value) -> Result<()> + Send + Sync + 's>;

/// Reads a patch of the given media type.
pub(super) fn patch_of<'s>(
    media: &str,
    bytes: &bytes::Bytes,
    strategy: &'s dyn Strategy,
) -> Result<Edit<'s>> {
    match media {
        "application/json-patch+json" => {
            let patch = body::json(bytes)?;
            Ok(Box::new(move |object| patch::json_patch(object, &patch)))
        }
        "application/merge-patch+json" => {
            let patch = body::json(bytes)?;
            Ok(Box::new(move |object| {
                patch::merge(object, &patch);
                Ok(())
            }))
        }
        "application/strategic-merge-patch+json" if strategy.strategic_merge() => {
            let patch = body::json(bytes)?;
            Ok(Box::new(move |object| {
                patch::strategic_merge(object, &patch, strategy)
            }))
        }
        _ => {
            let strategic = if strategy.strategic_merge() {
                ", application/strategic-merge-patch+json"
            } else {
                ""
            };
            Err(Status::new(
                415,
                "UnsupportedMediaType",
                format!(
                    "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml{strategic}"
                ),
            ))
        }
    }
}

fn invalid_option(error: &FieldError) -> Status {
    Status::invalid(
        "meta.k8s.io",
        "PatchOptions",
        "",
        std::slice::from_ref(error),
    )
}

/// The write that this call asks for, with its options.
pub(super) fn writing<'c>(call: &'c mut Call<'_>) -> Result<Write<'c>> {
    Ok(Write {
        api: call.api,
        target: &call.target,
        user: &call.user,
        dry_run: call.query.dry_run()?,
        validation: call.query.field_validation()?,
        manager: Manager {
            name: manager(&call.query, &call.headers)?,
            applies: false,
            subresource: call.target.subresource.clone(),
            api_version: call.target.api_version(),
        },
        warnings: call.warnings,
    })
}

/// Who is recorded as the writer: `fieldManager`, or the first word of the user agent.
fn manager(query: &Query, headers: &HeaderMap) -> Result<String> {
    if let Some(name) = query.get("fieldManager") {
        if name.len() > 128 || name.chars().any(char::is_control) {
            return Err(Status::bad_request(format!(
                "fieldManager: Invalid value: {name:?}: must be at most 128 printable characters"
            )));
        }
        return Ok(name.to_owned());
    }
    let agent = headers
        .get(http::header::USER_AGENT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let first = agent.split('/').next().unwrap_or_default();
    let name = if first.is_empty() { "unknown" } else { first };
    Ok(name.chars().take(128).collect())
}

pub(super) fn allow(target: &Target, verb: &str) -> Result<()> {
    if target.resource.verbs.contains(&verb) {
        Ok(())
    } else {
        Err(not_allowed())
    }
}

/// 405 in Kubernetes' words.
pub(super) fn not_allowed() -> Status {
    Status::new(
        405,
        "MethodNotAllowed",
        "the server does not allow this method on the requested resource",
    )
}

/// 404 for a subresource that the resource does not have.
pub(super) fn no_such_path() -> Status {
    let mut status = Status::new(
        404,
        "NotFound",
        "the server could not find the requested resource",
    );
    status.details = Value::Object(serde_json::Map::new());
    status
}

/// The answer for a path that nothing serves. It is no `Status`, so that clients word the error with what they asked for.
fn page_not_found() -> Response<Body> {
    with_type(404, "text/plain; charset=utf-8", "404 page not found\n")
}
