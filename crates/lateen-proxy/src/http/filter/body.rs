//! Fields of the body become headers, before the route is chosen.

use std::time::Duration;

use http::header::EXPECT;
use http::{HeaderName, StatusCode};
use lateen_route::body_fields::{BodyFields, Unreadable, is_same_to_applications};
use tokio::time::Instant;

use super::super::exchange::Exchange;
use super::super::reply::LocalReply;
use super::super::request_body::ReadAheadError;
use crate::flags::Flags;
use crate::stats::HttpStats;

/// Longest time for a body to come when the connection manager has no limit of its own.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Copies the fields of the request's body into its headers, as each of the policies says. The first policy that finds
/// a value for a header has it; a later one does not change it. An error is the answer to a request that is refused, or
/// whose body does not come. A request without a body passes, also one whose chunks turn out to hold nothing.
pub(in crate::http) async fn copy_fields(
    exchange: &mut Exchange,
    policies: &[BodyFields],
) -> Result<(), LocalReply> {
    let Some(source) = exchange.source.clone().filter(|_| !policies.is_empty()) else {
        return Ok(());
    };
    let manager = exchange.connection.manager.clone();
    let stats = manager.stats.here();
    let wait = manager.stream_idle_timeout.unwrap_or(LONGEST_WAIT);
    let end = Instant::now() + wait;
    let headers = &mut exchange.head.headers;
    let mut given: Vec<HeaderName> = Vec::new();
    for policy in policies {
        let read = match policy.format(headers) {
            Ok(format) => match in_time(end, stats, source.read_ahead(policy.most_bytes)).await? {
                None => Err(Unreadable::TooLarge),
                Some(body) if body.is_empty() => return Ok(()),
                Some(body) => policy.extract(format, &body),
            },
            // Who waits to be asked for a body has one, and is answered before it is sent.
            Err(_) if policy.reject && !headers.contains_key(EXPECT) => {
                match in_time(end, stats, source.has_content()).await? {
                    true => Err(Unreadable::Type),
                    false => return Ok(()),
                }
            }
            Err(unreadable) => Err(unreadable),
        };
        match read {
            Ok(values) => {
                stats.body_fields_applied.add(u64::from(!values.is_empty()));
                policy.apply(values, headers, &mut given);
            }
            Err(unreadable) => {
                match unreadable {
                    Unreadable::TooLarge => stats.body_fields_too_large.inc(),
                    Unreadable::Type | Unreadable::Malformed => stats.body_fields_unreadable.inc(),
                }
                if policy.reject {
                    stats.body_fields_rejected.inc();
                    return Err(refusal(unreadable));
                }
            }
        }
    }
    // A field after the body would stand beside the header, and some applications join both.
    if !given.is_empty() {
        source.remove_trailers(|name| {
            given
                .iter()
                .any(|given| is_same_to_applications(given, name))
        });
    }
    Ok(())
}

/// What is read of a body, unless it takes too long or breaks off.
async fn in_time<T>(
    end: Instant,
    stats: &HttpStats,
    reading: impl Future<Output = Result<T, ReadAheadError>>,
) -> Result<T, LocalReply> {
    match tokio::time::timeout_at(end, reading).await {
        Err(_) => Err(LocalReply::stream_idle(false)),
        Ok(Err(ReadAheadError::Broken(_))) => Err(LocalReply::bad_request("body_broken")),
        Ok(Err(ReadAheadError::NoRoom)) => {
            stats.body_fields_overflow.inc();
            // Neither its body nor its headers say where it goes.
            Err(LocalReply::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "too many bodies are held back",
                Flags::OVERLOAD_MANAGER,
                "held_bodies_overflow",
            ))
        }
        Ok(Ok(read)) => Ok(read),
    }
}

fn refusal(unreadable: Unreadable) -> LocalReply {
    let (status, text, details) = match unreadable {
        Unreadable::TooLarge => (
            StatusCode::PAYLOAD_TOO_LARGE,
            "the body is too long to be routed by",
            "body_too_large",
        ),
        Unreadable::Type => (
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "requests are routed by their body, which is of another type",
            "body_type_unreadable",
        ),
        Unreadable::Malformed => (
            StatusCode::BAD_REQUEST,
            "requests are routed by their body, which is malformed",
            "body_malformed",
        ),
    };
    LocalReply::new(status, text, Default::default(), details)
}
