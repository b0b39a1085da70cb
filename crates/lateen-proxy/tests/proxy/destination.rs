//! Clusters that reach whatever the client wanted, without a redirection: a header names the endpoint.

use lateen_xds::ResourceType;
use serde_json::json;

use crate::support::{Client, Proxy, Upstream, to};

#[test]
fn a_header_names_the_endpoint() {
    let [one, two] = ["one", "two"].map(Upstream::start);
    let port = two.address.port();
    for (config, header, expected) in [
        (
            json!({ "useHttpHeader": true }),
            one.address.to_string(),
            Some("one"),
        ),
        (
            json!({ "useHttpHeader": true }),
            two.address.to_string(),
            Some("two"),
        ),
        (
            json!({ "useHttpHeader": true }),
            "localhost:80".to_owned(),
            None,
        ),
        (json!({ "useHttpHeader": true }), String::new(), None),
        // Nothing was redirected here, and the own address is no endpoint.
        (json!({}), one.address.to_string(), None),
        (
            json!({ "useHttpHeader": true, "upstreamPortOverride": port }),
            "127.0.0.1:1".to_owned(),
            Some("two"),
        ),
        (
            json!({ "useHttpHeader": true, "httpHeaderName": "x-where" }),
            one.address.to_string(),
            None,
        ),
    ] {
        let mut proxy = Proxy::start(1);
        let cluster = json!({
            "name": "c", "type": "ORIGINAL_DST", "lbPolicy": "CLUSTER_PROVIDED",
            "originalDstLbConfig": config, "cleanupInterval": "60s",
        });
        proxy.accept(ResourceType::Cluster, &[cluster]);
        let address = proxy.http(json!([to("c", json!({}))]), json!({}));
        let line = format!("x-envoy-original-dst-host: {header}");
        let mut client = Client::connect(address);
        for _ in 0..2 {
            let answer = client.get("/", &[&line]).unwrap();
            match expected {
                Some(name) => assert_eq!(answer.name(), name, "{config} {header}"),
                None => assert_eq!(answer.body, "no healthy upstream", "{config} {header}"),
            }
        }
    }
}
