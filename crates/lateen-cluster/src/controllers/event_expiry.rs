//! Events are forgotten an hour after they were last told, as in Kubernetes; otherwise they would grow without end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Event;
use kube::Api;
use kube::api::DeleteParams;
use kube::core::{ObjectMeta, PartialObjectMeta};
use kube::runtime::{WatchStreamExt, watcher};
use parking_lot::Mutex;

use super::Shared;
use super::error::Error;
use super::meta::{ObjectKey, seconds_since};
use super::queue::Queue;

/// How long an event is kept.
const LIFETIME: Duration = Duration::from_secs(3600);

/// When each event was last written, as far as this process knows.
type LastWrites = Mutex<HashMap<ObjectKey, Instant>>;

/// Starts the controller.
pub(super) fn start(shared: &Arc<Shared>) {
    let queue = Queue::new();
    let last_writes = Arc::new(LastWrites::default());
    let (watching, to, noted) = (
        Arc::clone(shared),
        Arc::clone(&queue),
        Arc::clone(&last_writes),
    );
    shared.tasks.spawn(async move {
        let api: Api<PartialObjectMeta<Event>> = Api::all(watching.client.clone());
        let events = watcher(api, watcher::Config::default()).default_backoff();
        let mut events = std::pin::pin!(events);
        loop {
            let event = tokio::select! {
                () = watching.stop.cancelled() => return,
                event = events.next() => event,
            };
            match event {
                Some(Ok(watcher::Event::Apply(event))) => {
                    let key = ObjectKey::of(&event.metadata);
                    noted.lock().insert(key.clone(), Instant::now());
                    to.add_after(key, LIFETIME);
                }
                // Of an earlier run: its creation is all that its metadata tells.
                Some(Ok(watcher::Event::InitApply(event))) => {
                    to.add_after(ObjectKey::of(&event.metadata), left(&event.metadata));
                }
                Some(Ok(watcher::Event::Delete(event))) => {
                    noted.lock().remove(&ObjectKey::of(&event.metadata));
                }
                Some(_) => {}
                None => return,
            }
        }
    });
    let (own, to) = (Arc::clone(shared), Arc::clone(&queue));
    shared.work(&queue, "event-expiry", 1, move |key| {
        let (shared, to) = (Arc::clone(&own), Arc::clone(&to));
        let last_write = last_writes.lock().get(&key).copied();
        async move {
            // Told again meanwhile: it gets a new term.
            let age = last_write.map_or(LIFETIME, |written| written.elapsed());
            if age < LIFETIME {
                to.add_after(key, LIFETIME - age);
                return Ok(());
            }
            forget(&shared, key).await
        }
    });
}

fn left(meta: &ObjectMeta) -> Duration {
    let age = meta.creation_timestamp.as_ref().map_or(0.0, seconds_since);
    LIFETIME.saturating_sub(Duration::from_secs_f64(age.max(0.0)))
}

async fn forget(shared: &Shared, key: ObjectKey) -> Result<(), Error> {
    let api: Api<Event> = Api::namespaced(shared.client.clone(), &key.namespace);
    match api.delete(&key.name, &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(source) => Err(Error::Delete {
            kind: "Event".to_owned(),
            key,
            source: Box::new(source),
        }),
        Ok(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    #[test]
    fn an_event_of_an_earlier_run_keeps_what_is_left_of_its_hour() {
        let made = |seconds_ago: i64| {
            let second = Timestamp::now().as_second() - seconds_ago;
            let time = Time(Timestamp::from_second(second).unwrap());
            left(&ObjectMeta {
                creation_timestamp: Some(time),
                ..ObjectMeta::default()
            })
        };
        let half = made(1800).as_secs();
        assert!((1795..=1800).contains(&half), "{half}");
        assert_eq!(made(7200), Duration::ZERO);
        assert!(made(-60) <= LIFETIME);
    }
}
