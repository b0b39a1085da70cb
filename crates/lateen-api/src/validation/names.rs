//! Rules for names, addresses and numbers.

use std::net::IpAddr;

use super::Problems;

/// Longest host name in bytes.
const MAX_HOST: usize = 255;
/// Longest label of a host name in bytes.
const MAX_LABEL: usize = 63;

/// Whether a number is a port.
pub fn is_port(port: u32) -> bool {
    (1..=65535).contains(&port)
}

/// Whether a text is a label of DNS: letters, digits and inner dashes.
pub fn is_dns_label(label: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    (1..=MAX_LABEL).contains(&label.len())
        && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        && edge(label.chars().next())
        && edge(label.chars().next_back())
}

/// Whether a text is a host name, with a dot at its end or without.
pub fn is_host(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.is_empty() || host.len() > MAX_HOST {
        return false;
    }
    let labels: Vec<&str> = host.split('.').collect();
    // The top label is never a number, so that names and addresses cannot be confused.
    let numeric = labels
        .last()
        .is_some_and(|top| top.chars().all(|c| c.is_ascii_digit()));
    !numeric && labels.into_iter().all(is_dns_label)
}

/// Whether a text is a host name, or one whose first label begins with or is a wildcard.
pub fn is_wildcard_host(host: &str) -> bool {
    let Some(rest) = host.strip_prefix('*') else {
        return is_host(host);
    };
    if rest.is_empty() {
        return true;
    }
    match rest.strip_prefix('.') {
        Some(domain) => is_host(domain),
        // `*suffix.domain`: the wildcard stands for the beginning of the label.
        None => is_host(&format!("a{rest}")),
    }
}

/// Whether a host's first label is a wildcard and more, `*a.example.com`: fine for routing, not where hosts are looked
/// up by their labels.
pub fn is_partial_wildcard(host: &str) -> bool {
    host.len() > 1 && host.starts_with('*') && !host.starts_with("*.")
}

/// Whether a text is an IP address.
pub fn is_address(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok()
}

/// Whether a text is an IP address or a network, `10.0.0.0/8`.
pub fn is_network(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else {
        return is_address(text);
    };
    let bits = match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    length.parse::<u8>().is_ok_and(|length| length <= bits)
}

/// Whether a text can be the name of a header. Pseudo headers count where `pseudo` says so.
pub fn is_header(name: &str, pseudo: bool) -> bool {
    let name = if pseudo {
        name.strip_prefix(':').unwrap_or(name)
    } else {
        name
    };
    !name.is_empty()
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c))
}

/// Whether a text is the name of a cluster in the form of a server name, `outbound_.80_.v1_.host`.
pub fn is_cluster_server_name(name: &str) -> bool {
    let mut parts = name.splitn(4, "_.");
    let direction = parts.next().unwrap_or_default();
    let port = parts.next().unwrap_or_default().parse();
    let (subset, host) = (parts.next(), parts.next().unwrap_or_default());
    matches!(direction, "outbound" | "inbound")
        && port.is_ok_and(is_port)
        && subset.is_some_and(|subset| subset.is_empty() || is_dns_label(subset))
        && is_host(host)
}

/// Whether a header value's `%` are operators of the proxy, `%HOSTNAME%`, or doubled.
pub fn is_header_value(value: &str) -> bool {
    let mut rest = value;
    while let Some(start) = rest.find('%') {
        let tail = &rest[start + 1..];
        if let Some(after) = tail.strip_prefix('%') {
            rest = after;
            continue;
        }
        let operator = tail
            .chars()
            .take_while(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || *c == '_')
            .count();
        let mut after = &tail[operator..];
        if operator == 0 {
            return false;
        }
        if let Some(argument) = after.strip_prefix('(') {
            let Some(end) = argument.find(')') else {
                return false;
            };
            after = &argument[end + 1..];
        }
        if let Some(length) = after.strip_prefix(':') {
            after = length.trim_start_matches(|c: char| c.is_ascii_digit());
        }
        let Some(after) = after.strip_prefix('%') else {
            return false;
        };
        rest = after;
    }
    true
}

/// Checks a list of namespaces that something is exported to. Services may be exported to nobody.
pub fn export_to(list: &[String], problems: &mut Problems) {
    problems.demand(
        !list.iter().any(|target| target == "~"),
        "exportTo",
        "~ (nobody) is for service entries: delete what nobody is to see",
    );
    service_export_to(list, problems);
}

/// Checks a list of namespaces that a service is exported to.
pub fn service_export_to(list: &[String], problems: &mut Problems) {
    let mut seen = std::collections::BTreeSet::new();
    problems.each("exportTo", list, |problems, target| {
        if !matches!(target.as_str(), "*" | "." | "~") && !is_dns_label(target) {
            problems.add(format!("{target:?} is neither *, ., ~ nor a namespace"));
        }
        if !seen.insert(target.clone()) {
            problems.add(format!("{target:?} is there twice"));
        }
    });
    let alone = |wanted: &str| list.iter().any(|target| target == wanted) && list.len() > 1;
    if alone("*") || alone("~") {
        problems.add_to(
            "exportTo",
            "* and ~ stand alone: others beside them have no meaning",
        );
    }
}

/// Whether a text is a regular expression that the proxy takes.
pub fn is_regex(expression: &str) -> bool {
    regex::Regex::new(expression).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_hosts() {
        let check = |host: &str, plain: bool, wildcard: bool| {
            assert_eq!(
                (is_host(host), is_wildcard_host(host)),
                (plain, wildcard),
                "{host}"
            );
        };
        check("a.example.com", true, true);
        check("a", true, true);
        check("*.example.com", false, true);
        check("*-a.example.com", false, true);
        check("*", false, true);
        check("*a.b", false, true);
        check("*a*", false, false);
        check("foo.*.bar", false, false);
        check("default/baz", false, false);
        check("1.2.3.4", false, false);
        check("-a", false, false);
        check("", false, false);
    }

    #[test]
    fn tells_header_values() {
        let check =
            |value: &str, expected: bool| assert_eq!(is_header_value(value), expected, "{value}");
        check("plain", true);
        check("100%%", true);
        check("%HOSTNAME%", true);
        check("%REQ(x-a)%", true);
        check("abcd%oijasodifj", false);
        check("%", false);
    }
}
