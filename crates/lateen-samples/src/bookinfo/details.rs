//! Facts about a book. All books have the same.

use http::StatusCode;
use serde_json::json;

use crate::Error;
use crate::identity::variable;
use crate::respond::{self, FullResponse};
use crate::server::FullRequest;

/// Runs the service. The variant that asks a book service on the internet is refused.
pub(crate) async fn run(_arguments: &[String]) -> Result<(), Error> {
    if variable("ENABLE_EXTERNAL_BOOK_SERVICE").is_some_and(|value| value == "true") {
        return Err(Error::Arguments {
            name: "details".to_owned(),
            why: "the variant that asks a book service on the internet is not built in; unset \
                  ENABLE_EXTERNAL_BOOK_SERVICE"
                .to_owned(),
        });
    }
    super::serve("details", answer).await
}

/// Answers one request.
pub(super) async fn answer(request: FullRequest) -> FullResponse {
    let path = request.uri().path();
    if path == "/health" {
        return respond::json(StatusCode::OK, &json!({"status": "Details is healthy"}));
    }
    match path.strip_prefix("/details/").map(str::parse::<u64>) {
        None => respond::text(
            StatusCode::NOT_FOUND,
            format!("details has no page {path}\n"),
        ),
        Some(Err(_)) => respond::json(
            StatusCode::BAD_REQUEST,
            &json!({"error": "please provide numeric product id"}),
        ),
        Some(Ok(id)) => respond::json(
            StatusCode::OK,
            &json!({
                "id": id,
                "author": "William Shakespeare",
                "year": 1595,
                "type": "paperback",
                "pages": 200,
                "publisher": "PublisherA",
                "language": "English",
                "ISBN-10": "1234567890",
                "ISBN-13": "123-1234567890",
            }),
        ),
    }
}
