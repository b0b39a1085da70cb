//! Sizes in bytes as Kubernetes writes quantities: `65536`, `64Ki`, `1M`.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A number of bytes, at most `u64::MAX`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

/// Why a text is not a size.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "invalid size {0:?}: write whole bytes with an optional unit, for example 4096, 64Ki or 1M"
)]
pub struct ParseByteSizeError(String);

/// Units of Kubernetes quantities with the bytes that they stand for; longer names first where one begins another.
const UNITS: [(&str, u64); 9] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("", 1),
];

impl FromStr for ByteSize {
    type Err = ParseByteSizeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let scale = UNITS.iter().find(|(name, _)| *name == unit);
        scale
            .zip(number.parse::<u64>().ok())
            .and_then(|((_, scale), number)| number.checked_mul(*scale))
            .map(Self)
            .ok_or_else(|| ParseByteSizeError(text.to_owned()))
    }
}

impl fmt::Display for ByteSize {
    /// With the largest binary unit that loses nothing.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let binary = &UNITS[..4];
        let fitting = binary
            .iter()
            .rev()
            .find(|(_, scale)| self.0 != 0 && self.0.is_multiple_of(*scale));
        match fitting {
            Some((unit, scale)) => write!(formatter, "{}{unit}", self.0 / scale),
            None => write!(formatter, "{}", self.0),
        }
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// As Kubernetes does for quantities: a plain number counts, too.
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(u64),
            Text(String),
        }
        match Written::deserialize(deserializer)
            .map_err(|_| de::Error::custom("expected a size such as 64Ki"))?
        {
            Written::Number(bytes) => Ok(Self(bytes)),
            Written::Text(text) => text.parse().map_err(de::Error::custom),
        }
    }
}

impl JsonSchema for ByteSize {
    fn schema_name() -> Cow<'static, str> {
        "ByteSize".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"x-kubernetes-int-or-string": true})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_prints_quantities() {
        let check = |text: &str, bytes: Option<u64>, printed: &str| {
            let parsed = text.parse::<ByteSize>().ok();
            assert_eq!(parsed, bytes.map(ByteSize), "{text}");
            if let Some(size) = parsed {
                assert_eq!(size.to_string(), printed, "{text}");
            }
        };
        check("0", Some(0), "0");
        check("4095", Some(4095), "4095");
        check("64Ki", Some(65_536), "64Ki");
        check("1024Ki", Some(1 << 20), "1Mi");
        check("1k", Some(1000), "1000");
        check("2M", Some(2_000_000), "2000000");
        check("", None, "");
        check("Ki", None, "");
        check("-1", None, "");
        check("1.5Ki", None, "");
        check("64KB", None, "");
        check("99999999999999999999", None, "");
        check("18446744073709551615Ti", None, "");
    }
}
