//! Structural schemas: what the fields of an object are, and what to do about those that are wrong, unknown or missing.
//!
//! One compiled form, [`Schema`], serves built-in kinds (from the committed tables, see [`definitions`]) and custom
//! resources (from the `openAPIV3Schema` of a CustomResourceDefinition). Two families of operations work on it, because
//! Kubernetes treats the two differently:
//!
//! * built-in kinds are decoded into Go structs: [`decode`] words type errors as Go does, refuses or drops unknown
//!   fields, and [`normalize`] gives the object the form that a Go struct has when it is written back;
//! * custom resources stay trees: [`Schema::prune`], [`Schema::apply_defaults`] and [`Schema::validate`] follow the rules
//!   for structural schemas.

mod compile;
mod decode;
mod defaults;
pub mod definitions;
mod duplicates;
mod go;
mod lists;
mod node;
mod prune;
pub mod quantity;
mod validate;

pub use compile::CompileError;
pub use decode::decode;
pub use duplicates::duplicate_fields;
pub use go::normalize;
pub(crate) use go::{format_micros, format_seconds, parse_time};
pub use node::{Additional, Format, Schema, Type};

#[cfg(test)]
mod tests;
