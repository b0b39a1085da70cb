//! What Istio's agent serves on its own port, started from the environment as injection sets it.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};

use lateen_proxy::command::parse;

use crate::support::*;

#[test]
fn the_agents_port_probes_and_scrapes_the_application() {
    let application = Upstream::start("application");
    let metrics = answering(
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4\r\ncontent-length: 17\r\n\r\napplication_up 1\n",
    );
    let redirect = answering(
        "HTTP/1.1 302 Found\r\nlocation: http://example.com/\r\ncontent-length: 0\r\n\r\n",
    );
    let closed = free_address();
    let (admin, health, status) = (free_address(), free_address(), free_address());
    let probes = serde_json::json!({
        "/app-health/web/livez": {"httpGet": {"port": application.address.port(), "path": "/alive"}},
        "/app-health/web/readyz": {"httpGet": {"port": application.address.port(), "path": "/?fail=99"}},
        "/app-health/moved/livez": {"httpGet": {"port": redirect.port(), "path": "/"}},
        "/app-health/tcp/livez": {"tcpSocket": {"port": application.address.port()}},
        "/app-health/tcp/readyz": {"tcpSocket": {"port": closed.port()}},
        "/app-health/grpc/livez": {"grpc": {"port": closed.port()}},
    });
    let config = serde_json::json!({
        "discoveryAddress": "unix:/nowhere", "proxyAdminPort": admin.port(), "statusPort": status.port(),
    });
    let scrape =
        serde_json::json!({"scrape": "true", "port": metrics.port().to_string(), "path": "/m"});
    let environment: BTreeMap<String, String> = [
        ("PROXY_CONFIG", config.to_string()),
        ("ENVOY_STATUS_PORT", health.port().to_string()),
        ("ENVOY_PROMETHEUS_PORT", free_address().port().to_string()),
        ("ISTIO_KUBE_APP_PROBERS", probes.to_string()),
        ("ISTIO_PROMETHEUS_ANNOTATIONS", scrape.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    let config = parse(&["sidecar".to_owned()], &environment, "").unwrap();
    let process = std::thread::spawn(move || lateen_proxy::run(config));
    wait_for_listener(status);

    for (path, expected) in [
        ("/app-health/web/livez", 200),
        ("/app-health/web/readyz", 503),
        ("/app-health/moved/livez", 200),
        ("/app-health/tcp/livez", 200),
        ("/app-health/tcp/readyz", 500),
        ("/app-health/grpc/livez", 500),
        ("/app-health/other/livez", 400),
        // There is no configuration yet.
        ("/healthz/ready", 503),
        ("/other", 404),
        ("/quitquitquit", 405),
    ] {
        assert_eq!(get(status, path, &[]).status, expected, "{path}");
    }
    let merged = get(status, "/stats/prometheus", &[]).body;
    let last = merged.lines().last().unwrap();
    assert_eq!(last, "application_up 1", "the application's come last");
    assert!(merged.contains("envoy_server_uptime"), "{merged}");
    assert_eq!(get(health, "/stats/prometheus", &[]).status, 404);
    let request = "POST /quitquitquit HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n";
    assert_eq!(Client::connect(status).send(request).unwrap().status, 200);
    process.join().unwrap().unwrap();
}

/// Serves the same bytes to every request.
fn answering(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    address
}
