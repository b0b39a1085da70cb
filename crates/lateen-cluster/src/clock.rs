//! Times in the form in which Kubernetes writes them.

use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

/// The present second, e.g. `2026-11-21T04:05:06Z`.
pub(crate) fn now() -> String {
    after(0)
}

/// The second that is `seconds` from now; negative ones lie in the past.
pub(crate) fn after(seconds: i64) -> String {
    let moment = OffsetDateTime::now_utc().saturating_add(Duration::seconds(seconds));
    let whole = moment.replace_nanosecond(0).unwrap_or(moment);
    // A year beyond 9999 is the only thing that cannot be written.
    whole.format(&Rfc3339).unwrap_or_default()
}

/// Seconds since 1970.
pub(crate) fn unix() -> i64 {
    OffsetDateTime::now_utc().unix_timestamp()
}

/// How long ago `moment` was; `None` when it is not a time.
pub(crate) fn since(moment: &str) -> Option<Duration> {
    let moment = OffsetDateTime::parse(moment, &Rfc3339).ok()?;
    Some(OffsetDateTime::now_utc() - moment)
}
