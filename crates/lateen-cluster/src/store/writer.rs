//! The one thread that writes: it checks, numbers, commits and publishes changes in batches.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::oneshot;

use super::disk::{Disk, Put};
use super::memory::{Event, Memory};
use super::{Key, WriteError, revision_of};

/// The most changes that one commit takes: enough that a burst shares few flushes, few enough that the first of a burst
/// does not wait for long.
const BATCH: usize = 256;

/// The most bytes of a stored object, twice what etcd takes.
const LARGEST: usize = 3 * 1024 * 1024;

/// What a writer is told: the stored object.
pub(super) type Answer = Result<Arc<Value>, WriteError>;

/// What a job wants.
pub(super) enum Change {
    /// A new object.
    Create(Value),
    /// The new state, and the revision that the old one must have.
    Update(Value, u64),
    /// The last state, and the revision that the old one must have.
    Delete(Value, u64),
}

/// A change and where to answer.
pub(super) struct Job {
    pub(super) key: Key,
    pub(super) change: Change,
    pub(super) reply: oneshot::Sender<Answer>,
}

/// The writer thread's handle.
pub(super) struct Writer {
    jobs: Mutex<Option<Sender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    pub(super) fn start(disk: Disk, memory: Arc<Memory>, revision: u64) -> Self {
        let (sender, receiver) = channel();
        let thread = std::thread::spawn(move || run(&disk, &memory, revision, &receiver));
        Self {
            jobs: Mutex::new(Some(sender)),
            thread: Mutex::new(Some(thread)),
        }
    }

    pub(super) fn send(&self, job: Job) -> Result<(), WriteError> {
        match self.jobs.lock().as_ref() {
            Some(jobs) => jobs.send(job).map_err(|_gone| WriteError::Closed),
            None => Err(WriteError::Closed),
        }
    }

    /// Ends the thread after what waits, and with it the lock on the file.
    pub(super) fn close(&self) {
        drop(self.jobs.lock().take());
        if let Some(thread) = self.thread.lock().take() {
            // A panic of the thread has been printed; there is nothing to add.
            drop(thread.join());
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.close();
    }
}

fn run(disk: &Disk, memory: &Memory, mut revision: u64, jobs: &Receiver<Job>) {
    while let Ok(first) = jobs.recv() {
        let mut batch = Batch::new(memory, revision);
        batch.add(first);
        while batch.jobs < BATCH
            && let Ok(job) = jobs.try_recv()
        {
            batch.add(job);
        }
        revision = batch.finish(disk);
    }
}

/// The changes of one commit.
struct Batch<'a> {
    memory: &'a Memory,
    jobs: usize,
    revision: u64,
    before: u64,
    /// What this batch already did to a key; `None` when it removed the object.
    overlay: HashMap<Key, Option<Arc<Value>>>,
    puts: Vec<Put>,
    events: Vec<(Key, Event)>,
    replies: Vec<(oneshot::Sender<Answer>, Answer)>,
}

impl<'a> Batch<'a> {
    fn new(memory: &'a Memory, revision: u64) -> Self {
        Self {
            memory,
            jobs: 0,
            revision,
            before: revision,
            overlay: HashMap::new(),
            puts: Vec::new(),
            events: Vec::new(),
            replies: Vec::new(),
        }
    }

    fn add(&mut self, job: Job) {
        self.jobs += 1;
        let answer = self.apply(job.key, job.change);
        self.replies.push((job.reply, answer));
    }

    fn apply(&mut self, key: Key, change: Change) -> Answer {
        let current = match self.overlay.get(&key) {
            Some(pending) => pending.clone(),
            None => self.memory.get(&key),
        };
        let (mut object, removed) = match change {
            Change::Create(_) if current.is_some() => return Err(WriteError::Exists),
            Change::Create(object) => (object, false),
            Change::Update(object, expected) => {
                expect(current.as_ref(), expected)?;
                (object, false)
            }
            Change::Delete(last, expected) => {
                expect(current.as_ref(), expected)?;
                (last, true)
            }
        };
        let revision = self.revision + 1;
        object["metadata"]["resourceVersion"] = Value::String(revision.to_string());
        let bytes = if removed {
            None
        } else {
            let bytes = serde_json::to_vec(&object);
            let bytes = bytes.map_err(|error| WriteError::Disk(error.to_string()))?;
            if bytes.len() > LARGEST {
                return Err(WriteError::TooLarge { limit: LARGEST });
            }
            Some(bytes)
        };
        self.revision = revision;
        let object = Arc::new(object);
        self.puts.push((key.clone(), bytes));
        let kept = (!removed).then(|| object.clone());
        self.overlay.insert(key.clone(), kept);
        self.events.push((
            key,
            Event {
                revision,
                object: object.clone(),
                previous: current,
                removed,
            },
        ));
        Ok(object)
    }

    /// Commits, publishes and answers; returns the revision that now holds.
    fn finish(self, disk: &Disk) -> u64 {
        let mut outcome = Ok(());
        if !self.puts.is_empty() {
            outcome = disk.commit(&self.puts, self.revision);
        }
        let revision = match &outcome {
            Ok(()) => {
                self.memory.publish(self.events);
                self.revision
            }
            Err(_) => self.before,
        };
        for (reply, answer) in self.replies {
            let answer = match (&outcome, answer) {
                (Err(error), Ok(_)) => Err(WriteError::Disk(error.to_string())),
                (_, answer) => answer,
            };
            // The client may have gone away; the change stands.
            drop(reply.send(answer));
        }
        revision
    }
}

fn expect(current: Option<&Arc<Value>>, expected: u64) -> Result<(), WriteError> {
    match current {
        None => Err(WriteError::Missing),
        Some(object) if revision_of(object) != expected => Err(WriteError::Changed),
        Some(_) => Ok(()),
    }
}
