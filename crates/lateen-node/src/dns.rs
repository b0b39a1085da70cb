//! The cluster's DNS: service and pod names over UDP and TCP. Names of the outside are asked of the host's nameservers.

mod forward;
pub(crate) mod zone;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;

use crate::Outside;
use crate::world::World;
use forward::{Forwarded, Forwarder};
use zone::{Answer, Zone};

/// Largest UDP answer to a client that does not say what it takes, in bytes.
const SMALL_ANSWER: usize = 512;

/// Largest UDP answer to any client, in bytes.
const LARGE_ANSWER: usize = 4096;

/// Connections that are served at once.
const MOST_CONNECTIONS: usize = 256;

/// How long a connection may be silent.
const IDLE: Duration = Duration::from_secs(10);

/// The server's sockets, open.
#[derive(Debug)]
pub(crate) struct Server {
    udp: UdpSocket,
    tcp: TcpListener,
    resolver: Arc<Resolver>,
}

/// Who answers: the cluster's zone, and for what is not in it the host's nameservers.
#[derive(Debug)]
struct Resolver {
    zone: Zone,
    /// Without one, names of the outside are refused.
    forwarder: Option<Forwarder>,
}

/// What to do about a message.
enum Reply {
    Answer(Message),
    /// The host's nameservers know.
    Forward,
    /// An alias of the cluster leads out of it: what it leads to is to be added.
    Follow(Message, Query),
}

impl Server {
    /// Opens both sockets at the address.
    ///
    /// # Errors
    /// When the address is taken.
    pub(crate) async fn bind(
        address: Ipv4Addr,
        world: Arc<World>,
        domain: &str,
        outside: Outside,
    ) -> io::Result<Self> {
        let address = SocketAddr::V4(SocketAddrV4::new(address, 53));
        let udp = UdpSocket::bind(address).await?;
        let tcp = TcpListener::bind(address).await?;
        Ok(Self {
            udp,
            tcp,
            resolver: Arc::new(Resolver {
                zone: Zone::new(world, domain),
                forwarder: Some(Forwarder::new(outside)),
            }),
        })
    }

    /// Answers for ever.
    pub(crate) async fn serve(self) {
        tokio::join!(
            serve_udp(Arc::new(self.udp), self.resolver.clone()),
            serve_tcp(self.tcp, self.resolver)
        );
    }
}

async fn serve_udp(socket: Arc<UdpSocket>, resolver: Arc<Resolver>) {
    let mut buffer = vec![0; LARGE_ANSWER];
    loop {
        // Errors on a UDP socket are about an earlier answer that could not be delivered.
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        let Some(query) = question(&buffer[..length]) else {
            continue;
        };
        let reply = resolver.reply(&query);
        if let Reply::Answer(answer) = reply {
            if let Some(answer) = encode(&query, answer, false) {
                // A client that is gone needs no answer.
                let _ = socket.send_to(&answer, client).await;
            }
            continue;
        }
        let (socket, resolver) = (socket.clone(), resolver.clone());
        let bytes = buffer[..length].to_vec();
        tokio::spawn(async move {
            let answer = resolver.complete(&query, &bytes, reply, false).await;
            if let Some(answer) = answer {
                let _ = socket.send_to(&answer, client).await;
            }
        });
    }
}

async fn serve_tcp(listener: TcpListener, resolver: Arc<Resolver>) {
    let permits = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let resolver = resolver.clone();
                tokio::spawn(async move {
                    // An error is the client's: it is gone, or silent, or speaks no DNS.
                    let _ = converse(stream, &resolver).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn converse(mut stream: TcpStream, resolver: &Resolver) -> io::Result<()> {
    loop {
        let length = tokio::time::timeout(IDLE, stream.read_u16()).await??;
        let mut query = vec![0; usize::from(length)];
        tokio::time::timeout(IDLE, stream.read_exact(&mut query)).await??;
        let Some(answer) = resolver.answer(&query, true).await else {
            return Ok(());
        };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        let framed = [&length.to_be_bytes(), answer.as_slice()].concat();
        tokio::time::timeout(IDLE, stream.write_all(&framed)).await??;
    }
}

impl Resolver {
    /// The answer to one message; nothing to what is no question.
    async fn answer(&self, bytes: &[u8], stream: bool) -> Option<Vec<u8>> {
        let query = question(bytes)?;
        let reply = self.reply(&query);
        self.complete(&query, bytes, reply, stream).await
    }

    /// What the zone says, or who is to be asked.
    fn reply(&self, query: &Message) -> Reply {
        let mut answer = response(query);
        match query.queries.as_slice() {
            _ if query.metadata.op_code != OpCode::Query => {
                answer.metadata.response_code = ResponseCode::NotImp;
            }
            [question] => {
                answer.add_query(question.clone());
                match self.zone.lookup(question.name(), question.query_type()) {
                    Answer::Records(records) => {
                        answer.metadata.authoritative = true;
                        let next = self.leads_out(question, records.last());
                        answer.add_answers(records);
                        if let Some(next) = next {
                            return Reply::Follow(answer, next);
                        }
                    }
                    Answer::Nothing { name_exists } => {
                        answer.metadata.authoritative = true;
                        if !name_exists {
                            answer.metadata.response_code = ResponseCode::NXDomain;
                        }
                        answer.add_authority(self.zone.authority());
                    }
                    Answer::Elsewhere => return Reply::Forward,
                }
            }
            _ => answer.metadata.response_code = ResponseCode::FormErr,
        }
        Reply::Answer(answer)
    }

    /// The question about what an alias leads to, if that is for others to answer.
    fn leads_out(&self, question: &Query, last: Option<&Record>) -> Option<Query> {
        let RData::CNAME(target) = &last?.data else {
            return None;
        };
        let wanted = question.query_type();
        let ours = wanted == RecordType::CNAME || !self.zone.is_elsewhere(&target.0);
        (!ours).then(|| Query::query(target.0.clone(), wanted))
    }

    /// The whole answer as bytes; `bytes` are the question as it came.
    async fn complete(
        &self,
        query: &Message,
        bytes: &[u8],
        reply: Reply,
        stream: bool,
    ) -> Option<Vec<u8>> {
        let (mut answer, asked) = match reply {
            Reply::Answer(answer) => return encode(query, answer, stream),
            Reply::Forward => {
                let mut answer = response(query);
                answer.add_queries(query.queries.iter().cloned());
                (answer, self.ask(bytes, stream).await)
            }
            Reply::Follow(answer, next) => {
                let mut question = Message::query();
                question.metadata.recursion_desired = true;
                question.add_query(next);
                let question = question.to_vec().ok()?;
                (answer, self.ask(&question, stream).await)
            }
        };
        match asked {
            // Passed on as it is: it may hold what this server has no name for.
            Forwarded::Answer(found) if answer.answers.is_empty() => return Some(found),
            Forwarded::Answer(found) => {
                let found = Message::from_vec(&found).ok()?;
                answer.metadata.authoritative = false;
                answer.metadata.response_code = found.metadata.response_code;
                answer.add_answers(found.answers);
            }
            // A quick refusal lets programs go on where a silence would make them wait.
            Forwarded::Nobody if answer.answers.is_empty() => {
                answer.metadata.response_code = ResponseCode::Refused;
            }
            Forwarded::Nobody => {}
            Forwarded::Failed => answer.metadata.response_code = ResponseCode::ServFail,
        }
        encode(query, answer, stream)
    }

    async fn ask(&self, question: &[u8], stream: bool) -> Forwarded {
        match &self.forwarder {
            Some(forwarder) => forwarder.ask(question, stream).await,
            None => Forwarded::Nobody,
        }
    }
}

/// A message that asks something.
fn question(bytes: &[u8]) -> Option<Message> {
    let query = Message::from_vec(bytes).ok()?;
    (query.metadata.message_type == MessageType::Query).then_some(query)
}

/// The beginning of an answer.
fn response(query: &Message) -> Message {
    let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
    answer.metadata.recursion_desired = query.metadata.recursion_desired;
    answer.metadata.recursion_available = true;
    if query.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(LARGE_ANSWER as u16);
        answer.set_edns(edns);
    }
    answer
}

/// An answer as bytes, cut where the client takes no more.
fn encode(query: &Message, answer: Message, stream: bool) -> Option<Vec<u8>> {
    let limit = match &query.edns {
        _ if stream => usize::from(u16::MAX),
        Some(edns) => usize::from(edns.max_payload()).clamp(SMALL_ANSWER, LARGE_ANSWER),
        None => SMALL_ANSWER,
    };
    let encoded = answer.to_vec().ok()?;
    if encoded.len() <= limit {
        Some(encoded)
    } else {
        answer.truncate().to_vec().ok()
    }
}

#[cfg(test)]
mod tests;
