//! Why one pass of a controller over one object failed.

use super::meta::ObjectKey;

/// A step of a reconciliation that failed; the object is tried again with back-off.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// Reading an object failed.
    #[error("reading {kind} {key}: {}", said(source))]
    Read {
        kind: String,
        key: ObjectKey,
        source: Box<kube::Error>,
    },
    /// Listing the objects of a resource failed.
    #[error("listing {kind} in namespace {namespace:?}: {}", said(source))]
    List {
        kind: String,
        namespace: String,
        source: Box<kube::Error>,
    },
    /// Creating an object failed.
    #[error("creating {kind} {key}: {}", said(source))]
    Create {
        kind: String,
        key: ObjectKey,
        source: Box<kube::Error>,
    },
    /// Replacing or patching an object failed.
    #[error("changing {kind} {key}: {}", said(source))]
    Change {
        kind: String,
        key: ObjectKey,
        source: Box<kube::Error>,
    },
    /// Deleting an object, or all objects of a resource, failed.
    #[error("deleting {kind} {key}: {}", said(source))]
    Delete {
        kind: String,
        key: ObjectKey,
        source: Box<kube::Error>,
    },
    /// The list of served resources could not be read.
    #[error("discovering the served resources: {}", said(.0))]
    Discover(#[source] Box<kube::Error>),
    /// A selector in an object does not parse; the server's validation should have refused it.
    #[error("selector of {kind} {key} is invalid: {reason}")]
    Selector {
        kind: &'static str,
        key: ObjectKey,
        reason: String,
    },
    /// Another ReplicaSet has the name that the Deployment's pod template hashes to.
    #[error("the name of the new ReplicaSet of Deployment {key} is taken by {name}")]
    Collision { key: ObjectKey, name: String },
    /// Something that this pass waits for is not there yet.
    #[error("{subject} waits: {reason}")]
    Waiting { subject: String, reason: String },
}

impl Error {
    fn status(&self) -> Option<&kube::core::Status> {
        match self {
            Self::Read { source, .. }
            | Self::List { source, .. }
            | Self::Create { source, .. }
            | Self::Change { source, .. }
            | Self::Delete { source, .. }
            | Self::Discover(source) => match &**source {
                kube::Error::Api(status) => Some(status),
                _ => None,
            },
            Self::Selector { .. } | Self::Collision { .. } | Self::Waiting { .. } => None,
        }
    }

    /// The object is gone, so there is nothing left to do with it.
    pub(super) fn is_not_found(&self) -> bool {
        self.status().is_some_and(|status| status.code == 404)
    }

    /// Someone else changed the object first; the next pass sees their change.
    pub(super) fn is_conflict(&self) -> bool {
        self.status()
            .is_some_and(|status| status.code == 409 && status.reason == "Conflict")
    }

    /// An object of that name exists.
    pub(super) fn is_already_exists(&self) -> bool {
        self.status()
            .is_some_and(|status| status.code == 409 && status.reason == "AlreadyExists")
    }

    /// The namespace is being deleted, so nothing can be created in it any more.
    pub(super) fn is_namespace_terminating(&self) -> bool {
        self.status().is_some_and(|status| {
            status.code == 403
                && (status.message.contains("being terminated")
                    || status.details.as_ref().is_some_and(|details| {
                        details
                            .causes
                            .iter()
                            .any(|cause| cause.reason == "NamespaceTerminating")
                    }))
        })
    }

    /// What the API server said, without the step around it; the form that events and conditions show.
    pub(super) fn server_message(&self) -> String {
        self.status()
            .map_or_else(|| self.to_string(), |status| status.message.clone())
    }
}

/// The server's message; kube-rs would print its whole structure.
fn said(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}
