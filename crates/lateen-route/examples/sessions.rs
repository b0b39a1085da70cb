//! What sessions cost: `cargo run --release -p lateen-route --example sessions`. Prints the memory of a million live
//! sessions and the time of looking one up, renewing it, and beginning one.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lateen_route::session::SessionTable;

const SESSIONS: usize = 1_000_000;

fn main() {
    let endpoint = |number: usize| SocketAddr::from(([10, 0, 0, number as u8], 8080));
    let keys: Vec<String> = (0..SESSIONS)
        .map(|number| format!("user-{number:07}@example.org"))
        .collect();
    let before = resident();
    let start = Instant::now();
    let table = SessionTable::new(Duration::from_secs(600), 1 << 20, start);
    for (number, key) in keys.iter().enumerate() {
        table.claim(key.as_bytes(), endpoint(number % 5), None, start);
    }
    let began = start.elapsed();
    let grown = resident().saturating_sub(before);
    println!("{} live sessions in {} MB", table.len(), grown / 1_000_000);
    println!("{:.0} ns to begin one", each(began));
    // In an order that no cache foresees.
    let order: Vec<usize> = (0..SESSIONS)
        .map(|number| number * 7_368_787 % SESSIONS)
        .collect();
    let start = Instant::now();
    let found = order
        .iter()
        .filter(|number| table.renew(keys[**number].as_bytes(), start).is_some())
        .count();
    println!(
        "{:.0} ns to look one up and renew it ({found} found)",
        each(start.elapsed())
    );
}

fn each(time: Duration) -> f64 {
    time.as_nanos() as f64 / SESSIONS as f64
}

/// Resident memory of this process in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse().ok());
    kilobytes.unwrap_or(0_usize) * 1024
}
