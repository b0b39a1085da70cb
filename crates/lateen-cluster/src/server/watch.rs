//! `watch`: a list's changes as a stream of JSON lines.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::Response;
use http::header::{CONTENT_TYPE, HeaderValue};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::Api;
use super::body::{Body, BodyError};
use super::read::Filter;
use super::respond::Shape;
use super::route::{Call, allow};
use super::target::Target;
use crate::status::{Result, Status};
use crate::store::{Event, revision_of};

/// How long a watch lasts when the client does not say; Kubernetes takes a random time from 30 to 60 minutes.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(45 * 60);

/// How often a watch that asked for bookmarks gets one.
const BOOKMARK_PERIOD: Duration = Duration::from_secs(30);

/// Lines that may wait for a slow client; then the watch waits, and finds the ring passed it when it is too slow.
const QUEUE: usize = 64;

pub(super) fn watch(call: &Call<'_>) -> Result<Response<Body>> {
    allow(&call.target, "watch")?;
    let query = &call.query;
    let initial = query.get("sendInitialEvents").map(|text| text == "true");
    if initial.is_some() && query.get("resourceVersionMatch") != Some("NotOlderThan") {
        return Err(Status::invalid(
            "meta.k8s.io",
            "ListOptions",
            "",
            &[crate::field::FieldError::forbidden(
                "resourceVersionMatch",
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            )],
        ));
    }
    let from = query.number("resourceVersion")?.unwrap_or(0);
    let timeout = query
        .number("timeoutSeconds")?
        .filter(|seconds| *seconds > 0)
        .map_or(DEFAULT_TIMEOUT, Duration::from_secs)
        .min(DEFAULT_TIMEOUT * 2);
    let (lines, receiver) = mpsc::channel(QUEUE);
    let watcher = Watcher {
        api: call.api.clone(),
        target: call.target.clone(),
        filter: Filter::of(&call.target, query)?,
        shape: call.shape.clone(),
        bookmarks: query.flag("allowWatchBookmarks"),
        // Without a revision the present state comes first.
        start: match (initial, from) {
            (Some(true), _) => Start::InitialEvents,
            (Some(false), 0) => Start::Revision(call.api.store.revision()),
            (None, 0) => Start::State,
            (_, revision) => Start::Revision(revision),
        },
        lines,
        deadline: Instant::now() + timeout,
    };
    tokio::spawn(watcher.run());
    Ok(streamed(receiver))
}

fn streamed(receiver: mpsc::Receiver<Bytes>) -> Response<Body> {
    let frames = stream::unfold(receiver, |mut receiver| async move {
        let line = receiver.recv().await?;
        Some((Ok::<_, BodyError>(Frame::data(line)), receiver))
    });
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Where a watch begins.
#[derive(Clone, Copy)]
enum Start {
    /// With the present objects, then a marked bookmark, then changes.
    InitialEvents,
    /// With the present objects, then changes.
    State,
    /// With the changes behind a revision.
    Revision(u64),
}

/// The client is gone or the watch is over.
struct Over;

struct Watcher {
    api: Arc<Api>,
    target: Target,
    filter: Filter,
    shape: Shape,
    bookmarks: bool,
    start: Start,
    lines: mpsc::Sender<Bytes>,
    deadline: Instant,
}

impl Watcher {
    async fn run(self) {
        let stopping = self.api.stopping.clone();
        tokio::select! {
            _over = self.stream() => {}
            () = self.lines.closed() => {}
            () = stopping.cancelled() => {}
        }
    }

    async fn stream(&self) -> Result<(), Over> {
        let resource = self.target.resource.storage_key();
        let mut changed = self.api.store.subscribe(&resource);
        let mut position = self.begin(&resource).await?;
        let mut bookmark_at = Instant::now() + BOOKMARK_PERIOD;
        loop {
            changed.borrow_and_update();
            match self.api.store.events(&resource, position) {
                Ok((events, revision)) => {
                    for event in &events {
                        self.send_event(event).await?;
                    }
                    position = revision;
                }
                Err(expired) => {
                    // The stream has begun: clients expect this error as an event.
                    let status = Status::new(410, "Expired", expired.to_string());
                    return self.send("ERROR", &status.to_object()).await;
                }
            }
            tokio::select! {
                _ = changed.changed() => {}
                () = sleep_until(bookmark_at) => {
                    self.bookmark(position, false).await?;
                    bookmark_at = Instant::now() + BOOKMARK_PERIOD;
                }
                () = sleep_until(self.deadline) => {
                    self.bookmark(position, false).await?;
                    return Err(Over);
                }
            }
        }
    }

    /// Sends the present state, if it is wanted; returns the revision behind which changes follow.
    async fn begin(&self, resource: &str) -> Result<u64, Over> {
        if let Start::Revision(revision) = self.start {
            return Ok(revision);
        }
        let (objects, revision) = self.api.store.list(resource, self.filter.namespace(), None);
        for object in objects {
            if self.filter.matches(&object, &self.target) {
                self.send_object("ADDED", &object).await?;
            }
        }
        if matches!(self.start, Start::InitialEvents) {
            self.bookmark(revision, true).await?;
        }
        Ok(revision)
    }

    async fn send_event(&self, event: &Event) -> Result<(), Over> {
        let before = event
            .previous
            .as_ref()
            .is_some_and(|object| self.filter.matches(object, &self.target));
        let after = !event.removed && self.filter.matches(&event.object, &self.target);
        match (before, after) {
            (false, true) => self.send_object("ADDED", &event.object).await,
            (true, true) => self.send_object("MODIFIED", &event.object).await,
            (true, false) if event.removed => self.send_object("DELETED", &event.object).await,
            (true, false) => {
                // It left the selection: the client is shown what it knew, with the revision of the change.
                let mut last = event.previous.as_deref().cloned().unwrap_or(Value::Null);
                last["metadata"]["resourceVersion"] = json!(revision_of(&event.object).to_string());
                self.send_object("DELETED", &last).await
            }
            (false, false) => Ok(()),
        }
    }

    async fn send_object(&self, kind: &str, object: &Value) -> Result<(), Over> {
        match self.shape.object(&self.target, object) {
            Ok(shown) => self.send(kind, &shown).await,
            Err(status) => {
                self.send("ERROR", &status.to_object()).await?;
                Err(Over)
            }
        }
    }

    async fn bookmark(&self, revision: u64, initial_end: bool) -> Result<(), Over> {
        if !self.bookmarks && !initial_end {
            return Ok(());
        }
        let mut metadata =
            json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if initial_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = match self.shape.accepted.form {
            super::accept::Form::Object => json!({
                "kind": self.target.resource.kind,
                "apiVersion": self.target.api_version(),
                "metadata": metadata,
            }),
            super::accept::Form::Partial => json!({
                "kind": "PartialObjectMetadata",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": metadata,
            }),
            // The bookmark's revision travels in the table's only row.
            super::accept::Form::Table => json!({
                "kind": "Table",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": metadata,
                "columnDefinitions": [],
                "rows": [{"cells": [], "object": {
                    "kind": "PartialObjectMetadata",
                    "apiVersion": "meta.k8s.io/v1",
                    "metadata": metadata,
                }}],
            }),
        };
        self.send("BOOKMARK", &object).await
    }

    async fn send(&self, kind: &str, object: &Value) -> Result<(), Over> {
        let mut line = json!({"type": kind, "object": object}).to_string();
        line.push('\n');
        self.lines
            .send(Bytes::from(line))
            .await
            .map_err(|_gone| Over)
    }
}
