//! Header and query parameter matchers of a route.

use http::HeaderName;
use lateen_xds::pb::envoy::config::route::v3 as pb;
use lateen_xds::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier as H;
use lateen_xds::pb::envoy::config::route::v3::query_parameter_matcher::QueryParameterMatchSpecifier as Q;

use crate::constraint::not_empty;
use crate::string_match::{StringMatch, full_match};
use crate::{Invalid, RequestView, Within, refuse_rest};

/// Most bytes of the name of a query parameter.
const PARAMETER_NAME_LIMIT: usize = 1024;

/// A condition on one header.
#[derive(Debug, Clone)]
pub struct HeaderMatch {
    name: Name,
    invert: bool,
    missing_is_empty: bool,
    test: Test,
}

#[derive(Debug, Clone)]
enum Name {
    /// `:method`, `:path`, `:authority`, `:scheme` or `host`.
    Pseudo(String),
    Field(HeaderName),
}

#[derive(Debug, Clone)]
enum Test {
    Present(bool),
    Text(StringMatch),
    Range { start: i64, end: i64 },
}

impl HeaderMatch {
    /// The condition that a header is there.
    pub fn present(name: HeaderName) -> Self {
        Self {
            name: Name::Field(name),
            invert: false,
            missing_is_empty: false,
            test: Test::Present(true),
        }
    }

    /// Compiles the protobuf form.
    pub fn compile(mut matcher: pb::HeaderMatcher) -> Result<Self, Invalid> {
        let name = std::mem::take(&mut matcher.name);
        let invert = std::mem::take(&mut matcher.invert_match);
        let missing_is_empty = std::mem::take(&mut matcher.treat_missing_header_as_empty);
        let specifier = matcher.header_match_specifier.take();
        refuse_rest(&matcher)?;
        let lower = name.to_ascii_lowercase();
        let name = match lower.as_str() {
            ":method" | ":path" | ":authority" | ":scheme" | "host" => Name::Pseudo(lower),
            _ => Name::Field(HeaderName::from_bytes(lower.as_bytes()).map_err(|_| {
                Invalid::new("name", format!("`{name}` is not a valid header name"))
            })?),
        };
        if let Some(H::PrefixMatch(text) | H::SuffixMatch(text) | H::ContainsMatch(text)) =
            &specifier
        {
            not_empty("header_match_specifier", text)?;
        }
        // The deprecated plain forms mean the same as the string matcher of that kind.
        let test = match specifier {
            None => Test::Present(true),
            Some(H::PresentMatch(present)) => Test::Present(present),
            Some(H::ExactMatch(text)) => Test::Text(StringMatch::Exact(text)),
            Some(H::PrefixMatch(text)) => Test::Text(StringMatch::Prefix(text)),
            Some(H::SuffixMatch(text)) => Test::Text(StringMatch::Suffix(text)),
            Some(H::ContainsMatch(text)) => Test::Text(StringMatch::Contains(text)),
            Some(H::SafeRegexMatch(regex)) => Test::Text(StringMatch::Regex(
                full_match(regex).within("safe_regex_match")?,
            )),
            Some(H::StringMatch(matcher)) => {
                Test::Text(StringMatch::compile(matcher).within("string_match")?)
            }
            Some(H::RangeMatch(range)) => Test::Range {
                start: range.start,
                end: range.end,
            },
        };
        Ok(Self {
            name,
            invert,
            missing_is_empty,
            test,
        })
    }

    /// Whether the request satisfies the condition.
    ///
    /// Repeated lines are tested one by one, any of them suffices (Envoy since 1.39); inversion means that no line
    /// matches. A missing header never matches, inverted or not, unless it counts as empty.
    pub fn matches(&self, request: &RequestView<'_>) -> bool {
        match &self.name {
            Name::Pseudo(name) => {
                let value = request
                    .pseudo_header(name)
                    .filter(|value| !value.is_empty());
                self.judge(value.map(str::as_bytes).into_iter())
            }
            Name::Field(name) => self.judge(
                request
                    .headers
                    .get_all(name)
                    .iter()
                    .map(|value| value.as_bytes()),
            ),
        }
    }

    fn judge<'v>(&self, values: impl Iterator<Item = &'v [u8]>) -> bool {
        let mut values = values.peekable();
        let present = values.peek().is_some();
        if let Test::Present(wanted) = self.test {
            let present = present || self.missing_is_empty;
            return (present == wanted) != self.invert;
        }
        if !present && !self.missing_is_empty {
            return false;
        }
        let matched = if present {
            values.any(|value| self.test_value(value))
        } else {
            self.test_value(b"")
        };
        matched != self.invert
    }

    fn test_value(&self, value: &[u8]) -> bool {
        match &self.test {
            Test::Present(_) => true,
            Test::Text(matcher) => matcher.matches(value),
            Test::Range { start, end } => std::str::from_utf8(value)
                .ok()
                .and_then(|text| text.parse::<i64>().ok())
                .is_some_and(|number| (*start..*end).contains(&number)),
        }
    }
}

/// A condition on one cookie.
#[derive(Debug, Clone)]
pub struct CookieMatch {
    name: String,
    test: StringMatch,
    invert: bool,
}

impl CookieMatch {
    /// Compiles the protobuf form.
    pub fn compile(mut matcher: pb::CookieMatcher) -> Result<Self, Invalid> {
        let name = std::mem::take(&mut matcher.name);
        not_empty("name", &name)?;
        let test = matcher
            .string_match
            .take()
            .ok_or_else(|| Invalid::new("string_match", "is required"))?;
        let test = StringMatch::compile(test).within("string_match")?;
        let invert = std::mem::take(&mut matcher.invert_match);
        refuse_rest(&matcher)?;
        Ok(Self { name, test, invert })
    }

    /// Whether the request satisfies the condition. Without the cookie only an inverted one holds.
    pub fn matches(&self, request: &RequestView<'_>) -> bool {
        let value = request.cookie(&self.name);
        value.is_some_and(|value| self.test.matches(value.as_bytes())) != self.invert
    }
}

/// A condition on one query parameter.
#[derive(Debug, Clone)]
pub struct QueryMatch {
    name: String,
    /// Nothing: the parameter must be present.
    test: Option<StringMatch>,
    present: bool,
}

impl QueryMatch {
    /// Compiles the protobuf form.
    pub fn compile(mut matcher: pb::QueryParameterMatcher) -> Result<Self, Invalid> {
        let name = std::mem::take(&mut matcher.name);
        not_empty("name", &name)?;
        if name.len() > PARAMETER_NAME_LIMIT {
            let reason = format!("must have at most {PARAMETER_NAME_LIMIT} bytes");
            return Err(Invalid::new("name", reason));
        }
        let specifier = matcher.query_parameter_match_specifier.take();
        refuse_rest(&matcher)?;
        let (test, present) = match specifier {
            Some(Q::StringMatch(matcher)) => (
                Some(StringMatch::compile(matcher).within("string_match")?),
                true,
            ),
            Some(Q::PresentMatch(present)) => (None, present),
            None => (None, true),
        };
        Ok(Self {
            name,
            test,
            present,
        })
    }

    /// Whether the request satisfies the condition. The first value of the parameter counts.
    pub fn matches(&self, request: &RequestView<'_>) -> bool {
        match (&self.test, request.query_parameter(&self.name)) {
            (Some(test), Some(value)) => test.matches(value.as_bytes()),
            (Some(_), None) => false,
            (None, value) => value.is_some() == self.present,
        }
    }
}
