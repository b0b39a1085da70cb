//! What the pods' processes use: sampled from `/proc`, as an ordinary user has no control groups.
//!
//! The processes of a container are those of its pid namespace. What ended is in the times of its parent, at last
//! in those of the container's pid 1, so that nothing is lost between two samples.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use parking_lot::Mutex;
use serde::Serialize;

use crate::pods::Pods;
use crate::pods::resources;

/// Time between samples.
const PERIOD: Duration = Duration::from_secs(5);

/// Usage is told over at least two samples, and at most this time.
const WINDOW: Duration = Duration::from_secs(15);

/// Clock ticks of `/proc/PID/stat` in a second, which Linux fixes for programs (`USER_HZ`).
const TICKS: u64 = 100;

/// A pid namespace, by the text of its link in `/proc`.
type Namespace = String;

/// Samples of all running containers and of the machine.
#[derive(Debug, Default)]
pub(crate) struct Usages {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    machine: VecDeque<Sample>,
    containers: HashMap<Namespace, VecDeque<Sample>>,
}

/// Processor time since the start, and memory, at one moment.
#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Instant,
    wall: Timestamp,
    processor: Duration,
    memory: u64,
}

/// The answer to the API server.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    node: Option<NodeUsage>,
    pods: Vec<PodUsage>,
}

#[derive(Debug, Serialize)]
struct NodeUsage {
    name: String,
    #[serde(flatten)]
    usage: Usage,
    #[serde(flatten)]
    measured: Measured,
}

#[derive(Debug, Serialize)]
struct PodUsage {
    namespace: String,
    name: String,
    #[serde(flatten)]
    measured: Measured,
    containers: Vec<ContainerUsage>,
}

#[derive(Debug, Serialize)]
struct ContainerUsage {
    name: String,
    #[serde(flatten)]
    usage: Usage,
}

/// Billionths of a processor, and bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct Usage {
    cpu: u64,
    memory: u64,
}

#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
struct Measured {
    timestamp: Timestamp,
    window_millis: u64,
}

impl Usages {
    /// Takes samples for ever.
    pub(crate) async fn follow(self: Arc<Self>, pods: Arc<Pods>) {
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let (usages, pods) = (self.clone(), pods.clone());
            // Reading `/proc` of some hundred processes takes milliseconds, too long for a task among others.
            let sampling = tokio::task::spawn_blocking(move || usages.sample(&pods));
            if let Err(error) = sampling.await {
                tracing::warn!(%error, "cannot sample the usage of pods");
            }
        }
    }

    /// What is known, pod by pod. A pod is left out until all of its running containers have been sampled twice.
    pub(crate) fn report(&self, node: &str, pods: &Pods) -> Report {
        let inner = self.inner.lock();
        let machine = usage_of(&inner.machine);
        let mut report = Report {
            node: machine.map(|(usage, measured)| NodeUsage {
                name: node.to_owned(),
                usage,
                measured,
            }),
            pods: Vec::new(),
        };
        for pod in pods.all() {
            let mut measured = None;
            let containers: Option<Vec<ContainerUsage>> = pod
                .runs()
                .into_iter()
                .map(|(name, run)| {
                    let samples = inner.containers.get(&namespace_of(run.running.pid())?)?;
                    let (usage, time) = usage_of(samples)?;
                    measured = Some(time);
                    Some(ContainerUsage { name, usage })
                })
                .collect();
            let (Some(mut containers), Some(measured)) = (containers, measured) else {
                continue;
            };
            containers.sort_by(|one, other| one.name.cmp(&other.name));
            let object = pod.pod();
            report.pods.push(PodUsage {
                namespace: object.metadata.namespace.clone().unwrap_or_default(),
                name: object.metadata.name.clone().unwrap_or_default(),
                measured,
                containers,
            });
        }
        report
    }

    fn sample(&self, pods: &Pods) {
        let (at, wall) = (Instant::now(), Timestamp::now());
        let mut found = processes();
        let mut inner = self.inner.lock();
        if let Some((processor, memory)) = machine() {
            let sample = Sample {
                at,
                wall,
                processor,
                memory,
            };
            remember(&mut inner.machine, sample);
        }
        let mut kept = HashMap::new();
        for pod in pods.all() {
            for (_, run) in pod.runs() {
                let Some(namespace) = namespace_of(run.running.pid()) else {
                    continue;
                };
                let Some((processor, memory)) = found.remove(&namespace) else {
                    continue;
                };
                let mut samples = inner.containers.remove(&namespace).unwrap_or_default();
                let sample = Sample {
                    at,
                    wall,
                    processor,
                    memory,
                };
                remember(&mut samples, sample);
                kept.insert(namespace, samples);
            }
        }
        inner.containers = kept;
    }
}

fn remember(samples: &mut VecDeque<Sample>, sample: Sample) {
    while samples.len() > 1 && sample.at.duration_since(samples[0].at) > WINDOW {
        samples.pop_front();
    }
    samples.push_back(sample);
}

/// Usage between the first and the last sample.
fn usage_of(samples: &VecDeque<Sample>) -> Option<(Usage, Measured)> {
    let (first, last) = (samples.front()?, samples.back()?);
    let window = last.at.duration_since(first.at);
    if window.is_zero() {
        return None;
    }
    let used = last.processor.saturating_sub(first.processor);
    let usage = Usage {
        cpu: (used.as_secs_f64() / window.as_secs_f64() * 1e9) as u64,
        memory: last.memory,
    };
    let measured = Measured {
        timestamp: last.wall,
        window_millis: window.as_millis() as u64,
    };
    Some((usage, measured))
}

/// Processor time and memory of all processes, by pid namespace.
fn processes() -> HashMap<Namespace, (Duration, u64)> {
    let mut found: HashMap<Namespace, (Duration, u64)> = HashMap::new();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    for entry in entries {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        // A process may end in between: then it is left out.
        let (Some(namespace), Some((processor, memory))) = (namespace_of(pid), process(pid)) else {
            continue;
        };
        let sum = found.entry(namespace).or_default();
        sum.0 += processor;
        sum.1 += memory;
    }
    found
}

fn namespace_of(pid: i32) -> Option<Namespace> {
    let link = fs::read_link(format!("/proc/{pid}/ns/pid")).ok()?;
    Some(link.to_string_lossy().into_owned())
}

/// Processor time of a process and its ended children, and its memory.
fn process(pid: i32) -> Option<(Duration, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse_stat(&text)
}

/// Reads `/proc/PID/stat`, see proc_pid_stat(5). The name, in parentheses, may hold anything.
fn parse_stat(text: &str) -> Option<(Duration, u64)> {
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    // utime, stime, cutime, cstime; then the resident pages.
    let ticks: u64 = [14, 15, 16, 17].into_iter().filter_map(number).sum();
    let resident = number(24)?.saturating_mul(resources::page_size());
    Some((Duration::from_millis(ticks * 1000 / TICKS), resident))
}

/// Busy processor time and used memory of the machine.
fn machine() -> Option<(Duration, u64)> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let memory = fs::read_to_string("/proc/meminfo").ok()?;
    Some((parse_busy(&stat)?, parse_used(&memory)?))
}

/// Time in which the processors were neither idle nor waiting, see proc_stat(5).
fn parse_busy(stat: &str) -> Option<Duration> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line
        .split_ascii_whitespace()
        .map_while(|text| text.parse().ok())
        .collect();
    // user, nice, system, (idle, iowait), irq, softirq, steal. Guests are in user already.
    let busy: u64 = [0, 1, 2, 5, 6, 7]
        .iter()
        .filter_map(|index| ticks.get(*index))
        .sum();
    Some(Duration::from_millis(busy * 1000 / TICKS))
}

fn parse_used(meminfo: &str) -> Option<u64> {
    let value = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        let kibibytes: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
        Some(kibibytes * 1024)
    };
    Some(value("MemTotal:")?.saturating_sub(value("MemAvailable:")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_times_and_memory_of_a_process() {
        let text = "17 (a) b) (c) S 1 17 17 0 -1 4194560 100 200 0 0 150 50 25 75 20 0 1 0 100 1000000 512 18446744073709551615";
        let expected = (Duration::from_secs(3), 512 * resources::page_size());
        assert_eq!(parse_stat(text), Some(expected));
        assert_eq!(parse_stat("17 (a"), None);
    }

    #[test]
    fn reads_what_the_machine_uses() {
        let stat = "cpu  100 20 30 5000 40 1 2 3 9 9\ncpu0 1 1 1 1\n";
        assert_eq!(parse_busy(stat), Some(Duration::from_millis(1560)));
        let memory = "MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable: 400 kB\n";
        assert_eq!(parse_used(memory), Some(600 * 1024));
    }

    #[test]
    fn usage_is_told_over_the_window_of_the_samples() {
        let start = Instant::now();
        let mut samples = VecDeque::new();
        let mut take = |seconds: u64, processor: u64| {
            let sample = Sample {
                at: start + Duration::from_secs(seconds),
                wall: Timestamp::UNIX_EPOCH,
                processor: Duration::from_millis(processor),
                memory: processor,
            };
            remember(&mut samples, sample);
            usage_of(&samples).map(|(usage, measured)| (usage.cpu, measured.window_millis))
        };
        assert_eq!(take(0, 1000), None);
        assert_eq!(take(5, 2000), Some((200_000_000, 5000)));
        assert_eq!(take(10, 7000), Some((600_000_000, 10_000)));
        assert_eq!(take(15, 7000), Some((400_000_000, 15_000)));
        // The first one is too old by now.
        assert_eq!(take(20, 7000), Some((333_333_333, 15_000)));
    }

    #[test]
    fn this_process_is_found() {
        let own = namespace_of(std::process::id().cast_signed()).unwrap_or_default();
        let found = processes();
        assert!(found.get(&own).is_some_and(|(_, memory)| *memory > 0));
    }
}
