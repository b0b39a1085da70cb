//! The contract of httpbin, over real sockets.

use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Response;
use serde_json::{Value, json};

use super::{Form, Httpbin, Settings, settings};
use crate::client::Upstream;
use crate::testing::{send, start, text};

async fn httpbin(form: Form) -> Upstream {
    let httpbin = Arc::new(Httpbin {
        form,
        access_log: false,
    });
    start(move |request| {
        let httpbin = httpbin.clone();
        async move { httpbin.answer(request).await }
    })
    .await
}

/// A request whose answer must have this status and these headers.
async fn check(
    request: (&str, &str, &[(&str, &str)], &str),
    status: u16,
    headers: &[(&str, &str)],
) -> Response<Bytes> {
    let httpbin = httpbin(Form::Python).await;
    let answer = send(&httpbin, request.0, request.1, request.2, request.3).await;
    assert_eq!(answer.status().as_u16(), status, "{request:?}");
    for (name, value) in headers {
        let found = answer
            .headers()
            .get(*name)
            .map(|value| value.to_str().expect("text"));
        assert_eq!(found, Some(*value), "{request:?} {name}");
    }
    answer
}

async fn get(path: &str) -> Value {
    let answer = check(("GET", path, &[], ""), 200, &[]).await;
    serde_json::from_slice(answer.body()).expect("JSON")
}

#[tokio::test]
async fn an_echo_has_the_size_that_clients_know() {
    let common = [
        ("host", "httpbin:8000"),
        ("x-b3-traceid", "0123456789abcdef0123456789abcdef"),
        ("x-b3-spanid", "0123456789abcdef"),
        ("x-b3-parentspanid", "0123456789abcdef"),
        ("x-b3-sampled", "1"),
        ("x-request-id", "hidden"),
        ("content-length", "0"),
    ];
    let fortio = [&common[..], &[("user-agent", "fortio.org/fortio-1.3.1")]].concat();
    let known = [
        ("content-type", "application/json"),
        ("content-length", "371"),
        ("access-control-allow-origin", "*"),
        ("access-control-allow-credentials", "true"),
    ];
    let answer = check(("GET", "/get", &fortio, ""), 200, &known).await;
    assert!(
        text(&answer).contains("\"Host\": \"httpbin:8000\", \n"),
        "{answer:?}"
    );
    assert!(
        text(&answer).contains("\"url\": \"http://httpbin:8000/get\"\n}\n"),
        "{answer:?}"
    );
    let curl = [
        &common[..],
        &[("user-agent", "curl/7.35.0"), ("accept", "*/*")],
    ]
    .concat();
    check(
        ("GET", "/headers", &curl, ""),
        200,
        &[("content-length", "303")],
    )
    .await;
}

#[tokio::test]
async fn bodies_are_shown_by_their_type() {
    let form = "application/x-www-form-urlencoded";
    for (content_type, body, data, fields, parsed) in [
        (
            "text/plain",
            "hello",
            json!("hello"),
            json!({}),
            Value::Null,
        ),
        (
            form,
            "a=1&b=2&b=3",
            json!(""),
            json!({"a": "1", "b": ["2", "3"]}),
            Value::Null,
        ),
        (
            "application/json",
            "{\"x\":[1]}",
            json!("{\"x\":[1]}"),
            json!({}),
            json!({"x": [1]}),
        ),
    ] {
        for method in ["POST", "PUT", "PATCH", "DELETE"] {
            let path = format!("/{}?q=1", method.to_lowercase());
            let headers = [("content-type", content_type)];
            let answer = check((method, &path, &headers, body), 200, &[]).await;
            let shown: Value = serde_json::from_slice(answer.body()).expect("JSON");
            assert_eq!(
                (&shown["data"], &shown["form"], &shown["json"]),
                (&data, &fields, &parsed),
                "{path}"
            );
            assert_eq!(shown["args"], json!({"q": "1"}));
            check((method, "/get", &[], ""), 405, &[]).await;
        }
    }
    let headers = [("content-type", "multipart/form-data; boundary=b")];
    let body = "--b\r\ncontent-disposition: form-data; name=\"f\"; filename=\"f.txt\"\r\n\r\ncontent\r\n--b--\r\n";
    let answer = check(("POST", "/anything/x", &headers, body), 200, &[]).await;
    let shown: Value = serde_json::from_slice(answer.body()).expect("JSON");
    assert_eq!(
        (&shown["files"], &shown["method"]),
        (&json!({"f": "content"}), &json!("POST"))
    );
}

#[tokio::test]
async fn the_one_in_go_shows_lists() {
    let go = httpbin(Form::Go).await;
    let answer = send(&go, "GET", "/get?a=1", &[("x-request-id", "shown")], "").await;
    let shown: Value = serde_json::from_slice(answer.body()).expect("JSON");
    assert_eq!(shown["args"], json!({"a": ["1"]}));
    assert_eq!(shown["headers"]["X-Request-Id"], json!(["shown"]));
    assert_eq!(shown["method"], "GET");
}

#[tokio::test]
async fn a_status_is_the_one_asked_for() {
    for code in [200, 201, 204, 304, 400, 404, 429, 500, 503, 599] {
        check(("GET", &format!("/status/{code}"), &[], ""), code, &[]).await;
        check(("POST", &format!("/status/{code}"), &[], "x"), code, &[]).await;
    }
    check(
        ("GET", "/status/302", &[], ""),
        302,
        &[("location", "/redirect/1")],
    )
    .await;
    check(
        ("GET", "/status/401", &[], ""),
        401,
        &[("www-authenticate", "Basic realm=\"Fake Realm\"")],
    )
    .await;
    check(
        ("GET", "/status/418", &[], ""),
        418,
        &[("x-more-info", "http://tools.ietf.org/html/rfc2324")],
    )
    .await;
    for codes in [
        "abc", "99", "1000", "100", "", "200:x", "200:-1", "200,", "200:inf",
    ] {
        check(("GET", &format!("/status/{codes}"), &[], ""), 400, &[]).await;
    }
}

#[tokio::test]
async fn statuses_follow_their_weights() {
    let httpbin = httpbin(Form::Python).await;
    let (mut failed, mut even) = (0, 0);
    for _ in 0..200 {
        let weighted = send(&httpbin, "GET", "/status/200:9,503:1", &[], "").await;
        failed += u32::from(weighted.status().as_u16() == 503);
        let plain = send(&httpbin, "GET", "/status/200,500", &[], "").await;
        even += u32::from(plain.status().as_u16() == 500);
    }
    // Five standard deviations.
    assert!((1..=41).contains(&failed), "{failed}");
    assert!((65..=135).contains(&even), "{even}");
    check(("GET", "/status/200:1,500:0", &[], ""), 200, &[]).await;
}

#[tokio::test]
async fn answers_take_the_time_asked_for() {
    for (path, at_least, status) in [
        ("/delay/0.3", 300, 200),
        ("/drip?duration=0.2&delay=0.1&numbytes=5", 290, 200),
        ("/drip?duration=0&delay=0&numbytes=100000&code=503", 0, 503),
    ] {
        let began = Instant::now();
        let answer = check(("GET", path, &[], ""), status, &[]).await;
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(at_least), "{path} {took:?}");
        assert!(took < Duration::from_secs(5), "{path} {took:?}");
        assert!(!answer.body().is_empty());
    }
    check(("GET", "/delay/x", &[], ""), 400, &[]).await;
    check(("GET", "/delay/-1", &[], ""), 400, &[]).await;
    check(("GET", "/drip?numbytes=0", &[], ""), 400, &[]).await;
    check(("GET", "/drip?numbytes=99999999", &[], ""), 400, &[]).await;
}

#[tokio::test]
async fn answers_have_the_size_asked_for() {
    for (path, size) in [
        ("/bytes/0", 0),
        ("/bytes/1000", 1000),
        ("/bytes/999999", 100 * 1024),
        ("/stream-bytes/5000?chunk_size=7", 5000),
        ("/drip?duration=0.1&delay=0&numbytes=2000", 2000),
    ] {
        let answer = check(
            ("GET", path, &[], ""),
            200,
            &[("content-type", "application/octet-stream")],
        )
        .await;
        assert_eq!(answer.body().len(), size, "{path}");
    }
    let seeded = || async {
        check(("GET", "/bytes/100?seed=7", &[], ""), 200, &[])
            .await
            .into_body()
    };
    assert_eq!(seeded().await, seeded().await);
    let lines = check(("GET", "/stream/3", &[], ""), 200, &[]).await;
    let ids: Vec<_> = text(&lines)
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["id"].clone())
        .collect();
    assert_eq!(ids, [0, 1, 2]);
}

#[tokio::test]
async fn redirects_count_down() {
    for (path, location) in [
        ("/redirect/3", "/relative-redirect/2"),
        ("/relative-redirect/1", "/get"),
        (
            "/redirect-to?url=http%3A%2F%2Fexample.com%2F",
            "http://example.com/",
        ),
    ] {
        check(("GET", path, &[], ""), 302, &[("location", location)]).await;
    }
    let host = [("host", "bin"), ("x-forwarded-proto", "https")];
    check(
        ("GET", "/absolute-redirect/2", &host, ""),
        302,
        &[("location", "https://bin/absolute-redirect/1")],
    )
    .await;
    check(
        ("GET", "/redirect-to?url=/x&status_code=307", &[], ""),
        307,
        &[("location", "/x")],
    )
    .await;
    check(("GET", "/redirect-to", &[], ""), 400, &[]).await;
    check(("GET", "/redirect/0", &[], ""), 400, &[]).await;
}

#[tokio::test]
async fn cookies_are_shown_and_set() {
    let answer = check(
        ("GET", "/cookies", &[("cookie", "a=1; b=\"2\"")], ""),
        200,
        &[],
    )
    .await;
    let shown: Value = serde_json::from_slice(answer.body()).expect("JSON");
    assert_eq!(shown, json!({"cookies": {"a": "1", "b": "2"}}));
    check(
        ("GET", "/cookies/set?a=1", &[], ""),
        302,
        &[("set-cookie", "a=1; Path=/"), ("location", "/cookies")],
    )
    .await;
    check(
        ("GET", "/cookies/set/a/1", &[], ""),
        302,
        &[("set-cookie", "a=1; Path=/")],
    )
    .await;
    check(("GET", "/cookies/delete?a", &[], ""), 302, &[]).await;
    check(("GET", "/cookies/set?a=1%3B+Domain%3Dx", &[], ""), 400, &[]).await;
    check(("GET", "/cookies/set/a/%0d%0ax:1", &[], ""), 400, &[]).await;
}

#[tokio::test]
async fn credentials_are_checked() {
    let right = [("authorization", "Basic dXNlcjpwYXNz")];
    let answer = check(("GET", "/basic-auth/user/pass", &right, ""), 200, &[]).await;
    assert_eq!(
        text(&answer),
        "{\n  \"authenticated\": true, \n  \"user\": \"user\"\n}\n"
    );
    check(
        ("GET", "/basic-auth/user/other", &right, ""),
        401,
        &[("www-authenticate", "Basic realm=\"Fake Realm\"")],
    )
    .await;
    check(
        ("GET", "/hidden-basic-auth/user/pass", &right, ""),
        200,
        &[],
    )
    .await;
    check(("GET", "/hidden-basic-auth/user/pass", &[], ""), 404, &[]).await;
    check(
        ("GET", "/bearer", &[("authorization", "Bearer t")], ""),
        200,
        &[],
    )
    .await;
    check(
        ("GET", "/bearer", &right, ""),
        401,
        &[("www-authenticate", "Bearer")],
    )
    .await;
}

#[tokio::test]
async fn formats_are_what_they_say() {
    for (path, content_type, part) in [
        ("/", "text/html; charset=utf-8", "httpbin"),
        ("/json", "application/json", "\"slideshow\""),
        ("/html", "text/html; charset=utf-8", "<h1>"),
        ("/xml", "application/xml", "<?xml"),
        (
            "/robots.txt",
            "text/plain; charset=utf-8",
            "Disallow: /deny",
        ),
        ("/encoding/utf8", "text/html; charset=utf-8", "\u{26f5}"),
        ("/forms/post", "text/html; charset=utf-8", "<form"),
        (
            "/links/3/1",
            "text/html; charset=utf-8",
            "<a href='/links/3/2'>",
        ),
        (
            "/base64/SFRUUEJJTiBpcyBhd2Vzb21l",
            "text/html; charset=utf-8",
            "HTTPBIN is awesome",
        ),
        ("/uuid", "application/json", "\"uuid\""),
        ("/image/svg", "image/svg+xml", "<svg"),
        ("/image/png", "image/png", "PNG"),
        ("/user-agent", "application/json", "null"),
        ("/ip", "application/json", "127.0.0.1"),
    ] {
        let answer = check(
            ("GET", path, &[], ""),
            200,
            &[("content-type", content_type)],
        )
        .await;
        assert!(text(&answer).contains(part), "{path} {answer:?}");
        check(
            ("HEAD", path, &[], ""),
            200,
            &[("content-type", content_type)],
        )
        .await;
    }
    check(
        ("GET", "/image", &[("accept", "image/svg+xml")], ""),
        200,
        &[("content-type", "image/svg+xml")],
    )
    .await;
    check(("GET", "/image", &[("accept", "image/jpeg")], ""), 406, &[]).await;
    for path in ["/x", "/get/x", "/json/utf8", "/image/webp", "/encoding"] {
        check(("GET", path, &[], ""), 404, &[]).await;
    }
}

#[tokio::test]
async fn packed_answers_unpack() {
    let answer = check(
        ("GET", "/gzip", &[], ""),
        200,
        &[("content-encoding", "gzip")],
    )
    .await;
    let mut plain = String::new();
    flate2::read::GzDecoder::new(answer.body().as_ref())
        .read_to_string(&mut plain)
        .expect("gzip");
    assert!(plain.contains("\"gzipped\": true"), "{plain}");
    let answer = check(
        ("GET", "/deflate", &[], ""),
        200,
        &[("content-encoding", "deflate")],
    )
    .await;
    plain.clear();
    flate2::read::ZlibDecoder::new(answer.body().as_ref())
        .read_to_string(&mut plain)
        .expect("zlib");
    assert!(plain.contains("\"deflated\": true"), "{plain}");
}

#[tokio::test]
async fn validators_and_headers_of_answers_work() {
    check(
        ("GET", "/cache", &[], ""),
        200,
        &[("last-modified", "Thu, 01 Jan 2026 00:00:00 GMT")],
    )
    .await;
    check(("GET", "/cache", &[("if-none-match", "x")], ""), 304, &[]).await;
    check(
        ("GET", "/cache/60", &[], ""),
        200,
        &[("cache-control", "public, max-age=60")],
    )
    .await;
    check(("GET", "/etag/t", &[], ""), 200, &[("etag", "\"t\"")]).await;
    check(
        ("GET", "/etag/t", &[("if-none-match", "\"a\", W/\"t\"")], ""),
        304,
        &[],
    )
    .await;
    check(("GET", "/etag/t", &[("if-match", "\"a\"")], ""), 412, &[]).await;
    let answer = check(
        ("GET", "/response-headers?x-a=1&x-b=2", &[], ""),
        200,
        &[("x-a", "1"), ("x-b", "2")],
    )
    .await;
    let shown: Value = serde_json::from_slice(answer.body()).expect("JSON");
    assert_eq!(shown["Content-Length"], answer.body().len().to_string());
    check(("GET", "/response-headers?a=%0d%0ab:1", &[], ""), 400, &[]).await;
    let options = [
        ("origin", "http://o"),
        ("access-control-request-headers", "x-a"),
    ];
    check(
        ("OPTIONS", "/get", &options, ""),
        200,
        &[
            ("allow", "GET, HEAD, OPTIONS"),
            ("access-control-allow-origin", "http://o"),
            ("access-control-allow-headers", "x-a"),
        ],
    )
    .await;
}

#[tokio::test]
async fn large_bodies_are_refused() {
    let body = "x".repeat((1 << 20) + 1);
    check(("POST", "/post", &[], &body), 413, &[]).await;
    assert_eq!(
        get("/anything?a=%F0%9F%98%80").await["args"]["a"],
        "\u{1f600}"
    );
}

fn check_settings(words: &[&str], expected: Result<(u16, bool), &str>) {
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    let expected = expected
        .map(|(port, access_log)| Settings { port, access_log })
        .map_err(str::to_owned);
    assert_eq!(settings(&words, 80), expected, "{words:?}");
}

#[test]
fn the_arguments_of_the_originals_are_understood() {
    check_settings(&[], Ok((80, false)));
    check_settings(
        &["--access-logfile", "-", "-b", "0.0.0.0:80", "httpbin:app"],
        Ok((80, true)),
    );
    check_settings(
        &["-b", "[::]:8080", "httpbin:app", "-k", "gevent"],
        Ok((8080, false)),
    );
    check_settings(
        &["--bind=0.0.0.0:8000", "--access-logfile=-"],
        Ok((8000, true)),
    );
    check_settings(&["-port", "8081"], Ok((8081, false)));
    check_settings(
        &["-b", "127.0.0.1:80"],
        Err("cannot bind to \"127.0.0.1:80\" alone: give 0.0.0.0:PORT or [::]:PORT"),
    );
    check_settings(&["-b"], Err("-b needs a value"));
    check_settings(
        &["--reload", "x"],
        Err("--reload x is not known; known: -b 0.0.0.0:PORT, --access-logfile -"),
    );
}
