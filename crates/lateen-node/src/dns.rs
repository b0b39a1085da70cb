//! The cluster's DNS: service and pod names over UDP and TCP.
//!
//! Names of the outside are refused at once: the mesh has no way to the host's resolvers, and a quick
//! refusal lets programs go on where a silence would make them wait.

pub(crate) mod zone;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;

use crate::world::World;
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
    zone: Arc<Zone>,
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
    ) -> io::Result<Self> {
        let address = SocketAddr::V4(SocketAddrV4::new(address, 53));
        let udp = UdpSocket::bind(address).await?;
        let tcp = TcpListener::bind(address).await?;
        Ok(Self {
            udp,
            tcp,
            zone: Arc::new(Zone::new(world, domain)),
        })
    }

    /// Answers for ever.
    pub(crate) async fn serve(self) {
        tokio::join!(
            serve_udp(self.udp, &self.zone),
            serve_tcp(self.tcp, self.zone.clone())
        );
    }
}

async fn serve_udp(socket: UdpSocket, zone: &Zone) {
    let mut buffer = vec![0; LARGE_ANSWER];
    loop {
        // Errors on a UDP socket are about an earlier answer that could not be delivered.
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        if let Some(answer) = answer(zone, &buffer[..length], false) {
            // A client that is gone needs no answer.
            let _ = socket.send_to(&answer, client).await;
        }
    }
}

async fn serve_tcp(listener: TcpListener, zone: Arc<Zone>) {
    let permits = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let zone = zone.clone();
                tokio::spawn(async move {
                    // An error is the client's: it is gone, or silent, or speaks no DNS.
                    let _ = converse(stream, &zone).await;
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

async fn converse(mut stream: TcpStream, zone: &Zone) -> io::Result<()> {
    loop {
        let length = tokio::time::timeout(IDLE, stream.read_u16()).await??;
        let mut query = vec![0; usize::from(length)];
        tokio::time::timeout(IDLE, stream.read_exact(&mut query)).await??;
        let Some(answer) = answer(zone, &query, true) else {
            return Ok(());
        };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        let framed = [&length.to_be_bytes(), answer.as_slice()].concat();
        tokio::time::timeout(IDLE, stream.write_all(&framed)).await??;
    }
}

/// The answer to one message; nothing to what is no question.
fn answer(zone: &Zone, bytes: &[u8], stream: bool) -> Option<Vec<u8>> {
    let query = Message::from_vec(bytes).ok()?;
    if query.metadata.message_type != MessageType::Query {
        return None;
    }
    let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
    answer.metadata.recursion_desired = query.metadata.recursion_desired;
    answer.metadata.recursion_available = true;
    if query.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(LARGE_ANSWER as u16);
        answer.set_edns(edns);
    }
    match query.queries.as_slice() {
        _ if query.metadata.op_code != OpCode::Query => {
            answer.metadata.response_code = ResponseCode::NotImp;
        }
        [question] => {
            answer.add_query(question.clone());
            match zone.lookup(question.name(), question.query_type()) {
                Answer::Records(records) => {
                    answer.metadata.authoritative = true;
                    answer.add_answers(records);
                }
                Answer::Nothing { name_exists } => {
                    answer.metadata.authoritative = true;
                    if !name_exists {
                        answer.metadata.response_code = ResponseCode::NXDomain;
                    }
                    answer.add_authority(zone.authority());
                }
                Answer::Elsewhere => answer.metadata.response_code = ResponseCode::Refused,
            }
        }
        _ => answer.metadata.response_code = ResponseCode::FormErr,
    }
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
