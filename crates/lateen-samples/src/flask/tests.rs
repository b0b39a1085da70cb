//! The contracts of the pair, over real sockets.

use std::sync::Arc;

use super::backend;
use super::frontend::Frontend;
use crate::client::Upstream;
use crate::testing::{nobody, send, start, text};

async fn front(version: &str, backend: Upstream) -> Upstream {
    let frontend = Arc::new(Frontend {
        version: version.to_owned(),
        backend,
    });
    start(move |request| {
        let frontend = frontend.clone();
        async move { frontend.answer(request).await }
    })
    .await
}

async fn check(to: &Upstream, method: &str, path: &str, status: u16, parts: &[&str]) {
    let answer = send(to, method, path, &[], "").await;
    assert_eq!(answer.status().as_u16(), status, "{method} {path}");
    let body = text(&answer);
    for part in parts {
        assert!(body.contains(part), "{method} {path}: {part:?} in {body}");
    }
}

#[tokio::test]
async fn each_version_names_itself_in_one_line() {
    for version in ["v1", "v2"] {
        let front = front(version, nobody()).await;
        for path in ["/", "/home"] {
            let page = text(&send(&front, "GET", path, &[], "").await);
            let lines: Vec<_> = page
                .lines()
                .filter(|line| line.to_lowercase().contains("testing v"))
                .collect();
            assert_eq!(
                lines,
                [format!(
                    "<p>This Micro Website is for Istio testing {version}</p>"
                )],
                "{path}"
            );
            for part in [
                "<title>Home Page</title>",
                "Microservice Testing",
                "Home",
                "Service Data",
                "Disabled",
            ] {
                assert!(page.contains(part), "{part}");
            }
        }
        let head = send(&front, "HEAD", "/home", &[], "").await;
        assert_eq!((head.status().as_u16(), head.body().len()), (200, 0));
        assert_eq!(head.headers()["content-type"], "text/html; charset=utf-8");
        check(&front, "GET", "/x", 404, &["flaskfrontend has no page /x"]).await;
        check(&front, "POST", "/home", 405, &[]).await;
    }
}

#[tokio::test]
async fn the_lists_come_from_the_back_end() {
    let backend = start(backend::answer).await;
    let front = front("v1", backend).await;
    let shown = [
        "This section fetches data from books backend webservices",
        "This section fetches data from cars backend webservices",
        "<td>A Fire Upon the Deep</td><td>Vernor Vinge</td><td>1992</td>",
        "<td>Tipsy</td><td>BMW</td><td>Red</td><td>2022</td>",
        "<th>year_published</th>",
        "<th>bought</th>",
    ];
    check(&front, "GET", "/list", 200, &shown).await;
}

#[tokio::test]
async fn a_back_end_that_fails_is_said_on_the_page() {
    let said = ["Somethig is wrong. You should check backend Microservice call!"];
    check(&front("v1", nobody()).await, "GET", "/list", 200, &said).await;
    let other = front("v2", nobody()).await;
    check(&front("v1", other).await, "GET", "/list", 200, &said).await;
}

#[tokio::test]
async fn the_back_end_lists_all_or_one() {
    let backend = start(backend::answer).await;
    for (path, status, parts) in [
        (
            "/api/v1/resources/books/all",
            200,
            &["Dhalgren", "first_sentence"][..],
        ),
        ("/api/v1/resources/users/all", 200, &[r#""bought":"2030""#]),
        ("/api/v1/resources/books?id=1", 200, &["Ursula K. Le Guin"]),
        ("/api/v1/resources/books?id=9", 200, &["[]"]),
        ("/api/v1/resources/books?id=x", 400, &[]),
        (
            "/api/v1/resources/books",
            200,
            &["Error: No id field provided. Please specify an id."],
        ),
        ("/x", 404, &[]),
    ] {
        check(&backend, "GET", path, status, parts).await;
    }
}
