//! The whole process against a discovery server: readiness, traffic, admin, a lost server, and the end.

use std::net::SocketAddr;
use std::time::Duration;

use lateen_proxy::ProxyConfig;
use lateen_proxy::agent::DrainConfig;
use lateen_xds::ResourceType;
use lateen_xds::client::Target;
use lateen_xds::pb::envoy::config::core::v3::Node;
use serde_json::{Value, json as object};

use crate::discovery::{Fixed, serve};
use crate::support::{
    Client, Upstream, assignment, cluster, eventually, free_address, get, http_listener, to,
    wait_for_listener,
};

/// Time of a graceful drain, in which a slow machine still asks all that is to be asked.
const DRAIN: Duration = Duration::from_secs(4);

fn post(address: SocketAddr, path: &str) -> u16 {
    let request = format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n");
    Client::connect(address).send(&request).unwrap().status
}

/// Status and part of the body of what the admin interface says, in Envoy's words.
fn admin_answers(admin: SocketAddr) {
    for (method, path, status, part) in [
        (
            "GET",
            "/config_dump?resource=dynamic_listeners&mask=name",
            200,
            "\"name\": \"l\"",
        ),
        (
            "GET",
            "/config_dump?resource=nothing",
            404,
            "nothing not found in config dump",
        ),
        (
            "GET",
            "/config_dump?resource=bootstrap",
            400,
            "bootstrap is not a repeated field. Use ?mask= to get only this field",
        ),
        (
            "GET",
            "/config_dump?name_regex=(",
            400,
            "Error while parsing name_regex from (",
        ),
        ("GET", "/stats?filter=(", 400, "Invalid re2 regex"),
        ("GET", "/stats?format=xml", 400, "usage: /stats?format="),
        (
            "GET",
            "/stats?type=Histograms&filter=upstream_rq_time",
            200,
            "cluster.c.upstream_rq_time: P0(nan,",
        ),
        (
            "GET",
            "/stats?format=json&filter=upstream_rq_time",
            200,
            "\"supported_quantiles\"",
        ),
        (
            "GET",
            "/stats?histogram_buckets=cumulative&filter=upstream_rq_time",
            200,
            "B3600000(0,2)",
        ),
        ("GET", "/certs", 200, "\"certificates\""),
        ("GET", "/memory", 200, "\"total_physical_bytes\""),
        ("GET", "/init_dump", 200, "{}"),
        ("GET", "/runtime", 200, "\"layers\""),
        (
            "GET",
            "/reset_counters",
            405,
            "Method GET not allowed, POST required.",
        ),
        ("POST", "/logging?level=debug", 400, "cannot be changed"),
        (
            "POST",
            "/drain_listeners?skip_exit",
            400,
            "skip_exit requires graceful",
        ),
        ("POST", "/reopen_logs", 200, "OK\n"),
        ("GET", "/nothing", 404, "invalid path. "),
        ("POST", "/reset_counters", 200, "OK\n"),
        (
            "GET",
            "/stats?filter=upstream_rq_200",
            200,
            "cluster.c.upstream_rq_200: 0\n",
        ),
        ("POST", "/healthcheck/fail", 200, "OK\n"),
        ("GET", "/ready", 503, "DRAINING\n"),
        ("POST", "/healthcheck/ok", 200, "OK\n"),
        ("GET", "/ready", 200, "LIVE\n"),
    ] {
        let request =
            format!("{method} {path} HTTP/1.1\r\nhost: admin\r\ncontent-length: 0\r\n\r\n");
        let answer = Client::connect(admin).send(&request).unwrap();
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
        assert!(answer.body.contains(part), "{path}: {}", answer.body);
    }
}

#[test]
fn a_process_follows_its_control_plane() {
    let upstream = Upstream::start("one");
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("xds");
    let (admin, health, metrics, listen) = (
        free_address(),
        free_address(),
        free_address(),
        free_address(),
    );
    let node = Node {
        id: "test-node".to_owned(),
        ..Node::default()
    };
    let config = ProxyConfig {
        health: vec![health],
        metrics: vec![metrics],
        concurrency: 2,
        ..ProxyConfig::new(node, Target::Unix(socket.clone()), admin)
    };
    let process = std::thread::spawn(move || lateen_proxy::run(config));
    wait_for_listener(admin);
    assert_eq!(get(admin, "/ready", &[]).status, 503);
    assert_eq!(get(health, "/healthz/ready", &[]).status, 503);

    let source = Fixed::default();
    let eds = object!({
        "name": "c", "type": "EDS", "connectTimeout": "1s",
        "edsClusterConfig": { "edsConfig": { "ads": {} } },
    });
    source.set(ResourceType::Cluster, "c", eds.clone());
    source.set(
        ResourceType::Endpoint,
        "c",
        assignment("c", &[upstream.address]),
    );
    source.set(
        ResourceType::Listener,
        "l",
        http_listener("l", listen, object!({})),
    );
    let routes = object!({ "name": "r", "virtualHosts": [
        { "name": "all", "domains": ["*"], "routes": [to("c", object!({}))] },
    ]});
    source.set(ResourceType::Route, "r", routes);
    let server = serve(source.clone(), &socket);
    eventually(|| get(health, "/healthz/ready", &[]).status == 200);
    assert_eq!(get(admin, "/ready", &[]).body, "LIVE\n");
    assert_eq!(get(listen, "/", &[]).name(), "one");

    // A resource that is not understood is rejected by name, and the state before stays.
    let mut bad = eds.clone();
    bad["outlierDetection"] = object!({ "interval": "0s" });
    source.set(ResourceType::Cluster, "c", bad);
    eventually(|| !source.rejected().is_empty());
    let rejected = source.rejected().join(" ");
    assert!(rejected.contains("c: outlier_detection"), "{rejected}");
    assert_eq!(get(listen, "/", &[]).status, 200);

    let dump: Value =
        serde_json::from_str(&get(admin, "/config_dump?include_eds", &[]).body).unwrap();
    let sections: Vec<_> = dump["configs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["@type"].as_str().unwrap())
        .collect();
    let names = [
        "Bootstrap",
        "Clusters",
        "Endpoints",
        "Listeners",
        "ScopedRoutes",
        "Routes",
        "Secrets",
    ];
    let expected: Vec<_> = names
        .iter()
        .map(|name| format!("type.googleapis.com/envoy.admin.v3.{name}ConfigDump"))
        .collect();
    assert_eq!(sections, expected);
    let active = &dump["configs"][1]["dynamic_active_clusters"][0];
    assert_eq!(active["cluster"]["connect_timeout"], "1s");
    assert!(
        active["error_state"]["details"]
            .as_str()
            .unwrap()
            .contains("outlier_detection")
    );
    let stats = get(
        admin,
        "/stats?filter=^cluster\\.c\\.upstream_rq_(2xx|total)$",
        &[],
    )
    .body;
    assert_eq!(
        stats,
        "cluster.c.upstream_rq_2xx: 2\ncluster.c.upstream_rq_total: 2\n"
    );
    let prometheus = get(metrics, "/stats/prometheus", &[]).body;
    assert!(
        prometheus.contains(
            "envoy_cluster_upstream_rq_xx{envoy_response_code_class=\"2\",cluster_name=\"c\"} 2"
        ),
        "{prometheus}"
    );
    let by_code = "envoy_cluster_upstream_rq{envoy_response_code=\"200\",cluster_name=\"c\"} 2";
    assert!(prometheus.contains(by_code), "{prometheus}");
    assert!(
        prometheus.contains("envoy_http_downstream_rq_time_count{"),
        "{prometheus}"
    );
    admin_answers(admin);
    let clusters = get(admin, "/clusters", &[]).body;
    assert!(
        clusters.contains(&format!("c::{}::health_flags::healthy\n", upstream.address)),
        "{clusters}"
    );
    assert_eq!(get(admin, "/listeners", &[]).body, format!("l::{listen}\n"));
    let info: Value = serde_json::from_str(&get(admin, "/server_info", &[]).body).unwrap();
    assert_eq!(
        (&info["state"], &info["node"]["id"]),
        (&object!("LIVE"), &object!("test-node"))
    );
    assert_eq!(get(admin, "/quitquitquit", &[]).status, 405);

    // Failures eject its only endpoint until that is switched off.
    let mut strict = eds.clone();
    strict["outlierDetection"] =
        object!({ "consecutive5xx": 2, "enforcingSuccessRate": 0, "maxEjectionPercent": 100 });
    strict["commonLbConfig"] = object!({ "healthyPanicThreshold": {} });
    source.set(ResourceType::Cluster, "c", strict);
    let ejections = || get(admin, "/stats?usedonly&filter=outlier_detection", &[]).body;
    eventually(|| {
        get(
            admin,
            "/stats?filter=outlier_detection.ejections_active",
            &[],
        )
        .body
            == "cluster.c.outlier_detection.ejections_active: 0\n"
    });
    for _ in 0..2 {
        assert_ne!(get(listen, "/?fail=99999", &[]).body, "no healthy upstream");
    }
    assert_eq!(get(listen, "/", &[]).body, "no healthy upstream");
    let prefix = "cluster.c.outlier_detection.ejections_";
    let counted: Vec<_> = [
        "active",
        "detected_consecutive_5xx",
        "enforced_consecutive_5xx",
        "enforced_total",
    ]
    .map(|name| format!("{prefix}{name}: 1\n"))
    .into();
    assert_eq!(ejections(), counted.concat());
    let clusters = get(admin, "/clusters", &[]).body;
    let flags = format!(
        "c::{}::health_flags::/failed_outlier_check\n",
        upstream.address
    );
    assert!(clusters.contains(&flags), "{clusters}");
    source.set(ResourceType::Cluster, "c", eds.clone());
    eventually(|| get(listen, "/", &[]).status == 200);

    // What nothing refers to any more is shown no more.
    let dumped = |section: &str| {
        let path = format!("/config_dump?include_eds&resource={section}");
        get(admin, &path, &[]).body
    };
    assert!(dumped("dynamic_endpoint_configs").contains("\"c\""));
    assert!(dumped("dynamic_route_configs").contains("\"r\""));
    let mut other = cluster("c", &[upstream.address], object!({}));
    other["loadAssignment"]["clusterName"] = object!("inline");
    source.set(ResourceType::Cluster, "c", other);
    let rds = object!({ "rds": { "routeConfigName": "s", "configSource": { "ads": {} } } });
    source.set(ResourceType::Route, "s", object!({ "name": "s" }));
    source.set(ResourceType::Listener, "l", http_listener("l", listen, rds));
    eventually(|| get(listen, "/", &[]).status == 404);
    eventually(|| !dumped("dynamic_endpoint_configs").contains("\"c\""));
    eventually(|| !dumped("dynamic_route_configs").contains("\"r\""));
    source.set(ResourceType::Cluster, "c", eds);
    let plain = http_listener("l", listen, object!({}));
    source.set(ResourceType::Listener, "l", plain);
    eventually(|| get(listen, "/", &[]).status == 200);

    // Without its control plane it keeps serving, and takes up changes when that returns.
    drop(server);
    assert_eq!(get(listen, "/", &[]).status, 200);
    source.set(ResourceType::Endpoint, "c", assignment("c", &[]));
    let _server = serve(source, &socket);
    eventually(|| get(listen, "/", &[]).status == 503);

    assert_eq!(post(admin, "/quitquitquit"), 200);
    process.join().unwrap().unwrap();
}

#[test]
fn a_graceful_drain_asks_clients_to_leave_before_listeners_stop() {
    // What is asked for, whether outbound clients are concerned, and whether listeners stop.
    let check = |query: &str, outbound: bool, stops: bool| {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("xds");
        let (admin, into, out) = (free_address(), free_address(), free_address());
        let node = Node {
            id: "test-node".to_owned(),
            ..Node::default()
        };
        let config = ProxyConfig {
            drain: DrainConfig {
                graceful: DRAIN,
                longest: Duration::ZERO,
                ..DrainConfig::default()
            },
            ..ProxyConfig::new(node, Target::Unix(socket.clone()), admin)
        };
        let process = std::thread::spawn(move || lateen_proxy::run(config));
        let source = Fixed::default();
        for (name, address, direction) in [("in", into, "INBOUND"), ("out", out, "OUTBOUND")] {
            let mut listener = http_listener(name, address, object!({}));
            listener["trafficDirection"] = object!(direction);
            source.set(ResourceType::Listener, name, listener);
        }
        let routes = object!({ "name": "r", "virtualHosts": [{ "name": "all", "domains": ["*"], "routes": [
            { "match": { "prefix": "/" }, "directResponse": { "status": 200 } },
        ]}]});
        source.set(ResourceType::Route, "r", routes);
        let _server = serve(source, &socket);
        wait_for_listener(into);
        wait_for_listener(out);
        let mut known = [into, out].map(Client::connect);
        let leaves = |client: &mut Client| {
            let answer = client.get("/", &[]).unwrap();
            assert_eq!(answer.status, 200);
            answer.header("connection") == Some("close")
        };
        assert!(!known.iter_mut().any(leaves));
        let path = format!("/drain_listeners?{query}");
        assert_eq!((post(admin, &path), post(admin, &path)), (200, 200));
        // Clients that are there and clients that come are served, and asked to leave.
        let [of_in, of_out] = &mut known;
        eventually(|| leaves(of_in));
        assert!(leaves(&mut Client::connect(into)));
        assert_eq!(leaves(&mut Client::connect(out)), outbound);
        if outbound {
            eventually(|| leaves(of_out));
        } else {
            assert!(!leaves(of_out));
        }
        assert_eq!(get(admin, "/ready", &[]).body, "LIVE\n");
        std::thread::sleep(DRAIN);
        let refuses = |address| std::net::TcpStream::connect(address).is_err();
        if stops {
            eventually(|| refuses(into) && refuses(out) == outbound);
        } else {
            assert!(leaves(&mut Client::connect(into)));
        }
        assert_eq!(post(admin, "/quitquitquit"), 200);
        process.join().unwrap().unwrap();
    };
    std::thread::scope(|scope| {
        scope.spawn(|| check("graceful&inboundonly", false, true));
        scope.spawn(|| check("graceful", true, true));
        scope.spawn(|| check("graceful&skip_exit", true, false));
    });
}
