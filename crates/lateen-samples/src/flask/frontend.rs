//! The pages: one that names its version, and one with the back end's lists.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};
use serde_json::Value;

use crate::Error;
use crate::client::{Failure, Upstream};
use crate::html::{self, escape};
use crate::respond::{self, FullResponse};
use crate::server::{self, FullRequest};

/// How long a call to the back end may take.
const WITHIN: Duration = Duration::from_secs(60);

/// What the page says where the back end does not answer, in the words that users of this demo know.
const FAILED: &str = "Somethig is wrong. You should check backend Microservice call!";

/// The front end.
#[derive(Debug)]
pub(super) struct Frontend {
    pub(super) version: String,
    pub(super) backend: Upstream,
}

/// Runs the front end. Arguments: the version (`v1` or `v2`), and the port, else 5000. `SERVICE_X` and `SERVICE_X_PORT` say
/// where the back end is.
pub(crate) async fn run(arguments: &[String]) -> Result<(), Error> {
    let version = match arguments.first().map(String::as_str) {
        Some(version @ ("v1" | "v2")) => version.to_owned(),
        given => {
            return Err(Error::Arguments {
                name: "flaskfrontend".to_owned(),
                why: format!("say which version, v1 or v2; got {given:?}"),
            });
        }
    };
    let port = super::port("flaskfrontend", arguments.get(1), 5000)?;
    let frontend = Arc::new(Frontend {
        version,
        backend: Upstream::from_variables(
            ("SERVICE_X", "localhost".to_owned()),
            ("SERVICE_X_PORT", 6000),
        ),
    });
    server::serve("flaskfrontend", port, move |request| {
        server::log(&format!("{} {}", request.method(), request.uri()));
        let frontend = frontend.clone();
        async move { frontend.answer(request).await }
    })
    .await
}

impl Frontend {
    /// Answers one request.
    pub(super) async fn answer(&self, request: FullRequest) -> FullResponse {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return respond::method_not_allowed("GET, HEAD");
        }
        match request.uri().path() {
            "/" | "/home" => respond::html(StatusCode::OK, self.home()),
            "/list" => respond::html(StatusCode::OK, self.list().await),
            "/static/css/sticky-footer-navbar.css" => {
                respond::typed(StatusCode::OK, "text/css; charset=utf-8", html::STYLE)
            }
            path => respond::text(
                StatusCode::NOT_FOUND,
                format!("flaskfrontend has no page {path}\n"),
            ),
        }
    }

    fn home(&self) -> String {
        let content = format!(
            "<div class=\"card\">\n<h1>Home</h1>\n<p>This Micro Website is for Istio testing {}</p>\n</div>\n",
            escape(&self.version)
        );
        page("Home Page", "/home", &content)
    }

    async fn list(&self) -> String {
        let content = match self.tables().await {
            Ok(tables) => tables,
            Err(error) => {
                server::log(&format!("backend {}: {error}", self.backend.authority()));
                format!("<div class=\"card failed\">\n<p>{FAILED}</p>\n</div>\n")
            }
        };
        page("Service Data", "/list", &content)
    }

    async fn tables(&self) -> Result<String, Failure> {
        let mut tables = String::new();
        for (what, list, fields) in [
            (
                "books",
                "books",
                &["id", "title", "author", "year_published"][..],
            ),
            (
                "cars",
                "users",
                &["id", "name", "car", "color", "bought"][..],
            ),
        ] {
            let path = format!("/api/v1/resources/{list}/all");
            let answer = self.backend.get(&path, HeaderMap::new(), WITHIN).await?;
            if answer.status() != StatusCode::OK {
                return Err(Failure::said(format!(
                    "{path} answered {}",
                    answer.status()
                )));
            }
            let rows: Vec<Value> = serde_json::from_slice(answer.body())
                .map_err(|error| Failure::said(error.to_string()))?;
            let rows: Vec<Vec<String>> = rows
                .iter()
                .map(|row| fields.iter().map(|field| cell(&row[*field])).collect())
                .collect();
            tables.push_str(&format!(
                "<section class=\"card\">\n<h2>This section fetches data from {what} backend webservices</h2>\n{}</section>\n",
                html::table(fields, &rows)
            ));
        }
        Ok(tables)
    }
}

fn cell(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

fn page(title: &str, here: &str, content: &str) -> String {
    let tab = |path: &str, name: &str| {
        let class = if path == here { " class=\"here\"" } else { "" };
        format!("<li><a href=\"{path}\"{class}>{name}</a></li>\n")
    };
    let body = format!(
        "<nav>\n<a class=\"brand\" href=\"/home\">Microservice Testing</a>\n<ul class=\"tabs\">\n{}{}<li><span class=\"off\">Disabled</span></li>\n</ul>\n</nav>\n\
         <main>\n{content}</main>\n<footer>A page of two services: the front end made it, the back end holds the lists.</footer>\n",
        tab("/home", "Home"),
        tab("/list", "Service Data"),
    );
    html::page(title, &body)
}
