//! Container logs: written in Kubernetes' file format, `TIME STREAM TAG TEXT` a line.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::Mutex;

use crate::pods::console::{Followers, Output};

pub(crate) mod read;

/// A log file that grows beyond this is turned over; the one before is kept beside it.
const TURN_OVER: u64 = 10 << 20;

/// A line longer than this is split into parts (tag `P`), in bytes.
const LONGEST_LINE: usize = 16 << 10;

/// Name under which the older part of a log is kept.
pub(crate) const OLDER: &str = "1";

/// Where the log of a container's `n`th run is.
pub(crate) fn path(state: &Path, uid: &str, container: &str, run: i32) -> PathBuf {
    folder(state, uid)
        .join(container)
        .join(format!("{run}.log"))
}

/// Where all logs of a pod are.
pub(crate) fn folder(state: &Path, uid: &str) -> PathBuf {
    state.join("logs").join(uid)
}

/// Writes all that comes out of the two pipes to the log, and shows it to those who follow, until both are closed.
///
/// # Errors
/// When the log cannot be made. Later failures (a full disk) are reported once, and the pipes are
/// still emptied: a container must not stop because its log cannot be kept.
pub(crate) async fn capture(
    path: PathBuf,
    output: Option<pipe::Receiver>,
    error: Option<pipe::Receiver>,
    followers: Arc<Followers>,
) -> io::Result<()> {
    let log = Log::create(path).await;
    // Without a log those who follow still see what there is to see.
    let (log, result) = match log {
        Ok(log) => (log, Ok(())),
        Err(error) => (Log::default(), Err(error)),
    };
    let log = Mutex::new(log);
    let output = copy(output, Output::Standard, &log, &followers);
    let error = copy(error, Output::Error, &log, &followers);
    tokio::join!(output, error);
    followers.end();
    result
}

async fn copy(
    pipe: Option<pipe::Receiver>,
    output: Output,
    log: &Mutex<Log>,
    followers: &Followers,
) {
    let Some(mut pipe) = pipe else {
        return;
    };
    let stream = output.name();
    let mut buffer = vec![0; LONGEST_LINE];
    let mut filled = 0;
    loop {
        // A terminal whose program ended reports a failure.
        let read = pipe.read(&mut buffer[filled..]).await.unwrap_or(0);
        followers.show(output, &buffer[filled..filled + read]).await;
        filled += read;
        let now = Timestamp::now();
        let mut text = Vec::new();
        let mut start = 0;
        while let Some(end) = buffer[start..filled].iter().position(|byte| *byte == b'\n') {
            append(&mut text, now, stream, 'F', &buffer[start..start + end]);
            start += end + 1;
        }
        buffer.copy_within(start..filled, 0);
        filled -= start;
        if filled == buffer.len() || (read == 0 && filled > 0) {
            let tag = if read == 0 { 'F' } else { 'P' };
            append(&mut text, now, stream, tag, &buffer[..filled]);
            filled = 0;
        }
        if !text.is_empty() {
            log.lock().await.write(&text).await;
        }
        if read == 0 {
            return;
        }
    }
}

fn append(text: &mut Vec<u8>, now: Timestamp, stream: &str, tag: char, line: &[u8]) {
    // Fixed width, so that the times of a log compare as text.
    text.extend_from_slice(format!("{now:.9} {stream} {tag} ").as_bytes());
    text.extend_from_slice(line);
    text.push(b'\n');
}

#[derive(Debug, Default)]
struct Log {
    path: PathBuf,
    file: Option<tokio::fs::File>,
    size: u64,
}

impl Log {
    async fn create(path: PathBuf) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            tokio::fs::create_dir_all(folder).await?;
        }
        let file = tokio::fs::File::create(&path).await?;
        Ok(Self {
            path,
            file: Some(file),
            size: 0,
        })
    }

    async fn write(&mut self, text: &[u8]) {
        if let Err(error) = self.try_write(text).await {
            tracing::warn!(%error, log = %self.path.display(), "the rest of this log is lost");
            self.file = None;
        }
    }

    async fn try_write(&mut self, text: &[u8]) -> io::Result<()> {
        use tokio::io::AsyncWriteExt;
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        file.write_all(text).await?;
        file.flush().await?;
        self.size += text.len() as u64;
        if self.size > TURN_OVER {
            tokio::fs::rename(&self.path, self.path.with_extension(OLDER)).await?;
            self.file = Some(tokio::fs::File::create(&self.path).await?);
            self.size = 0;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[tokio::test]
    async fn lines_carry_time_stream_and_tag_and_long_ones_are_split() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c/0.log");
        let (output, mut to_output) = io::pipe().unwrap();
        let (error, mut to_error) = io::pipe().unwrap();
        let receiver = |end: io::PipeReader| pipe::Receiver::from_owned_fd(end.into()).ok();
        let followers = Arc::new(Followers::new());
        let mut followed = followers.follow();
        let capturing = tokio::spawn(capture(
            path.clone(),
            receiver(output),
            receiver(error),
            followers.clone(),
        ));
        to_output.write_all(b"one\ntw").unwrap();
        to_output.write_all(b"o\nlast").unwrap();
        drop(to_output);
        to_error.write_all(&vec![b'x'; LONGEST_LINE + 3]).unwrap();
        drop(to_error);
        capturing.await.unwrap().unwrap();

        let mut seen = Vec::new();
        while let Some((output, piece)) = followed.recv().await {
            if output == Output::Standard {
                seen.extend_from_slice(&piece);
            }
        }
        assert_eq!(seen, b"one\ntwo\nlast");
        assert_eq!(followers.follow().recv().await, None, "it is over");

        let text = std::fs::read_to_string(path).unwrap();
        let part = |stream: &str| -> Vec<(String, String)> {
            text.lines()
                .map(|line| line.splitn(4, ' ').collect::<Vec<_>>())
                .filter(|parts| parts[1] == stream && parts[0].ends_with('Z'))
                .map(|parts| (parts[2].to_owned(), parts[3].to_owned()))
                .collect()
        };
        let full = |text: &str| ("F".to_owned(), text.to_owned());
        assert_eq!(part("stdout"), [full("one"), full("two"), full("last")]);
        let long = ("P".to_owned(), "x".repeat(LONGEST_LINE));
        assert_eq!(part("stderr"), [long, full("xxx")]);
    }
}
