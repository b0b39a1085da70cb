//! Ages as people read them.

use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use crate::builtin::read::text;
use crate::schema;

/// The age of an object.
pub(in crate::builtin) fn age(object: &Value, now: OffsetDateTime) -> Value {
    json!(since(text(object, "/metadata/creationTimestamp"), now))
}

/// Time since a moment; `<unknown>` when there is none.
pub(in crate::builtin) fn since(moment: &str, now: OffsetDateTime) -> String {
    schema::parse_time(moment).map_or_else(
        || "<unknown>".to_owned(),
        |moment| human_duration(now - moment),
    )
}

/// A duration with two or three significant figures: `5s`, `2m10s`, `3h`, `4d2h`.
pub fn human_duration(duration: Duration) -> String {
    let seconds = duration.whole_seconds();
    if seconds < -1 {
        return "<invalid>".to_owned();
    }
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let two = |great: i64, unit: &str, small: i64, small_unit: &str| {
        if small == 0 {
            format!("{great}{unit}")
        } else {
            format!("{great}{unit}{small}{small_unit}")
        }
    };
    match () {
        () if seconds < 0 => "0s".to_owned(),
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 => two(minutes, "m", seconds % 60, "s"),
        () if minutes < 180 => format!("{minutes}m"),
        () if hours < 8 => two(hours, "h", minutes % 60, "m"),
        () if hours < 48 => format!("{hours}h"),
        () if hours < 24 * 8 => two(hours / 24, "d", hours % 24, "h"),
        () if hours < 24 * 365 * 2 => format!("{}d", hours / 24),
        () if hours < 24 * 365 * 8 => two(hours / 24 / 365, "y", hours / 24 % 365, "d"),
        () => format!("{}y", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_keep_two_figures() {
        for (seconds, expected) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (130, "2m10s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (11_460, "3h11m"),
            (36_000, "10h"),
            (172_800, "2d"),
            (176_400, "2d1h"),
            (691_200, "8d"),
            (63_072_000, "2y"),
            (63_158_400, "2y1d"),
            (252_288_000, "8y"),
        ] {
            assert_eq!(
                human_duration(Duration::seconds(seconds)),
                expected,
                "{seconds}"
            );
        }
    }
}
