//! Endpoints that say more than they were asked, and requests that break off: what is left of an exchange is nobody's next.

use std::io::{Read, Write};
use std::time::Duration;

use serde_json::json;

use crate::frames::{self, Connection};
use crate::script::{Script, read_head};
use crate::stage::Stage;
use crate::support::Client;

const SMUGGLED: &str = "HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nsmuggled";

/// A request to an endpoint that sends more behind its response, at once or when the connection waits to be used again.
/// Neither the client nor the next one gets it, and the connection is used once.
#[track_caller]
fn check(method: &str, response: &'static str, late: bool, status: u16) {
    let script = Script::start(move |mut stream, _| {
        let mut requests = 0;
        while read_head(&mut stream).is_ok() {
            requests += 1;
            if late {
                stream.write_all(response.as_bytes())?;
                std::thread::sleep(Duration::from_millis(30));
                stream.write_all(SMUGGLED.as_bytes())?;
            } else {
                stream.write_all([response, SMUGGLED].concat().as_bytes())?;
            }
        }
        Ok(vec![requests])
    });
    let stage = Stage::new(script.address, json!({}));
    let shown = format!("{method}: {response}, late: {late}");
    for _ in 0..3 {
        let mut client = Client::connect(stage.address);
        let request = format!("{method} / HTTP/1.1\r\nhost: a\r\n\r\n");
        let answer = client.send(&request).unwrap();
        assert_eq!(answer.status, status, "{shown}");
        assert!(!answer.body.contains("smuggled"), "{shown}");
        if late {
            // It is in the pool by now, and what it says makes it useless.
            assert_eq!(script.next(), [1], "{shown}");
        }
        let next = client.get("/direct", &[]);
        if let Ok(next) = next {
            assert_eq!(next.body, "direct", "{shown}");
        }
        if !late {
            assert_eq!(script.next(), [1], "{shown}");
        }
    }
}

/// H7: bodies are told by method and status alone, and what follows them costs the connection.
#[test]
fn what_follows_a_response_is_nobodys() {
    let whole = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    for late in [false, true] {
        check("GET", whole, late, 200);
        let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
        check("GET", chunked, late, 200);
        check("GET", "HTTP/1.1 204 No\r\n\r\n", late, 204);
        check(
            "GET",
            "HTTP/1.1 304 No\r\ncontent-length: 9\r\n\r\n",
            late,
            304,
        );
        check(
            "GET",
            "HTTP/1.1 304 No\r\ntransfer-encoding: chunked\r\n\r\n",
            late,
            304,
        );
        // A body after the response to HEAD is none.
        check("HEAD", whole, late, 200);
        check("HEAD", chunked, late, 200);
        check("HEAD", "HTTP/1.1 200 OK\r\n\r\n", late, 200);
        check(
            "HEAD",
            "HTTP/1.1 404 No\r\ncontent-length: 50\r\n\r\n",
            late,
            404,
        );
        // One after an informational response is the head of the next.
        let early = "HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        check("GET", early, late, 200);
    }
    let body = "HTTP/1.1 103 Early\r\ncontent-length: 5\r\n\r\nhello";
    check("GET", body, false, 502);
    check(
        "GET",
        "HTTP/1.1 204 No\r\ncontent-length: 9\r\n\r\n",
        false,
        502,
    );
}

/// An endpoint that never answers completely, and says what it got when its connection ends.
fn unfinished(response: &'static str) -> Script {
    Script::start(move |mut stream, _| {
        read_head(&mut stream)?;
        stream.write_all(response.as_bytes())?;
        let mut rest = Vec::new();
        // A reset is an end, too.
        let _ = stream.read_to_end(&mut rest);
        Ok(rest)
    })
}

/// H9: a client that leaves in the middle of its body, or of its response, takes the endpoint's connection with it.
#[test]
fn a_connection_with_half_an_exchange_is_never_used_again() {
    let half = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nhalf";
    let chunk = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n";
    let get = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    let begun = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf";
    for (request, response, got) in [
        (half, "", "half"),
        (chunk, "", "4\r\nhalf\r\n"),
        (half, begun, "half"),
        (get, begun, ""),
        (
            get,
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
            "",
        ),
        (get, "HTTP/1.1 103 Early\r\n\r\n", ""),
        (get, "HTTP/1.1 20", ""),
    ] {
        let script = unfinished(response);
        let stage = Stage::new(script.address, json!({}));
        for _ in 0..2 {
            let mut client = Client::connect(stage.address);
            client.0.write_all(request.as_bytes()).unwrap();
            if response.starts_with("HTTP/1.1 200 ") {
                client.0.read_exact(&mut [0; 20]).unwrap();
            } else {
                std::thread::sleep(Duration::from_millis(20));
            }
            drop(client);
            let found = script.next();
            assert_eq!(String::from_utf8_lossy(&found), got, "{request} {response}");
        }
    }
}

/// H9: streams of HTTP/2 that are reset in the middle do the same.
#[test]
fn a_stream_that_is_reset_takes_its_connection_along() {
    for response in ["", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"] {
        let script = unfinished(response);
        let stage = Stage::new(script.address, json!({}));
        let mut client = Connection::open(stage.address, &[]);
        for stream in [1, 3] {
            client.send(&frames::post(stream, "/", &[("content-length", "9")]));
            client.send(&frames::frame(frames::DATA, 0, stream, b"half"));
            if response.is_empty() {
                // The head is on its way when the ping is answered; the endpoint reads it whenever.
                assert!(client.goes_on());
                std::thread::sleep(Duration::from_millis(20));
            } else {
                assert!(client.until(|seen| seen.stream(stream).data > 0));
            }
            client.send(&frames::reset(stream));
            // How much got there before the reset is chance.
            let found = script.next();
            assert!(b"half".starts_with(&found), "{response}: {found:?}");
        }
    }
}

/// H9: an answer before the end of the request leaves a connection that nobody else gets.
#[test]
fn an_early_answer_ends_the_connection_with_the_unsent_body() {
    let script = unfinished("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    let stage = Stage::new(script.address, json!({}));
    for _ in 0..2 {
        let mut client = Client::connect(stage.address);
        let request = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nhalf";
        assert_eq!(client.send(request).unwrap().body, "ok");
        // The rest is for nobody, though it comes.
        client.0.write_all(b"-rest").unwrap();
        let found = script.next();
        let found = String::from_utf8_lossy(&found);
        assert!("half-rest".starts_with(&*found), "{found}");
    }
}
