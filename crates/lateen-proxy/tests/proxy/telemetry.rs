//! Istio's standard metrics and the exchange of peer metadata, through the whole proxy.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use lateen_xds::ResourceType;
use lateen_xds::pb::envoy::config::core::v3::Node;
use lateen_xds::pb::google::protobuf::Struct;
use serde_json::{Value, json};

use crate::support::{
    PATIENCE, Proxy, Upstream, cluster, eventually, free_address, get, socket_address, to,
    wait_for_listener,
};

const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";

fn node(workload: &str) -> Node {
    let metadata = json!({
        "@type": "type.googleapis.com/google.protobuf.Struct",
        "value": {
            "WORKLOAD_NAME": format!("{workload}-v1"),
            "NAMESPACE": "shop",
            "CLUSTER_ID": "Kubernetes",
            "ISTIO_VERSION": "1.31.0",
            "LABELS": {
                "app": workload,
                "version": "v1",
                "service.istio.io/canonical-name": workload,
                "service.istio.io/canonical-revision": "v1",
            },
        },
    });
    let any = lateen_xds::json::to_any(&metadata).unwrap();
    let metadata: Struct = prost::Message::decode(any.value.as_slice()).unwrap();
    Node {
        id: format!("sidecar~127.0.0.1~{workload}-1.shop~shop.svc.cluster.local"),
        metadata: Some(metadata),
        ..Node::default()
    }
}

fn typed_struct(kind: &str, value: Value) -> Value {
    json!({
        "@type": "type.googleapis.com/udpa.type.v1.TypedStruct",
        "typeUrl": format!("type.googleapis.com/{kind}"),
        "value": value,
    })
}

fn stats(more: Value) -> Value {
    let mut config = json!({ "@type": "type.googleapis.com/stats.PluginConfig" });
    crate::support::merge(&mut config, more);
    json!({ "name": "istio.stats", "typedConfig": config })
}

/// What istiod sends for outbound and inbound listeners.
fn filters(inbound: bool, stats_config: Value) -> Value {
    let side = if inbound { "downstream" } else { "upstream" };
    let exchange = typed_struct(
        "io.istio.http.peer_metadata.Config",
        json!({
            format!("{side}_discovery"): [{ "istio_headers": {} }, { "workload_discovery": {} }],
            format!("{side}_propagation"): [{ "istio_headers": {} }],
        }),
    );
    json!([
        { "name": "istio.metadata_exchange", "typedConfig": exchange },
        stats(stats_config),
        { "name": "router", "typedConfig": { "@type": ROUTER } },
    ])
}

/// The value of the one series whose labels contain all parts.
fn series(proxy: &Proxy, metric: &str, parts: &[&str]) -> Option<u64> {
    let text = proxy.engine.metrics();
    let mut found = text.lines().filter(|line| {
        line.strip_prefix(metric)
            .is_some_and(|rest| rest.starts_with('{'))
            && parts.iter().all(|part| line.contains(part))
    });
    let line = found.next()?;
    assert_eq!(found.next(), None, "{parts:?} is not unique");
    line.rsplit(' ').next()?.parse().ok()
}

fn listener(proxy: &mut Proxy, direction: &str, stats_config: Value) -> std::net::SocketAddr {
    let address = free_address();
    let filters = filters(direction == "INBOUND", stats_config);
    let mut listener =
        crate::support::http_listener("l", address, json!({ "httpFilters": filters }));
    listener["trafficDirection"] = json!(direction);
    proxy.accept(ResourceType::Listener, &[listener]);
    let hosts = json!([{ "name": "all", "domains": ["*"], "routes": [to("up", json!({}))] }]);
    proxy.accept(
        ResourceType::Route,
        &[json!({ "name": "r", "virtualHosts": hosts })],
    );
    wait_for_listener(address);
    address
}

#[test]
fn two_proxies_learn_each_other_and_count_requests_with_istios_labels() {
    let upstream = Upstream::start("a");
    let mut server = Proxy::start_as(1, node("server"));
    server.cluster("up", &[upstream.address], json!({}));
    let inbound = listener(
        &mut server,
        "INBOUND",
        json!({ "disableHostHeaderFallback": true }),
    );

    let mut client = Proxy::start_as(1, node("client"));
    let service =
        json!({ "host": "server.shop.svc.cluster.local", "name": "server", "namespace": "shop" });
    let metadata = json!({ "filterMetadata": { "istio": { "services": [service] } } });
    client.cluster("up", &[inbound], json!({ "metadata": metadata }));
    let outbound = listener(&mut client, "OUTBOUND", json!({}));

    let response = get(outbound, "/x", &[]);
    assert_eq!(response.status, 200);
    // What the proxies tell each other reaches neither application.
    assert!(
        !response.body.contains("x-envoy-peer-metadata"),
        "{}",
        response.body
    );
    assert!(response.header("x-envoy-peer-metadata").is_none());

    let expected_source = [
        "reporter=\"source\"",
        "source_workload=\"client-v1\"",
        "destination_workload=\"server-v1\"",
        "destination_service=\"server.shop.svc.cluster.local\"",
        "destination_service_name=\"server\"",
        "destination_canonical_service=\"server\"",
        "destination_version=\"v1\"",
        "response_code=\"200\"",
        "response_flags=\"-\"",
        "request_protocol=\"http\"",
        "connection_security_policy=\"unknown\"",
    ];
    eventually(|| series(&client, "istio_requests_total", &expected_source) == Some(1));
    let expected_destination = [
        "reporter=\"destination\"",
        "source_workload=\"client-v1\"",
        "source_app=\"client\"",
        "destination_workload=\"server-v1\"",
        "destination_service_name=\"server\"",
        "connection_security_policy=\"none\"",
    ];
    eventually(|| series(&server, "istio_requests_total", &expected_destination) == Some(1));
    for part in ["_count", "_bucket"] {
        let name = format!("istio_request_duration_milliseconds{part}");
        let labels: &[&str] = if part == "_bucket" {
            &["le=\"+Inf\""]
        } else {
            &[]
        };
        assert_eq!(series(&client, &name, labels), Some(1), "{name}");
    }
    assert!(series(&client, "istio_response_bytes_sum", &[]).unwrap() > 100);
    assert_eq!(
        series(
            &client,
            "istio_build",
            &["tag=\"1.31.0\"", "component=\"proxy\""]
        ),
        Some(1)
    );
}

#[test]
fn failed_requests_keep_the_service_and_say_why() {
    let mut proxy = Proxy::start_as(1, node("client"));
    let service = json!({ "host": "gone.shop.svc.cluster.local", "namespace": "shop" });
    let metadata = json!({ "filterMetadata": { "istio": { "services": [service] } } });
    proxy.accept(
        ResourceType::Cluster,
        &[cluster("up", &[], json!({ "metadata": metadata }))],
    );
    let address = listener(&mut proxy, "OUTBOUND", json!({}));
    assert_eq!(get(address, "/", &[]).status, 503);
    let labels = [
        "response_code=\"503\"",
        "response_flags=\"UH\"",
        "destination_workload=\"unknown\"",
        "destination_workload_namespace=\"unknown\"",
        "destination_service=\"gone.shop.svc.cluster.local\"",
        "destination_service_name=\"gone\"",
    ];
    eventually(|| series(&proxy, "istio_requests_total", &labels) == Some(1));
}

#[test]
fn endpoints_name_their_workload_when_they_do_not_answer_for_themselves() {
    let upstream = Upstream::start("a");
    let mut proxy = Proxy::start_as(1, node("client"));
    let metadata = json!({ "filterMetadata": { "istio": { "workload": "web;store;web-service;v2;Kubernetes" } } });
    let endpoint = json!({ "endpoint": { "address": socket_address(upstream.address) }, "metadata": metadata });
    let load = json!({ "clusterName": "up", "endpoints": [{ "lbEndpoints": [endpoint] }] });
    proxy.cluster("up", &[], json!({ "loadAssignment": load }));
    let address = listener(&mut proxy, "OUTBOUND", json!({}));
    get(address, "/", &[]);
    let labels = [
        "destination_workload=\"web\"",
        "destination_workload_namespace=\"store\"",
        "destination_canonical_service=\"web-service\"",
        "destination_canonical_revision=\"v2\"",
    ];
    eventually(|| series(&proxy, "istio_requests_total", &labels) == Some(1));
}

#[test]
fn tags_are_overridden_and_metrics_disabled() {
    let upstream = Upstream::start("a");
    let mut proxy = Proxy::start_as(1, node("client"));
    proxy.cluster("up", &[upstream.address], json!({}));
    let config = json!({ "metrics": [
        { "name": "request_bytes", "drop": true },
        { "dimensions": { "request_host": "request.host", "team": "'red'" }, "tagsToRemove": ["source_app"] },
    ]});
    let address = listener(&mut proxy, "OUTBOUND", config);
    let response = get(address, "/", &["host: shop.test"]);
    assert_eq!(response.status, 200);
    let labels = ["request_host=\"shop.test\"", "team=\"red\""];
    eventually(|| series(&proxy, "istio_requests_total", &labels) == Some(1));
    let text = proxy.engine.metrics();
    assert!(
        !text.contains("istio_request_bytes") && !text.contains("source_app="),
        "{text}"
    );
    assert!(text.contains("istio_response_bytes_count"));
}

#[test]
fn what_is_not_implemented_is_refused_with_its_path() {
    let mut proxy = Proxy::start(1);
    let exchange = |value: Value| {
        json!({
            "name": "x", "typedConfig": typed_struct("io.istio.http.peer_metadata.Config", value),
        })
    };
    for (filter, part) in [
        (
            stats(json!({ "reporter": "SERVER_GATEWAY" })),
            "http_filters[0].typed_config.reporter",
        ),
        (
            stats(json!({ "definitions": [{ "name": "a", "value": "1" }] })),
            "typed_config.definitions",
        ),
        (
            stats(json!({ "metrics": [{ "dimensions": { "a": "request.size + 1" } }] })),
            "metrics[0].dimensions",
        ),
        (
            stats(json!({ "metrics": [{ "name": "nothing" }] })),
            "metrics[0].name",
        ),
        (
            exchange(json!({ "downstream_discovery": [{ "baggage": {} }] })),
            "downstream_discovery[0].baggage",
        ),
        (
            exchange(json!({ "additional_labels": ["a"] })),
            "additional_labels",
        ),
    ] {
        let filters = json!([filter, { "name": "router", "typedConfig": { "@type": ROUTER } }]);
        let listener =
            crate::support::http_listener("l", free_address(), json!({ "httpFilters": filters }));
        let rejected = proxy.send(ResourceType::Listener, &[listener]);
        assert!(
            rejected.len() == 1 && rejected[0].reason.contains(part),
            "{part}: {rejected:?}"
        );
    }
}

#[test]
fn tcp_connections_report_while_they_are_open() {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = upstream.local_addr().unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = upstream.accept() {
            let mut buffer = [0; 64];
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                let twice = buffer[..count].repeat(2);
                if stream.write_all(&twice).is_err() {
                    break;
                }
            }
        }
    });
    let mut proxy = Proxy::start_as(1, node("client"));
    proxy.cluster("up", &[target], json!({}));
    let address = free_address();
    let filters = json!([
        { "name": "mx", "typedConfig": typed_struct(
            "envoy.tcp.metadataexchange.config.MetadataExchange",
            json!({ "protocol": "istio-peer-exchange", "enable_discovery": true }),
        )},
        stats(json!({ "tcpReportingDuration": "0.05s" })),
        { "name": "tcp", "typedConfig": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "statPrefix": "t", "cluster": "up",
        }},
    ]);
    let listener = json!({
        "name": "tcp", "address": socket_address(address), "trafficDirection": "OUTBOUND",
        "filterChains": [{ "filters": filters }],
    });
    proxy.accept(ResourceType::Listener, &[listener]);
    let mut stream = loop {
        if let Ok(stream) = TcpStream::connect(address) {
            break stream;
        }
    };
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"12345").unwrap();
    stream.read_exact(&mut [0; 10]).unwrap();
    let labels = [
        "request_protocol=\"tcp\"",
        "reporter=\"source\"",
        "response_flags=\"-\"",
    ];
    eventually(|| series(&proxy, "istio_tcp_sent_bytes_total", &labels) == Some(10));
    assert_eq!(
        series(&proxy, "istio_tcp_received_bytes_total", &labels),
        Some(5)
    );
    assert_eq!(
        series(&proxy, "istio_tcp_connections_opened_total", &labels),
        Some(1)
    );
    assert_eq!(
        series(&proxy, "istio_tcp_connections_closed_total", &labels),
        Some(0)
    );
    drop(stream);
    eventually(|| series(&proxy, "istio_tcp_connections_closed_total", &labels) == Some(1));
    assert!(!proxy.engine.metrics().contains("response_code="));
}
