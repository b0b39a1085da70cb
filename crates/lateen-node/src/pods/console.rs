//! A container's own standard streams: written to its log, and shown to those who attach.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lateen_sys::socket::{message_pair, receive_with_descriptors};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{Uid, fchown};
use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;
use tokio::sync::{Mutex as AsyncMutex, mpsc};

use crate::container::Streams;

/// Pieces that wait for somebody who attached.
const PIECES: usize = 64;

/// How long the container's output waits for somebody who does not read it, before it goes on without them.
const PATIENCE: Duration = Duration::from_secs(10);

/// Which of a program's two outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// Standard output.
    Standard,
    /// Standard error.
    Error,
}

impl Output {
    /// The name in logs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Standard => "stdout",
            Self::Error => "stderr",
        }
    }
}

/// Bytes of an output.
pub(crate) type Piece = (Output, Bytes);

/// The ends of a program's streams that the node keeps.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    pub(crate) input: Option<Input>,
    pub(crate) output: Option<pipe::Receiver>,
    pub(crate) error: Option<pipe::Receiver>,
    pub(crate) terminal: Option<File>,
    /// Where the controlling side of a terminal comes from, once the program runs.
    opened: Option<OwnedFd>,
}

impl Ends {
    /// Takes the terminal that the program has opened, if it was to: call it when the program runs.
    ///
    /// # Errors
    /// When there is none, or the node is out of descriptors.
    pub(crate) fn take_terminal(&mut self) -> io::Result<()> {
        let Some(socket) = self.opened.take() else {
            return Ok(());
        };
        let (_, sent) = receive_with_descriptors(socket.as_fd(), &mut [0; 16])?;
        let controller = sent.into_iter().next();
        let controller =
            File::from(controller.ok_or_else(|| io::Error::other("no terminal was opened"))?);
        fcntl(
            &controller,
            FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK),
        )?;
        let end = |file: &File| Ok::<_, io::Error>(OwnedFd::from(file.try_clone()?));
        let input = pipe::Sender::from_owned_fd_unchecked(end(&controller)?)?;
        let output = pipe::Receiver::from_owned_fd_unchecked(end(&controller)?)?;
        self.input = Some(Input::new(input));
        self.output = Some(output);
        self.terminal = Some(controller);
        Ok(())
    }
}

/// Which streams a program gets; those that it does not get lead nowhere.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) input: bool,
    pub(crate) output: bool,
    pub(crate) error: bool,
    /// One terminal for all of them.
    pub(crate) terminal: bool,
    /// Whom they belong to, so that the program can open `/dev/stdout` again.
    pub(crate) user: Option<u32>,
}

impl Wanted {
    /// Makes the streams: the program's ends, and the node's.
    ///
    /// # Errors
    /// When the node is out of descriptors.
    pub(crate) fn open(self) -> io::Result<(Streams, Ends)> {
        let mut ends = Ends::default();
        let mut streams = Streams {
            input: Stdio::null(),
            output: Stdio::null(),
            error: Stdio::null(),
            terminal: None,
        };
        if self.terminal {
            let (ours, theirs) = message_pair()?;
            streams.terminal = Some(theirs);
            ends.opened = Some(ours);
            return Ok((streams, ends));
        }
        if self.input {
            let (reader, writer) = io::pipe()?;
            self.give(&reader)?;
            streams.input = reader.into();
            ends.input = Some(Input::new(pipe::Sender::from_owned_fd(writer.into())?));
        }
        for (wanted, stream, end) in [
            (self.output, &mut streams.output, &mut ends.output),
            (self.error, &mut streams.error, &mut ends.error),
        ] {
            if wanted {
                let (reader, writer) = io::pipe()?;
                self.give(&writer)?;
                *stream = writer.into();
                *end = Some(pipe::Receiver::from_owned_fd(reader.into())?);
            }
        }
        Ok((streams, ends))
    }

    fn give(self, end: impl AsFd) -> io::Result<()> {
        match self.user {
            Some(user) => Ok(fchown(end, Some(Uid::from_raw(user)), None)?),
            None => Ok(()),
        }
    }
}

/// A program's standard input; clones stand for the same one.
#[derive(Clone, Debug)]
pub(crate) struct Input(Arc<AsyncMutex<Option<pipe::Sender>>>);

impl Input {
    fn new(pipe: pipe::Sender) -> Self {
        Self(Arc::new(AsyncMutex::new(Some(pipe))))
    }

    /// Writes; a program that reads no more is told nothing.
    pub(crate) async fn write(&self, bytes: &[u8]) {
        let mut pipe = self.0.lock().await;
        if let Some(open) = &mut *pipe
            && open.write_all(bytes).await.is_err()
        {
            *pipe = None;
        }
    }

    /// Tells the program that nothing follows.
    pub(crate) async fn close(&self) {
        *self.0.lock().await = None;
    }
}

/// The streams of a running container, for those who attach.
#[derive(Debug)]
pub(crate) struct Console {
    /// What the container has of an input.
    pub(crate) input: Option<Input>,
    /// Does the first who attaches and goes end the input?
    pub(crate) input_once: bool,
    pub(crate) terminal: Option<File>,
    pub(crate) followers: Arc<Followers>,
}

/// Those who attached to a container, and see its output from then on.
#[derive(Debug)]
pub(crate) struct Followers(Mutex<Option<Vec<mpsc::Sender<Piece>>>>);

impl Followers {
    /// Nobody yet.
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Some(Vec::new())))
    }

    /// The output from now on, until it ends.
    pub(crate) fn follow(&self) -> mpsc::Receiver<Piece> {
        let (sender, pieces) = mpsc::channel(PIECES);
        if let Some(followers) = &mut *self.0.lock() {
            followers.push(sender);
        }
        pieces
    }

    /// Shows everybody what the container wrote.
    pub(crate) async fn show(&self, output: Output, bytes: &[u8]) {
        let Some(followers) = self.0.lock().clone().filter(|them| !them.is_empty()) else {
            return;
        };
        let bytes = Bytes::copy_from_slice(bytes);
        let mut gone = false;
        for follower in &followers {
            let sent = follower.send_timeout((output, bytes.clone()), PATIENCE);
            gone |= sent.await.is_err();
        }
        if gone && let Some(followers) = &mut *self.0.lock() {
            // A full one was waited for long enough.
            followers.retain(|follower| !follower.is_closed() && follower.capacity() > 0);
        }
    }

    /// Nothing follows.
    pub(crate) fn end(&self) {
        *self.0.lock() = None;
    }
}
