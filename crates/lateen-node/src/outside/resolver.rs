//! The host's nameservers, as resolv.conf(5) has them.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Where they are named.
const FILE: &str = "/etc/resolv.conf";

/// Most that are used, as in libc (`MAXNS`).
const MOST: usize = 3;

/// The port that they answer on.
const PORT: u16 = 53;

/// The host's nameservers; without a file there is one on the host itself.
pub(super) fn nameservers() -> Vec<SocketAddr> {
    read(&fs::read_to_string(FILE).unwrap_or_default())
}

fn read(text: &str) -> Vec<SocketAddr> {
    let named = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let address: IpAddr = match (words.next(), words.next()) {
            (Some("nameserver"), Some(address)) => address.parse().ok()?,
            _ => return None,
        };
        Some(SocketAddr::new(address, PORT))
    });
    let mut named: Vec<_> = named.take(MOST).collect();
    if named.is_empty() {
        named.push((Ipv4Addr::LOCALHOST, PORT).into());
    }
    named
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[&str]) {
        let found: Vec<_> = read(text).iter().map(ToString::to_string).collect();
        assert_eq!(found, expected, "{text:?}");
    }

    #[test]
    fn at_most_three_lines_name_one_each() {
        check("", &["127.0.0.1:53"]);
        check(
            "# by hand\nsearch lan\nnameserver 127.0.0.53\n nameserver fd00::1 # two\noptions edns0\n",
            &["127.0.0.53:53", "[fd00::1]:53"],
        );
        check(
            "nameserver 10.0.0.1\nnameserver x\nnameserver 10.0.0.2\nnameserver 10.0.0.3\nnameserver 10.0.0.4\n",
            &["10.0.0.1:53", "10.0.0.2:53", "10.0.0.3:53"],
        );
    }
}
