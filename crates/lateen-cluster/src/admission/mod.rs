//! Admission: hooks that may change or refuse a write before it is stored.
//!
//! The server calls all hooks' [`Admission::mutate`] in order, applies defaults again, validates, and then calls all
//! hooks' [`Admission::validate`]. The first refusal ends the request.

mod cache;
mod condition;
mod matching;
mod policy;
mod request;
mod selector;
mod webhook;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde_json::Value;

use crate::resource::Resource;
use crate::status::Result;
use crate::user::User;

pub use policy::Policies;
pub use webhook::Webhooks;

/// What a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// A new object.
    Create,
    /// A change of an object or of a subresource.
    Update,
    /// The removal of an object.
    Delete,
    /// `exec`, `attach`, `portforward` and the like.
    Connect,
}

impl Operation {
    /// The name that admission reviews and webhook rules use, e.g. `CREATE`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}

/// What hooks are told of a request. Objects are in the storage version.
#[derive(Clone, Copy)]
pub struct Attributes<'a> {
    /// What the request does.
    pub operation: Operation,
    /// The row of the resource.
    pub resource: &'a Arc<Resource>,
    /// Group of the request path.
    pub group: &'a str,
    /// Version of the request path.
    pub version: &'a str,
    /// Namespace, empty for cluster-scoped resources.
    pub namespace: &'a str,
    /// Name; on a create with `generateName` it is the generated one.
    pub name: &'a str,
    /// Subresource, empty for the object itself.
    pub subresource: &'a str,
    /// Who sent the request.
    pub user: &'a User,
    /// Nothing will be stored.
    pub dry_run: bool,
    /// The stored object on updates and deletes.
    pub old: Option<&'a Value>,
    /// `CreateOptions`, `UpdateOptions`, `PatchOptions` or `DeleteOptions`.
    pub options: &'a Value,
}

/// A hook. Returned strings are warnings for the client.
pub trait Admission: Send + Sync {
    /// May change `object`. Not called for deletes.
    fn mutate<'a>(
        &'a self,
        attributes: Attributes<'a>,
        object: &'a mut Value,
    ) -> BoxFuture<'a, Result<Vec<String>>>;

    /// May refuse. `object` is `None` for deletes.
    fn validate<'a>(
        &'a self,
        attributes: Attributes<'a>,
        object: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<Vec<String>>>;
}
