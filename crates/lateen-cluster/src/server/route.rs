//! From method and path to the handler.

use std::sync::Arc;

use http::header::HeaderMap;
use http::{Method, Request, Response};
use serde_json::Value;

use super::accept::Accepted;
use super::body::{self, Body};
use super::query::Query;
use super::respond::{Include, Shape, encoded};
use super::target::{Path, Target};
use super::write::{Source, Write};
use super::{Api, delete, discovery, read, watch};
use crate::patch;
use crate::status::{Result, Status};
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
    let (parts, body) = request.into_parts();
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
        Path::Unserved => return Err(no_such_path()),
        Path::Other => return discovery::answer(api, &table, &parts).ok_or_else(no_such_path),
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
    if call.target.name.is_empty() {
        collection(call, &parts.method, body).await
    } else if call.target.subresource.is_empty() || call.target.subresource == "status" {
        object(call, &parts.method, body).await
    } else {
        Err(no_such_path())
    }
}

async fn collection(mut call: Call<'_>, method: &Method, body: Body) -> Result<Response<Body>> {
    match *method {
        Method::GET if call.query.flag("watch") => watch::watch(&call),
        Method::GET => read::list(&call),
        Method::POST => {
            allow(&call.target, "create")?;
            let bytes = body::read(body).await?;
            let object = body::decode(&bytes, &body::media_type(&call.headers))?;
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
            let object = body::decode(&bytes, &body::media_type(&call.headers))?;
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

async fn patch_object(call: &mut Call<'_>, bytes: &bytes::Bytes) -> Result<Response<Body>> {
    let strategy = call.target.resource.strategy.clone();
    let media = body::media_type(&call.headers);
    let stored = match media.as_str() {
        "application/json-patch+json" => {
            let patch = body::json(bytes)?;
            let edit = |object: &mut Value| patch::json_patch(object, &patch);
            writing(call)?.update(Source::Edit(&edit)).await?
        }
        "application/merge-patch+json" => {
            let patch = body::json(bytes)?;
            let edit = |object: &mut Value| {
                patch::merge(object, &patch);
                Ok(())
            };
            writing(call)?.update(Source::Edit(&edit)).await?
        }
        "application/strategic-merge-patch+json" if strategy.strategic_merge() => {
            let patch = body::json(bytes)?;
            let edit =
                |object: &mut Value| patch::strategic_merge(object, &patch, strategy.as_ref());
            writing(call)?.update(Source::Edit(&edit)).await?
        }
        _ => {
            let strategic = if strategy.strategic_merge() {
                ", application/strategic-merge-patch+json"
            } else {
                ""
            };
            return Err(Status::new(
                415,
                "UnsupportedMediaType",
                format!(
                    "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml{strategic}"
                ),
            ));
        }
    };
    call.answer(200, &stored)
}

/// The write that this call asks for, with its options.
pub(super) fn writing<'c>(call: &'c mut Call<'_>) -> Result<Write<'c>> {
    Ok(Write {
        api: call.api,
        target: &call.target,
        user: &call.user,
        dry_run: call.query.dry_run()?,
        validation: call.query.field_validation()?,
        manager: manager(&call.query, &call.headers)?,
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

/// 404 for a path that nothing serves.
pub(super) fn no_such_path() -> Status {
    let mut status = Status::new(
        404,
        "NotFound",
        "the server could not find the requested resource",
    );
    status.details = Value::Object(serde_json::Map::new());
    status
}
