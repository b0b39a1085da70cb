//! Names of the outside: asked of the host's nameservers, through sockets that the process outside opens.

use std::io;
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::LARGE_ANSWER;
use crate::Outside;

/// How long a nameserver may take; the next one is asked then, as resolvers do.
const PATIENCE: Duration = Duration::from_secs(2);

/// Most questions that wait for answers at once.
const MOST_WAITING: usize = 256;

/// Asks the host's nameservers.
#[derive(Debug)]
pub(crate) struct Forwarder {
    outside: Outside,
    permits: Semaphore,
}

/// What came of a question.
#[derive(Debug)]
pub(crate) enum Forwarded {
    /// An answer, as it came.
    Answer(Vec<u8>),
    /// The host has no nameserver.
    Nobody,
    /// No nameserver gave an answer that can be used.
    Failed,
}

impl Forwarder {
    pub(crate) fn new(outside: Outside) -> Self {
        Self {
            outside,
            permits: Semaphore::new(MOST_WAITING),
        }
    }

    /// Asks one after the other until one answers; over a stream the answer may be long.
    pub(crate) async fn ask(&self, query: &[u8], stream: bool) -> Forwarded {
        // Too many: the client will ask again.
        let Ok(_permit) = self.permits.try_acquire() else {
            return Forwarded::Failed;
        };
        let mut last = Forwarded::Nobody;
        for n in 0.. {
            let asked = async {
                if stream {
                    by_stream(self.outside.nameserver_stream(n).await?, query).await
                } else {
                    by_datagram(self.outside.nameserver(n).await?, query).await
                }
            };
            match timeout(PATIENCE, asked).await {
                Ok(Ok(answer)) if is_final(&answer) => return Forwarded::Answer(answer),
                Ok(Ok(answer)) => last = Forwarded::Answer(answer),
                Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => break,
                Ok(Err(error)) => {
                    tracing::debug!(%error, nameserver = n, "not answered");
                    last = Forwarded::Failed;
                }
                Err(_) => {
                    tracing::debug!(nameserver = n, "not answered in time");
                    last = Forwarded::Failed;
                }
            }
        }
        last
    }
}

/// Does the answer settle the question, or may another nameserver know more?
fn is_final(answer: &[u8]) -> bool {
    Message::from_vec(answer).is_ok_and(|answer| {
        matches!(
            answer.metadata.response_code,
            ResponseCode::NoError | ResponseCode::NXDomain
        )
    })
}

async fn by_datagram(socket: std::net::UdpSocket, query: &[u8]) -> io::Result<Vec<u8>> {
    // Every question has a socket of its own, and with it a port that nobody can guess.
    let socket = UdpSocket::from_std(socket)?;
    socket.send(query).await?;
    let mut buffer = vec![0; LARGE_ANSWER];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if answers(query, &buffer[..length]) {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

async fn by_stream(stream: std::net::TcpStream, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::from_std(stream)?;
    let length = u16::try_from(query.len()).map_err(io::Error::other)?;
    let framed = [&length.to_be_bytes(), query].concat();
    stream.write_all(&framed).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    if answers(query, &answer) {
        Ok(answer)
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the answer is to another question",
        ))
    }
}

/// Is this the answer to that question? (RFC 5452, section 9.1)
fn answers(query: &[u8], answer: &[u8]) -> bool {
    let (Ok(query), Ok(answer)) = (Message::from_vec(query), Message::from_vec(answer)) else {
        return false;
    };
    query.metadata.id == answer.metadata.id && query.queries == answer.queries
}
