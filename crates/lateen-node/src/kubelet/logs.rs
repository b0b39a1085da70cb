//! `GET /containerLogs`: a container's log, once or followed.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{Body, Query, text};
use crate::logs::read::{Wanted, send};
use crate::pods::shared::Shared;
use crate::pods::state::Phase;

/// Pieces of a log that wait for a slow reader.
const QUEUE: usize = 64;

pub(super) async fn answer(shared: &Arc<Shared>, container: &str, query: &Query) -> Response<Body> {
    let wanted = match wanted(query) {
        Ok(wanted) => wanted,
        Err(message) => return text(StatusCode::BAD_REQUEST, message),
    };
    let Some((restarts, phase, image)) = shared.read(|state| {
        let record = state.record(container)?;
        Some((record.restarts, record.phase.clone(), record.image.clone()))
    }) else {
        let message = format!(
            "container {container} is not valid for pod {}",
            shared.pod_name()
        );
        return text(StatusCode::NOT_FOUND, message);
    };
    let state = &shared.context.config.state_dir;
    let path = |run: i32| crate::logs::path(state, shared.uid(), container, run);
    // A container that waits for its next start shows the run before.
    let present = if path(restarts).exists() {
        restarts
    } else {
        restarts - 1
    };
    let run = if query.is_true("previous") {
        present - 1
    } else {
        present
    };
    let path = path(run);
    if !path.exists() {
        let pod = shared.pod();
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let message = match phase {
            _ if query.is_true("previous") => {
                format!("previous terminated container \"{container}\" in pod \"{name}\" not found")
            }
            Phase::Waiting {
                reason: "ErrImagePull" | "ImagePullBackOff",
                ..
            } => format!(
                "container \"{container}\" in pod \"{name}\" is waiting to start: trying and \
                 failing to pull image: {image}"
            ),
            Phase::Waiting { reason, .. } => {
                format!("container \"{container}\" in pod \"{name}\" is waiting to start: {reason}")
            }
            _ => format!("the log of container \"{container}\" in pod \"{name}\" is gone"),
        };
        return text(StatusCode::BAD_REQUEST, message);
    }
    let (to, pieces) = mpsc::channel(QUEUE);
    let (shared, container) = (shared.clone(), container.to_owned());
    let previous = query.is_true("previous");
    tokio::spawn(async move {
        let ended = || {
            previous
                || shared.read(|state| {
                    state.record(&container).is_none_or(|record| {
                        record.finished
                            || record.restarts != run
                            || matches!(record.phase, Phase::Terminated(_))
                    })
                })
        };
        if let Err(error) = send(&path, &wanted, ended, to).await {
            tracing::debug!(%error, log = %path.display(), "log not read");
        }
    });
    let frames = ReceiverStream::new(pieces)
        .map(|piece| Ok::<_, io::Error>(Frame::data(Bytes::from(piece))));
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(frames)));
    response.headers_mut().insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static("text/plain"),
    );
    response
}

/// Reads the options; the message of a bad one.
fn wanted(query: &Query) -> Result<Wanted, String> {
    let number = |name: &str| match query.get(name).filter(|text| !text.is_empty()) {
        None => Ok(None),
        Some(text) => text
            .parse::<i64>()
            .map(Some)
            .map_err(|_| format!("{name}: {text:?} is not a whole number")),
    };
    let since = match (
        query.get("sinceTime").filter(|text| !text.is_empty()),
        number("sinceSeconds")?,
    ) {
        (Some(time), _) => Some(
            time.parse::<Timestamp>()
                .map_err(|error| format!("sinceTime: {error}"))?,
        ),
        (None, Some(seconds)) => Timestamp::now()
            .checked_sub(SignedDuration::from_secs(seconds))
            .ok(),
        (None, None) => None,
    };
    let size = |number: Option<i64>| number.and_then(|number| usize::try_from(number).ok());
    Ok(Wanted {
        follow: query.is_true("follow"),
        tail: size(number("tailLines")?),
        since,
        timestamps: query.is_true("timestamps"),
        limit: size(number("limitBytes")?),
    })
}
