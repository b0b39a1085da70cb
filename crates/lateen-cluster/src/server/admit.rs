//! The calls of admission hooks within a write.

use std::sync::Arc;

use serde_json::{Value, json};

use super::metadata;
use super::write::Write;
use crate::admission::{Admission, Attributes, Operation};
use crate::status::Result;
use crate::strategy::FieldValidation;

impl Write<'_> {
    /// Lets all hooks change `object`.
    pub(super) async fn mutate(
        &mut self,
        operation: Operation,
        name: &str,
        object: &mut Value,
        old: Option<&Value>,
    ) -> Result<()> {
        let hooks: Arc<Vec<Arc<dyn Admission>>> = self.api.admission.load_full();
        if hooks.is_empty() {
            return Ok(());
        }
        let options = self.options(operation);
        let before = object.clone();
        for hook in hooks.iter() {
            let attributes = self.attributes(operation, name, old, &options);
            let warnings = hook.mutate(attributes, object).await?;
            self.warnings.extend(warnings);
        }
        if *object == before {
            return Ok(());
        }
        // A hook may have made anything of it: its types are checked again, and it stays the same object.
        let metadata = metadata::ensure(object)?;
        for field in ["name", "namespace", "uid", "creationTimestamp"] {
            if let Some(value) = before["metadata"].get(field) {
                metadata.insert(field.to_owned(), value.clone());
            }
        }
        let stored = self.target.resource.storage_api_version();
        let strategy = &self.target.resource.strategy;
        let info = self.target.info(&stored);
        strategy
            .decode(object, info, FieldValidation::Ignore)
            .map(|_warnings| ())
    }

    /// Asks all hooks whether the write may happen.
    pub(super) async fn validate(
        &mut self,
        operation: Operation,
        name: &str,
        object: Option<&Value>,
        old: Option<&Value>,
    ) -> Result<()> {
        let hooks: Arc<Vec<Arc<dyn Admission>>> = self.api.admission.load_full();
        let options = self.options(operation);
        for hook in hooks.iter() {
            let attributes = self.attributes(operation, name, old, &options);
            let warnings = hook.validate(attributes, object).await?;
            self.warnings.extend(warnings);
        }
        Ok(())
    }

    fn attributes<'b>(
        &'b self,
        operation: Operation,
        name: &'b str,
        old: Option<&'b Value>,
        options: &'b Value,
    ) -> Attributes<'b> {
        Attributes {
            operation,
            resource: &self.target.resource,
            group: &self.target.group,
            version: &self.target.version,
            namespace: &self.target.namespace,
            name,
            subresource: &self.target.subresource,
            user: self.user,
            dry_run: self.dry_run,
            old,
            options,
        }
    }

    fn options(&self, operation: Operation) -> Value {
        let kind = match operation {
            Operation::Create => "CreateOptions",
            Operation::Update | Operation::Connect => "UpdateOptions",
            Operation::Delete => "DeleteOptions",
        };
        let mut options = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
        if self.dry_run {
            options["dryRun"] = json!(["All"]);
        }
        if operation != Operation::Delete {
            options["fieldManager"] = json!(self.manager.name);
        }
        options
    }
}
