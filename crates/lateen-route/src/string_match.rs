//! String matchers (`envoy.type.matcher.v3.StringMatcher`) and full-match regular expressions.

use lateen_xds::pb::envoy::r#type::matcher::v3 as pb;
use regex::bytes::{Regex, RegexBuilder};

use crate::constraint::not_empty;
use crate::{Invalid, Within, refuse_rest};

/// Largest compiled form of one expression in bytes.
const REGEX_SIZE_LIMIT: usize = 1 << 20;

/// A compiled string matcher.
#[derive(Debug, Clone)]
pub enum StringMatch {
    /// The whole value, byte for byte.
    Exact(String),
    /// The beginning of the value.
    Prefix(String),
    /// The end of the value.
    Suffix(String),
    /// Anywhere in the value.
    Contains(String),
    /// The whole value by an expression.
    Regex(Regex),
    /// One of the plain kinds, ignoring ASCII case. The inner pattern is lower case.
    IgnoreCase(Box<Self>),
}

impl StringMatch {
    /// Compiles the protobuf form.
    pub fn compile(mut matcher: pb::StringMatcher) -> Result<Self, Invalid> {
        use pb::string_matcher::MatchPattern as P;
        let ignore_case = std::mem::take(&mut matcher.ignore_case);
        let pattern = matcher.match_pattern.take();
        refuse_rest(&matcher)?;
        if let Some(P::Prefix(text) | P::Suffix(text) | P::Contains(text)) = &pattern {
            not_empty("match_pattern", text)?;
        }
        let fold = |text: String| {
            if ignore_case {
                text.to_ascii_lowercase()
            } else {
                text
            }
        };
        let plain = match pattern {
            Some(P::Exact(text)) => Self::Exact(fold(text)),
            Some(P::Prefix(text)) => Self::Prefix(fold(text)),
            Some(P::Suffix(text)) => Self::Suffix(fold(text)),
            Some(P::Contains(text)) => Self::Contains(fold(text)),
            // `ignore_case` has no effect on expressions, by the protocol's definition.
            Some(P::SafeRegex(regex)) => {
                return Ok(Self::Regex(full_match(regex).within("safe_regex")?));
            }
            Some(P::Custom(_)) => return Err(Invalid::unsupported("custom")),
            None => return Err(Invalid::new("match_pattern", "is required")),
        };
        Ok(if ignore_case {
            Self::IgnoreCase(Box::new(plain))
        } else {
            plain
        })
    }

    /// Whether the value matches.
    pub fn matches(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(text) => value == text.as_bytes(),
            Self::Prefix(text) => value.starts_with(text.as_bytes()),
            Self::Suffix(text) => value.ends_with(text.as_bytes()),
            Self::Contains(text) => contains(value, text.as_bytes()),
            Self::Regex(regex) => regex.is_match(value),
            Self::IgnoreCase(inner) => inner.matches(&value.to_ascii_lowercase()),
        }
    }
}

fn contains(value: &[u8], part: &[u8]) -> bool {
    part.is_empty() || value.windows(part.len()).any(|window| window == part)
}

/// Compiles an expression that must match the whole value, as Envoy's matchers do.
pub fn full_match(matcher: pb::RegexMatcher) -> Result<Regex, Invalid> {
    build(&format!(r"\A(?:{})\z", pattern_of(matcher)?))
}

/// Compiles an expression that may match anywhere, as rewrites do.
pub fn anywhere(matcher: pb::RegexMatcher) -> Result<Regex, Invalid> {
    build(&pattern_of(matcher)?)
}

fn pattern_of(mut matcher: pb::RegexMatcher) -> Result<String, Invalid> {
    // The engine is always RE2; its only option is a limit on program size that Envoy ignores today.
    matcher.engine_type = None;
    let pattern = std::mem::take(&mut matcher.regex);
    refuse_rest(&matcher)?;
    if pattern.is_empty() {
        return Err(Invalid::new("regex", "is required"));
    }
    Ok(pattern)
}

/// RE2's `\d`, `\w` and `\s` are ASCII, so Unicode mode is off, unless the pattern itself needs it.
fn build(pattern: &str) -> Result<Regex, Invalid> {
    let with = |unicode| {
        RegexBuilder::new(pattern)
            .unicode(unicode)
            .size_limit(REGEX_SIZE_LIMIT)
            .build()
    };
    with(false)
        .or_else(|_| with(true))
        .map_err(|error| Invalid::new("regex", format!("is not a valid expression: {error}")))
}
