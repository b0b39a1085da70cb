//! Changes of protocol that are asked for: no byte passes before the endpoint has agreed, and none is a request.

use std::io::{Read, Write};
use std::time::Duration;

use lateen_xds::ResourceType;
use serde_json::json;

use crate::frames::{self, Connection, DATA, END_HEADERS, END_STREAM, HEADERS};
use crate::script::{Script, read_head};
use crate::stage::Stage;
use crate::support::{Client, PATIENCE};

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";

const SWITCH: &str =
    "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";

const WEBSOCKET: &str = "upgrade: websocket";

const ASKS: &str =
    "GET /chat HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";

/// An endpoint that answers every request that has `asks` in its head so, and says what came behind it.
fn answers(asks: &'static str, response: &'static str) -> Script {
    Script::start(move |mut stream, _| {
        let head = read_head(&mut stream)?;
        assert!(head.contains(asks), "{head}");
        // Nothing comes before the answer, however long it takes.
        stream.set_read_timeout(Some(Duration::from_millis(100)))?;
        let early = stream.read(&mut [0; 100]);
        assert!(early.is_err(), "{early:?} bytes before the answer");
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(response.as_bytes())?;
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest)?;
        Ok(rest)
    })
}

/// A client that sends a request at once behind its upgrade is told `status`, and the endpoint gets `passes`.
#[track_caller]
fn check(response: &'static str, status: u16, passes: &str) {
    let endpoint = answers(WEBSOCKET, response);
    let upgrades = json!({ "upgradeConfigs": [{ "upgradeType": "websocket" }] });
    let stage = Stage::new(endpoint.address, upgrades);
    // The second finds no connection that the first has left.
    for _ in 0..2 {
        let mut client = Client::connect(stage.address);
        client.0.write_all(ASKS.as_bytes()).unwrap();
        client.0.write_all(SMUGGLED.as_bytes()).unwrap();
        let answer = read_head(&mut client.0).unwrap();
        let line = format!("HTTP/1.1 {status} ");
        assert!(answer.starts_with(&line), "{response}: {answer}");
        let is_switched = status == 101;
        assert_eq!(
            answer.contains("connection: close"),
            !is_switched,
            "{answer}"
        );
        if is_switched {
            client.0.shutdown(std::net::Shutdown::Write).unwrap();
        }
        let found = endpoint.next();
        assert_eq!(String::from_utf8_lossy(&found), passes, "{response}");
        client.0.read_to_end(&mut Vec::new()).unwrap();
    }
}

/// H4: whatever an endpoint says instead of 101, the bytes behind the request stay here.
#[test]
fn nothing_passes_to_an_endpoint_that_does_not_switch() {
    let switch =
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    check(switch, 101, SMUGGLED);
    check("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", 200, "");
    check(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        200,
        "",
    );
    check("HTTP/1.1 204 No Content\r\n\r\n", 204, "");
    check("HTTP/1.1 304 Not Modified\r\n\r\n", 304, "");
    check("HTTP/1.1 426 No\r\ncontent-length: 0\r\n\r\n", 426, "");
    // The wait for the answer goes on.
    check(
        "HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        200,
        "",
    );
    check(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n",
        403,
        "",
    );
}

/// H4: an upgrade that no route allows is none, and nothing behind it is a request.
#[test]
fn an_upgrade_that_is_not_allowed_reaches_nobody() {
    let endpoint = answers(WEBSOCKET, "");
    let stage = Stage::new(endpoint.address, json!({}));
    let mut client = Client::connect(stage.address);
    let answer = client.send(&[ASKS, SMUGGLED].concat()).unwrap();
    assert_eq!(answer.status, 403);
    assert!(client.is_closed());
    assert_eq!(stage.counted("downstream_rq_total"), 1);
}

/// Opens a stream with this head and sends data behind it at once. The endpoint gets `passes`, and nothing before it has
/// answered.
#[track_caller]
fn check_http2(stage: &Stage, endpoint: &Script, head: &[u8], passes: &str) {
    let mut client = Connection::open(stage.address, &[]);
    // The server has to have allowed it before.
    assert!(client.goes_on());
    client.send(&frames::frame(HEADERS, END_HEADERS, 1, head));
    client.send(&frames::frame(DATA, END_STREAM, 1, SMUGGLED.as_bytes()));
    let told = |seen: &frames::Seen| {
        let stream = seen.stream(1);
        stream.status.is_some() || stream.reset.is_some()
    };
    assert!(client.until(told), "{:?}", client.seen);
    let found = endpoint.next();
    assert_eq!(String::from_utf8_lossy(&found), passes);
}

/// H4: the same over HTTP/2, where data may follow the head at once (RFC 8441).
#[test]
fn data_of_an_http2_upgrade_waits_for_the_endpoint() {
    let options = json!({
        "upgradeConfigs": [{ "upgradeType": "websocket" }],
        "http2ProtocolOptions": { "allowConnect": true },
    });
    let head = frames::request("CONNECT", "/chat", &[(":protocol", "websocket")]);
    for (response, passes) in [
        (SWITCH, SMUGGLED),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", ""),
        ("HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n", ""),
    ] {
        let endpoint = answers(WEBSOCKET, response);
        let stage = Stage::new(endpoint.address, options.clone());
        check_http2(&stage, &endpoint, &head, passes);
    }
}

/// H5: the same for tunnels.
#[test]
fn data_of_an_http2_tunnel_waits_for_the_endpoint() {
    let options = json!({ "upgradeConfigs": [{ "upgradeType": "CONNECT" }] });
    let head = frames::block(&[(b":method", b"CONNECT"), (b":authority", b"a:80")]);
    for (response, passes) in [
        ("HTTP/1.1 200 OK\r\n\r\n", SMUGGLED),
        ("HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n", ""),
        ("HTTP/1.1 302 No\r\ncontent-length: 2\r\n\r\nno", ""),
    ] {
        let endpoint = answers("CONNECT a:80 HTTP/1.1\r\n", response);
        let mut stage = Stage::new(endpoint.address, options.clone());
        let route = json!({ "match": { "connectMatcher": {} }, "route": { "cluster": "one" } });
        let hosts = json!([{ "name": "all", "domains": ["*"], "routes": [route] }]);
        let routes = json!({ "name": "r", "virtualHosts": hosts });
        stage.proxy.accept(ResourceType::Route, &[routes]);
        check_http2(&stage, &endpoint, &head, passes);
    }
}
