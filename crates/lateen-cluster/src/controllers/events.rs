//! Events as `kubectl describe` shows them: what a controller did to an object, repeated ones counted.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::meta::now;

/// Events that wait to be written; more are dropped, as they are only a help to people.
const WAITING: usize = 1000;
/// Events that are remembered for counting.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(4096).unwrap();
/// Different messages of one reason about one object, within [`SIMILAR_WINDOW`], before they are combined into one event.
const SIMILAR_LIMIT: u32 = 10;
/// How long messages count as similar to each other.
const SIMILAR_WINDOW: Duration = Duration::from_secs(600);

/// Whether an event tells of something wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Severity {
    Normal,
    Warning,
}

impl Severity {
    fn name(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// Takes events of one component and leaves the writing to a task of its own.
#[derive(Clone)]
pub(super) struct Recorder {
    component: &'static str,
    sender: mpsc::Sender<Report>,
}

struct Report {
    component: &'static str,
    about: ObjectReference,
    severity: Severity,
    reason: &'static str,
    message: String,
}

impl Recorder {
    /// Starts the task that writes events.
    pub(super) fn start(client: Client, tasks: &TaskTracker, stop: &CancellationToken) -> Self {
        let (sender, mut receiver) = mpsc::channel(WAITING);
        let stop = stop.clone();
        tasks.spawn(async move {
            let mut writer = Writer {
                client,
                known: HashMap::new(),
                similar: HashMap::new(),
            };
            loop {
                let report = tokio::select! {
                    () = stop.cancelled() => return,
                    report = receiver.recv() => report,
                };
                match report {
                    Some(report) => writer.write(report).await,
                    None => return,
                }
            }
        });
        Self {
            component: "controller-manager",
            sender,
        }
    }

    /// The same recorder for another component, e.g. `deployment-controller`.
    pub(super) fn component(&self, component: &'static str) -> Self {
        Self {
            component,
            sender: self.sender.clone(),
        }
    }

    /// Records that something happened to `object`.
    pub(super) fn record<K: Resource<DynamicType = ()>>(
        &self,
        object: &K,
        severity: Severity,
        reason: &'static str,
        message: String,
    ) {
        let mut about = object.object_ref(&());
        about.resource_version = object.resource_version();
        let report = Report {
            component: self.component,
            about,
            severity,
            reason,
            message,
        };
        if self.sender.try_send(report).is_err() {
            tracing::debug!(reason, "dropped an event: too many are waiting");
        }
    }
}

/// What makes two reports the same event.
#[derive(PartialEq, Eq, Hash, Clone)]
struct Identity {
    component: &'static str,
    uid: String,
    severity: Severity,
    reason: &'static str,
    message: String,
}

struct Writer {
    client: Client,
    /// Name and count of events that were written.
    known: HashMap<Identity, (String, i32)>,
    /// Messages counted per identity without its message.
    similar: HashMap<Identity, (u32, Instant)>,
}

impl Writer {
    async fn write(&mut self, report: Report) {
        let (identity, message) = self.combined(&report);
        let namespace = report
            .about
            .namespace
            .clone()
            .unwrap_or_else(|| "default".to_owned());
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        if let Some((name, count)) = self.known.get_mut(&identity) {
            *count = count.saturating_add(1);
            let patch = json!({"count": *count, "lastTimestamp": now(), "message": message});
            match api
                .patch(name, &PatchParams::default(), &Patch::Merge(&patch))
                .await
            {
                Ok(_) => return,
                // The event has expired; a new one begins.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => {
                    tracing::debug!(%error, reason = report.reason, "cannot count an event");
                    return;
                }
            }
        }
        let event = event_of(report, message, &namespace);
        let name = event.name_any();
        match api.create(&PostParams::default(), &event).await {
            Ok(_) => {
                if self.known.len() >= REMEMBERED.get() {
                    self.known.clear();
                }
                self.known.insert(identity, (name, 1));
            }
            Err(error) => tracing::debug!(%error, %namespace, "cannot write an event"),
        }
    }

    /// The event that the report counts towards, and its message: reports that differ only in their message become one
    /// event when there are many of them.
    fn combined(&mut self, report: &Report) -> (Identity, String) {
        let mut identity = Identity {
            component: report.component,
            uid: report.about.uid.clone().unwrap_or_default(),
            severity: report.severity,
            reason: report.reason,
            message: String::new(),
        };
        if self.similar.len() >= REMEMBERED.get() {
            self.similar.clear();
        }
        let exact = Identity {
            message: report.message.clone(),
            ..identity.clone()
        };
        let is_new = !self.known.contains_key(&exact);
        let (count, last) = self
            .similar
            .entry(identity.clone())
            .or_insert_with(|| (0, Instant::now()));
        if last.elapsed() > SIMILAR_WINDOW {
            *count = 0;
        }
        *last = Instant::now();
        *count = count.saturating_add(u32::from(is_new));
        if is_new && *count > SIMILAR_LIMIT {
            let message = format!("(combined from similar events): {}", report.message);
            identity.message = "(combined from similar events)".to_owned();
            (identity, message)
        } else {
            (exact, report.message.clone())
        }
    }
}

fn event_of(report: Report, message: String, namespace: &str) -> Event {
    let time = now();
    // Nanoseconds in the name keep the events of one object apart, as in Kubernetes.
    let name = format!(
        "{}.{:x}",
        report.about.name.as_deref().unwrap_or_default(),
        Timestamp::now().as_nanosecond()
    );
    Event {
        metadata: kube::core::ObjectMeta {
            name: Some(name),
            namespace: Some(namespace.to_owned()),
            ..Default::default()
        },
        involved_object: report.about,
        reason: Some(report.reason.to_owned()),
        message: Some(message),
        type_: Some(report.severity.name().to_owned()),
        source: Some(EventSource {
            component: Some(report.component.to_owned()),
            host: None,
        }),
        reporting_component: Some(report.component.to_owned()),
        reporting_instance: Some(String::new()),
        first_timestamp: Some(time.clone()),
        last_timestamp: Some(time),
        count: Some(1),
        ..Event::default()
    }
}
