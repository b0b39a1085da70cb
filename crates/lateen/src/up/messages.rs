//! What the processes of an `up` tell each other: one JSON object a line.
//!
//! The inside process tells the outer one how far it is; a detached outer process tells the command that started it.

use std::io::{self, BufRead, Write};

use serde::{Deserialize, Serialize};

use crate::exit::{CommandError, Failure};
use crate::print;

/// Longest message, in bytes.
const MESSAGE_LIMIT: usize = 1 << 20;

/// A step of bringing a mesh up.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Message {
    /// A part is up.
    Step {
        /// Which part.
        name: String,
        /// What there is to know.
        detail: String,
    },
    /// Everything that was asked for is ready; `warnings` tell what is not as wished.
    Ready {
        /// What did not get ready, and why.
        warnings: Vec<String>,
    },
    /// It cannot be done.
    Failed {
        /// Exit code.
        code: u8,
        /// What happened, why, and what to do.
        message: String,
    },
}

impl Message {
    pub(crate) fn step(name: &str, detail: impl Into<String>) -> Self {
        Self::Step {
            name: name.to_owned(),
            detail: detail.into(),
        }
    }

    pub(crate) fn failed(error: &CommandError) -> Self {
        Self::Failed {
            code: error.failure as u8,
            message: error.to_string(),
        }
    }

    /// The error that a `Failed` message carries.
    pub(crate) fn error(code: u8, message: &str) -> CommandError {
        match code {
            code if code == Failure::Findings as u8 => CommandError::findings(message),
            code if code == Failure::Usage as u8 => CommandError::usage(message),
            _ => CommandError::unavailable(message),
        }
    }

    /// Writes the message as one line.
    pub(crate) fn write(&self, mut to: impl Write) -> io::Result<()> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        to.write_all(&line)?;
        to.flush()
    }

    /// Reads the next message; `None` at the end of the stream.
    pub(crate) fn read(mut from: impl BufRead) -> io::Result<Option<Self>> {
        let mut line = Vec::new();
        let mut limited = io::Read::take(&mut from, MESSAGE_LIMIT as u64);
        if limited.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        serde_json::from_slice(&line)
            .map(Some)
            .map_err(io::Error::from)
    }
}

/// Where the messages of an `up` go.
pub(crate) enum Reporter {
    /// To the person in front of the terminal.
    Terminal,
    /// To the command that started this process, through its standard output.
    Starter,
}

impl Reporter {
    /// Passes a message on. A starter that went away does not end the mesh.
    pub(crate) fn report(&self, message: &Message) {
        match self {
            Self::Starter => drop(message.write(io::stdout())),
            Self::Terminal => match message {
                Message::Step { name, detail } => print::step(name, detail),
                Message::Ready { warnings } => {
                    warnings.iter().for_each(|warning| print::note(warning))
                }
                Message::Failed { message, .. } => print::error(message),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_pipe_in_order() {
        let mut pipe = Vec::new();
        Message::step("api", "https://127.0.0.1:6443")
            .write(&mut pipe)
            .expect("written");
        Message::Ready {
            warnings: vec!["a\nb".to_owned()],
        }
        .write(&mut pipe)
        .expect("written");
        let mut reader = pipe.as_slice();
        let first = Message::read(&mut reader)
            .expect("read")
            .expect("a message");
        assert!(matches!(first, Message::Step { name, .. } if name == "api"));
        let second = Message::read(&mut reader)
            .expect("read")
            .expect("a message");
        assert!(matches!(second, Message::Ready { warnings } if warnings == ["a\nb"]));
        assert!(Message::read(&mut reader).expect("read").is_none());
    }
}
