//! What the documents show is what happens: the commands of their `console` blocks run, in order, in one shell.

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use support::account::public_binary;
use support::mesh::{finish, kubectl};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Runs the commands of a document's blocks (those that begin with `lateen`, see below) and returns what they print.
fn check(document: &str, expected: &[&str]) {
    let text = fs::read_to_string(Path::new(ROOT).join(document)).expect(document);
    let commands = commands(&text);
    assert!(!commands.is_empty(), "{document} shows no command");
    let folder = tempfile::Builder::new()
        .prefix("lateen-test-")
        .tempdir()
        .expect("a folder");
    public_binary(folder.path());
    symlink(kubectl(), folder.path().join("kubectl")).expect("kubectl linked");
    let path = format!(
        "{}:{}",
        folder.path().display(),
        std::env::var("PATH").expect("PATH")
    );
    let script = format!(
        "set -e\ntrap 'lateen down 2>/dev/null' EXIT\n{}",
        commands.join("\n")
    );
    // Documents wait for what they show, so one that shows what never comes must be ended.
    let mut command = Command::new("timeout");
    command
        .args(["180", "bash", "-c", &script])
        .current_dir(ROOT)
        .env("PATH", path)
        .env("HOME", folder.path())
        .env_remove("XDG_STATE_HOME")
        .env_remove("KUBECONFIG");
    let done = finish(command, None);
    assert_eq!(done.code, 0, "{document}: {done:?}");
    for part in expected {
        assert!(
            done.stdout.contains(part),
            "{document}: {part:?} in {done:?}"
        );
    }
}

/// The commands of the `console` blocks, with their continuation lines. Blocks of `make` are what runs this test.
fn commands(text: &str) -> Vec<String> {
    let mut commands: Vec<String> = Vec::new();
    for block in text.split("```console\n").skip(1) {
        let block = block.split("```").next().unwrap_or_default();
        let mut continued = false;
        for line in block.lines() {
            if let Some(command) = line.strip_prefix("$ ") {
                commands.push(command.to_owned());
            } else if let (true, Some(last)) = (continued, commands.last_mut()) {
                last.push('\n');
                last.push_str(line);
            }
            continued = line.ends_with('\\');
        }
    }
    commands.retain(|command| !command.starts_with("make "));
    commands
}

#[test]
fn the_readme_works_as_shown() {
    check(
        "README.md",
        &["backend-1", "gateway istio-system/istio-ingressgateway"],
    );
}

#[test]
fn the_sample_works_as_its_readme_shows() {
    check(
        "samples/sticky-sessions/README.md",
        &["\"service_name\":\"backend-2\""],
    );
}

#[test]
fn gateways_share_sessions_as_the_readme_shows() {
    let expected = ["20 backend-2-", "condition met", "200\n"];
    check("samples/shared-sessions/README.md", &expected);
}

#[test]
fn the_book_store_works_as_its_readme_shows() {
    check(
        "samples/bookinfo/README.md",
        &[
            "<font color=\"black\">",
            "Ratings service is currently unavailable",
            "<font color=\"red\">",
            "virtualservice.networking.istio.io/reviews configured",
        ],
    );
}

#[test]
fn traffic_is_managed_as_the_document_says() {
    check(
        "docs/traffic-management.md",
        &[
            "edge ",
            "200 weights\n403 authority\n200 method\n200 browser\n200 users or query\n200 weights\n200 users or query\n204 pattern\ncaller\n",
            "/get\n{\"a\":\"b\"}\n{\"version\":\"7\"}\n[\"by the mesh\",null]\n504 timeout\n503 retries\n3\n418\n200 delay\n",
            "access-control-allow-origin: https://shop.example.com",
            "5 glyphicon-star\"",
            "9 glyphicon-star\"",
            "1-0-percent: 0 of 50",
            "5-100-percent: 50 of 50",
            "20 two hello",
        ],
    );
}

#[test]
fn the_canary_works_as_its_readme_shows() {
    let expected = ["HTTP/1.1 200 OK", "testing v1", "404", "testing v2"];
    check("samples/canary/README.md", &expected);
}

#[test]
fn httpbin_works_as_its_readme_shows() {
    let expected = [
        "X-B3-Traceid",
        " 200\n",
        " 503\n",
        "GET /get?mirrored HTTP/1.1",
    ];
    check("samples/httpbin/README.md", &expected);
}

#[test]
fn the_gateway_api_works_as_its_readme_shows() {
    let expected = [
        "istio.io/gateway-controller   True",
        "gateway.gateway.networking.k8s.io/edge condition met",
        "served-by: v2",
        "/anything/one\n",
        "/bin/get",
        "404\n",
        "GET /get?n=",
        "500\n",
        "there is no service httpbin-v3",
        "httproute.gateway.networking.k8s.io \"edge\" deleted",
    ];
    check("samples/gateway-api/README.md", &expected);
}

#[test]
fn the_echo_works_as_its_readme_shows() {
    check("samples/tcp-echo/README.md", &["10 one hello", "two hello"]);
}
