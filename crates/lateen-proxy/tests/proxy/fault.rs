//! Faults that are injected on purpose, through the whole proxy.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Client, Proxy, Upstream, filters, get, merge, to};

const FAULT: &str = "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault";

fn fault(more: Value) -> Value {
    let mut fault = json!({ "@type": FAULT });
    merge(&mut fault, more);
    fault
}

fn all(kind: &str, size: Value) -> Value {
    json!({ kind: size, "percentage": { "numerator": 100 } })
}

fn start(of_filter: Value, of_route: Option<Value>) -> (Proxy, Upstream, std::net::SocketAddr) {
    let upstream = Upstream::start("up");
    let mut proxy = Proxy::start(1);
    proxy.cluster("up", &[upstream.address], json!({}));
    let mut route = to("up", json!({}));
    if let Some(config) = of_route {
        route["typedPerFilterConfig"] = json!({ "fault": config });
    }
    let address = proxy.http(json!([route]), filters(&[("fault", fault(of_filter))]));
    (proxy, upstream, address)
}

#[test]
fn a_routes_faults_replace_those_of_the_filter() {
    let of_filter = json!({ "abort": all("httpStatus", json!(503)) });
    let disabled = json!({ "@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": true });
    for (of_route, status) in [
        (None, 503),
        (
            Some(fault(json!({ "abort": all("httpStatus", json!(429)) }))),
            429,
        ),
        (Some(fault(json!({}))), 200),
        (Some(disabled), 200),
    ] {
        let (_proxy, upstream, address) = start(of_filter.clone(), of_route);
        let answer = get(address, "/", &[]);
        assert_eq!(answer.status, status);
        if status != 200 {
            assert_eq!(answer.body, "fault filter abort");
            assert_eq!(upstream.count(), 0);
        }
    }
}

#[test]
fn a_delay_comes_before_the_abort() {
    let both = json!({ "delay": all("fixedDelay", json!("0.2s")), "abort": all("httpStatus", json!(500)) });
    let (_proxy, _upstream, address) = start(both, None);
    let started = Instant::now();
    assert_eq!(get(address, "/", &[]).status, 500);
    assert!(started.elapsed() >= Duration::from_millis(200));
}

#[test]
fn no_more_requests_than_allowed_have_a_fault_at_a_time() {
    let slow = json!({ "delay": all("fixedDelay", json!("0.5s")), "maxActiveFaults": 1 });
    let (_proxy, upstream, address) = start(slow, None);
    let mut delayed = Client::connect(address);
    let waiting = std::thread::spawn(move || delayed.get("/", &[]).map(|answer| answer.status));
    // The first one holds the only fault as soon as another request is not delayed.
    let started = Instant::now();
    while get(address, "/", &[]).status == 200 && upstream.count() == 0 {}
    assert!(started.elapsed() < Duration::from_secs(2));
    assert_eq!(waiting.join().unwrap().unwrap(), 200);
    // It is given back with the end of the request.
    let started = Instant::now();
    assert_eq!(get(address, "/", &[]).status, 200);
    assert!(started.elapsed() >= Duration::from_millis(500));
}

#[test]
fn a_response_is_slowed_down() {
    let slow = json!({ "responseRateLimit": { "fixedLimit": { "limitKbps": 1 }, "percentage": { "numerator": 100 } } });
    let (_proxy, _upstream, address) = start(slow, None);
    let padding = format!("x-pad: {}", "a".repeat(400));
    let started = Instant::now();
    let answer = get(address, "/", &[&padding]);
    let parts = answer.body.len() as u64 / 52;
    assert!(answer.body.contains(&"a".repeat(400)));
    assert!(started.elapsed() >= Duration::from_millis(50 * (parts - 1)));
}
