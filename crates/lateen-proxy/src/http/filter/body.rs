//! Fields of the body become headers, before the route is chosen.

use std::time::Duration;

use http::StatusCode;
use lateen_route::body_fields::{BodyFields, Unreadable};

use super::super::exchange::Exchange;
use super::super::reply::LocalReply;

/// Longest time for a body to come when the connection manager has no limit of its own.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Copies the fields of the request's body into its headers. An error is the answer to a request that is refused, or
/// whose body does not come. A request without a body passes.
pub(in crate::http) async fn copy_fields(
    exchange: &mut Exchange,
    policy: &BodyFields,
) -> Result<(), LocalReply> {
    let manager = exchange.connection.manager.clone();
    let Some(source) = exchange.source.clone() else {
        return Ok(());
    };
    let stats = manager.stats.here();
    let read = match policy.format(&exchange.head.headers) {
        Err(unreadable) => Err(unreadable),
        Ok(format) => {
            let wait = manager.stream_idle_timeout.unwrap_or(LONGEST_WAIT);
            let reading = source.read_ahead(policy.most_bytes);
            match tokio::time::timeout(wait, reading).await {
                Err(_) => return Err(LocalReply::stream_idle(false)),
                Ok(Err(_)) => return Err(LocalReply::bad_request("body_broken")),
                Ok(Ok(None)) => Err(Unreadable::TooLarge),
                Ok(Ok(Some(body))) => policy.extract(format, &body),
            }
        }
    };
    match read {
        Ok(values) => {
            stats.body_fields_applied.add(u64::from(!values.is_empty()));
            policy.apply(values, &mut exchange.head.headers);
            Ok(())
        }
        Err(unreadable) => {
            match unreadable {
                Unreadable::TooLarge => stats.body_fields_too_large.inc(),
                Unreadable::Type | Unreadable::Malformed => stats.body_fields_unreadable.inc(),
            }
            if !policy.reject {
                return Ok(());
            }
            stats.body_fields_rejected.inc();
            Err(refusal(unreadable))
        }
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
