//! Answers of a chosen size and pace.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};

use super::{Form, echo, json as as_json, parameter};
use crate::respond::{self, Body, FullResponse};
use crate::server::FullRequest;

/// Longest delay, in seconds.
const DELAY_LIMIT: f64 = 10.0;
/// Largest body of random bytes.
const BYTES_LIMIT: usize = 100 * 1024;
/// Largest body that drips.
const DRIP_LIMIT: usize = 10 * 1024 * 1024;
/// Longest time that it drips for, in seconds.
const DRIP_WITHIN: f64 = 60.0;
/// Most lines of a stream.
const LINES_LIMIT: usize = 100;

/// `/delay/SECONDS`: the echo, late.
pub(super) async fn delay(form: Form, seconds: &str, request: &FullRequest) -> FullResponse {
    let Some(delay) = duration(seconds, DELAY_LIMIT) else {
        return respond::text(StatusCode::BAD_REQUEST, "a delay is a number of seconds\n");
    };
    tokio::time::sleep(delay).await;
    let mut shown = echo::everything(form, request);
    if form == Form::Python {
        for field in ["json", "method"] {
            shown.remove(field);
        }
    }
    as_json::json(form, StatusCode::OK, &Value::Object(shown))
}

/// `/drip?duration=2&numbytes=10&delay=2&code=200`: a first wait, then bytes evenly over the duration.
pub(super) async fn drip(request: &FullRequest) -> FullResponse {
    let seconds = |name, default: &str| {
        let given = parameter(request, name).unwrap_or_else(|| default.to_owned());
        duration(&given, DRIP_WITHIN)
    };
    let number = |name, default: usize| match parameter(request, name) {
        None => Some(default),
        Some(given) => given.parse().ok(),
    };
    let (Some(over), Some(delay), Some(count), Some(code)) = (
        seconds("duration", "2"),
        seconds("delay", "2"),
        number("numbytes", 10),
        number("code", 200),
    ) else {
        return respond::text(
            StatusCode::BAD_REQUEST,
            "duration, delay, numbytes and code are numbers\n",
        );
    };
    let code = u16::try_from(code)
        .ok()
        .and_then(|code| StatusCode::from_u16(code).ok());
    let (Some(code), 1..=DRIP_LIMIT) = (code, count) else {
        return respond::text(
            StatusCode::BAD_REQUEST,
            "numbytes is from 1 to 10485760, and code is a status\n",
        );
    };
    tokio::time::sleep(delay).await;
    let pause = over / u32::try_from(count).unwrap_or(u32::MAX);
    // Pauses too short for a timer are taken together.
    let at_once = if pause.is_zero() {
        4096
    } else {
        usize::try_from(
            Duration::from_millis(1)
                .as_nanos()
                .div_ceil(pause.as_nanos()),
        )
        .unwrap_or(1)
    };
    let body = pieces(count, at_once, move |size| {
        (vec![b'*'; size], pause * u32::try_from(size).unwrap_or(1))
    });
    let mut response = octets(body);
    *response.status_mut() = code;
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, count.into());
    response
}

/// `/bytes/COUNT?seed=N`: random bytes, the same for the same seed.
pub(super) fn bytes(count: &str, request: &FullRequest) -> FullResponse {
    let Some((count, mut random)) = random(count, request) else {
        return respond::text(StatusCode::BAD_REQUEST, "give a number of bytes\n");
    };
    let mut content = vec![0; count];
    random.fill(&mut content);
    octets(respond::full(content))
}

/// `/stream-bytes/COUNT?seed=N&chunk_size=N`: the same in pieces, without a length.
pub(super) fn stream_bytes(count: &str, request: &FullRequest) -> FullResponse {
    let size = parameter(request, "chunk_size").map_or(Some(10 * 1024), |size| size.parse().ok());
    let (Some((count, mut random)), Some(size @ 1..)) = (random(count, request), size) else {
        return respond::text(StatusCode::BAD_REQUEST, "give numbers of bytes\n");
    };
    octets(pieces(count, size, move |size| {
        let mut content = vec![0; size];
        random.fill(&mut content);
        (content, Duration::ZERO)
    }))
}

/// `/stream/COUNT`: one JSON object a line.
pub(super) fn stream(form: Form, count: &str, request: &FullRequest) -> FullResponse {
    let Ok(count) = count.parse::<usize>() else {
        return respond::text(StatusCode::BAD_REQUEST, "give a number of lines\n");
    };
    let shown = echo::common(form, request);
    let lines = (0..count.min(LINES_LIMIT)).map(move |id| {
        let mut line = shown.clone();
        line.insert("id".to_owned(), json!(id));
        let line = format!("{}\n", Value::Object(line));
        Ok::<_, Infallible>(Frame::data(Bytes::from(line)))
    });
    let mut response = Response::new(StreamBody::new(stream::iter(lines)).boxed_unsync());
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("application/json"),
    );
    response
}

/// A body of `count` bytes, made piece by piece; each piece comes with the pause before it.
fn pieces(
    count: usize,
    at_once: usize,
    mut make: impl FnMut(usize) -> (Vec<u8>, Duration) + Send + 'static,
) -> Body {
    let mut left = count;
    let pieces = std::iter::from_fn(move || {
        let size = left.min(at_once);
        left -= size;
        (size > 0).then(|| make(size))
    });
    let frames = stream::unfold(pieces, |mut pieces| async move {
        let (content, pause) = pieces.next()?;
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        Some((
            Ok::<_, Infallible>(Frame::data(Bytes::from(content))),
            pieces,
        ))
    });
    StreamBody::new(frames).boxed_unsync()
}

fn random(count: &str, request: &FullRequest) -> Option<(usize, fastrand::Rng)> {
    let count: usize = count.parse().ok()?;
    let random = match parameter(request, "seed") {
        None => fastrand::Rng::new(),
        Some(seed) => fastrand::Rng::with_seed(seed.parse().ok()?),
    };
    Some((count.min(BYTES_LIMIT), random))
}

fn octets(body: Body) -> FullResponse {
    let mut response = Response::new(body);
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("application/octet-stream"),
    );
    response
}

fn duration(seconds: &str, limit: f64) -> Option<Duration> {
    let seconds: f64 = seconds.parse().ok()?;
    Duration::try_from_secs_f64(seconds.min(limit)).ok()
}
