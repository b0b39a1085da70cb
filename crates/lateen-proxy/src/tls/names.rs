//! The names in a peer's certificate, and the matchers that a configuration holds against them.

use std::fmt::Write;
use std::net::IpAddr;

use lateen_route::string_match::StringMatch;
use lateen_route::{Invalid, Within, refuse_rest};
use lateen_xds::pb::envoy::extensions::transport_sockets::tls::v3::SubjectAltNameMatcher;
use lateen_xds::pb::envoy::extensions::transport_sockets::tls::v3::subject_alt_name_matcher::SanType;
use lateen_xds::pb::envoy::r#type::matcher::v3::StringMatcher;
use lateen_xds::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

/// A kind of subject alternative name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NameKind {
    Email,
    Dns,
    Uri,
    Ip,
}

/// One subject alternative name, as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) kind: NameKind,
    pub(crate) value: String,
}

/// A condition on one name.
#[derive(Debug, Clone)]
pub(crate) struct NameMatcher {
    /// Nothing: names of any kind (the deprecated untyped form).
    kind: Option<NameKind>,
    pattern: StringMatch,
    /// The name that an exact pattern asks for: a DNS name in a certificate may stand for it by a wildcard.
    exact: Option<String>,
}

impl NameMatcher {
    /// Compiles `match_typed_subject_alt_names`.
    pub(crate) fn typed(mut message: SubjectAltNameMatcher) -> Result<Self, Invalid> {
        let kind = match SanType::try_from(std::mem::take(&mut message.san_type)) {
            Ok(SanType::Email) => NameKind::Email,
            Ok(SanType::Dns) => NameKind::Dns,
            Ok(SanType::Uri) => NameKind::Uri,
            Ok(SanType::IpAddress) => NameKind::Ip,
            _ => return Err(Invalid::unsupported("san_type")),
        };
        let matcher = message
            .matcher
            .take()
            .ok_or_else(|| Invalid::new("matcher", "is required"))?;
        refuse_rest(&message)?;
        Self::new(Some(kind), matcher).within("matcher")
    }

    /// Compiles the deprecated `match_subject_alt_names`.
    pub(crate) fn untyped(matcher: StringMatcher) -> Result<Self, Invalid> {
        Self::new(None, matcher)
    }

    /// Asks for this DNS name.
    pub(crate) fn dns(name: &str) -> Self {
        Self {
            kind: Some(NameKind::Dns),
            pattern: StringMatch::Exact(name.to_owned()),
            exact: Some(name.to_ascii_lowercase()),
        }
    }

    fn new(kind: Option<NameKind>, matcher: StringMatcher) -> Result<Self, Invalid> {
        let exact = match &matcher.match_pattern {
            Some(MatchPattern::Exact(name)) => Some(name.to_ascii_lowercase()),
            _ => None,
        };
        let pattern = StringMatch::compile(matcher)?;
        Ok(Self {
            kind,
            pattern,
            exact,
        })
    }

    /// Whether a name fits.
    pub(crate) fn matches(&self, name: &Name) -> bool {
        if self.kind.is_some_and(|kind| kind != name.kind) {
            return false;
        }
        match &self.exact {
            Some(wanted) if name.kind == NameKind::Dns => stands_for(&name.value, wanted),
            _ => self.pattern.matches(name.value.as_bytes()),
        }
    }
}

/// Whether a DNS name of a certificate stands for a name: equal, or with a wildcard for its first label (RFC 6125,
/// section 6.4.3; a wildcard is the whole label, and never stands for more than one).
pub(crate) fn stands_for(presented: &str, wanted: &str) -> bool {
    if presented.eq_ignore_ascii_case(wanted) {
        return true;
    }
    let Some(suffix) = presented.strip_prefix("*.") else {
        return false;
    };
    wanted
        .split_once('.')
        .is_some_and(|(first, rest)| !first.is_empty() && rest.eq_ignore_ascii_case(suffix))
}

/// The subject alternative names of a certificate, in order. Kinds that nothing matches on are left out.
pub(crate) fn alternative_names(certificate: &X509Certificate<'_>) -> Vec<Name> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let convert = |name: &GeneralName<'_>| {
        let (kind, value) = match name {
            GeneralName::RFC822Name(text) => (NameKind::Email, (*text).to_owned()),
            GeneralName::DNSName(text) => (NameKind::Dns, (*text).to_owned()),
            GeneralName::URI(text) => (NameKind::Uri, (*text).to_owned()),
            GeneralName::IPAddress(bytes) => (NameKind::Ip, ip(bytes)?.to_string()),
            _ => return None,
        };
        Some(Name { kind, value })
    };
    extension
        .value
        .general_names
        .iter()
        .filter_map(convert)
        .collect()
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

/// A distinguished name in the form of RFC 2253: the last attribute first, separated by commas.
pub(crate) fn rfc_2253(name: &x509_parser::x509::X509Name<'_>) -> String {
    let mut parts = Vec::new();
    for relative in name.iter_rdn() {
        let mut text = String::new();
        for (index, attribute) in relative.iter().enumerate() {
            if index > 0 {
                text.push('+');
            }
            let oid = attribute.attr_type();
            let short = match oid.to_id_string().as_str() {
                "2.5.4.3" => "CN",
                "2.5.4.4" => "SN",
                "2.5.4.5" => "serialNumber",
                "2.5.4.6" => "C",
                "2.5.4.7" => "L",
                "2.5.4.8" => "ST",
                "2.5.4.9" => "street",
                "2.5.4.10" => "O",
                "2.5.4.11" => "OU",
                "2.5.4.12" => "title",
                "2.5.4.42" => "GN",
                "1.2.840.113549.1.9.1" => "emailAddress",
                "0.9.2342.19200300.100.1.1" => "UID",
                "0.9.2342.19200300.100.1.25" => "DC",
                _ => "",
            };
            let value = attribute.as_str().unwrap_or_default();
            let written = if short.is_empty() {
                write!(text, "{oid}={}", escape(value))
            } else {
                write!(text, "{short}={}", escape(value))
            };
            // Writing to a string cannot fail.
            let _ = written;
        }
        parts.push(text);
    }
    parts.reverse();
    parts.join(",")
}

/// Escapes a value as RFC 2253 (section 2.4) asks.
fn escape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let last = value.chars().count().saturating_sub(1);
    for (index, character) in value.chars().enumerate() {
        let at_edge = character == ' ' && (index == 0 || index == last);
        if at_edge
            || matches!(character, ',' | '+' | '"' | '\\' | '<' | '>' | ';')
            || (index == 0 && character == '#')
        {
            out.push('\\');
        }
        out.push(character);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_stands_for_one_label() {
        for (presented, wanted, fits) in [
            ("a.example.com", "a.example.com", true),
            ("A.example.com", "a.EXAMPLE.com", true),
            ("*.example.com", "a.example.com", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", "a.b.example.com", false),
            ("*.example.com", ".example.com", false),
            ("a*.example.com", "ab.example.com", false),
            ("*", "com", false),
        ] {
            assert_eq!(stands_for(presented, wanted), fits, "{presented} {wanted}");
        }
    }

    #[test]
    fn a_matcher_looks_at_names_of_its_kind() {
        let pattern = |pattern| StringMatcher {
            match_pattern: Some(pattern),
            ..StringMatcher::default()
        };
        let typed = |kind: SanType, matcher| {
            NameMatcher::typed(SubjectAltNameMatcher {
                san_type: kind.into(),
                matcher: Some(matcher),
                ..SubjectAltNameMatcher::default()
            })
            .unwrap()
        };
        let uri = Name {
            kind: NameKind::Uri,
            value: "spiffe://d/ns/a/sa/b".to_owned(),
        };
        let dns = Name {
            kind: NameKind::Dns,
            value: "*.example.com".to_owned(),
        };
        let prefix = pattern(MatchPattern::Prefix("spiffe://d/".to_owned()));
        let exact = pattern(MatchPattern::Exact("a.example.com".to_owned()));
        for (matcher, name, fits) in [
            (typed(SanType::Uri, prefix.clone()), &uri, true),
            (typed(SanType::Dns, prefix.clone()), &uri, false),
            (NameMatcher::untyped(prefix).unwrap(), &uri, true),
            (typed(SanType::Dns, exact.clone()), &dns, true),
            (typed(SanType::Uri, exact), &dns, false),
            (NameMatcher::dns("B.example.com"), &dns, true),
            (NameMatcher::dns("b.c.example.com"), &dns, false),
        ] {
            assert_eq!(matcher.matches(name), fits, "{matcher:?} {name:?}");
        }
    }
}
