//! Custom resources: CustomResourceDefinitions and the resources that they define.
//!
//! [`definition`] is the strategy of the definitions themselves: what they may say, with Kubernetes' messages.
//! [`controller`] establishes them: it decides their names, adds a row to the server's table for each
//! ([`custom::resource`]) and removes the instances of one that is deleted. [`custom`] is the strategy of the rows: an
//! object is pruned, defaulted and checked ([`check`], [`list`], [`rule`]) by the schema of its version.

mod check;
mod columns;
pub mod controller;
mod correlate;
pub mod custom;
mod defaults;
pub mod definition;
mod embedded;
mod format;
mod list;
mod metadata;
mod openapi;
mod outcome;
pub(crate) mod path;
mod path_check;
mod prune;
mod rule;
mod scale;
mod schema;
mod scope;
mod status;

/// The path of the field `name` below `path`, which may be the root.
fn child(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

#[cfg(test)]
mod tests;
