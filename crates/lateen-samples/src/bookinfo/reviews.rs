//! Two reviews of a book. v1 shows no stars; v2 and v3 ask ratings for them and colour them black or red.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value, json};

use crate::Error;
use crate::client::{Failure, Upstream};
use crate::identity::Identity;
use crate::respond::{self, FullResponse};
use crate::server::{self, FullRequest};

/// Who reviews, and what they say.
const REVIEWS: [(&str, &str); 2] = [
    (
        "Reviewer1",
        "An extremely entertaining play by Shakespeare. The slapstick humour is refreshing!",
    ),
    (
        "Reviewer2",
        "Absolutely fun and entertaining. The play lacks thematic depth when compared to other plays by Shakespeare.",
    ),
];

/// The first release that answers without stars where ratings do not answer; earlier ones fail.
const KEEPS_REVIEWS_SINCE: (u32, u32) = (1, 15);

/// The first release that says which pod answered.
const NAMES_POD_SINCE: (u32, u32) = (1, 17);

/// The service.
#[derive(Debug)]
pub(super) struct Reviews {
    pub(super) ratings: Upstream,
    /// Colour of the stars; none where ratings are not asked.
    pub(super) stars: Option<&'static str>,
    /// How long ratings may take.
    pub(super) within: Duration,
    /// Answer without stars, where ratings do not answer?
    pub(super) keeps_reviews: bool,
    /// The pod's name, where answers carry it.
    pub(super) pod: Option<String>,
}

/// Runs the service. Arguments: the version, and a release of the original (such as `1.10.1`) whose ways it is to have.
pub(crate) async fn run(arguments: &[String]) -> Result<(), Error> {
    let version = super::version("reviews", arguments.first(), &["v1", "v2", "v3"])?;
    let release = arguments.get(1).map_or("", String::as_str);
    let reviews = Reviews::new(version, release, super::service("ratings"));
    let reviews = Arc::new(reviews);
    super::serve("reviews", move |request| {
        let reviews = reviews.clone();
        async move { reviews.answer(request).await }
    })
    .await
}

impl Reviews {
    pub(super) fn new(version: &str, release: &str, ratings: Upstream) -> Self {
        let (stars, within) = match version {
            "v2" => (Some("black"), Duration::from_secs(10)),
            "v3" => (Some("red"), Duration::from_millis(2500)),
            _ => (None, Duration::from_secs(10)),
        };
        Self {
            ratings,
            stars,
            within,
            keeps_reviews: at_least(release, KEEPS_REVIEWS_SINCE),
            pod: at_least(release, NAMES_POD_SINCE).then(|| Identity::discover().pod_name),
        }
    }

    /// Answers one request.
    pub(super) async fn answer(&self, request: FullRequest) -> FullResponse {
        let path = request.uri().path();
        if path == "/health" {
            return respond::json(StatusCode::OK, &json!({"status": "Reviews is healthy"}));
        }
        let Some(id) = path
            .strip_prefix("/reviews/")
            .filter(|id| !id.is_empty() && !id.contains('/'))
        else {
            return respond::text(
                StatusCode::NOT_FOUND,
                format!("reviews has no page {path}\n"),
            );
        };
        let ratings = match self.stars {
            None => None,
            Some(color) => match self.ask(id, request.headers()).await {
                Ok(ratings) => Some((color, ratings)),
                Err(error) => {
                    server::log(&format!("ratings: {error}"));
                    if !self.keeps_reviews {
                        return respond::text(StatusCode::INTERNAL_SERVER_ERROR, "no ratings\n");
                    }
                    Some((color, None))
                }
            },
        };
        let mut answer = Map::new();
        answer.insert("id".to_owned(), json!(id));
        if let Some(pod) = &self.pod {
            answer.insert("podname".to_owned(), json!(pod));
            answer.insert("clustername".to_owned(), json!("null"));
        }
        let reviews = REVIEWS.map(|(reviewer, text)| review(reviewer, text, ratings.as_ref()));
        answer.insert("reviews".to_owned(), json!(reviews));
        respond::json(StatusCode::OK, &Value::Object(answer))
    }

    /// The ratings, or nothing where the service answers with an error.
    async fn ask(&self, id: &str, headers: &HeaderMap) -> Result<Option<Value>, Failure> {
        let mut forwarded = super::forwarded(headers);
        if let Some(user) = headers.get(super::END_USER) {
            forwarded.insert(super::END_USER, user.clone());
        }
        let path = format!("/ratings/{id}");
        let answer = self.ratings.get(&path, forwarded, self.within).await?;
        if answer.status() != StatusCode::OK {
            server::log(&format!("ratings: answered {}", answer.status()));
            return Ok(None);
        }
        Ok(serde_json::from_slice(answer.body()).ok())
    }
}

fn review(reviewer: &str, text: &str, ratings: Option<&(&str, Option<Value>)>) -> Value {
    let mut review = json!({"reviewer": reviewer, "text": text});
    if let Some((color, ratings)) = ratings {
        let stars = ratings
            .as_ref()
            .and_then(|ratings| ratings.get("ratings")?.get(reviewer)?.as_i64());
        review["rating"] = match stars {
            Some(stars) => json!({"stars": stars, "color": color}),
            None => json!({"error": "Ratings service is currently unavailable"}),
        };
    }
    review
}

/// Is `release` this one or a later one? What is no number, such as `latest`, is later than all.
fn at_least(release: &str, first: (u32, u32)) -> bool {
    let mut numbers = release.split('.').map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= first,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_compare_by_number() {
        for (release, expected) in [
            ("1.10.1", false),
            ("1.14.9", false),
            ("1.15.0", true),
            ("1.20.3", true),
            ("2.0", true),
            ("latest", true),
            ("", true),
        ] {
            assert_eq!(
                at_least(release, KEEPS_REVIEWS_SINCE),
                expected,
                "{release}"
            );
        }
    }
}
