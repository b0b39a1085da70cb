//! Stars per reviewer. Versions differ in the stars they give or in how they fail.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::Error;
use crate::identity::variable;
use crate::respond::{self, FullResponse};
use crate::server::FullRequest;

/// Products whose ratings callers may change, so that callers cannot fill the memory.
const CHANGED_LIMIT: usize = 1000;

/// How long an answer of `v-delayed` takes, when it is delayed.
const DELAY: Duration = Duration::from_secs(7);

/// The versions by name.
const VERSIONS: &[(&str, Version)] = &[
    ("v1", Version::First),
    ("v2", Version::Second),
    ("v-faulty", Version::Faulty),
    ("v-delayed", Version::Delayed),
    ("v-unavailable", Version::Unavailable),
    ("v-unhealthy", Version::Unhealthy),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// Five and four stars; callers may change them.
    First,
    /// Other stars than the first, and no changes.
    Second,
    /// Half of the answers are errors.
    Faulty,
    /// Half of the answers come late.
    Delayed,
    /// Works for a minute, fails for a minute, and so on.
    Unavailable,
    /// The same with quarters of an hour, and its health page says so.
    Unhealthy,
}

/// The service.
#[derive(Debug)]
pub(super) struct Ratings {
    version: Version,
    started: Instant,
    changed: Mutex<BTreeMap<u64, Value>>,
}

/// Runs the service. Argument: the version.
pub(crate) async fn run(arguments: &[String]) -> Result<(), Error> {
    let names: Vec<_> = VERSIONS.iter().map(|(name, _)| *name).collect();
    let name = super::version("ratings", arguments.first(), &names)?;
    if let Some(database) = ["MONGO_DB_URL", "MYSQL_DB_HOST"]
        .into_iter()
        .find(|name| variable(name).is_some())
    {
        return Err(Error::Arguments {
            name: "ratings".to_owned(),
            why: format!(
                "{database} is set, but the variants with a database are not built in; unset it, and \
                 v2 gives ratings of its own"
            ),
        });
    }
    let version = VERSIONS
        .iter()
        .find_map(|(known, version)| (*known == name).then_some(*version))
        .unwrap_or(Version::First);
    let ratings = Arc::new(Ratings::new(version));
    super::serve("ratings", move |request| {
        let ratings = ratings.clone();
        async move { ratings.answer(request).await }
    })
    .await
}

impl Ratings {
    pub(super) fn new(version: Version) -> Self {
        Self {
            version,
            started: Instant::now(),
            changed: Mutex::default(),
        }
    }

    /// Answers one request.
    pub(super) async fn answer(&self, request: FullRequest) -> FullResponse {
        let path = request.uri().path();
        if path == "/health" {
            return self.health();
        }
        let Some(id) = path.strip_prefix("/ratings/") else {
            return respond::text(
                StatusCode::NOT_FOUND,
                format!("ratings has no page {path}\n"),
            );
        };
        let Ok(id) = id.parse() else {
            return error(StatusCode::BAD_REQUEST, "please provide numeric product ID");
        };
        match *request.method() {
            Method::GET | Method::HEAD => self.get(id).await,
            Method::POST => self.change(id, request.body()),
            _ => respond::method_not_allowed("GET, HEAD, POST"),
        }
    }

    fn health(&self) -> FullResponse {
        if self.version == Version::Unhealthy && self.down(Duration::from_secs(15 * 60)) {
            let status = json!({"status": "Ratings is not healthy"});
            return respond::json(StatusCode::INTERNAL_SERVER_ERROR, &status);
        }
        respond::json(StatusCode::OK, &json!({"status": "Ratings is healthy"}))
    }

    async fn get(&self, id: u64) -> FullResponse {
        match self.version {
            Version::Faulty if fastrand::bool() => return unavailable(),
            Version::Delayed if fastrand::bool() => tokio::time::sleep(DELAY).await,
            Version::Unavailable if self.down(Duration::from_secs(60)) => return unavailable(),
            Version::Unhealthy if self.down(Duration::from_secs(15 * 60)) => return unavailable(),
            _ => {}
        }
        let changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        let ratings = match (changed.get(&id), self.version) {
            (Some(changed), _) => changed.clone(),
            (None, Version::Second) => json!({"Reviewer1": 3, "Reviewer2": 2}),
            (None, _) => json!({"Reviewer1": 5, "Reviewer2": 4}),
        };
        respond::json(StatusCode::OK, &json!({"id": id, "ratings": ratings}))
    }

    fn change(&self, id: u64, body: &[u8]) -> FullResponse {
        if self.version == Version::Second {
            return error(
                StatusCode::NOT_IMPLEMENTED,
                "the ratings of v2 cannot be changed",
            );
        }
        let Ok(ratings @ Value::Object(_)) = serde_json::from_slice(body) else {
            return error(StatusCode::BAD_REQUEST, "please provide valid ratings JSON");
        };
        let mut changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        if changed.len() >= CHANGED_LIMIT && !changed.contains_key(&id) {
            return error(
                StatusCode::INSUFFICIENT_STORAGE,
                "the ratings of too many products were changed",
            );
        }
        changed.insert(id, ratings.clone());
        respond::json(StatusCode::OK, &json!({"id": id, "ratings": ratings}))
    }

    /// In the failing half of a cycle that begins with a working one?
    fn down(&self, half: Duration) -> bool {
        (self.started.elapsed().as_secs() / half.as_secs()) % 2 == 1
    }
}

fn unavailable() -> FullResponse {
    error(StatusCode::SERVICE_UNAVAILABLE, "Service unavailable")
}

fn error(status: StatusCode, why: &str) -> FullResponse {
    respond::json(status, &json!({"error": why}))
}
