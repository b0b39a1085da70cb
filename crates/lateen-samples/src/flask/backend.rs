//! Two short lists: books, and people with their cars.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::Error;
use crate::respond::{self, FullResponse};
use crate::server::{self, FullRequest};

/// Runs the back end. Argument: the port, else 6000.
pub(crate) async fn run(arguments: &[String]) -> Result<(), Error> {
    let port = super::port("flaskbackend", arguments.first(), 6000)?;
    server::serve("flaskbackend", port, |request| {
        server::log(&format!("{} {}", request.method(), request.uri()));
        answer(request)
    })
    .await
}

/// Answers one request.
pub(super) async fn answer(request: FullRequest) -> FullResponse {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return respond::method_not_allowed("GET, HEAD");
    }
    match request.uri().path() {
        "/" => respond::html(
            StatusCode::OK,
            "<h1>Lists</h1>\n<p>/api/v1/resources/books/all, /api/v1/resources/users/all</p>\n",
        ),
        "/api/v1/resources/books/all" => respond::json(StatusCode::OK, &books()),
        "/api/v1/resources/users/all" => respond::json(StatusCode::OK, &users()),
        "/api/v1/resources/books" => one_book(&request),
        path => respond::text(
            StatusCode::NOT_FOUND,
            format!("flaskbackend has no page {path}\n"),
        ),
    }
}

/// The book with the `id` of the query, as a list of at most one.
fn one_book(request: &FullRequest) -> FullResponse {
    let query = request.uri().query().unwrap_or_default();
    let id = form_urlencoded::parse(query.as_bytes())
        .find_map(|(name, value)| (name == "id").then(|| value.into_owned()));
    let Some(id) = id else {
        return respond::html(
            StatusCode::OK,
            "Error: No id field provided. Please specify an id.",
        );
    };
    let Ok(id) = id.parse::<u64>() else {
        return respond::text(StatusCode::BAD_REQUEST, "an id is a number\n");
    };
    let mut found = books();
    if let Value::Array(books) = &mut found {
        books.retain(|book| book["id"] == id);
    }
    respond::json(StatusCode::OK, &found)
}

fn books() -> Value {
    json!([
        {
            "id": 0,
            "title": "A Fire Upon the Deep",
            "author": "Vernor Vinge",
            "first_sentence": "The coldsleep itself was dreamless.",
            "year_published": "1992",
        },
        {
            "id": 1,
            "title": "The Ones Who Walk Away From Omelas",
            "author": "Ursula K. Le Guin",
            "first_sentence": "With a clamor of bells that set the swallows soaring, the Festival of Summer came to the city Omelas, bright-towered by the sea.",
            "year_published": "1973",
        },
        {
            "id": 2,
            "title": "Dhalgren",
            "author": "Samuel R. Delany",
            "first_sentence": "to wound the autumnal city.",
            "year_published": "1975",
        },
    ])
}

fn users() -> Value {
    json!([
        {"id": 0, "name": "Arun", "car": "Audi", "color": "Blue", "bought": "2021"},
        {"id": 1, "name": "Tipsy", "car": "BMW", "color": "Red", "bought": "2022"},
        {"id": 2, "name": "Sam", "car": "Merc", "color": "Blue", "bought": "2030"},
    ])
}
