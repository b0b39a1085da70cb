//! Server-side apply as a request: a create or an update, whichever it turns out to be.

use std::sync::Arc;

use serde_json::{Value, json};

use super::metadata;
use super::write::{Source, Write};
use crate::apply;
use crate::status::{Result, Status};

impl Write<'_> {
    /// Applies `config` for the manager; returns the object and whether it is new.
    pub(super) async fn apply(
        &mut self,
        config: &Value,
        force: bool,
    ) -> Result<(Arc<Value>, bool)> {
        self.manager.applies = true;
        let config = self.applied_part(config)?;
        let exists = self.api.store.get(&self.target.key()).is_some();
        if !exists && self.target.subresource.is_empty() {
            let strategy = self.target.resource.strategy.clone();
            let (object, managed) =
                apply::apply(&json!({}), &config, &self.manager, force, strategy.as_ref())?;
            match self.create_managed(object, Some(managed)).await {
                // Someone else was faster: there is an object to apply to.
                Err(status) if status.reason == "AlreadyExists" => {}
                done => return done.map(|stored| (stored, true)),
            }
        }
        let source = Source::Apply {
            config: &config,
            force,
        };
        self.update(source).await.map(|stored| (stored, false))
    }

    /// The fields of an applied object that this request may set.
    fn applied_part(&self, config: &Value) -> Result<Value> {
        let mut config = config.clone();
        let metadata = metadata::ensure(&mut config)?;
        if metadata
            .get("managedFields")
            .is_some_and(|list| !list.is_null())
        {
            return Err(Status::bad_request("metadata.managedFields must be nil"));
        }
        metadata
            .entry("name")
            .or_insert_with(|| json!(self.target.name));
        for field in ["apiVersion", "kind"] {
            if config[field].as_str().unwrap_or_default().is_empty() {
                return Err(Status::bad_request(format!(
                    "{field} must be set in the applied object"
                )));
            }
        }
        let Value::Object(fields) = &mut config else {
            return Ok(config);
        };
        if self.target.subresource == "status" {
            fields.retain(|field, _| {
                matches!(
                    field.as_str(),
                    "apiVersion" | "kind" | "metadata" | "status"
                )
            });
            if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.retain(|field, _| {
                    matches!(
                        field.as_str(),
                        "name" | "namespace" | "uid" | "resourceVersion"
                    )
                });
            }
        } else if self.target.resource.status_subresource {
            fields.shift_remove("status");
        }
        Ok(config)
    }
}
