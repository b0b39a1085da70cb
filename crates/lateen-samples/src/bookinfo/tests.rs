//! The contracts of the four services, over real sockets.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::StatusCode;
use serde_json::{Value, json};

use super::details;
use super::productpage::ProductPage;
use super::ratings::{Ratings, Version};
use super::reviews::Reviews;
use super::session::Sessions;
use crate::client::Upstream;
use crate::respond;
use crate::testing::{nobody, send, start, text};

async fn details() -> Upstream {
    start(details::answer).await
}

async fn ratings(version: Version) -> Upstream {
    let ratings = Arc::new(Ratings::new(version));
    start(move |request| {
        let ratings = ratings.clone();
        async move { ratings.answer(request).await }
    })
    .await
}

async fn reviews(version: &str, release: &str, ratings: Upstream) -> Upstream {
    let reviews = Arc::new(Reviews::new(version, release, ratings));
    start(move |request| {
        let reviews = reviews.clone();
        async move { reviews.answer(request).await }
    })
    .await
}

async fn product_page(details: Upstream, reviews: Upstream, ratings: Upstream) -> Upstream {
    let page = Arc::new(ProductPage {
        details,
        reviews,
        ratings,
        sessions: Sessions::new(),
    });
    start(move |request| {
        let page = page.clone();
        async move { page.answer(request).await }
    })
    .await
}

/// A store with this version of reviews.
async fn store(version: &str) -> Upstream {
    let ratings = ratings(Version::First).await;
    let reviews = reviews(version, "1.10.1", ratings.clone()).await;
    product_page(details().await, reviews, ratings).await
}

/// A server that answers after `delay`, and the headers of the requests it got.
async fn recorder(
    delay: Duration,
    status: u16,
    body: Value,
) -> (Upstream, Arc<Mutex<Vec<http::HeaderMap>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = seen.clone();
    let server = start(move |request| {
        kept.lock()
            .expect("the list")
            .push(request.headers().clone());
        let body = body.clone();
        async move {
            tokio::time::sleep(delay).await;
            respond::json(StatusCode::from_u16(status).expect("a status"), &body)
        }
    })
    .await;
    (server, seen)
}

async fn check(to: &Upstream, request: (&str, &str, &str), status: u16, expected: &str) {
    let (method, path, body) = request;
    let answer = send(to, method, path, &[], body).await;
    assert_eq!(
        (answer.status().as_u16(), text(&answer).as_str()),
        (status, expected),
        "{request:?}"
    );
}

#[tokio::test]
async fn details_tells_the_same_of_every_book() {
    let details = details().await;
    let book = |id: u32| {
        format!(
            "{{\"id\":{id},\"author\":\"William Shakespeare\",\"year\":1595,\"type\":\"paperback\",\"pages\":200,\"publisher\":\"PublisherA\",\"language\":\"English\",\"ISBN-10\":\"1234567890\",\"ISBN-13\":\"123-1234567890\"}}"
        )
    };
    check(&details, ("GET", "/details/0", ""), 200, &book(0)).await;
    check(&details, ("GET", "/details/7", ""), 200, &book(7)).await;
    check(
        &details,
        ("GET", "/details/x", ""),
        400,
        r#"{"error":"please provide numeric product id"}"#,
    )
    .await;
    check(
        &details,
        ("GET", "/health", ""),
        200,
        r#"{"status":"Details is healthy"}"#,
    )
    .await;
    check(&details, ("GET", "/x", ""), 404, "details has no page /x\n").await;
}

#[tokio::test]
async fn ratings_differ_by_version_and_can_be_changed() {
    let first = ratings(Version::First).await;
    let usual = r#"{"id":0,"ratings":{"Reviewer1":5,"Reviewer2":4}}"#;
    check(&first, ("GET", "/ratings/0", ""), 200, usual).await;
    let changed = r#"{"id":0,"ratings":{"Reviewer1":1}}"#;
    check(
        &first,
        ("POST", "/ratings/0", r#"{"Reviewer1":1}"#),
        200,
        changed,
    )
    .await;
    check(&first, ("GET", "/ratings/0", ""), 200, changed).await;
    check(
        &first,
        ("GET", "/ratings/1", ""),
        200,
        &usual.replace("\"id\":0", "\"id\":1"),
    )
    .await;
    check(
        &first,
        ("POST", "/ratings/0", "[1"),
        400,
        r#"{"error":"please provide valid ratings JSON"}"#,
    )
    .await;
    check(
        &first,
        ("GET", "/ratings/x", ""),
        400,
        r#"{"error":"please provide numeric product ID"}"#,
    )
    .await;
    check(
        &first,
        ("DELETE", "/ratings/0", ""),
        405,
        "use GET, HEAD, POST here\n",
    )
    .await;
    check(
        &first,
        ("GET", "/health", ""),
        200,
        r#"{"status":"Ratings is healthy"}"#,
    )
    .await;
    let second = ratings(Version::Second).await;
    check(
        &second,
        ("GET", "/ratings/0", ""),
        200,
        r#"{"id":0,"ratings":{"Reviewer1":3,"Reviewer2":2}}"#,
    )
    .await;
    check(
        &second,
        ("POST", "/ratings/0", "{}"),
        501,
        r#"{"error":"the ratings of v2 cannot be changed"}"#,
    )
    .await;
}

#[tokio::test]
async fn faulty_ratings_fail_about_half_of_the_time() {
    let faulty = ratings(Version::Faulty).await;
    let mut failed = 0;
    for _ in 0..100 {
        let answer = send(&faulty, "GET", "/ratings/0", &[], "").await;
        failed += u32::from(answer.status() == StatusCode::SERVICE_UNAVAILABLE);
    }
    // Five standard deviations.
    assert!((25..=75).contains(&failed), "{failed}");
}

async fn reviewed(version: &str, release: &str, ratings: Upstream) -> (u16, Value) {
    let reviews = reviews(version, release, ratings).await;
    let answer = send(&reviews, "GET", "/reviews/0", &[], "").await;
    let value = serde_json::from_slice(answer.body()).unwrap_or(Value::Null);
    (answer.status().as_u16(), value)
}

#[tokio::test]
async fn stars_have_the_colour_of_the_version() {
    for (version, first, second) in [
        ("v1", Value::Null, Value::Null),
        (
            "v2",
            json!({"stars": 5, "color": "black"}),
            json!({"stars": 4, "color": "black"}),
        ),
        (
            "v3",
            json!({"stars": 5, "color": "red"}),
            json!({"stars": 4, "color": "red"}),
        ),
    ] {
        let ratings = ratings(Version::First).await;
        let (status, value) = reviewed(version, "1.10.1", ratings).await;
        assert_eq!((status, &value["id"]), (200, &json!("0")), "{version}");
        assert_eq!(value["reviews"][0]["rating"], first, "{version}");
        assert_eq!(value["reviews"][1]["rating"], second, "{version}");
        assert_eq!(value.get("podname"), None, "{version}");
    }
    let (_, value) = reviewed("v1", "1.20.3", nobody()).await;
    assert!(value["podname"].is_string(), "{value}");
}

#[tokio::test]
async fn without_ratings_reviews_stay_or_fail_by_release() {
    let unavailable = json!({"error": "Ratings service is currently unavailable"});
    let (failing, _) = recorder(Duration::ZERO, 500, json!({})).await;
    for release in ["1.10.1", "1.20.3"] {
        let (status, value) = reviewed("v2", release, failing.clone()).await;
        assert_eq!(
            (status, &value["reviews"][1]["rating"]),
            (200, &unavailable),
            "{release}"
        );
    }
    let (status, _) = reviewed("v3", "1.10.1", nobody()).await;
    assert_eq!(status, 500);
    let (status, value) = reviewed("v3", "1.20.3", nobody()).await;
    assert_eq!(
        (status, &value["reviews"][0]["rating"]),
        (200, &unavailable)
    );
}

#[tokio::test]
async fn red_stars_wait_two_and_a_half_seconds() {
    let (slow, _) = recorder(Duration::from_secs(60), 200, json!({})).await;
    let began = Instant::now();
    let (status, _) = reviewed("v3", "1.10.1", slow).await;
    let took = began.elapsed();
    assert_eq!(status, 500);
    assert!(
        (Duration::from_millis(2400)..Duration::from_secs(5)).contains(&took),
        "{took:?}"
    );
    let waits = |version| Reviews::new(version, "", nobody()).within;
    assert_eq!(
        (waits("v2"), waits("v1")),
        (Duration::from_secs(10), Duration::from_secs(10))
    );
}

#[tokio::test]
async fn the_page_asks_reviews_twice_and_details_once() {
    let (failing, asked) = recorder(Duration::ZERO, 503, json!({})).await;
    let (details, details_asked) = recorder(Duration::ZERO, 404, json!({})).await;
    let store = product_page(details, failing, nobody()).await;
    let page = text(&send(&store, "GET", "/productpage", &[], "").await);
    for part in [
        "Error fetching product reviews!",
        "Sorry, product reviews are currently unavailable for this book.",
        "Error fetching product details!",
        "Sorry, product details are currently unavailable for this book.",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert_eq!(asked.lock().expect("the list").len(), 2);
    assert_eq!(details_asked.lock().expect("the list").len(), 1);
    let reviews = "/api/v1/products/0/reviews";
    check(
        &store,
        ("GET", reviews, ""),
        503,
        r#"{"error":"Sorry, product reviews are currently unavailable for this book."}"#,
    )
    .await;
    check(
        &store,
        ("GET", "/api/v1/products/0", ""),
        404,
        r#"{"error":"Sorry, product details are currently unavailable for this book."}"#,
    )
    .await;
    check(
        &store,
        ("GET", "/api/v1/products/0/ratings", ""),
        500,
        r#"{"error":"Sorry, product ratings are currently unavailable for this book."}"#,
    )
    .await;
}

#[tokio::test]
async fn slow_reviews_are_given_up_after_twice_three_seconds() {
    let (slow, asked) = recorder(Duration::from_secs(60), 200, json!({})).await;
    let store = product_page(details().await, slow, nobody()).await;
    let began = Instant::now();
    let page = text(&send(&store, "GET", "/productpage", &[], "").await);
    let took = began.elapsed();
    assert!(page.contains("Error fetching product reviews!"), "{page}");
    assert!(page.contains("Book Details"), "{page}");
    assert!(
        (Duration::from_millis(5900)..Duration::from_secs(8)).contains(&took),
        "{took:?}"
    );
    assert_eq!(asked.lock().expect("the list").len(), 2);
}

#[tokio::test]
async fn the_page_counts_stars_in_the_colour_of_the_version() {
    for (version, color, coloured) in [("v1", "black", 0), ("v2", "black", 2), ("v3", "red", 2)] {
        let page = text(
            &send(
                &store(version).await,
                "GET",
                "/productpage?u=normal",
                &[],
                "",
            )
            .await,
        );
        let count = |part: &str| page.matches(part).count();
        assert_eq!(
            count(&format!("<font color=\"{color}\">")),
            coloured,
            "{version}"
        );
        assert_eq!(count("<font color="), coloured, "{version}");
        assert_eq!(
            count("glyphicon glyphicon-star\""),
            if coloured > 0 { 9 } else { 0 },
            "{version}"
        );
        assert_eq!(
            count("glyphicon glyphicon-star-empty\""),
            usize::from(coloured > 0),
            "{version}"
        );
        assert_eq!(count("full stars"), coloured, "{version}");
        assert!(page.contains("The Comedy of Errors"), "{version}");
    }
}

#[tokio::test]
async fn the_index_names_itself_in_one_line() {
    let store = store("v1").await;
    for path in ["/", "/index.html"] {
        let page = text(&send(&store, "GET", path, &[], "").await);
        let found: Vec<_> = page.lines().filter(|line| line.contains("title")).collect();
        assert_eq!(found, ["<title>Simple Bookstore App</title>"], "{path}");
        assert!(page.contains("productpage?u=normal") && page.contains("productpage?u=test"));
    }
}

/// Signs in and returns the cookie.
async fn sign_in(store: &Upstream, user: &str, referer: Option<&str>, location: &str) -> String {
    let mut headers = vec![("content-type", "application/x-www-form-urlencoded")];
    headers.extend(referer.map(|referer| ("referer", referer)));
    let answer = send(
        store,
        "POST",
        "/login",
        &headers,
        &format!("username={user}&passwd=x"),
    )
    .await;
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["location"]),
        (
            302,
            &location.parse::<http::HeaderValue>().expect("a header")
        )
    );
    let cookie = answer.headers()["set-cookie"].to_str().expect("text");
    assert!(
        cookie.starts_with("session=") && cookie.contains("HttpOnly"),
        "{cookie}"
    );
    cookie.split(';').next().expect("a cookie").to_owned()
}

#[tokio::test]
async fn the_signed_in_user_is_shown_and_named_to_others() {
    let (ratings, seen) = recorder(
        Duration::ZERO,
        200,
        json!({"id": 0, "ratings": {"Reviewer1": 5, "Reviewer2": 4}}),
    )
    .await;
    let reviews = reviews("v2", "", ratings.clone()).await;
    let store = product_page(details().await, reviews, ratings).await;
    let cookie = sign_in(
        &store,
        "jason",
        Some("http://shop/productpage?u=test"),
        "http://shop/productpage?u=test",
    )
    .await;
    let tracing = [
        "x-request-id",
        "x-b3-traceid",
        "b3",
        "traceparent",
        "tracestate",
        "user-agent",
    ];
    let mut headers: Vec<_> = tracing.iter().map(|name| (*name, *name)).collect();
    headers.extend([
        ("cookie", cookie.as_str()),
        ("end-user", "mallory"),
        ("x-other", "x"),
    ]);
    let page = text(&send(&store, "GET", "/productpage", &headers, "").await);
    assert!(
        page.contains("<p>jason ( <a href=\"logout\">sign out</a> )</p>"),
        "{page}"
    );
    let seen = seen.lock().expect("the list")[0].clone();
    assert_eq!(seen["end-user"], "jason");
    for name in tracing {
        assert_eq!(seen[name], name);
    }
    assert!(!seen.contains_key("x-other"));
    // Signing out forgets the user.
    let answer = send(&store, "GET", "/logout", &[("cookie", &cookie)], "").await;
    assert_eq!(answer.status(), StatusCode::FOUND);
    assert!(
        answer.headers()["set-cookie"]
            .to_str()
            .expect("text")
            .starts_with("session=; Expires=")
    );
}

#[tokio::test]
async fn a_visitor_is_nobody_whatever_the_request_says() {
    let (reviews, seen) = recorder(Duration::ZERO, 200, json!({"id": "0", "reviews": []})).await;
    let store = product_page(details().await, reviews, nobody()).await;
    let headers = [
        ("end-user", "jason"),
        ("cookie", "session=eyJ1c2VyIjoiamFzb24ifQ.x; user=jason"),
    ];
    let page = text(&send(&store, "GET", "/productpage", &headers, "").await);
    assert!(page.contains("class=\"button\">Sign in</button>"), "{page}");
    assert!(!seen.lock().expect("the list")[0].contains_key("end-user"));
}

#[tokio::test]
async fn signing_in_needs_a_name_and_no_referer() {
    let store = store("v1").await;
    sign_in(&store, "jason", None, "/productpage").await;
    let answer = send(&store, "POST", "/login", &[], "passwd=x").await;
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    check(&store, ("GET", "/login", ""), 405, "use POST here\n").await;
    check(
        &store,
        ("POST", "/productpage", ""),
        405,
        "use GET, HEAD here\n",
    )
    .await;
}

#[tokio::test]
async fn names_are_shown_as_text() {
    let store = store("v1").await;
    let cookie = sign_in(&store, "%3Cscript%3Ealert(1)", None, "/productpage").await;
    let page = text(&send(&store, "GET", "/productpage", &[("cookie", &cookie)], "").await);
    assert!(
        page.contains("&lt;script&gt;alert(1)") && !page.contains("<script>alert"),
        "{page}"
    );
}

#[tokio::test]
async fn the_api_passes_on_what_the_services_say() {
    let store = store("v1").await;
    let products = send(&store, "GET", "/api/v1/products", &[], "").await;
    let products: Value = serde_json::from_slice(products.body()).expect("JSON");
    assert_eq!(products[0]["title"], "The Comedy of Errors");
    let details = send(&store, "GET", "/api/v1/products/0", &[], "").await;
    assert!(text(&details).contains("\"ISBN-10\":\"1234567890\""));
    check(
        &store,
        ("GET", "/api/v1/products/0/ratings", ""),
        200,
        r#"{"id":0,"ratings":{"Reviewer1":5,"Reviewer2":4}}"#,
    )
    .await;
    check(
        &store,
        ("GET", "/health", ""),
        200,
        "Product page is healthy",
    )
    .await;
    for path in [
        "/x",
        "/api/v1/products/",
        "/api/v1/products/0/x",
        "/api/v1/products/0/details",
        "/static/x",
    ] {
        check(
            &store,
            ("GET", path, ""),
            404,
            &format!("productpage has no page {path}\n"),
        )
        .await;
    }
    let head = send(&store, "HEAD", "/productpage", &[], "").await;
    assert_eq!((head.status(), head.body().len()), (StatusCode::OK, 0));
}
