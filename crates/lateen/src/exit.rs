//! How a command ends: the exit codes that every `lateen` command shares, and the error that carries one.

use std::fmt;
use std::process::ExitCode;

/// Why a command did not succeed, by exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// 1: the command ran and found something wrong.
    Findings = 1,
    /// 2: the command was called wrongly, or its input cannot be read.
    Usage = 2,
    /// 3: the command cannot run here (missing permission or program, port taken, nothing running).
    Unavailable = 3,
}

impl From<Failure> for ExitCode {
    fn from(failure: Failure) -> Self {
        Self::from(failure as u8)
    }
}

/// An error for a person, with the exit code that goes with it.
#[derive(Debug)]
pub(crate) struct CommandError {
    /// Exit code.
    pub(crate) failure: Failure,
    /// What happened, where and why.
    message: String,
    /// What to do about it.
    advice: Option<String>,
}

/// Result of a command.
pub(crate) type Result<T, E = CommandError> = std::result::Result<T, E>;

impl CommandError {
    /// The command was called wrongly, or its input cannot be read.
    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self::new(Failure::Usage, message)
    }

    /// The command cannot run here and now.
    pub(crate) fn unavailable(message: impl fmt::Display) -> Self {
        Self::new(Failure::Unavailable, message)
    }

    /// The command ran and found something wrong.
    pub(crate) fn findings(message: impl fmt::Display) -> Self {
        Self::new(Failure::Findings, message)
    }

    /// Adds what to do about it.
    pub(crate) fn advise(mut self, advice: impl fmt::Display) -> Self {
        self.advice = Some(advice.to_string());
        self
    }

    fn new(failure: Failure, message: impl fmt::Display) -> Self {
        Self {
            failure,
            message: message.to_string(),
            advice: None,
        }
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)?;
        match &self.advice {
            Some(advice) => write!(formatter, "\n  {advice}"),
            None => Ok(()),
        }
    }
}

/// Joins an error with its sources, outermost first: `a: b: c`.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        // Many errors repeat their source in their own text.
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        source = inner.source();
    }
    text
}
