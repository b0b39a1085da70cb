//! Outlier detection through the whole proxy: who is ejected, for how long, and what does not count.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use lateen_xds::ResourceType;
use serde_json::{Value, json};

use crate::support::{Proxy, Upstream, eventually, free_address, get, merge, to};

/// Body of the answer when everyone is ejected.
const NOBODY: &str = "no healthy upstream";

/// What a failed gRPC call says; to other requests it means nothing.
const UNAVAILABLE: &str = "grpc-status: 14\r\n";

/// An upstream that answers with the status of the moment.
pub struct Scripted {
    pub address: SocketAddr,
    status: Arc<AtomicU16>,
}

impl Scripted {
    pub fn start(status: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let status = Arc::new(AtomicU16::new(status));
        let current = status.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let current = current.clone();
                std::thread::spawn(move || {
                    let mut lines = BufReader::new(stream);
                    let mut line = String::new();
                    while lines.read_line(&mut line).is_ok_and(|read| read > 0) {
                        if line == "\r\n" {
                            let status = current.load(Ordering::SeqCst);
                            let answer = format!(
                                "HTTP/1.1 {status} -\r\n{UNAVAILABLE}content-length: 0\r\n\r\n"
                            );
                            if lines.get_mut().write_all(answer.as_bytes()).is_err() {
                                return;
                            }
                        }
                        line.clear();
                    }
                });
            }
        });
        Self { address, status }
    }

    pub fn answer(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }
}

/// A cluster that ejects for long, up to all of its endpoints, and never panics.
fn cluster(addresses: &[SocketAddr], more: Value) -> Value {
    let mut detection = json!({
        "enforcingSuccessRate": 0, "baseEjectionTime": "60s", "maxEjectionPercent": 100,
    });
    merge(&mut detection, more);
    let more = json!({
        "outlierDetection": detection,
        "commonLbConfig": { "healthyPanicThreshold": {} },
    });
    crate::support::cluster("c", addresses, more)
}

fn proxy(workers: usize, cluster: Value) -> (Proxy, SocketAddr) {
    let mut proxy = Proxy::start(workers);
    proxy.accept(ResourceType::Cluster, &[cluster]);
    let address = proxy.http(json!([to("c", json!({ "timeout": "0.2s" }))]), json!({}));
    (proxy, address)
}

#[test]
fn failures_in_a_row_eject() {
    let gateway = |more: Value| {
        let mut config = json!({
            "consecutive5xx": 0,
            "consecutiveGatewayFailure": 3,
            "enforcingConsecutiveGatewayFailure": 100,
        });
        merge(&mut config, more);
        config
    };
    for (config, statuses, ejected) in [
        // Five by default, in a row.
        (json!({}), &[500, 503, 501, 599, 500][..], true),
        (json!({}), &[500, 500, 500, 500, 404, 500][..], false),
        (json!({ "consecutive5xx": 1 }), &[500][..], true),
        (json!({ "consecutive5xx": 1 }), &[499, 302, 200][..], false),
        (json!({ "consecutive5xx": 0 }), &[500; 9][..], false),
        (
            json!({ "enforcingConsecutive5xx": 0 }),
            &[500; 9][..],
            false,
        ),
        // Detected by default, but not enforced.
        (json!({ "consecutive5xx": 0 }), &[503; 9][..], false),
        (gateway(json!({})), &[502, 503, 504][..], true),
        (gateway(json!({})), &[502, 503, 500, 504][..], false),
        (
            gateway(
                json!({ "splitExternalLocalOriginErrors": true, "enforcingLocalOriginSuccessRate": 0 }),
            ),
            &[503; 3][..],
            true,
        ),
        // One of one is more than ten percent.
        (
            json!({ "consecutive5xx": 1, "maxEjectionPercent": 10 }),
            &[500; 3][..],
            false,
        ),
        (
            json!({ "consecutive5xx": 1, "maxEjectionPercent": 10, "alwaysEjectOneHost": true }),
            &[500][..],
            true,
        ),
    ] {
        let upstream = Scripted::start(200);
        // Connections of their own, so that both workers count together.
        let (_proxy, address) = proxy(2, cluster(&[upstream.address], config.clone()));
        for status in statuses {
            upstream.answer(*status);
            assert_eq!(get(address, "/", &[]).status, *status, "{config}");
        }
        upstream.answer(200);
        let answer = get(address, "/", &[]);
        let expected = if ejected { (503, NOBODY) } else { (200, "") };
        assert_eq!(
            (answer.status, answer.body.as_str()),
            expected,
            "{config} after {statuses:?}"
        );
    }
}

#[test]
fn failed_grpc_calls_count_by_their_own_status() {
    let upstream = Scripted::start(200);
    let config =
        json!({ "consecutiveGatewayFailure": 1, "enforcingConsecutiveGatewayFailure": 100 });
    let (_proxy, address) = proxy(1, cluster(&[upstream.address], config));
    assert_eq!(get(address, "/", &[]).status, 200);
    assert_eq!(
        get(address, "/", &["content-type: application/grpc"]).status,
        200
    );
    assert_eq!(get(address, "/", &[]).body, NOBODY);
}

#[test]
fn an_ejection_ends_and_the_next_one_lasts_longer() {
    let upstream = Scripted::start(503);
    let times = json!({ "consecutive5xx": 1, "baseEjectionTime": "0.5s", "interval": "0.4s" });
    let (_proxy, address) = proxy(2, cluster(&[upstream.address], times));
    for least in [Duration::from_millis(500), Duration::from_millis(1000)] {
        upstream.answer(503);
        let ejected = Instant::now();
        assert_eq!(get(address, "/", &[]).body, "");
        upstream.answer(200);
        assert_eq!(get(address, "/", &[]).body, NOBODY);
        eventually(|| get(address, "/", &[]).status == 200);
        assert!(ejected.elapsed() >= least, "{:?}", ejected.elapsed());
    }
}

#[test]
fn an_ejection_outlives_changes_of_the_cluster() {
    let (bad, good) = (Scripted::start(500), Upstream::start("good"));
    let config = json!({ "consecutive5xx": 1 });
    let (mut proxy, address) = proxy(1, cluster(&[bad.address], config.clone()));
    assert_eq!(get(address, "/", &[]).status, 500);
    let both = cluster(&[bad.address, good.address], config);
    proxy.accept(ResourceType::Cluster, &[both]);
    for _ in 0..10 {
        assert_eq!(get(address, "/", &[]).status, 200);
    }
    // Without detection nothing is held against it.
    proxy.cluster("c", &[bad.address], json!({}));
    assert_eq!(get(address, "/", &[]).status, 500);
}

#[test]
fn endpoints_that_cannot_be_reached_are_ejected() {
    for config in [
        json!({ "consecutiveGatewayFailure": 2, "enforcingConsecutiveGatewayFailure": 100 }),
        json!({
            "consecutive5xx": 0,
            "splitExternalLocalOriginErrors": true,
            "consecutiveLocalOriginFailure": 2,
            "enforcingLocalOriginSuccessRate": 0,
        }),
    ] {
        let good = Upstream::start("good");
        let (_proxy, address) = proxy(1, cluster(&[free_address(), good.address], config));
        // Round robin: every other request fails until the second failure.
        let failed = (0..20)
            .filter(|_| get(address, "/", &[]).status == 503)
            .count();
        assert_eq!(failed, 2);
        assert_eq!(good.count(), 18);
    }
}

#[test]
fn a_response_that_does_not_come_in_time_counts() {
    let config =
        json!({ "consecutiveGatewayFailure": 1, "enforcingConsecutiveGatewayFailure": 100 });
    let slow = Upstream::start("slow");
    let (_proxy, address) = proxy(1, cluster(&[slow.address], config));
    assert_eq!(get(address, "/?sleep=2000", &[]).status, 504);
    assert_eq!(get(address, "/", &[]).body, NOBODY);
}

#[test]
fn what_a_circuit_breaker_refuses_does_not_count() {
    let upstream = Upstream::start("one");
    let mut resource = cluster(
        &[upstream.address],
        json!({
            "consecutive5xx": 1,
            "consecutiveGatewayFailure": 1,
            "enforcingConsecutiveGatewayFailure": 100,
        }),
    );
    let limits = json!({ "maxConnections": 1, "maxPendingRequests": 1 });
    resource["circuitBreakers"] = json!({ "thresholds": [limits] });
    let (_proxy, address) = proxy(2, resource);
    let refused = std::thread::scope(|scope| {
        let requests: Vec<_> = (0..6)
            .map(|_| scope.spawn(|| get(address, "/?sleep=50", &[])))
            .collect();
        let answers = requests.into_iter().map(|request| request.join().unwrap());
        answers.filter(|answer| answer.status == 503).count()
    });
    assert!(refused > 0, "the breaker must open for this test");
    assert_eq!(get(address, "/", &[]).status, 200);
}

#[test]
fn with_too_few_left_health_is_ignored() {
    let upstreams = [Scripted::start(500), Scripted::start(500)];
    let addresses = upstreams.each_ref().map(|upstream| upstream.address);
    let mut resource = cluster(&addresses, json!({ "consecutive5xx": 1 }));
    resource["commonLbConfig"] = json!({ "healthyPanicThreshold": { "value": 60 } });
    let (_proxy, address) = proxy(1, resource);
    for _ in 0..4 {
        assert_eq!(get(address, "/", &[]).body, "");
    }
}

#[test]
fn what_is_not_detected_is_refused() {
    for (field, value) in [
        ("enforcingSuccessRate", json!(101)),
        ("failurePercentageThreshold", json!(101)),
        ("interval", json!("0s")),
        ("maxEjectionPercent", json!(101)),
        ("monitors", json!([{ "name": "m" }])),
        ("detectDegradedHosts", json!(true)),
    ] {
        let mut config = json!({});
        config[field] = value;
        let rejected = Proxy::start(1).send(ResourceType::Cluster, &[cluster(&[], config)]);
        assert_eq!(rejected.len(), 1, "{field}");
        let snake: String = field
            .chars()
            .flat_map(|c| {
                let mark = c.is_ascii_uppercase().then_some('_');
                mark.into_iter().chain([c.to_ascii_lowercase()])
            })
            .collect();
        let path = format!("outlier_detection.{snake}");
        assert!(
            rejected[0].reason.starts_with(&path),
            "{}",
            rejected[0].reason
        );
    }
}

#[test]
fn endpoints_that_do_worse_than_the_others_are_ejected() {
    let rates = json!({
        "consecutive5xx": 0, "consecutiveGatewayFailure": 0, "interval": "0.2s",
        "successRateMinimumHosts": 3, "successRateRequestVolume": 5, "successRateStdevFactor": 1000,
    });
    let percentage = json!({
        "failurePercentageMinimumHosts": 3, "failurePercentageRequestVolume": 5,
        "failurePercentageThreshold": 60,
    });
    let with = |more: Value| {
        let mut config = rates.clone();
        merge(&mut config, percentage.clone());
        merge(&mut config, more);
        config
    };
    for (config, expected) in [
        (with(json!({ "enforcingSuccessRate": 100 })), true),
        (with(json!({ "enforcingSuccessRate": 0 })), false),
        (with(json!({ "enforcingFailurePercentage": 100 })), true),
        // Too few endpoints, or requests, to compare.
        (
            with(json!({
                "enforcingSuccessRate": 100, "enforcingFailurePercentage": 100,
                "successRateMinimumHosts": 4, "failurePercentageMinimumHosts": 4,
            })),
            false,
        ),
        (
            with(json!({
                "enforcingSuccessRate": 100, "enforcingFailurePercentage": 100,
                "successRateRequestVolume": 100000, "failurePercentageRequestVolume": 100000,
            })),
            false,
        ),
    ] {
        let upstreams = [200, 200, 500].map(Scripted::start);
        let addresses = upstreams.each_ref().map(|upstream| upstream.address);
        let (_proxy, address) = proxy(1, cluster(&addresses, config.clone()));
        let end = Instant::now() + Duration::from_millis(900);
        let mut ejected = false;
        while Instant::now() < end && !ejected {
            // Nine requests in turn reach the bad endpoint three times, unless it is out.
            let bad = (0..9).filter(|_| get(address, "/", &[]).status == 500);
            ejected = bad.count() == 0;
        }
        assert_eq!(ejected, expected, "{config}");
    }
}
