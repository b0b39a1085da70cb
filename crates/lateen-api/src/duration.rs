//! Durations as Go and proto-JSON write them: `0.5s`, `1m`, `1h30m`, `250ms`.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A span of time with nanosecond resolution; negative spans are kept so that validation can refuse them by name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration {
    nanoseconds: i64,
}

/// Why a text is not a duration.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("invalid duration {text:?}: {reason}")]
pub struct ParseDurationError {
    text: String,
    reason: &'static str,
}

/// Units of Go's duration syntax with their length in nanoseconds; longer names first where one begins another.
const UNITS: [(&str, i64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

impl Duration {
    /// A duration of whole nanoseconds.
    pub const fn from_nanos(nanoseconds: i64) -> Self {
        Self { nanoseconds }
    }

    /// A duration of whole milliseconds.
    pub const fn from_millis(milliseconds: i64) -> Self {
        Self {
            nanoseconds: milliseconds.saturating_mul(1_000_000),
        }
    }

    /// A duration of whole seconds.
    pub const fn from_secs(seconds: i64) -> Self {
        Self {
            nanoseconds: seconds.saturating_mul(1_000_000_000),
        }
    }

    /// The whole length in nanoseconds.
    pub const fn as_nanos(self) -> i64 {
        self.nanoseconds
    }

    /// Whole seconds, truncated towards zero.
    pub const fn seconds(self) -> i64 {
        self.nanoseconds / 1_000_000_000
    }

    /// Nanoseconds beyond the whole seconds, with the sign of the duration.
    pub const fn subsecond_nanos(self) -> i32 {
        (self.nanoseconds % 1_000_000_000) as i32
    }
}

impl FromStr for Duration {
    type Err = ParseDurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = |reason| ParseDurationError {
            text: text.to_owned(),
            reason,
        };
        let (negative, mut rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        if rest.is_empty() {
            return Err(fail("it is empty; write for example 1.5s"));
        }
        if rest == "0" {
            return Ok(Self::default());
        }
        let mut total: i64 = 0;
        while !rest.is_empty() {
            let digits = rest
                .find(|c: char| !c.is_ascii_digit() && c != '.')
                .unwrap_or(rest.len());
            let (number, tail) = rest.split_at(digits);
            let unit_end = tail
                .find(|c: char| c.is_ascii_digit() || c == '.')
                .unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(unit_end);
            let &(_, scale) = UNITS
                .iter()
                .find(|(name, _)| *name == unit)
                .ok_or_else(|| fail("a unit must follow each number: ns, us, ms, s, m or h"))?;
            let part = scaled(number, scale).ok_or_else(|| fail("not a number in range"))?;
            total = total
                .checked_add(part)
                .ok_or_else(|| fail("out of range"))?;
            rest = tail;
        }
        Ok(Self {
            nanoseconds: if negative { -total } else { total },
        })
    }
}

/// `number` times `scale` without floating point, so that `0.1s` is exactly 100 ms.
fn scaled(number: &str, scale: i64) -> Option<i64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let whole: i64 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let mut total = whole.checked_mul(scale)?;
    let mut unit = scale;
    for digit in fraction.chars() {
        unit /= 10;
        total = total.checked_add(unit * i64::from(digit.to_digit(10)?))?;
    }
    Some(total)
}

impl fmt::Display for Duration {
    /// Seconds with as many decimals as needed, as proto-JSON prints durations.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.nanoseconds < 0 { "-" } else { "" };
        let (seconds, nanos) = (
            self.seconds().unsigned_abs(),
            self.subsecond_nanos().unsigned_abs(),
        );
        if nanos == 0 {
            return write!(formatter, "{sign}{seconds}s");
        }
        let decimals = format!("{nanos:09}");
        write!(
            formatter,
            "{sign}{seconds}.{}s",
            decimals.trim_end_matches('0')
        )
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "x-kubernetes-validations": [{
                "rule": "duration(self) >= duration('1ms')",
                "message": "must be a valid duration greater than 1ms",
            }],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_go_reads() {
        let check = |text: &str, expected: Option<i64>| {
            assert_eq!(
                text.parse::<Duration>().ok().map(Duration::as_nanos),
                expected,
                "{text}"
            );
        };
        check("0.5s", Some(500_000_000));
        check("1m", Some(60_000_000_000));
        check("1h30m", Some(5_400_000_000_000));
        check("250ms", Some(250_000_000));
        check("0", Some(0));
        check("-1s", Some(-1_000_000_000));
        check(".1s", Some(100_000_000));
        check("", None);
        check("5", None);
        check("5 s", None);
        check("s", None);
        check("1.2.3s", None);
        check("999999999999h", None);
    }

    #[test]
    fn prints_as_proto_json() {
        let check = |duration: Duration, expected: &str| assert_eq!(duration.to_string(), expected);
        check(Duration::from_secs(10), "10s");
        check(Duration::from_millis(500), "0.5s");
        check(Duration::from_nanos(-1_500_000_000), "-1.5s");
    }
}
