//! Reading a container's log as `kubectl logs` asks for it.

use std::io::{self, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncSeekExt, BufReader};
use tokio::sync::mpsc;

/// How often a followed log is looked at.
const POLL: Duration = Duration::from_millis(50);

/// Longest record that is read: a split line with its head, in bytes.
const LONGEST_RECORD: u64 = 64 << 10;

/// What of a log is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Keep sending what is written until the container ends.
    pub(crate) follow: bool,
    /// Only the last lines.
    pub(crate) tail: Option<usize>,
    /// Only lines from this time on.
    pub(crate) since: Option<Timestamp>,
    /// Each line begins with its time.
    pub(crate) timestamps: bool,
    /// At most so many bytes.
    pub(crate) limit: Option<usize>,
}

/// Sends the log's text in pieces until its end, or while following until `ended` says so.
///
/// # Errors
/// When the log cannot be read. A receiver that is gone is the normal end.
pub(crate) async fn send(
    path: &Path,
    wanted: &Wanted,
    ended: impl Fn() -> bool,
    to: mpsc::Sender<Vec<u8>>,
) -> io::Result<()> {
    let mut output = Output {
        wanted,
        to,
        left: wanted.limit.unwrap_or(usize::MAX),
        joined: false,
    };
    let mut source = Source::open(path).await?;
    if let Some(tail) = wanted.tail {
        source.skip_to_last(path, tail).await?;
    }
    loop {
        // Asked before reading, so that nothing written before the end is missed.
        let last = !wanted.follow || ended();
        while let Some(record) = source.next().await? {
            if !output.send(&record).await {
                return Ok(());
            }
        }
        if source.turned_over(path).await? {
            source = Source::open_only(path).await?;
        } else if last || output.to.is_closed() {
            return Ok(());
        } else {
            tokio::time::sleep(POLL).await;
        }
    }
}

/// The records of a log: first the older file, then the present one.
struct Source {
    files: Vec<BufReader<File>>,
    partial: Vec<u8>,
    /// Identity of the present file, to notice that it was turned over.
    inode: u64,
}

impl Source {
    async fn open(path: &Path) -> io::Result<Self> {
        let mut source = Self::open_only(path).await?;
        let older: PathBuf = path.with_extension(super::OLDER);
        if let Ok(file) = File::open(older).await {
            source.files.push(BufReader::new(file));
        }
        Ok(source)
    }

    /// The present file alone. The last of `files` is read first.
    async fn open_only(path: &Path) -> io::Result<Self> {
        let file = File::open(path).await?;
        let inode = inode(&file).await?;
        Ok(Self {
            files: vec![BufReader::new(file)],
            partial: Vec::new(),
            inode,
        })
    }

    async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        while let Some(file) = self.files.last_mut() {
            let mut limited = file.take(LONGEST_RECORD);
            limited.read_until(b'\n', &mut self.partial).await?;
            if self.partial.last() == Some(&b'\n') {
                return Ok(Some(std::mem::take(&mut self.partial)));
            }
            if self.files.len() == 1 {
                return Ok(None);
            }
            self.files.pop();
        }
        Ok(None)
    }

    async fn turned_over(&self, path: &Path) -> io::Result<bool> {
        match File::open(path).await {
            Ok(file) => Ok(inode(&file).await? != self.inode),
            // Between the two steps of turning over, or removed with its pod.
            Err(_) => Ok(false),
        }
    }

    /// Moves on so that `tail` whole lines are left.
    async fn skip_to_last(&mut self, path: &Path, tail: usize) -> io::Result<()> {
        let mut lines = 0;
        let mut counting = Self::open(path).await?;
        while let Some(record) = counting.next().await? {
            lines += usize::from(is_full(&record));
        }
        let mut skip = lines.saturating_sub(tail);
        while skip > 0 {
            let Some(record) = self.next().await? else {
                break;
            };
            skip -= usize::from(is_full(&record));
        }
        if tail == 0
            && let Some(file) = self.files.last_mut()
        {
            file.seek(SeekFrom::End(0)).await?;
        }
        Ok(())
    }
}

struct Output<'a> {
    wanted: &'a Wanted,
    to: mpsc::Sender<Vec<u8>>,
    left: usize,
    /// Is the next record the rest of a line that was split?
    joined: bool,
}

impl Output<'_> {
    /// Sends a record's text; false when no more is wanted.
    async fn send(&mut self, record: &[u8]) -> bool {
        let Some((time, text)) = parse(record) else {
            return true;
        };
        let old = self
            .wanted
            .since
            .is_some_and(|since| time.parse::<Timestamp>().is_ok_and(|time| time < since));
        if old {
            return true;
        }
        let mut bytes = Vec::with_capacity(text.len() + time.len() + 2);
        if self.wanted.timestamps && !self.joined {
            bytes.extend_from_slice(time.as_bytes());
            bytes.push(b' ');
        }
        bytes.extend_from_slice(text);
        self.joined = !is_full(record);
        if !self.joined {
            bytes.push(b'\n');
        }
        bytes.truncate(self.left);
        self.left -= bytes.len();
        self.to.send(bytes).await.is_ok() && self.left > 0
    }
}

/// Splits a record into its time and its text.
fn parse(record: &[u8]) -> Option<(&str, &[u8])> {
    let mut parts = record.strip_suffix(b"\n")?.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let text = parts.nth(2)?;
    Some((time, text))
}

fn is_full(record: &[u8]) -> bool {
    record.split(|byte| *byte == b' ').nth(2) == Some(b"F")
}

async fn inode(file: &File) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    Ok(file.metadata().await?.ino())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    const LOG: &str = "2026-01-01T00:00:01.000000000Z stdout F one\n\
                       2026-01-01T00:00:02.000000000Z stderr P tw\n\
                       2026-01-01T00:00:02.000000000Z stderr F o\n\
                       2026-01-01T00:00:03.000000000Z stdout F three\n";

    async fn check(wanted: Wanted, expected: &str) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        std::fs::write(&path, LOG).unwrap();
        let (to, mut from) = mpsc::channel(64);
        send(&path, &wanted, || true, to).await.unwrap();
        let mut text = Vec::new();
        while let Some(piece) = from.recv().await {
            text.extend(piece);
        }
        assert_eq!(String::from_utf8(text).unwrap(), expected, "{wanted:?}");
    }

    #[tokio::test]
    async fn options_choose_what_is_sent() {
        let all = Wanted::default();
        check(all.clone(), "one\ntwo\nthree\n").await;
        check(
            Wanted {
                tail: Some(2),
                ..all.clone()
            },
            "two\nthree\n",
        )
        .await;
        check(
            Wanted {
                tail: Some(0),
                ..all.clone()
            },
            "",
        )
        .await;
        check(
            Wanted {
                limit: Some(5),
                ..all.clone()
            },
            "one\nt",
        )
        .await;
        let since = Some("2026-01-01T00:00:02Z".parse().unwrap());
        check(
            Wanted {
                since,
                ..all.clone()
            },
            "two\nthree\n",
        )
        .await;
        let expected = "2026-01-01T00:00:03.000000000Z three\n";
        check(
            Wanted {
                timestamps: true,
                tail: Some(1),
                ..all
            },
            expected,
        )
        .await;
    }

    #[tokio::test]
    async fn following_sends_what_is_written_later_across_a_turn_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        std::fs::write(&path, LOG).unwrap();
        let (to, mut from) = mpsc::channel(64);
        let ended = Arc::new(AtomicBool::new(false));
        let (following, seen) = (path.clone(), ended.clone());
        let task = tokio::spawn(async move {
            let wanted = Wanted {
                follow: true,
                tail: Some(1),
                ..Wanted::default()
            };
            send(&following, &wanted, || seen.load(Ordering::SeqCst), to).await
        });
        assert_eq!(from.recv().await.unwrap(), b"three\n");
        std::fs::rename(&path, path.with_extension(super::super::OLDER)).unwrap();
        std::fs::write(&path, "2026-01-01T00:00:04.000000000Z stdout F four\n").unwrap();
        assert_eq!(from.recv().await.unwrap(), b"four\n");
        ended.store(true, Ordering::SeqCst);
        assert_eq!(from.recv().await, None);
        task.await.unwrap().unwrap();
    }
}
