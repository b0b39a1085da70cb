//! What can go wrong with a message.

use std::io;

/// A peer's message that does not keep to the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("the head is malformed")]
    Head,
    #[error("the version is not HTTP/1.1")]
    Version,
    #[error("the head is too large")]
    TooLarge,
    /// RFC 9112 section 6.1 asks to say so, as the peer may do without.
    #[error("the transfer coding is not implemented")]
    Coding,
    #[error("the length of the body is not clear")]
    Length,
    #[error("a length and chunks exclude each other")]
    LengthAndChunks,
    #[error("there may be no body")]
    Body,
    #[error("the target is malformed")]
    Target,
    #[error("the chunks of the body are malformed")]
    Chunk,
    #[error("the peer switched to a protocol that nobody asked for")]
    Switch,
}

/// Why a message does not arrive, or cannot be sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// What was received is refused.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The connection broke.
    #[error("the connection broke")]
    Io(#[from] io::Error),
    /// The peer ended the connection in the middle of a message, or before it.
    #[error("the connection ended before the message")]
    Ended,
    /// What is to be sent would be read as something else.
    #[error("the head cannot be written")]
    Head,
    /// What is to be sent is shorter or longer than its head says.
    #[error("the body is not as long as announced")]
    BodyLength,
    /// What is to be sent broke off.
    #[error("the body to be sent broke off")]
    Body,
    /// The message is over, and its connection belongs to the next one.
    #[error("the message is over")]
    Over,
}
