//! Events as `kubectl describe` shows them.

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, PostParams};
use kube::{Client, Resource};
use std::collections::HashMap;
use tokio::sync::mpsc;

/// Events that may wait to be written; more are dropped, as Kubernetes does under load.
const QUEUE: usize = 1024;

/// How many different events are remembered for counting repetitions.
const MOST_REMEMBERED: usize = 4096;

/// Is an event good or bad news?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Severity {
    Normal,
    Warning,
}

/// Writes events one after another, counting repetitions, without making anyone wait.
#[derive(Clone, Debug)]
pub(crate) struct Events {
    queue: mpsc::Sender<News>,
}

#[derive(Debug)]
struct News {
    object: ObjectReference,
    component: &'static str,
    severity: Severity,
    reason: &'static str,
    message: String,
}

/// What makes two events the same, so that the later one only raises a count.
type Identity = (Option<String>, Option<String>, &'static str, String);

impl Events {
    /// Starts the writer.
    pub(crate) fn start(client: Client, host: String) -> Self {
        let (queue, news) = mpsc::channel(QUEUE);
        tokio::spawn(write(client, host, news));
        Self { queue }
    }

    /// Tells of a pod; `container` adds the path of the container it is about.
    pub(crate) fn pod(
        &self,
        pod: &Pod,
        container: Option<&str>,
        severity: Severity,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        let mut object = pod.object_ref(&());
        object.field_path = container.map(|path| path.to_owned());
        self.send("kubelet", object, severity, reason, message.into());
    }

    /// Tells of any object, in the name of `component`.
    pub(crate) fn send(
        &self,
        component: &'static str,
        object: ObjectReference,
        severity: Severity,
        reason: &'static str,
        message: String,
    ) {
        if self
            .queue
            .try_send(News {
                object,
                component,
                severity,
                reason,
                message,
            })
            .is_err()
        {
            tracing::debug!(reason, "event dropped");
        }
    }
}

async fn write(client: Client, host: String, mut news: mpsc::Receiver<News>) {
    let mut known: HashMap<Identity, Event> = HashMap::new();
    while let Some(news) = news.recv().await {
        let identity = (
            news.object.uid.clone(),
            news.object.field_path.clone(),
            news.reason,
            news.message.clone(),
        );
        let namespace = news
            .object
            .namespace
            .clone()
            .unwrap_or_else(|| "default".into());
        let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
        let written = match known.remove(&identity) {
            Some(earlier) => repeat(&api, earlier).await,
            None => {
                api.create(&PostParams::default(), &event(news, &host, &namespace))
                    .await
            }
        };
        match written {
            Ok(event) => {
                if known.len() >= MOST_REMEMBERED {
                    known.clear();
                }
                known.insert(identity, event);
            }
            // The namespace may be on its way out.
            Err(error) => tracing::debug!(%error, "event not written"),
        }
    }
}

async fn repeat(api: &Api<Event>, mut event: Event) -> kube::Result<Event> {
    let name = event.metadata.name.clone().unwrap_or_default();
    let patch = serde_json::json!({
        "count": event.count.unwrap_or(1) + 1,
        "lastTimestamp": Time(Timestamp::now()),
    });
    let params = kube::api::PatchParams::default();
    match api
        .patch(&name, &params, &kube::api::Patch::Merge(patch))
        .await
    {
        // Events expire: then it is news again.
        Err(kube::Error::Api(status)) if status.code == 404 => {
            event.metadata.resource_version = None;
            event.metadata.uid = None;
            event.metadata.creation_timestamp = None;
            api.create(&PostParams::default(), &event).await
        }
        other => other,
    }
}

fn event(news: News, host: &str, namespace: &str) -> Event {
    let now = Timestamp::now();
    let name = news.object.name.clone().unwrap_or_default();
    Event {
        metadata: ObjectMeta {
            // As Kubernetes names them: unique by time.
            name: Some(format!("{name}.{:x}", now.as_nanosecond())),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        involved_object: news.object,
        reason: Some(news.reason.to_owned()),
        message: Some(news.message),
        type_: Some(format!("{:?}", news.severity)),
        count: Some(1),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        reporting_component: Some(news.component.to_owned()),
        reporting_instance: Some(host.to_owned()),
        source: Some(EventSource {
            component: Some(news.component.to_owned()),
            host: Some(host.to_owned()),
        }),
        ..Event::default()
    }
}
