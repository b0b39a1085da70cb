//! Prints the objects of an installation: `cargo run -p lateen-control --example manifests | kubectl apply -f -`

use lateen_control::manifests::{Options, render};
use serde_json::json;

fn main() {
    println!(
        "{:#}",
        json!({"apiVersion": "v1", "kind": "List", "items": render(&Options::default())})
    );
}
