//! Which images a key of `config.json` is for, as `pkg/credentialprovider/keyring.go` of Kubernetes decides.

use crate::Reference;

/// The key under which Docker keeps the credentials of its own registry.
const DOCKER: &str = "index.docker.io";

/// A key: a host whose parts may have globs (`*`, `?`), a port, and the beginning of a path. The order is that of the
/// texts, so that longer ones come later.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pattern(String);

impl Pattern {
    pub(super) fn new(key: &str) -> Self {
        let key = key
            .strip_prefix("https://")
            .or_else(|| key.strip_prefix("http://"))
            .unwrap_or(key);
        let (host, path) = key.split_at(key.find('/').unwrap_or(key.len()));
        // Versions of the API, which old keys have, are no part of an image's path.
        let path = match path {
            "/v1" | "/v2" => "",
            path if path.starts_with("/v1/") || path.starts_with("/v2/") => &path[3..],
            path => path,
        };
        let path = if path == "/" { "" } else { path };
        Self(format!("{host}{path}"))
    }

    /// Is the key for this image?
    pub(super) fn fits(&self, name: &Reference) -> bool {
        let (host, path) = self.0.split_at(self.0.find('/').unwrap_or(self.0.len()));
        let (host, port) = port(host);
        let (registry, registry_port) = port_of(name);
        let (globs, parts) = (host.split('.'), registry.split('.'));
        port == registry_port
            && globs.clone().count() == parts.clone().count()
            && globs.zip(parts).all(|(glob, part)| matches(glob, part))
            && format!("/{}", name.repository()).starts_with(path)
    }

    /// Is this the key of Docker's registry, and the image from there?
    pub(super) fn is_default(&self, name: &Reference) -> bool {
        self.0 == DOCKER && name.registry() == "docker.io"
    }
}

fn port_of(name: &Reference) -> (&str, Option<&str>) {
    port(name.registry())
}

/// Host and port; the brackets of an IPv6 address stay.
fn port(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    }
}

/// Does the text fit a glob of `*` and `?`, in any case?
fn matches(glob: &str, text: &str) -> bool {
    let (glob, text) = (glob.as_bytes(), text.as_bytes());
    // Where to go on when the glob's last star takes one byte more.
    let mut again = None;
    let (mut g, mut t) = (0, 0);
    while t < text.len() {
        match glob.get(g) {
            Some(b'*') => {
                again = Some((g + 1, t));
                g += 1;
            }
            Some(byte) if *byte == b'?' || byte.eq_ignore_ascii_case(&text[t]) => {
                g += 1;
                t += 1;
            }
            _ => match again {
                Some((after, taken)) => {
                    again = Some((after, taken + 1));
                    (g, t) = (after, taken + 1);
                }
                None => return false,
            },
        }
    }
    glob[g..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(key: &str, name: &str, expected: bool) {
        let name: Reference = name.parse().unwrap();
        let pattern = Pattern::new(key);
        let found = pattern.fits(&name) || pattern.is_default(&name);
        assert_eq!(found, expected, "{key} for {name}");
    }

    #[test]
    fn keys_fit_hosts_and_beginnings_of_paths() {
        for (key, name, expected) in [
            ("https://index.docker.io/v1/", "nginx", true),
            ("index.docker.io", "me/nginx", true),
            ("docker.io", "nginx", true),
            ("docker.io/me", "me/nginx", true),
            ("docker.io/me", "nginx", false),
            ("https://index.docker.io/v1/", "a.b/nginx", false),
            ("a.b", "a.b/x", true),
            ("https://a.b/v2/", "a.b/x", true),
            ("http://a.b", "a.b/x", true),
            ("a.b", "c.a.b/x", false),
            ("*.b", "a.b/x", true),
            ("*.b", "b.c/x", false),
            ("*.b", "c.a.b/x", false),
            ("*.*.b", "c.a.b/x", true),
            ("re*-?.b", "registry-1.b/x", true),
            ("re*-?.b", "registry-10.b/x", false),
            ("A.b", "a.b/x", true),
            ("a.b:5000", "a.b:5000/x", true),
            ("a.b", "a.b:5000/x", false),
            ("a.b:5000", "a.b/x", false),
            ("localhost:5000/team", "localhost:5000/team/x", true),
            ("localhost:5000/team", "localhost:5000/other/x", false),
            ("[::1]:5000", "[::1]:5000/x", true),
            ("[::1]", "[::1]/x", true),
            ("", "a.b/x", false),
        ] {
            check(key, name, expected);
        }
    }
}
