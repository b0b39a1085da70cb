//! The string formats that a custom resource's schema may name.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use base64::Engine as _;
use regex::Regex;

/// Formats that are checked; others are ignored with a warning.
const KNOWN: [&str; 26] = [
    "bsonobjectid",
    "byte",
    "cidr",
    "creditcard",
    "date",
    "datetime",
    "duration",
    "email",
    "hexcolor",
    "hostname",
    "ipv4",
    "ipv6",
    "isbn",
    "isbn10",
    "isbn13",
    "k8slongname",
    "k8sshortname",
    "mac",
    "password",
    "rgbcolor",
    "ssn",
    "uri",
    "uuid",
    "uuid3",
    "uuid4",
    "uuid5",
];

/// Whether `format` is one that is checked. Dashes do not count: `date-time` is `datetime`.
pub(crate) fn is_known(format: &str) -> bool {
    !format.is_empty() && KNOWN.contains(&format.replace('-', "").as_str())
}

/// Whether `text` has the form that `format` names. Formats that are not known fit anything.
pub(crate) fn fits(format: &str, text: &str) -> bool {
    match format.replace('-', "").as_str() {
        "bsonobjectid" => text.len() == 24 && is_hex(text),
        "byte" => {
            text.is_empty()
                || base64::engine::general_purpose::STANDARD
                    .decode(text)
                    .is_ok()
        }
        "cidr" => is_cidr(text),
        "creditcard" => is_luhn(text),
        "date" => is_date(text),
        "datetime" => {
            time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339)
                .is_ok()
        }
        "duration" => is_duration(text),
        "email" => is_email(text),
        "hexcolor" => {
            let digits = text.strip_prefix('#').unwrap_or(text);
            matches!(digits.len(), 3 | 6) && is_hex(digits)
        }
        "hostname" => is_hostname(text),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "isbn" => is_isbn10(text) || is_isbn13(text),
        "isbn10" => is_isbn10(text),
        "isbn13" => is_isbn13(text),
        "k8slongname" => is_long_name(text),
        "k8sshortname" => is_label(text),
        "mac" => is_mac(text),
        "rgbcolor" => RGB.is_match(text),
        "ssn" => SSN.is_match(text),
        "uri" => is_uri(text),
        "uuid" => is_uuid(text, None),
        "uuid3" => is_uuid(text, Some('3')),
        "uuid4" => is_uuid(text, Some('4')),
        "uuid5" => is_uuid(text, Some('5')),
        _ => true,
    }
}

static RGB: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^rgb\(\s*(\d{1,2}|1\d\d|2[0-4]\d|25[0-5])(\s*,\s*(\d{1,2}|1\d\d|2[0-4]\d|25[0-5])){2}\s*\)$")
        .expect("the pattern is a constant")
});
static SSN: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^\d{3}[- ]?\d{2}[- ]?\d{4}$").expect("the pattern is a constant")
});
static DURATION: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^[+-]?(0|((\d+(\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h))+)$")
        .expect("the pattern is a constant")
});
/// Durations in words: `22 ns`, `3 hours`.
static WORD_DURATION: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(concat!(
        r"^\d+\s*(ns|nanos?|nanoseconds?|us|µs|micros?|microseconds?|ms|millis?|milliseconds?",
        r"|s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?|w|wks?|weeks?)$"
    ))
    .expect("the pattern is a constant")
});

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_cidr(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else {
        return false;
    };
    if length.is_empty() || length.len() > 3 || !length.bytes().all(|byte| byte.is_ascii_digit()) {
        return false;
    }
    let Ok(length) = length.parse::<u8>() else {
        return false;
    };
    (address.parse::<Ipv4Addr>().is_ok() && length <= 32)
        || (address.parse::<Ipv6Addr>().is_ok() && length <= 128)
}

fn is_date(text: &str) -> bool {
    let format = time::macros::format_description!("[year]-[month]-[day]");
    text.len() == 10 && time::Date::parse(text, format).is_ok()
}

fn is_duration(text: &str) -> bool {
    DURATION.is_match(text) || WORD_DURATION.is_match(text)
}

fn is_email(text: &str) -> bool {
    let Some((local, domain)) = text.rsplit_once('@') else {
        return false;
    };
    !local.is_empty()
        && !domain.is_empty()
        && !text
            .chars()
            .any(|char| char.is_whitespace() || char.is_control() || "<>,;\"".contains(char))
}

fn is_hostname(text: &str) -> bool {
    if text.is_empty() || text.len() > 255 {
        return false;
    }
    text.split('.').all(|label| {
        (1..=63).contains(&label.chars().count())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .chars()
                .all(|char| char.is_alphanumeric() || char == '-')
    })
}

fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// A DNS subdomain; its labels may be longer than 63 characters.
fn is_long_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=253).contains(&text.len())
        && text.split('.').all(|label| {
            !label.is_empty()
                && label.bytes().all(allowed)
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}

fn is_mac(text: &str) -> bool {
    for (separator, width) in [(':', 2), ('-', 2), ('.', 4)] {
        let groups: Vec<&str> = text.split(separator).collect();
        let digits = groups.len() * width;
        if matches!(digits, 12 | 16 | 40)
            && groups
                .iter()
                .all(|group| group.len() == width && is_hex(group))
        {
            return true;
        }
    }
    false
}

/// What may stand in a request line: an absolute path or an absolute URI.
fn is_uri(text: &str) -> bool {
    if text.chars().any(|char| char.is_control() || char == ' ') {
        return false;
    }
    if text.starts_with('/') {
        return true;
    }
    let Some((scheme, _)) = text.split_once(':') else {
        return false;
    };
    scheme.starts_with(|char: char| char.is_ascii_alphabetic())
        && scheme
            .chars()
            .all(|char| char.is_ascii_alphanumeric() || "+-.".contains(char))
}

/// Dashes are optional but stand at their places only.
fn is_uuid(text: &str, version: Option<char>) -> bool {
    let mut digits = String::with_capacity(32);
    for char in text.chars() {
        match char {
            '-' if matches!(digits.len(), 8 | 12 | 16 | 20) => {}
            _ if char.is_ascii_hexdigit() => digits.push(char.to_ascii_lowercase()),
            _ => return false,
        }
    }
    let digit = |at: usize| digits.chars().nth(at);
    digits.len() == 32
        && !text.contains("--")
        && version.is_none_or(|version| digit(12) == Some(version))
        && (!matches!(version, Some('4' | '5')) || matches!(digit(16), Some('8' | '9' | 'a' | 'b')))
}

fn is_isbn10(text: &str) -> bool {
    let text = text.replace(['-', ' '], "");
    let mut sum = 0;
    for (at, char) in text.chars().enumerate() {
        let value = match char {
            'X' if at == 9 => 10,
            _ => match char.to_digit(10) {
                Some(value) => value,
                None => return false,
            },
        };
        sum += (at as u32 + 1) * value;
    }
    text.len() == 10 && sum.is_multiple_of(11)
}

fn is_isbn13(text: &str) -> bool {
    let text = text.replace(['-', ' '], "");
    let mut sum = 0;
    for (at, char) in text.chars().enumerate() {
        let Some(value) = char.to_digit(10) else {
            return false;
        };
        sum += value * if at.is_multiple_of(2) { 1 } else { 3 };
    }
    text.len() == 13 && sum.is_multiple_of(10)
}

fn is_luhn(text: &str) -> bool {
    let digits: Vec<u32> = text.chars().filter_map(|char| char.to_digit(10)).collect();
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(at, &digit)| match (at % 2, digit * 2) {
            (0, _) => digit,
            (_, double) if double > 9 => double - 9,
            (_, double) => double,
        })
        .sum();
    (13..=16).contains(&digits.len()) && sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(format: &str, good: &[&str], bad: &[&str]) {
        for text in good {
            assert!(fits(format, text), "{text:?} is a {format}");
        }
        for text in bad {
            assert!(!fits(format, text), "{text:?} is no {format}");
        }
    }

    #[test]
    fn formats_tell_right_from_wrong() {
        check(
            "date-time",
            &["2026-11-21T04:00:00Z", "2026-11-21T04:00:00.5+02:00"],
            &["2026-11-21", "now"],
        );
        check("date", &["2026-11-21"], &["2026-13-01", "2026-1-1"]);
        check(
            "duration",
            &["1h30m", "22 ns", "0", "1.5s"],
            &["", "h", "5"],
        );
        check("ipv4", &["10.0.0.1"], &["10.0.0", "::1"]);
        check("ipv6", &["::1", "fe80::1"], &["10.0.0.1"]);
        check(
            "cidr",
            &["10.0.0.0/8", "fd00::/8"],
            &["10.0.0.0", "10.0.0.0/33", "x/8"],
        );
        check(
            "uuid",
            &["0b7e3e36-2f4c-4b8a-9d51-0a4f7e6d5c3b"],
            &["0b7e3e36", "zz7e3e36-2f4c-4b8a-9d51-0a4f7e6d5c3b"],
        );
        check("byte", &["", "aGk="], &["a", "%%%%"]);
        check("hostname", &["example.org", "a"], &["-a", "a..b", ""]);
        check(
            "mac",
            &["00:00:5e:00:53:01", "0000.5e00.5301"],
            &["00:00:5e:00:53", "g0:00:5e:00:53:01"],
        );
        check("email", &["a@example.org"], &["a", "@b", "a b@c"]);
        check("uri", &["https://a/b", "/x"], &["a b", "x"]);
        check("isbn", &["0321751043", "978-0321751041"], &["0321751044"]);
        check("hexcolor", &["#ffF", "00ff00"], &["#ff", "#ggg"]);
    }
}
