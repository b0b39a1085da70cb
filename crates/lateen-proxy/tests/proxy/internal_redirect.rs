//! Redirects of endpoints that the proxy follows: what is sent again, and what is left to the client.

use std::io::{Read, Write};

use serde_json::json;

use crate::http1::script::{Script, read_head};
use crate::support::{Client, Proxy, to};

/// Sends a body of this length to an endpoint that reads it and redirects the first request. The status for the client,
/// the target of the last request, and the lengths of the bodies that came.
fn follow(length: usize, location: &'static str) -> (u16, String, Vec<usize>) {
    let endpoint = Script::start(move |mut stream, _| {
        let mut seen = Vec::new();
        loop {
            let head = read_head(&mut stream)?;
            let announced = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            let mut body = vec![0; announced.map_or(0, |length| length.parse().unwrap())];
            stream.read_exact(&mut body)?;
            let target = head.split(' ').nth(1).unwrap().to_owned();
            seen.push(format!("{target} {}", body.len()));
            let answer = match target.as_str() {
                "/start" => format!("HTTP/1.1 307 There\r\nlocation: {location}\r\n"),
                _ => "HTTP/1.1 200 OK\r\n".to_owned(),
            };
            stream.write_all(format!("{answer}content-length: 0\r\n\r\n").as_bytes())?;
            if target != "/start" || length > 1 << 20 {
                return Ok(seen.join("\n").into_bytes());
            }
        }
    });
    let mut proxy = Proxy::start(1);
    proxy.cluster("one", &[endpoint.address], json!({}));
    let policy = json!({ "redirectResponseCodes": [307], "maxInternalRedirects": 3 });
    // A body is sent to routes that follow no redirects, too.
    let mut plain = to("one", json!({}));
    plain["match"] = json!({ "prefix": "/there/plain" });
    let following = to("one", json!({ "internalRedirectPolicy": policy }));
    let address = proxy.http(json!([plain, following]), json!({}));
    let mut client = Client::connect(address);
    let head = format!("POST /start HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n");
    client.0.write_all(head.as_bytes()).unwrap();
    client.0.write_all(&vec![b'x'; length]).unwrap();
    let status = client.read(false).unwrap().status;
    let seen = String::from_utf8(endpoint.next()).unwrap();
    let last = seen
        .lines()
        .last()
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .to_owned();
    let lengths = seen
        .lines()
        .map(|line| line.split(' ').nth(1).unwrap().parse().unwrap());
    (status, last, lengths.collect())
}

#[test]
fn a_body_is_sent_again_where_it_is_small() {
    let there = "http://b/there?a#fragment";
    let found = follow(100_000, there);
    assert_eq!(found, (200, "/there?a".to_owned(), vec![100_000, 100_000]));
    let found = follow(100_000, "http://b/there/plain");
    let target = "/there/plain".to_owned();
    assert_eq!(found, (200, target, vec![100_000, 100_000]));
    // More than is kept.
    let found = follow(2_000_000, there);
    assert_eq!(found, (307, "/start".to_owned(), vec![2_000_000]));
}

#[test]
fn an_endpoint_that_redirects_to_itself_is_left() {
    let endpoint = Script::start(|mut stream, _| {
        let mut requests = 0;
        while read_head(&mut stream).is_ok() {
            requests += 1;
            stream.write_all(
                b"HTTP/1.1 302 Here\r\nlocation: http://a/\r\ncontent-length: 0\r\n\r\n",
            )?;
        }
        Ok(vec![requests])
    });
    let mut proxy = Proxy::start(1);
    proxy.cluster("one", &[endpoint.address], json!({}));
    let policy = json!({ "maxInternalRedirects": 3 });
    let routes = json!([to("one", json!({ "internalRedirectPolicy": policy }))]);
    let address = proxy.http(routes, json!({}));
    let answer = Client::connect(address).get("/", &[]).unwrap();
    assert_eq!(
        (answer.status, answer.header("location")),
        (302, Some("http://a/"))
    );
    proxy.cluster("one", &[], json!({}));
    assert_eq!(endpoint.next(), [4], "one request and three redirects");
}
