//! The types of built-in kinds: what the fields of an object are, and what happens to those that are wrong or unknown.
//!
//! Built-in kinds behave as if they were decoded into Go structs, because that is what their clients know: [`decode`]
//! words type errors as Go does and drops unknown fields, and [`normalize`] gives an object the form that a Go struct
//! has when it is written back. The types come from the committed tables, see [`definitions`]. (Custom resources stay
//! trees; their schemas are in [`crate::extension`].)

mod compile;
mod decode;
pub mod definitions;
mod duplicates;
mod go;
mod lists;
mod node;
pub mod quantity;

pub use decode::decode;
pub use duplicates::duplicate_fields;
pub use go::normalize;
pub(crate) use go::{format_micros, format_seconds, parse_time};
pub use node::{Additional, Format, GoField, Schema, Type};

#[cfg(test)]
mod tests;
