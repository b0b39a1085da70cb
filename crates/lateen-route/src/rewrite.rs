//! Changes of the path and the host before a request is forwarded.

use std::borrow::Cow;

use http::HeaderName;
use lateen_xds::pb::envoy::r#type::matcher::v3::RegexMatchAndSubstitute;
use regex::bytes::Regex;

use crate::string_match::anywhere;
use crate::{Invalid, Route, Within};

/// How the path is changed. The query stays as it is.
#[derive(Debug)]
pub enum PathRewrite {
    /// The matched prefix (the whole path for exact and expression matches) is replaced.
    Prefix(String),
    /// Every match of the expression is replaced.
    Regex(RegexRewrite),
    /// The whole path is replaced.
    Full(String),
}

/// How the host is changed.
#[derive(Debug)]
pub enum HostRewrite {
    /// To this text.
    Literal(String),
    /// To a header's value, unless it is missing or empty.
    Header(HeaderName),
    /// To what an expression makes of the path.
    Path(RegexRewrite),
    /// To the host name of the chosen endpoint, if it has one.
    Endpoint,
}

/// Replaces every match of an expression.
#[derive(Debug, Clone)]
pub struct RegexRewrite {
    pattern: Regex,
    /// The replacement in the syntax of the `regex` crate.
    substitution: String,
}

impl RegexRewrite {
    /// Compiles an expression with its RE2 substitution (`\1`, `\\`).
    pub(crate) fn compile(rewrite: RegexMatchAndSubstitute) -> Result<Self, Invalid> {
        let pattern = rewrite
            .pattern
            .ok_or_else(|| Invalid::new("pattern", "is required"))?;
        let pattern = anywhere(pattern).within("pattern")?;
        let mut substitution = String::new();
        let mut characters = rewrite.substitution.chars();
        while let Some(character) = characters.next() {
            match character {
                '$' => substitution.push_str("$$"),
                '\\' => match characters.next() {
                    Some('\\') => substitution.push('\\'),
                    Some(digit @ '0'..='9') => {
                        if digit as usize - '0' as usize >= pattern.captures_len() {
                            return Err(Invalid::new(
                                "substitution",
                                "names a group that the pattern lacks",
                            ));
                        }
                        substitution.push_str(&format!("${{{digit}}}"));
                    }
                    _ => return Err(Invalid::new("substitution", "has an invalid escape")),
                },
                other => substitution.push(other),
            }
        }
        Ok(Self {
            pattern,
            substitution,
        })
    }

    /// The text with every match replaced.
    pub fn replace<'t>(&self, text: &'t [u8]) -> Cow<'t, [u8]> {
        self.pattern.replace_all(text, self.substitution.as_bytes())
    }
}

impl PathRewrite {
    /// Compiles an expression.
    pub(crate) fn regex(rewrite: RegexMatchAndSubstitute) -> Result<Self, Invalid> {
        RegexRewrite::compile(rewrite).map(Self::Regex)
    }

    /// The changed path with the original query; nothing when the result is not valid text, or there is no path.
    pub fn apply(&self, route: &Route, path_and_query: &str) -> Option<String> {
        if path_and_query.is_empty() {
            return None;
        }
        let end = path_and_query
            .find(['?', '#'])
            .unwrap_or(path_and_query.len());
        let (path, query) = path_and_query.split_at(end);
        let mut changed = match self {
            Self::Prefix(replacement) => {
                format!("{replacement}{}", &path[route.path.matched_length(path)..])
            }
            Self::Full(replacement) => replacement.clone(),
            Self::Regex(rewrite) => {
                String::from_utf8(rewrite.replace(path.as_bytes()).into_owned()).ok()?
            }
        };
        changed.push_str(query);
        Some(changed)
    }
}
