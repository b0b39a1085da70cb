//! The memory of many sessions, alone in its process so that nothing else is counted.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lateen_route::session::SessionTable;

/// Bytes that a million live sessions may take.
const LIMIT: usize = 200_000_000;

fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix("kB"));
    let kilobytes = kilobytes.expect("in kilobytes").trim();
    kilobytes.parse::<usize>().expect("a number") * 1024
}

#[test]
fn a_million_live_sessions_fit_into_200_megabytes() {
    let now = Instant::now();
    let before = resident();
    let table = SessionTable::new(Duration::from_secs(60), 1 << 20, now);
    let endpoint = |number: u32| SocketAddr::from(([10, 0, 0, number as u8], 8080));
    for number in 0..1_000_000_u32 {
        let key = format!("user-{number:07}@example.org");
        table.claim(key.as_bytes(), endpoint(number % 5), None, now);
    }
    let grown = resident() - before;
    println!("1,000,000 sessions take {} MB", grown / 1_000_000);
    assert_eq!(table.len(), 1_000_000, "none was given up");
    assert!(grown <= LIMIT, "{grown} bytes");
    for number in [0, 499_999, 999_999_u32] {
        let key = format!("user-{number:07}@example.org");
        assert_eq!(table.renew(key.as_bytes(), now), Some(endpoint(number % 5)));
    }
}
