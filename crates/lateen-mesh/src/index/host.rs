//! Names of hosts: what a short one means, and what a wildcard covers.

use super::Index;

impl Index {
    /// The full host of a name in a namespace's configuration.
    pub fn resolve(&self, host: &str, namespace: &str) -> String {
        resolve_host(host, namespace, &self.mesh.domain)
    }
}

/// Whether `pattern` (a host, `*.domain` or `*`) covers `host`, which may be a wildcard itself.
pub fn host_matches(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some("") => true,
        Some(suffix) => host.strip_prefix('*').unwrap_or(host).ends_with(suffix),
        None => pattern == host,
    }
}

/// The full host of a name in a namespace's configuration: names without a dot are services of the namespace.
pub fn resolve_host(host: &str, namespace: &str, domain: &str) -> String {
    let host = host.to_ascii_lowercase();
    // No name is no service. Colons are of IPv6 addresses.
    if host.is_empty() || host.contains(['.', ':']) || host.starts_with('*') {
        host
    } else {
        format!("{host}.{namespace}.svc.{domain}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_match_by_suffix() {
        let check = |pattern, host, expected| {
            assert_eq!(host_matches(pattern, host), expected, "{pattern} {host}")
        };
        check("*", "a.example.com", true);
        check("*.example.com", "a.example.com", true);
        check("*.example.com", "example.com", false);
        check("*.example.com", "*.b.example.com", true);
        check("a.example.com", "a.example.com", true);
        check("a.example.com", "b.example.com", false);
    }

    #[test]
    fn short_names_are_of_the_namespace() {
        let check =
            |host, expected| assert_eq!(resolve_host(host, "shop", "cluster.local"), expected);
        check("reviews", "reviews.shop.svc.cluster.local");
        check("Reviews.Other", "reviews.other");
        check("*", "*");
    }
}
