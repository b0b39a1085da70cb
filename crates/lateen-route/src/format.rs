//! Envoy's substitution format: text with `%OPERATOR(argument):length%` commands, used by access logs and header
//! values. This module parses; whoever knows the request supplies the values through [`Values`].

mod json;
mod operator;

pub use json::JsonTemplate;
pub use operator::{GrpcForm, HeaderRef, Operator, PathSource, TimeFormat, Tls};

use operator::operator;

use crate::Invalid;

/// A parsed format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Command {
        operator: Operator,
        limit: Option<usize>,
    },
}

/// Supplies the values of one request.
pub trait Values {
    /// Appends the operator's value to `out`; false when there is none.
    fn write(&self, operator: &Operator, out: &mut String) -> bool;
}

impl Template {
    /// Parses a format.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(start) = rest.find('%') {
            literal.push_str(&rest[..start]);
            let after = &rest[start + 1..];
            if let Some(tail) = after.strip_prefix('%') {
                literal.push('%');
                rest = tail;
                continue;
            }
            let (piece, tail) = parse_command(after)?;
            if !literal.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut literal)));
            }
            pieces.push(piece);
            rest = tail;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            pieces.push(Piece::Text(literal));
        }
        Ok(Self { pieces })
    }

    /// The text, when the format has no commands.
    pub fn literal(&self) -> Option<&str> {
        match self.pieces.as_slice() {
            [] => Some(""),
            [Piece::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Cuts what was written after `start` to a number of characters.
    fn shorten(out: &mut String, start: usize, limit: Option<usize>) {
        if let Some(limit) = limit
            && let Some((cut, _)) = out[start..].char_indices().nth(limit)
        {
            out.truncate(start + cut);
        }
    }

    /// Writes the format with `values`; a missing value is written as `missing`.
    pub fn write(&self, values: &dyn Values, missing: &str, out: &mut String) {
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Command { operator, limit } => {
                    let start = out.len();
                    if !values.write(operator, out) {
                        out.truncate(start);
                        out.push_str(missing);
                    } else {
                        Self::shorten(out, start, *limit);
                    }
                }
            }
        }
    }
}

/// Parses what follows a `%` up to and including the closing one.
fn parse_command(text: &str) -> Result<(Piece, &str), Invalid> {
    let refused =
        |what: &str| Invalid::new("", format!("format command `%{what}%` is not supported"));
    let name_end = text
        .find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'))
        .ok_or_else(|| Invalid::new("", "format has a `%` without its closing one"))?;
    let (name, mut rest) = text.split_at(name_end);
    let mut argument = None;
    if let Some(inner) = rest.strip_prefix('(') {
        let end = inner
            .find(')')
            .ok_or_else(|| Invalid::new("", "format command has no closing parenthesis"))?;
        argument = Some(&inner[..end]);
        rest = &inner[end + 1..];
    }
    let mut limit = None;
    if let Some(inner) = rest.strip_prefix(':') {
        let end = inner.find('%').unwrap_or(inner.len());
        limit = Some(inner[..end].parse().map_err(|_| refused(name))?);
        rest = &inner[end..];
    }
    let tail = rest
        .strip_prefix('%')
        .ok_or_else(|| Invalid::new("", "format has a `%` without its closing one"))?;
    let operator = operator(name, argument).ok_or_else(|| refused(name))?;
    Ok((Piece::Command { operator, limit }, tail))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;
    impl Values for Fixed {
        fn write(&self, operator: &Operator, out: &mut String) -> bool {
            match operator {
                Operator::Request(header) if header.name == ":path" => out.push_str("/abc"),
                Operator::Request(header) => match &header.fallback {
                    Some(name) => out.push_str(name),
                    None => return false,
                },
                Operator::ResponseCode => out.push_str("200"),
                _ => return false,
            }
            true
        }
    }

    #[test]
    fn commands_are_replaced_shortened_and_defaulted() {
        for (format, written) in [
            ("plain", "plain"),
            ("100%% %RESPONSE_CODE%\n", "100% 200\n"),
            ("%REQ(:PATH):3%|", "/ab|"),
            ("%REQ(X-A?X-B)%", "x-b"),
            ("\"%REQ(USER-AGENT)%\" %UPSTREAM_HOST%", "\"-\" -"),
        ] {
            let mut out = String::new();
            Template::parse(format)
                .unwrap()
                .write(&Fixed, "-", &mut out);
            assert_eq!(out, written, "{format}");
        }
    }

    #[test]
    fn broken_or_unknown_commands_are_refused() {
        for format in [
            "%",
            "%RESPONSE_CODE",
            "%REQ(x%",
            "%NOPE%",
            "%REQ()%",
            "%REQ(a):x%",
        ] {
            assert!(Template::parse(format).is_err(), "{format}");
        }
    }
}
