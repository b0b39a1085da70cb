//! What every write goes through, whatever verb it came by.

use std::sync::Arc;

use serde_json::{Value, json};

use super::target::Target;
use super::{Api, meta, metadata, namespaces, respond, store_failure};
use crate::admission::Operation;
use crate::apply::{self, Managed, Manager};
use crate::builtin;
use crate::field::FieldError;
use crate::names;
use crate::status::{Result, Status};
use crate::store::{WriteError, revision_of};
use crate::strategy::{FieldValidation, Part};
use crate::user::User;

/// How often a write that does not name a revision is tried again when another one came first.
const ATTEMPTS: usize = 16;

/// How many names are tried for `generateName`.
const NAME_ATTEMPTS: usize = 8;

/// Where an update takes the new object from. Edits work on the stored object in the version of the request.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    /// The client sent it whole.
    Replace(&'a Value),
    /// The client sent a change.
    Edit(&'a (dyn Fn(&mut Value) -> Result<()> + Sync)),
    /// The client sent the fields that it wants to own.
    Apply {
        /// The fields.
        config: &'a Value,
        /// Whether they are taken from other managers.
        force: bool,
    },
}

/// One write request.
pub(super) struct Write<'a> {
    pub(super) api: &'a Arc<Api>,
    pub(super) target: &'a Target,
    pub(super) user: &'a User,
    pub(super) dry_run: bool,
    pub(super) validation: FieldValidation,
    /// Who owns the fields that this write sets.
    pub(super) manager: Manager,
    pub(super) warnings: &'a mut Vec<String>,
}

impl Write<'_> {
    /// Stores a new object and returns it.
    pub(super) async fn create(&mut self, object: Value) -> Result<Arc<Value>> {
        self.create_managed(object, None).await
    }

    /// Creates with the field owners that are given, or else those of a plain write.
    pub(super) async fn create_managed(
        &mut self,
        mut object: Value,
        managed: Option<Managed>,
    ) -> Result<Arc<Value>> {
        self.take_in(&mut object)?;
        let namespace = self.namespace_of(&mut object)?;
        let base = meta(&object, "generateName").to_owned();
        let generated = meta(&object, "name").is_empty() && !base.is_empty();
        metadata::for_create(&mut object)?;
        if generated {
            object["metadata"]["name"] = json!(names::generate(&base));
        }
        let name = meta(&object, "name").to_owned();
        if name.is_empty() {
            return Err(self.invalid(
                "",
                &[FieldError::required(
                    "metadata.name",
                    "name or generateName is required",
                )],
            ));
        }
        if self.target.resource.namespaced {
            namespaces::check(self.api, self.target, &namespace, &name)?;
        }
        self.mutate(Operation::Create, &name, &mut object, None)
            .await?;
        let strategy = self.target.resource.strategy.clone();
        let api_version = self.target.api_version();
        strategy.default(&mut object);
        strategy.prepare_create(&mut object, self.target.info(&api_version));
        if namespaces::is_namespace(self.target) {
            namespaces::for_create(&mut object);
        }
        let managed = managed.unwrap_or_else(|| {
            let nothing = json!({});
            Managed::default().updated(&self.manager, &nothing, &object, strategy.as_ref())
        });
        managed.write(&mut object);
        self.check(&object, None)?;
        let _allocating =
            self.api
                .services
                .allocate(&self.api.store, self.target, &mut object, None)?;
        self.validate(Operation::Create, &name, Some(&object), None)
            .await?;
        if self.dry_run {
            return Ok(Arc::new(object));
        }
        let mut key = self.target.key_of(&namespace, &name);
        for _attempt in 1..NAME_ATTEMPTS {
            match self.api.store.create(key.clone(), object.clone()).await {
                Ok(stored) => return Ok(stored),
                Err(WriteError::Exists) if generated => {
                    key.name = names::generate(&base);
                    object["metadata"]["name"] = json!(key.name);
                }
                Err(WriteError::Exists) => break,
                Err(error) => return Err(store_failure(&error)),
            }
        }
        let resource = &self.target.resource;
        Err(Status::already_exists(
            &resource.group,
            &resource.plural,
            &key.name,
        ))
    }

    /// Changes an object and returns its new state; removes it when it waited only for this.
    pub(super) async fn update(&mut self, source: Source<'_>) -> Result<Arc<Value>> {
        for _attempt in 0..ATTEMPTS {
            let current = self
                .api
                .store
                .get(&self.target.key())
                .ok_or_else(|| self.target.not_found())?;
            match self.update_once(source, &current).await {
                Err(Failure::Raced) => {}
                Err(Failure::Refused(status)) => return Err(status),
                Ok(stored) => return Ok(stored),
            }
        }
        Err(self.raced())
    }

    async fn update_once(
        &mut self,
        source: Source<'_>,
        current: &Arc<Value>,
    ) -> Result<Arc<Value>, Failure> {
        let strategy = self.target.resource.strategy.clone();
        let mut applied = None;
        let mut object = match source {
            Source::Replace(object) => object.clone(),
            Source::Apply { config, force } => {
                let live = respond::converted(self.target, current)?;
                let (object, managed) =
                    apply::apply(&live, config, &self.manager, force, strategy.as_ref())?;
                applied = Some(managed);
                object
            }
            Source::Edit(edit) => {
                let mut object = respond::converted(self.target, current)?;
                edit(&mut object)?;
                object
            }
        };
        self.take_in(&mut object)?;
        self.namespace_of(&mut object)?;
        self.check_identity(&object, current)?;
        metadata::for_update(&mut object, current)?;
        let api_version = self.target.api_version();
        let info = self.target.info(&api_version);
        self.keep_other_part(&mut object, current, info.part);
        let name = self.target.name.clone();
        self.mutate(Operation::Update, &name, &mut object, Some(current))
            .await?;
        strategy.default(&mut object);
        strategy.prepare_update(&mut object, current, info);
        self.api
            .services
            .carry_over(self.target, &mut object, current);
        let managed = applied.unwrap_or_else(|| {
            self.managed_before(&object, current).updated(
                &self.manager,
                current,
                &object,
                strategy.as_ref(),
            )
        });
        managed.write(&mut object);
        self.check(&object, Some(current))?;
        let _allocating =
            self.api
                .services
                .allocate(&self.api.store, self.target, &mut object, Some(current))?;
        self.validate(Operation::Update, &name, Some(&object), Some(current))
            .await?;
        object["metadata"]["resourceVersion"] = current["metadata"]["resourceVersion"].clone();
        if self.dry_run {
            return Ok(Arc::new(object));
        }
        let (key, revision) = (self.target.key(), revision_of(current));
        let written = if is_released(self.target, &object) {
            self.api.store.delete(key, object, revision).await
        } else if object == **current {
            return Ok(current.clone());
        } else {
            self.api.store.update(key, object, revision).await
        };
        written.map_err(|error| match error {
            WriteError::Changed | WriteError::Missing => Failure::Raced,
            other => Failure::Refused(store_failure(&other)),
        })
    }

    /// The owners that a plain write starts from: those that the client sent, if any. Clients may clean up this way.
    fn managed_before(&self, object: &Value, current: &Value) -> Managed {
        match object["metadata"]["managedFields"].as_array() {
            Some(list) if !list.is_empty() => Managed::of(object),
            _ => Managed::of(current),
        }
    }

    /// Checks types and brings a client's object to the storage version with all defaults.
    fn take_in(&mut self, object: &mut Value) -> Result<()> {
        metadata::ensure(object)?;
        let api_version = self.target.api_version();
        let kind = &self.target.resource.kind;
        for (field, expected) in [("apiVersion", &api_version), ("kind", kind)] {
            let given = object[field].as_str().unwrap_or_default();
            if given.is_empty() {
                object[field] = json!(expected);
            } else if given != expected {
                return Err(Status::bad_request(format!(
                    "the {field} in the data ({given}) does not match the expected {field} ({expected})"
                )));
            }
        }
        let info = self.target.info(&api_version);
        let strategy = &self.target.resource.strategy;
        let warnings = strategy.decode(object, info, self.validation)?;
        for warning in warnings {
            if !self.warnings.contains(&warning) {
                self.warnings.push(warning);
            }
        }
        strategy.convert_to_storage(object, info)?;
        object["apiVersion"] = json!(self.target.resource.storage_api_version());
        strategy.default(object);
        Ok(())
    }

    /// The object's namespace, which must be that of the path.
    fn namespace_of(&self, object: &mut Value) -> Result<String> {
        let metadata = metadata::ensure(object)?;
        if !self.target.resource.namespaced {
            metadata.shift_remove("namespace");
            return Ok(String::new());
        }
        let given = metadata
            .get("namespace")
            .and_then(Value::as_str)
            .unwrap_or_default();
        if given.is_empty() {
            metadata.insert("namespace".to_owned(), json!(self.target.namespace));
        } else if given != self.target.namespace {
            return Err(Status::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        Ok(self.target.namespace.clone())
    }

    /// Refuses an update that means another object or another state than the present one.
    fn check_identity(&self, object: &Value, current: &Value) -> Result<()> {
        let (name, expected) = (meta(object, "name"), &self.target.name);
        if !name.is_empty() && name != expected {
            return Err(Status::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({expected})"
            )));
        }
        let (uid, current_uid) = (meta(object, "uid"), meta(current, "uid"));
        if !uid.is_empty() && uid != current_uid {
            return Err(self.target.conflict(&format!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {current_uid}"
            )));
        }
        let revision = meta(object, "resourceVersion");
        if revision.is_empty() || revision == "0" {
            if self.target.resource.strategy.strategic_merge() {
                return Ok(());
            }
            // Kinds of CustomResourceDefinitions cannot be replaced without having been read.
            return Err(self.invalid(
                expected,
                &[FieldError::invalid(
                    "metadata.resourceVersion",
                    json!(0),
                    "must be specified for an update",
                )],
            ));
        }
        if revision != meta(current, "resourceVersion") {
            return Err(self.raced());
        }
        Ok(())
    }

    /// A write of the object leaves `status` alone, and a write of `status` everything else.
    fn keep_other_part(&self, object: &mut Value, current: &Value, part: Part) {
        match part {
            Part::Main if self.target.resource.status_subresource => {
                copy_field(object, current, "status");
            }
            Part::Main => {}
            Part::Status => {
                let mut kept = current.clone();
                copy_field(&mut kept, object, "status");
                // Writers of the status of built-in kinds may note things beside it: a Deployment's revision, a pod's and
                // a node's labels.
                let built_in = self.target.resource.strategy.strategic_merge();
                let labelled = self.target.is("", "pods") || self.target.is("", "nodes");
                for (field, passes) in [("annotations", built_in), ("labels", labelled)] {
                    match object["metadata"].get(field) {
                        _ if !passes => {}
                        Some(value) => kept["metadata"][field] = value.clone(),
                        None => drop(remove_meta(&mut kept, field)),
                    }
                }
                if let Some(managed) = object["metadata"].get("managedFields") {
                    kept["metadata"]["managedFields"] = managed.clone();
                }
                *object = kept;
            }
        }
    }

    fn check(&mut self, object: &Value, old: Option<&Value>) -> Result<()> {
        let api_version = self.target.api_version();
        let strategy = &self.target.resource.strategy;
        let mut errors = strategy.validate(object, old, self.target.info(&api_version));
        errors.extend(builtin::metadata_errors(object, old));
        let errors = metadata::ordered(errors);
        if !errors.is_empty() {
            return Err(self.invalid(meta(object, "name"), &errors));
        }
        self.warnings.extend(strategy.warnings(object));
        Ok(())
    }

    fn invalid(&self, name: &str, errors: &[FieldError]) -> Status {
        let resource = &self.target.resource;
        Status::invalid(&resource.group, &resource.kind, name, errors)
    }

    fn raced(&self) -> Status {
        self.target.conflict(
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }
}

/// Why one attempt of an update failed.
enum Failure {
    /// Another write came first; the next attempt sees it.
    Raced,
    Refused(Status),
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Refused(status)
    }
}

/// Whether a deleted object has nothing left to wait for.
pub(super) fn is_released(target: &Target, object: &Value) -> bool {
    let metadata = &object["metadata"];
    let waits = metadata["finalizers"]
        .as_array()
        .is_some_and(|finalizers| !finalizers.is_empty());
    metadata.get("deletionTimestamp").is_some()
        && !waits
        && metadata["deletionGracePeriodSeconds"].as_u64().unwrap_or(0) == 0
        && !(namespaces::is_namespace(target) && namespaces::has_content(object))
}

fn copy_field(to: &mut Value, from: &Value, field: &str) {
    match (from.get(field), to.as_object_mut()) {
        (Some(value), Some(to)) => drop(to.insert(field.to_owned(), value.clone())),
        (None, Some(to)) => drop(to.shift_remove(field)),
        (_, None) => {}
    }
}

fn remove_meta(object: &mut Value, field: &str) -> Option<Value> {
    object["metadata"].as_object_mut()?.shift_remove(field)
}
