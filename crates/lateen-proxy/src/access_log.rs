//! Writing access logs: lines are collected in memory and written by one thread per file, so that a slow disk or pipe
//! never holds up a request.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use lateen_route::format::{JsonTemplate, Template};
use parking_lot::{Condvar, Mutex};

use crate::log_filter::LogFilter;
use crate::record::Record;

/// How long lines are collected before they are written.
const BATCH_TIME: Duration = Duration::from_millis(50);

/// Lines beyond this many waiting bytes are dropped and counted.
const MOST_WAITING: usize = 4 << 20;

/// A configured access log.
#[derive(Debug)]
pub(crate) struct AccessLog {
    pub(crate) format: Format,
    pub(crate) file: Arc<LogFile>,
    /// What is logged; nothing: everything.
    pub(crate) filter: Option<LogFilter>,
}

/// How a line looks.
#[derive(Debug)]
pub(crate) enum Format {
    /// A text, with what stands for a missing value.
    Text(Template, &'static str),
    Json(JsonTemplate),
}

impl Format {
    /// Writes what is known.
    pub(crate) fn write(&self, record: &Record, out: &mut String) {
        match self {
            Self::Text(template, missing) => template.write(record, missing, out),
            Self::Json(template) => template.write(record, out),
        }
    }
}

impl AccessLog {
    /// Writes one line, if the log wants it.
    pub(crate) fn log(&self, record: &Record) {
        if self
            .filter
            .as_ref()
            .is_some_and(|filter| !filter.wants(record))
        {
            return;
        }
        let mut line = String::with_capacity(512);
        self.format.write(record, &mut line);
        self.file.append(line.as_bytes());
    }
}

/// All open log files, by path.
#[derive(Debug, Default)]
pub(crate) struct LogFiles {
    files: Mutex<HashMap<String, Arc<LogFile>>>,
}

impl LogFiles {
    /// The file of this path, opened when it is first asked for.
    pub(crate) fn open(&self, path: &str) -> Arc<LogFile> {
        let mut files = self.files.lock();
        files
            .entry(path.to_owned())
            .or_insert_with(|| LogFile::start(path))
            .clone()
    }

    /// Lines lost because a file could not be written fast enough.
    pub(crate) fn dropped(&self) -> u64 {
        self.files
            .lock()
            .values()
            .map(|file| file.dropped.load(Ordering::Relaxed))
            .sum()
    }

    /// Opens all files anew, after they were moved away.
    pub(crate) fn reopen(&self) {
        for file in self.files.lock().values() {
            file.reopen.store(true, Ordering::Relaxed);
        }
    }

    /// Waits until everything that was logged is written, at most for the given time.
    pub(crate) fn flush(&self, most: Duration) {
        let deadline = std::time::Instant::now() + most;
        for file in self.files.lock().values() {
            let mut state = file.state.lock();
            while (!state.waiting.is_empty() || state.writing)
                && std::time::Instant::now() < deadline
            {
                file.written.wait_until(&mut state, deadline);
            }
        }
    }
}

/// One file and the lines that wait for it.
#[derive(Debug, Default)]
pub(crate) struct LogFile {
    state: Mutex<FileState>,
    filled: Condvar,
    written: Condvar,
    dropped: AtomicU64,
    reopen: AtomicBool,
}

#[derive(Debug, Default)]
struct FileState {
    waiting: Vec<u8>,
    writing: bool,
}

impl LogFile {
    fn start(path: &str) -> Arc<Self> {
        let file = Arc::new(Self::default());
        let (writer, path) = (file.clone(), path.to_owned());
        let spawned = std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || writer.write_for_ever(&path));
        if let Err(error) = spawned {
            tracing::error!(%error, "cannot start the access log writer");
        }
        file
    }

    fn append(&self, line: &[u8]) {
        let mut state = self.state.lock();
        if state.waiting.len() + line.len() > MOST_WAITING {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let was_empty = state.waiting.is_empty();
        state.waiting.extend_from_slice(line);
        drop(state);
        if was_empty {
            self.filled.notify_one();
        }
    }

    fn write_for_ever(&self, path: &str) {
        let mut output = open(path);
        loop {
            let mut state = self.state.lock();
            while state.waiting.is_empty() {
                self.filled.wait(&mut state);
            }
            drop(state);
            std::thread::sleep(BATCH_TIME);
            if self.reopen.swap(false, Ordering::Relaxed) {
                output = open(path);
            }
            let lines = {
                let mut state = self.state.lock();
                state.writing = true;
                std::mem::take(&mut state.waiting)
            };
            if output
                .write_all(&lines)
                .and_then(|()| output.flush())
                .is_err()
            {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
            self.state.lock().writing = false;
            self.written.notify_all();
        }
    }
}

/// Standard output and error are used as they are: opening their `/dev` names fails when they are sockets.
fn open(path: &str) -> Box<dyn Write + Send> {
    match path {
        "/dev/stdout" => Box::new(std::io::stdout()),
        "/dev/stderr" => Box::new(std::io::stderr()),
        _ => match OpenOptions::new().create(true).append(true).open(path) {
            Ok(file) => Box::new(file),
            Err(error) => {
                tracing::error!(path, %error, "cannot open the access log; its lines are lost");
                Box::new(std::io::sink())
            }
        },
    }
}
