//! Prints the objects of an installation, definitions of Istio's kinds first:
//! `cargo run -p lateen-control --example manifests | kubectl apply -f -`

use lateen_api::crd;
use lateen_control::manifests::{Options, render};
use serde_json::json;

fn main() {
    let mut items = crd::all();
    items.extend(render(&Options::default()));
    println!(
        "{:#}",
        json!({"apiVersion": "v1", "kind": "List", "items": items})
    );
}
