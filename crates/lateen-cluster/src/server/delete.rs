//! `delete` and `deletecollection`.

use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use serde_json::{Value, json};

use super::body::{self, Body};
use super::read::Filter;
use super::respond::{encoded, json_response};
use super::route::{Call, writing};
use super::target::Target;
use super::write::is_released;
use super::{meta, namespaces, store_failure};
use crate::admission::Operation;
use crate::clock;
use crate::status::{Result, Status};
use crate::store::{WriteError, revision_of};

/// How often a delete is tried again when other writes come first.
const ATTEMPTS: usize = 16;

/// `DeleteOptions`, from the body and the query.
#[derive(Debug, Clone, Default)]
struct Options {
    grace: Option<u64>,
    propagation: Option<Propagation>,
    uid: Option<String>,
    revision: Option<String>,
    dry_run: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Propagation {
    Orphan,
    Background,
    Foreground,
}

impl Options {
    fn of(call: &Call<'_>, bytes: &Bytes) -> Result<Self> {
        let given = if bytes.is_empty() {
            json!({})
        } else {
            body::decode(bytes, &body::media_type(&call.headers))?
        };
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let query = &call.query;
        let policy = text(&given["propagationPolicy"])
            .or_else(|| query.get("propagationPolicy").map(str::to_owned));
        let orphan = given["orphanDependents"].as_bool();
        let propagation = match (policy.as_deref(), orphan) {
            (Some("Orphan"), None) | (None, Some(true)) => Some(Propagation::Orphan),
            (Some("Background"), None) | (None, Some(false)) => Some(Propagation::Background),
            (Some("Foreground"), None) => Some(Propagation::Foreground),
            (None, None) => None,
            (Some(other), None) => {
                return Err(Status::bad_request(format!(
                    "propagationPolicy: Unsupported value: {other:?}: supported values: \"Foreground\", \"Background\", \"Orphan\""
                )));
            }
            (Some(_), Some(_)) => {
                return Err(Status::bad_request(
                    "orphanDependents and propagationPolicy cannot be both set",
                ));
            }
        };
        let dry_run = match given["dryRun"].as_array().map(Vec::as_slice) {
            None | Some([]) => query.dry_run()?,
            Some([one]) if one == "All" => true,
            Some(_) => return Err(Status::bad_request("dryRun: supported values: \"All\"")),
        };
        Ok(Self {
            grace: given["gracePeriodSeconds"]
                .as_u64()
                .or(query.number("gracePeriodSeconds")?),
            propagation,
            uid: text(&given["preconditions"]["uid"]),
            revision: text(&given["preconditions"]["resourceVersion"]),
            dry_run,
        })
    }
}

/// Deletes the object that the path names.
pub(super) async fn object(call: &mut Call<'_>, bytes: &Bytes) -> Result<Response<Body>> {
    let options = Options::of(call, bytes)?;
    let outcome = delete(call, &options).await?;
    match outcome {
        // Pods are shown as they were; of the rest only the identity is told.
        Outcome::Gone(last) if !call.target.is("", "pods") => {
            let target = &call.target;
            let mut details = json!({"name": target.name});
            if !target.resource.group.is_empty() {
                details["group"] = json!(target.resource.group);
            }
            details["kind"] = json!(target.resource.plural);
            details["uid"] = json!(meta(&last, "uid"));
            Ok(json_response(
                200,
                &json!({
                    "kind": "Status",
                    "apiVersion": "v1",
                    "metadata": {},
                    "status": "Success",
                    "details": details,
                }),
            ))
        }
        Outcome::Gone(object) | Outcome::Waits(object) => call.answer(200, &object),
    }
}

/// Deletes everything that the selectors choose.
pub(super) async fn collection(call: &mut Call<'_>, bytes: &Bytes) -> Result<Response<Body>> {
    let options = Options::of(call, bytes)?;
    let filter = Filter::of(&call.target, &call.query)?;
    let resource = call.target.resource.storage_key();
    let (objects, revision) = call.api.store.list(&resource, filter.namespace(), None);
    let mut deleted = Vec::new();
    let whole = call.target.clone();
    for object in objects {
        if !filter.matches(&object, &whole) {
            continue;
        }
        call.target.namespace = meta(&object, "namespace").to_owned();
        call.target.name = meta(&object, "name").to_owned();
        match delete(call, &options).await {
            Ok(_) => deleted.push(object),
            // Someone else was faster.
            Err(status) if status.code == 404 => {}
            Err(status) => return Err(status),
        }
    }
    call.target = whole;
    let metadata = json!({"resourceVersion": revision.to_string()});
    let shown = call.shape.list(&call.target, metadata, &deleted)?;
    Ok(encoded(200, &shown, call.shape.accepted.yaml))
}

/// What became of the object.
enum Outcome {
    Gone(Arc<Value>),
    /// It is marked, and waits for finalizers or its grace period.
    Waits(Arc<Value>),
}

async fn delete(call: &mut Call<'_>, options: &Options) -> Result<Outcome> {
    namespaces::check_delete(&call.target)?;
    let store = call.api.store.clone();
    for _attempt in 0..ATTEMPTS {
        let target = call.target.clone();
        let current = store.get(&target.key()).ok_or_else(|| target.not_found())?;
        check_preconditions(&target, &current, options)?;
        let marked = mark(&target, &current, options)?;
        let mut write = writing(call)?;
        write.dry_run = options.dry_run;
        write
            .validate(Operation::Delete, &target.name, None, Some(&current))
            .await?;
        let gone = is_released(&target, &marked);
        if options.dry_run {
            return Ok(if gone {
                Outcome::Gone(current)
            } else {
                Outcome::Waits(Arc::new(marked))
            });
        }
        let (key, revision) = (target.key(), revision_of(&current));
        let written = if gone {
            store.delete(key, marked, revision).await.map(Outcome::Gone)
        } else if marked == *current {
            Ok(Outcome::Waits(current))
        } else {
            store
                .update(key, marked, revision)
                .await
                .map(Outcome::Waits)
        };
        match written {
            Ok(outcome) => return Ok(outcome),
            Err(WriteError::Changed) => {}
            Err(WriteError::Missing) => return Err(target.not_found()),
            Err(error) => return Err(store_failure(&error)),
        }
    }
    Err(call
        .target
        .conflict("the object is changed all the time; please try again"))
}

fn check_preconditions(target: &Target, current: &Value, options: &Options) -> Result<()> {
    let uid = meta(current, "uid");
    if let Some(wanted) = options.uid.as_deref()
        && wanted != uid
    {
        return Err(target.conflict(&format!(
            "Precondition failed: UID in precondition: {wanted}, UID in object meta: {uid}"
        )));
    }
    let revision = meta(current, "resourceVersion");
    if let Some(wanted) = options.revision.as_deref()
        && wanted != revision
    {
        return Err(target.conflict(&format!(
            "Precondition failed: ResourceVersion in precondition: {wanted}, ResourceVersion in object meta: {revision}"
        )));
    }
    Ok(())
}

/// The object as the delete leaves it: marked, with the finalizers that its policy asks for.
fn mark(target: &Target, current: &Value, options: &Options) -> Result<Value> {
    let mut object = current.clone();
    let is_namespace = namespaces::is_namespace(target);
    let deleting = current["metadata"].get("deletionTimestamp").is_some();
    if is_namespace && deleting && namespaces::has_content(current) {
        return Err(target.conflict(
            "The system is ensuring all content is removed from this namespace.  Upon completion, this namespace will automatically be purged by the system.",
        ));
    }
    set_policy_finalizer(&mut object, options.propagation);
    if !deleting {
        add_finalizers(&mut object, target.resource.strategy.deletion_finalizers());
    }
    let grace = grace_period(target, current, options.grace);
    let before = current["metadata"]["deletionGracePeriodSeconds"].as_u64();
    // A second delete may shorten what is left, never lengthen it.
    if !deleting || before.is_some_and(|before| grace < before) {
        let seconds = i64::try_from(grace).unwrap_or(i64::MAX);
        object["metadata"]["deletionTimestamp"] = json!(clock::after(seconds));
        object["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        if let Some(generation) = current["metadata"]["generation"].as_u64()
            && !deleting
        {
            object["metadata"]["generation"] = json!(generation + 1);
        }
    }
    if is_namespace {
        if object["status"].is_null() {
            object["status"] = json!({});
        }
        object["status"]["phase"] = json!("Terminating");
        // Namespaces carry no grace period.
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.shift_remove("deletionGracePeriodSeconds");
        }
    }
    Ok(object)
}

/// Only pods that run somewhere are given time.
fn grace_period(target: &Target, pod: &Value, asked: Option<u64>) -> u64 {
    if !target.is("", "pods") {
        return 0;
    }
    let unscheduled = pod["spec"]["nodeName"].as_str().unwrap_or("").is_empty();
    let finished = matches!(
        pod["status"]["phase"].as_str(),
        Some("Succeeded" | "Failed")
    );
    if unscheduled || finished {
        return 0;
    }
    asked
        .or_else(|| pod["spec"]["terminationGracePeriodSeconds"].as_u64())
        .unwrap_or(30)
}

fn add_finalizers(object: &mut Value, added: &[&str]) {
    if added.is_empty() {
        return;
    }
    let present = &mut object["metadata"]["finalizers"];
    let mut finalizers = present.as_array().cloned().unwrap_or_default();
    for name in added {
        if !finalizers.iter().any(|present| present == name) {
            finalizers.push(json!(name));
        }
    }
    *present = Value::Array(finalizers);
}

/// The garbage collector works off these two finalizers.
fn set_policy_finalizer(object: &mut Value, propagation: Option<Propagation>) {
    let added = match propagation {
        None | Some(Propagation::Background) => None,
        Some(Propagation::Orphan) => Some("orphan"),
        Some(Propagation::Foreground) => Some("foregroundDeletion"),
    };
    if propagation.is_none() {
        return;
    }
    let metadata = &mut object["metadata"];
    let mut finalizers: Vec<Value> = metadata["finalizers"]
        .as_array()
        .map(|list| {
            list.iter()
                .filter(|name| *name != "orphan" && *name != "foregroundDeletion")
                .cloned()
                .collect()
        })
        .unwrap_or_default();
    finalizers.extend(added.map(|name| json!(name)));
    if finalizers.is_empty() {
        if let Some(metadata) = metadata.as_object_mut() {
            metadata.shift_remove("finalizers");
        }
    } else {
        metadata["finalizers"] = Value::Array(finalizers);
    }
}
