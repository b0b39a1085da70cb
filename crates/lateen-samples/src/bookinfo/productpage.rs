//! The page of the store and its small API.
//!
//! Details may take three seconds and are asked for once; reviews may take three seconds and are asked for twice.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde_json::{Value, json};

use super::page;
use super::session::Sessions;
use crate::Error;
use crate::client::Upstream;
use crate::html::STYLE;
use crate::respond::{self, FullResponse};
use crate::server::{self, FullRequest};

/// How long another service may take.
const WITHIN: Duration = Duration::from_secs(3);

/// The service.
#[derive(Debug)]
pub(super) struct ProductPage {
    pub(super) details: Upstream,
    pub(super) reviews: Upstream,
    pub(super) ratings: Upstream,
    pub(super) sessions: Sessions,
}

/// A book of the store.
pub(super) struct Product {
    id: u64,
    pub(super) title: &'static str,
    /// Markup.
    pub(super) description: &'static str,
}

const PRODUCTS: [Product; 1] = [Product {
    id: 0,
    title: "The Comedy of Errors",
    description: "<a href=\"https://en.wikipedia.org/wiki/The_Comedy_of_Errors\">Wikipedia Summary</a>: The Comedy of Errors is one of <b>William Shakespeare's</b> early plays. It is his shortest and one of his most farcical comedies, with a major part of the humour coming from slapstick and mistaken identity, in addition to puns and word play.",
}];

/// What another service said: a status and a JSON value, which is `{"error": ...}` where the status is not 200.
pub(super) type Part = (StatusCode, Value);

/// Runs the service.
pub(crate) async fn run(_arguments: &[String]) -> Result<(), Error> {
    let page = Arc::new(ProductPage {
        details: super::service("details"),
        reviews: super::service("reviews"),
        ratings: super::service("ratings"),
        sessions: Sessions::new(),
    });
    super::serve("productpage", move |request| {
        let page = page.clone();
        async move { page.answer(request).await }
    })
    .await
}

impl ProductPage {
    /// Answers one request.
    pub(super) async fn answer(&self, request: FullRequest) -> FullResponse {
        let path = request.uri().path();
        let allowed = if path == "/login" {
            "POST"
        } else {
            "GET, HEAD"
        };
        let method = match *request.method() {
            Method::HEAD => "GET",
            ref method => method.as_str(),
        };
        if !allowed.contains(method) {
            return respond::method_not_allowed(allowed);
        }
        match path {
            "/" | "/index.html" => respond::html(StatusCode::OK, page::index(self)),
            "/health" => respond::text(StatusCode::OK, "Product page is healthy"),
            "/productpage" => self.front(&request).await,
            "/login" => self.sign_in(&request),
            "/logout" => back(request.headers(), Sessions::sign_out()),
            "/static/style.css" => respond::typed(StatusCode::OK, "text/css; charset=utf-8", STYLE),
            "/api/v1/products" => {
                let products = PRODUCTS.each_ref().map(|product| {
                    json!({"id": product.id, "title": product.title, "descriptionHtml": product.description})
                });
                respond::json(StatusCode::OK, &json!(products))
            }
            _ => self.part(path, &request).await,
        }
    }

    /// The page of the one book.
    async fn front(&self, request: &FullRequest) -> FullResponse {
        let user = self.sessions.user(request.headers());
        let headers = self.headers(request);
        let details = ask(&self.details, "details", "0", &headers, 1).await;
        let reviews = ask(&self.reviews, "reviews", "0", &headers, 2).await;
        let page = page::product(&PRODUCTS[0], user.as_deref(), &details, &reviews);
        respond::html(StatusCode::OK, page)
    }

    /// `/api/v1/products/ID`, `.../reviews` and `.../ratings`: what the other services say.
    async fn part(&self, path: &str, request: &FullRequest) -> FullResponse {
        let Some(rest) = path.strip_prefix("/api/v1/products/") else {
            return not_found(path);
        };
        let (id, what) = rest.split_once('/').unwrap_or((rest, "details"));
        let (service, attempts) = match what {
            "details" if !rest.contains('/') => (&self.details, 1),
            "reviews" => (&self.reviews, 2),
            "ratings" => (&self.ratings, 1),
            _ => return not_found(path),
        };
        if id.is_empty() {
            return not_found(path);
        }
        let headers = self.headers(request);
        let (status, value) = ask(service, what, id, &headers, attempts).await;
        respond::json(status, &value)
    }

    /// What other services are told about the request and who made it.
    fn headers(&self, request: &FullRequest) -> HeaderMap {
        let mut headers = super::forwarded(request.headers());
        let user = self.sessions.user(request.headers());
        if let Some(user) = user.and_then(|user| HeaderValue::from_str(&user).ok()) {
            headers.insert(super::END_USER, user);
        }
        headers
    }

    fn sign_in(&self, request: &FullRequest) -> FullResponse {
        let query = request.uri().query().unwrap_or_default();
        let user = form_urlencoded::parse(request.body())
            .chain(form_urlencoded::parse(query.as_bytes()))
            .find_map(|(name, value)| (name == "username").then(|| value.into_owned()));
        match user.and_then(|user| self.sessions.sign_in(&user)) {
            Some(cookie) => back(request.headers(), cookie),
            None => respond::text(
                StatusCode::BAD_REQUEST,
                "give a user name of at most 256 bytes in the field username\n",
            ),
        }
    }
}

/// Asks a service up to `attempts` times for a product.
async fn ask(service: &Upstream, what: &str, id: &str, headers: &HeaderMap, attempts: u32) -> Part {
    let path = format!("/{what}/{id}");
    let mut status = StatusCode::INTERNAL_SERVER_ERROR;
    for _ in 0..attempts {
        status = match service.get(&path, headers.clone(), WITHIN).await {
            Ok(answer) if answer.status() == StatusCode::OK => {
                if let Ok(value) = serde_json::from_slice(answer.body()) {
                    return (StatusCode::OK, value);
                }
                StatusCode::INTERNAL_SERVER_ERROR
            }
            Ok(answer) => answer.status(),
            Err(error) => {
                server::log(&format!("{what}: {error}"));
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
    }
    let what = if what == "details" {
        "product details"
    } else {
        &format!("product {what}")
    };
    let error = format!("Sorry, {what} are currently unavailable for this book.");
    (status, json!({"error": error}))
}

/// Back to the page that the visitor came from, with a cookie.
fn back(headers: &HeaderMap, cookie: HeaderValue) -> FullResponse {
    let from = headers
        .get(header::REFERER)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("/productpage");
    let mut response = respond::redirect(StatusCode::FOUND, from);
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    response
}

fn not_found(path: &str) -> FullResponse {
    respond::text(
        StatusCode::NOT_FOUND,
        format!("productpage has no page {path}\n"),
    )
}
