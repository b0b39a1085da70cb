//! Everything changes while traffic flows: no request fails, and memory stays where it was.
//!
//! `LATEEN_SOAK_MINUTES` says for how long, with a fraction if need be; without it, for some seconds.

#[allow(
    dead_code,
    unreachable_pub,
    reason = "the other tests of the proxy use the rest"
)]
#[path = "../proxy/support.rs"]
mod support;

#[allow(
    dead_code,
    unreachable_pub,
    reason = "the other tests of the proxy use the rest"
)]
#[path = "../proxy/tls_support.rs"]
mod tls_support;

mod change;
mod load;
mod mesh;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lateen_sys::allocation::CountingAllocator;

use change::Changes;
use load::Load;
use mesh::Mesh;

#[global_allocator]
static MEMORY: CountingAllocator = CountingAllocator::new();

const SECONDS: f64 = 12.0;

/// Time between two changes.
const PAUSE: Duration = Duration::from_millis(60);

/// What may come on top of a measurement after the first quarter: what is on its way at either moment differs, and so
/// does what the allocator keeps for later.
const HEAP_MARGIN: usize = 4 << 20;
const RESIDENT_MARGIN: usize = 24 << 20;
const FILES_MARGIN: usize = 64;

/// What the process uses: the proxy, and clients and endpoints that keep nothing.
#[derive(Debug, Clone, Copy)]
struct Usage {
    /// Bytes that are allocated.
    heap: usize,
    /// Bytes that are resident.
    resident: usize,
    /// Open descriptors.
    files: usize,
}

impl Usage {
    /// The least of some moments, as bursts say nothing.
    fn now() -> Self {
        let one = || Self {
            heap: MEMORY.used(),
            resident: resident(),
            files: std::fs::read_dir("/proc/self/fd").unwrap().count(),
        };
        let least = |a: Self, b: Self| Self {
            heap: a.heap.min(b.heap),
            resident: a.resident.min(b.resident),
            files: a.files.min(b.files),
        };
        let moments = (0..20).map(|_| {
            std::thread::sleep(Duration::from_millis(20));
            one()
        });
        moments.reduce(least).unwrap()
    }

    #[track_caller]
    fn assert_no_more_than(&self, before: &Self) {
        let pairs = [
            ("heap", self.heap, before.heap + HEAP_MARGIN),
            ("resident", self.resident, before.resident + RESIDENT_MARGIN),
            ("files", self.files, before.files + FILES_MARGIN),
        ];
        for (what, after, most) in pairs {
            assert!(after <= most, "{what} grew: {before:?}, then {self:?}");
        }
    }
}

fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1));
    kilobytes.unwrap().parse::<usize>().unwrap() << 10
}

fn duration() -> Duration {
    let minutes = std::env::var("LATEEN_SOAK_MINUTES").ok();
    let seconds = minutes.map_or(SECONDS, |minutes| minutes.parse::<f64>().unwrap() * 60.0);
    Duration::from_secs_f64(seconds)
}

#[test]
fn changes_break_no_request_and_leave_nothing_behind() {
    let mut mesh = Mesh::start();
    let load = Load::new(mesh.addresses, &mesh.client);
    let mut changes = Changes::default();
    let (whole, start) = (duration(), Instant::now());
    let stop = AtomicBool::new(false);
    let (early, late) = std::thread::scope(|scope| {
        let clients = load.start(scope, &stop);
        let mut measured = None;
        while start.elapsed() < whole && !clients.iter().any(|client| client.is_finished()) {
            if measured.is_none() && start.elapsed() > whole / 4 {
                measured = Some(Usage::now());
            }
            changes.one(&mut mesh);
            std::thread::sleep(PAUSE);
        }
        let late = Usage::now();
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().expect("a request failed");
        }
        (measured, late)
    });
    println!(
        "{} changes, {}; {early:?}, then {late:?}",
        changes.made, load.served
    );
    load.served.assert_all();
    assert!(mesh.endpoints_all_used(), "some endpoints got nothing");
    late.assert_no_more_than(&early.expect("the load lasted"));
}
