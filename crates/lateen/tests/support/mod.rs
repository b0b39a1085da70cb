//! What the end-to-end tests share: meshes brought up with the real binary, real `kubectl`, real clients.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test target uses its part of the support"
)]

pub mod account;
pub mod burn;
pub mod canary;
pub mod forward;
pub mod image;
pub mod lab;
pub mod mesh;
pub mod rows;
pub mod session;

use std::time::{Duration, Instant};

/// Waits until `condition` gives a value, and fails with `what` after `within`.
pub fn eventually<T>(
    what: &str,
    within: Duration,
    mut condition: impl FnMut() -> Result<T, String>,
) -> T {
    let deadline = Instant::now() + within;
    loop {
        match condition() {
            Ok(value) => return value,
            Err(why) if Instant::now() > deadline => panic!("{what}: not within {within:?}: {why}"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}
