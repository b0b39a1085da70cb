//! One container of a pod: started, watched by its probes, restarted, stopped.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Container;
use k8s_openapi::jiff::Timestamp;
use nix::sys::signal::Signal;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::console::Console;
use super::shared::Shared;
use super::start::{NotStarted, program, start};
use super::state::{Phase, Role, Terminated};
use super::{hooks, probe};
use crate::container::{ProgramSpec, Running};
use crate::events::Severity;
use crate::network::PodNetwork;

/// First pause before a container that ended is started again (the first restart has none) ...
const BACK_OFF: Duration = Duration::from_secs(10);

/// ... doubled each time up to this ...
const LONGEST_BACK_OFF: Duration = Duration::from_secs(300);

/// ... and forgotten when the container ran this long.
const HEALTHY_RUN: Duration = Duration::from_secs(600);

/// Pause before something that could not be started, for want of an object, is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// Most bytes of a termination message.
const LONGEST_MESSAGE: usize = 4096;

/// How long the log may still be read after a container's end: something that it left behind may
/// hold the pipes open.
const LOG_REST: Duration = Duration::from_millis(500);

/// A running container, as probes and exec see it.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) container: Container,
    pub(crate) network: Arc<PodNetwork>,
    pub(crate) running: Running,
    /// What it runs, and with which rights.
    pub(crate) program: ProgramSpec,
    pub(crate) console: Arc<Console>,
    /// The program `lateen`, as the node sees it.
    pub(crate) executable: PathBuf,
    /// What the image wants to be asked to end with.
    pub(crate) stop_signal: Option<Signal>,
}

/// When a container has to be gone; nothing while it may run.
pub(crate) type Stop = watch::Receiver<Option<Instant>>;

/// Why a run ended.
enum Outcome {
    /// By itself, or killed by a failed probe or hook; restarted as the policy says.
    Ended(Terminated),
    /// On request; never restarted.
    Stopped(Terminated),
}

/// Runs the container until it will not run again: its policy says so, or `stop` does.
pub(crate) async fn supervise(
    shared: Arc<Shared>,
    container: Container,
    role: Role,
    mut stop: Stop,
) {
    let mut back_off = Duration::ZERO;
    loop {
        if stop.borrow().is_some() {
            return shared.update(&container.name, |record| record.finished = true);
        }
        let begun = Instant::now();
        let program = tokio::select! {
            program = program(&shared, &container) => program,
            // Pulling may take long; it is for nothing now.
            _ = stop.wait_for(Option::is_some) => continue,
        };
        let started = match program {
            Ok(program) => start(&shared, &container, program).await,
            Err(problem) => Err(problem),
        };
        let outcome = match started {
            Ok(run) => attend(&shared, run, &mut stop).await,
            Err(problem) => not_started(&shared, &container, problem),
        };
        let code = match &outcome {
            Some(Outcome::Stopped(end)) => {
                finish(&shared, &container, end.clone(), true);
                return;
            }
            Some(Outcome::Ended(end)) => {
                let over = !restarts(&shared, role, end.code);
                finish(&shared, &container, end.clone(), over);
                if over {
                    return;
                }
                Some(end.code)
            }
            None => None,
        };
        if begun.elapsed() >= HEALTHY_RUN {
            back_off = Duration::ZERO;
        }
        // The first restart is immediate. What could not be started may work at any moment, when
        // the missing object is made.
        let pause = if code.is_some() {
            back_off
        } else {
            back_off.clamp(RETRY, BACK_OFF)
        };
        if !pause.is_zero() {
            if code.is_some() {
                announce_back_off(&shared, &container, pause);
            }
            let stopped = stop.wait_for(Option::is_some);
            // A sender that is gone means that the pod is gone, which is a stop as well.
            if tokio::time::timeout(pause, stopped).await.is_ok() {
                return shared.update(&container.name, |record| record.finished = true);
            }
        }
        back_off = (back_off * 2).clamp(BACK_OFF, LONGEST_BACK_OFF);
        if code.is_some() {
            shared.update(&container.name, |record| record.restarts += 1);
        }
    }
}

fn restarts(shared: &Shared, role: Role, code: i32) -> bool {
    let pod = shared.pod();
    let policy = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.restart_policy.as_deref());
    match (role, policy.unwrap_or("Always")) {
        (Role::Sidecar, _) | (Role::Main, "Always") => true,
        (_, "Never") => false,
        _ => code != 0,
    }
}

/// What a probe or hook decided while the container ran.
enum Verdict {
    Ready(Result<(), String>),
    Started,
    Kill { message: String, grace: Option<i64> },
}

/// Looks after a run until it ends.
async fn attend(shared: &Arc<Shared>, run: Run, stop: &mut Stop) -> Option<Outcome> {
    let name = run.container.name.clone();
    let started = Timestamp::now();
    let id = shared.next_id(&name);
    let unprobed = run.container.readiness_probe.is_none();
    shared.update(&name, |record| {
        record.phase = Phase::Running { since: started };
        record.id = id.clone();
        // A postStart hook is part of the start.
        record.started = false;
        record.ready = false;
    });
    shared.set_run(&name, Some(run.clone()));
    let (verdicts, mut decided) = tokio::sync::mpsc::unbounded_channel();
    let mut tasks = JoinSet::new();
    tasks.spawn(watch_over(shared.clone(), run.clone(), verdicts));

    let mut asked = None;
    let killed = loop {
        tokio::select! {
            // An end that has happened matters more than what probes say about it.
            biased;
            _ = run.running.ended() => break None,
            deadline = stop.wait_for(Option::is_some) => {
                asked = Some(deadline.ok().and_then(|deadline| *deadline).unwrap_or_else(Instant::now));
                break None;
            }
            Some(verdict) = decided.recv() => match verdict {
                Verdict::Started => shared.update(&name, |record| {
                    record.started = true;
                    record.ready |= unprobed;
                }),
                Verdict::Ready(ready) => {
                    if let Err(reason) = &ready {
                        shared.unhealthy(&name, "Readiness", reason);
                    }
                    shared.update(&name, |record| record.ready = ready.is_ok());
                }
                Verdict::Kill { message, grace } => break Some((message, grace)),
            },
        }
    };
    tasks.shutdown().await;
    let stopping = asked.is_some();
    if run.running.code().is_none() {
        let grace = killed.as_ref().and_then(|(_, grace)| *grace);
        let message = killed.map(|(message, _)| message);
        let deadline = asked.unwrap_or_else(|| {
            let grace = grace.or_else(|| shared.grace_period()).unwrap_or(30);
            Instant::now() + Duration::from_secs(u64::try_from(grace).unwrap_or(0))
        });
        end(shared, &run, deadline, message).await;
    }
    let code = run.running.ended().await;
    shared.set_run(&name, None);
    shared.log_written(&name, LOG_REST).await;
    let end = Terminated {
        code,
        reason: if code == 0 {
            "Completed".into()
        } else {
            "Error".into()
        },
        message: last_message(shared, &run.container, code).await,
        started: Some(started),
        finished: Timestamp::now(),
        id,
    };
    Some(if stopping {
        Outcome::Stopped(end)
    } else {
        Outcome::Ended(end)
    })
}

/// The `postStart` hook, then the probes.
async fn watch_over(
    shared: Arc<Shared>,
    run: Run,
    verdicts: tokio::sync::mpsc::UnboundedSender<Verdict>,
) {
    let name = run.container.name.clone();
    let hook = run
        .container
        .lifecycle
        .as_ref()
        .and_then(|hooks| hooks.post_start.clone());
    if let Some(hook) = hook
        && let Err(reason) = hooks::run(&run, &hook, Duration::from_secs(3600)).await
    {
        shared.tell(
            &name,
            Severity::Warning,
            "FailedPostStartHook",
            format!("PostStartHook failed: {reason}"),
        );
        let message = format!("FailedPostStartHook: Container {name} failed its postStart hook");
        let _ = verdicts.send(Verdict::Kill {
            message,
            grace: None,
        });
        return;
    }
    if let Some(probe) = &run.container.startup_probe {
        let mut passed = false;
        probe::watch(&run, probe, true, |verdict| {
            if let Err(reason) = verdict {
                shared.unhealthy(&name, "Startup", &reason);
                let message = format!("Container {name} failed startup probe, will be restarted");
                let grace = probe.termination_grace_period_seconds;
                let _ = verdicts.send(Verdict::Kill { message, grace });
            } else {
                passed = true;
            }
            false
        })
        .await;
        if !passed {
            return;
        }
    }
    if verdicts.send(Verdict::Started).is_err() {
        return;
    }
    let readiness = async {
        if let Some(probe) = &run.container.readiness_probe {
            let mut last = None;
            probe::watch(&run, probe, true, |verdict| {
                if last.replace(verdict.is_ok()) != Some(verdict.is_ok()) || verdict.is_err() {
                    return verdicts.send(Verdict::Ready(verdict)).is_ok();
                }
                true
            })
            .await;
        }
    };
    let liveness = async {
        if let Some(probe) = &run.container.liveness_probe {
            probe::watch(&run, probe, false, |verdict| {
                let Err(reason) = verdict else { return true };
                shared.unhealthy(&name, "Liveness", &reason);
                let message = format!("Container {name} failed liveness probe, will be restarted");
                let grace = probe.termination_grace_period_seconds;
                let _ = verdicts.send(Verdict::Kill { message, grace });
                false
            })
            .await;
        }
    };
    tokio::join!(readiness, liveness);
}

/// Ends a running container: `preStop`, SIGTERM, and SIGKILL when the time is up.
async fn end(shared: &Shared, run: &Run, deadline: Instant, message: Option<String>) {
    let name = &run.container.name;
    let message = message.unwrap_or_else(|| format!("Stopping container {name}"));
    shared.tell(name, Severity::Normal, "Killing", message);
    let hook = run
        .container
        .lifecycle
        .as_ref()
        .and_then(|hooks| hooks.pre_stop.as_ref());
    if let Some(hook) = hook {
        let left = deadline.saturating_duration_since(Instant::now());
        let ended = run.running.ended();
        tokio::select! {
            done = hooks::run(run, hook, left) => {
                if let Err(reason) = done {
                    let message = format!("PreStopHook failed: {reason}");
                    shared.tell(name, Severity::Warning, "FailedPreStopHook", message);
                }
            }
            _ = ended => return,
        }
    }
    run.running.signal(stop_signal(run));
    if tokio::time::timeout_at(deadline, run.running.ended())
        .await
        .is_err()
    {
        run.running.signal(Signal::SIGKILL);
    }
}

fn stop_signal(run: &Run) -> Signal {
    let lifecycle = run.container.lifecycle.as_ref();
    let given = lifecycle.and_then(|lifecycle| lifecycle.stop_signal.as_deref());
    given
        .and_then(|name| name.parse().ok())
        .or(run.stop_signal)
        .unwrap_or(Signal::SIGTERM)
}

/// The last words of a container: its termination message, or the end of its log if the policy
/// asks for that.
async fn last_message(shared: &Shared, container: &Container, code: i32) -> Option<String> {
    let path = shared
        .folder
        .file(&format!("termination-{}", container.name));
    let text = tokio::fs::read(path).await.unwrap_or_default();
    let text = if text.is_empty()
        && code != 0
        && container.termination_message_policy.as_deref() == Some("FallbackToLogsOnError")
    {
        shared.log_end(&container.name).await
    } else {
        text
    };
    let start = text.len().saturating_sub(LONGEST_MESSAGE);
    (!text.is_empty()).then(|| String::from_utf8_lossy(&text[start..]).into_owned())
}

/// Records that a run could not begin; it counts as a run when a process had been made for it.
fn not_started(shared: &Shared, container: &Container, problem: NotStarted) -> Option<Outcome> {
    let name = &container.name;
    let image = container.image.as_deref().unwrap_or_default();
    if matches!(
        problem.waiting,
        "ErrImagePull" | "ErrImageNeverPull" | "InvalidImageName"
    ) {
        let message = format!("Failed to pull image \"{image}\": {}", problem.message);
        shared.tell(name, Severity::Warning, problem.reason, message);
        shared.tell(
            name,
            Severity::Warning,
            "Failed",
            format!("Error: {}", problem.waiting),
        );
        shared.image_missing(name, problem.waiting, problem.message);
        return None;
    }
    shared.tell(
        name,
        Severity::Warning,
        problem.reason,
        format!("Error: {}", problem.message),
    );
    if problem.ran {
        let now = Timestamp::now();
        return Some(Outcome::Ended(Terminated {
            code: 128,
            reason: "StartError".into(),
            message: Some(problem.message),
            started: Some(now),
            finished: now,
            id: shared.next_id(name),
        }));
    }
    shared.update(name, |record| {
        record.phase = Phase::Waiting {
            reason: problem.waiting,
            message: Some(problem.message),
        };
    });
    None
}

/// Records the end of a run.
fn finish(shared: &Shared, container: &Container, end: Terminated, over: bool) {
    shared.update(&container.name, |record| {
        record.ready = false;
        record.started = false;
        record.id.clone_from(&end.id);
        record.last = (!over).then(|| end.clone()).or_else(|| record.last.take());
        record.phase = Phase::Terminated(end);
        record.finished = over;
    });
}

fn announce_back_off(shared: &Shared, container: &Container, pause: Duration) {
    let name = &container.name;
    let pod = shared.pod();
    let meta = &pod.metadata;
    let text = format!(
        "back-off {}s restarting failed container={name} pod={}_{}({})",
        pause.as_secs(),
        meta.name.as_deref().unwrap_or_default(),
        meta.namespace.as_deref().unwrap_or_default(),
        meta.uid.as_deref().unwrap_or_default(),
    );
    let event = format!(
        "Back-off restarting failed container {name} in pod {}",
        shared.pod_name()
    );
    shared.tell(name, Severity::Warning, "BackOff", event);
    shared.update(name, |record| {
        record.phase = Phase::Waiting {
            reason: "CrashLoopBackOff",
            message: Some(text),
        };
    });
}
