//! What the system says about names: `/etc/resolv.conf` and `/etc/hosts`.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Most bytes of either file that are read.
const LONGEST: u64 = 1 << 20;

/// Most servers that are asked, as in the C library.
const MOST_SERVERS: usize = 3;

/// `resolv.conf(5)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct System {
    pub(super) servers: Vec<SocketAddr>,
    pub(super) search: Vec<String>,
    /// Names with at least that many dots are tried as they are first.
    pub(super) dots: usize,
    pub(super) timeout: Duration,
    pub(super) tries: u32,
}

impl System {
    pub(super) fn load() -> Self {
        Self::parse(&read("/etc/resolv.conf"))
    }

    fn parse(text: &str) -> Self {
        let mut system = Self {
            servers: Vec::new(),
            search: Vec::new(),
            dots: 1,
            timeout: Duration::from_secs(5),
            tries: 2,
        };
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    // The zone of a link-local address has no meaning here.
                    let server = words.next().and_then(|word| word.split('%').next());
                    let server = server.and_then(|word| word.parse::<IpAddr>().ok());
                    if let Some(ip) = server.filter(|_| system.servers.len() < MOST_SERVERS) {
                        system.servers.push(SocketAddr::new(ip, 53));
                    }
                }
                Some("search" | "domain") => {
                    system.search = words
                        .map(|word| word.trim_end_matches('.').to_owned())
                        .collect();
                }
                Some("options") => {
                    for option in words {
                        system.option(option);
                    }
                }
                _ => {}
            }
        }
        system
    }

    fn option(&mut self, option: &str) {
        let Some((name, Ok(value))) = option
            .split_once(':')
            .map(|(name, value)| (name, value.parse::<u32>()))
        else {
            return;
        };
        match name {
            "ndots" => self.dots = value.min(15) as usize,
            "timeout" => self.timeout = Duration::from_secs(value.clamp(1, 30).into()),
            "attempts" => self.tries = value.clamp(1, 5),
            _ => {}
        }
    }

    /// Names that are tried in turn for `name`.
    pub(super) fn candidates(&self, name: &str, search: bool) -> Vec<String> {
        if let Some(absolute) = name.strip_suffix('.') {
            return vec![absolute.to_owned()];
        }
        let mut candidates: Vec<String> = if search {
            let longer = self.search.iter().filter(|domain| !domain.is_empty());
            longer.map(|domain| format!("{name}.{domain}")).collect()
        } else {
            Vec::new()
        };
        let first = name.matches('.').count() >= self.dots;
        candidates.insert(if first { 0 } else { candidates.len() }, name.to_owned());
        candidates
    }
}

/// Addresses of a name in `/etc/hosts`.
pub(super) fn hosts(name: &str) -> Vec<IpAddr> {
    find(&read("/etc/hosts"), name)
}

fn find(text: &str, name: &str) -> Vec<IpAddr> {
    let name = name.trim_end_matches('.');
    let mut found = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let Some(Ok(address)) = words.next().map(str::parse::<IpAddr>) else {
            continue;
        };
        if words.any(|word| word.eq_ignore_ascii_case(name)) && !found.contains(&address) {
            found.push(address);
        }
    }
    found
}

/// A file as far as it is sensible; nothing when it cannot be read.
fn read(path: &str) -> String {
    use std::io::Read;
    let mut text = String::new();
    if let Ok(file) = std::fs::File::open(path) {
        let _ = file.take(LONGEST).read_to_string(&mut text);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{System, find};

    #[test]
    fn the_search_list_depends_on_the_dots() {
        let system = System::parse(
            "# comment\nnameserver 10.0.0.1\nnameserver fe80::1%eth0\nnameserver x\n\
             search lab.svc.cluster.local svc.cluster.local.\noptions ndots:2 timeout:1 attempts:9 edns0\n",
        );
        let servers: Vec<_> = system.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["10.0.0.1:53", "[fe80::1]:53"]);
        assert_eq!((system.timeout.as_secs(), system.tries), (1, 5));
        for (name, search, expected) in [
            (
                "web",
                true,
                &["web.lab.svc.cluster.local", "web.svc.cluster.local", "web"][..],
            ),
            (
                "a.b.c",
                true,
                &[
                    "a.b.c",
                    "a.b.c.lab.svc.cluster.local",
                    "a.b.c.svc.cluster.local",
                ],
            ),
            ("web", false, &["web"]),
            ("web.", true, &["web"]),
        ] {
            assert_eq!(system.candidates(name, search), expected, "{name}");
        }
    }

    #[test]
    fn hosts_have_several_names() {
        let text = "127.0.0.1 localhost  here # there\n::1 localhost ip6\n10.0.0.9 HERE\n# 1.1.1.1 here\nbad here\n";
        for (name, expected) in [
            ("localhost", &["127.0.0.1", "::1"][..]),
            ("here", &["127.0.0.1", "10.0.0.9"]),
            ("here.", &["127.0.0.1", "10.0.0.9"]),
            ("there", &[]),
        ] {
            let found: Vec<_> = find(text, name).iter().map(ToString::to_string).collect();
            assert_eq!(found, expected, "{name}");
        }
    }
}
