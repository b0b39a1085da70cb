//! Paths that could be read in more than one way: what routes match is what the endpoint gets, and it is its own normal form.

use regex::Regex;
use serde_json::json;

use crate::support::{Client, Proxy, Upstream, to};

/// What paths are made of.
const PIECES: [&str; 22] = [
    "/", "/", "//", "a", "admin", "b", ".", "..", "/./", "/../", "%2e", "%2E%2e", "%2f", "%2F",
    "%5c", "\\", "%41", "%7E", "%25", "%252e", ";x=y", "%61dmin",
];

/// What is behind a path.
const ENDS: [&str; 5] = ["", "?", "?a=/../b", "?%2e%2f", "#/../c"];

/// Sends random paths through listeners with these options.
#[track_caller]
fn check(options: serde_json::Value) {
    let upstreams = ["matched", "other"].map(Upstream::start);
    let mut proxy = Proxy::start(1);
    for (name, upstream) in ["matched", "other"].iter().zip(&upstreams) {
        proxy.cluster(name, &[upstream.address], json!({}));
    }
    let pattern = "/(a|admin/.*)";
    let matched = json!({
        "match": { "safeRegex": { "regex": pattern } },
        "route": { "cluster": "matched" },
    });
    let address = proxy.http(json!([matched, to("other", json!({}))]), options.clone());
    let pattern = Regex::new(&format!("^{pattern}$")).unwrap();
    let mut random = fastrand::Rng::with_seed(1);
    let mut client = Client::connect(address);
    let (mut passed, mut changed) = (0, 0);
    for _ in 0..400 {
        let mut sent = "/".to_owned();
        for _ in 0..random.usize(0..6) {
            sent.push_str(PIECES[random.usize(..PIECES.len())]);
        }
        sent.push_str(ENDS[random.usize(..ENDS.len())]);
        let answer = client.get(&sent, &[]).unwrap();
        if answer.status != 200 {
            assert!(matches!(answer.status, 307 | 400), "{sent}: {answer:?}");
            client = Client::connect(address);
            continue;
        }
        let seen = answer.seen()["path"].as_str().unwrap().to_owned();
        let path = seen.split('?').next().unwrap();
        let expected = if pattern.is_match(path) {
            "matched"
        } else {
            "other"
        };
        assert_eq!(answer.name(), expected, "{sent} came as {seen} ({options})");
        assert!(!seen.contains('#'), "{sent} came as {seen} ({options})");
        // Sent again, it stays as it is: the next proxy sees no other path.
        let again = client.get(&seen, &[]).unwrap();
        assert_eq!(again.seen()["path"], seen.as_str(), "{sent} ({options})");
        passed += 1;
        changed += usize::from(seen != sent);
    }
    assert!(
        passed > 50 && changed > 10,
        "{passed} {changed} ({options})"
    );
}

#[test]
fn what_is_matched_is_what_is_passed_on() {
    check(json!({}));
    check(json!({ "normalizePath": true }));
    check(json!({ "normalizePath": true, "mergeSlashes": true }));
    let slashes = |action: &str| {
        json!({
            "normalizePath": true, "mergeSlashes": true, "pathWithEscapedSlashesAction": action,
        })
    };
    for action in [
        "REJECT_REQUEST",
        "UNESCAPE_AND_REDIRECT",
        "UNESCAPE_AND_FORWARD",
    ] {
        check(slashes(action));
    }
}
