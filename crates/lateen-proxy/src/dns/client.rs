//! Questions to name servers, over UDP, and over TCP when the answer is long.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, UdpSocket};

use super::ResolverSettings;
use super::system::{self, System};

/// Longest answer over UDP.
const DATAGRAM: usize = 4096;

/// Most addresses of a name that are used.
const MOST_ADDRESSES: usize = 1024;

/// Addresses of a name.
#[derive(Debug, Clone, Default)]
pub(super) struct Answer {
    /// Without repetitions, in the order of the answer.
    pub(super) addresses: Vec<IpAddr>,
    /// How long they may be kept; nothing when they do not come from a server.
    pub(super) ttl: Option<Duration>,
}

impl Answer {
    /// Both together.
    pub(super) fn with(mut self, other: Self) -> Self {
        self.addresses.extend(other.addresses);
        self.ttl = match (self.ttl, other.ttl) {
            (Some(one), Some(two)) => Some(one.min(two)),
            (one, two) => one.or(two),
        };
        self
    }
}

/// Why a name has no answer. That it does not exist, or has no address, is an answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ResolveError {
    #[error("`{0}` is not a name")]
    Name(String),
    #[error("no name server is configured")]
    NoServer,
    #[error("name server {server} cannot be asked: {source}")]
    Server {
        server: SocketAddr,
        source: std::io::Error,
    },
    #[error("name server {server} does not answer within {} s", limit.as_secs())]
    Timeout { server: SocketAddr, limit: Duration },
    #[error("name server {server} answers {code}")]
    Refused {
        server: SocketAddr,
        code: ResponseCode,
    },
    #[error("name server {server} sends what cannot be understood")]
    Malformed { server: SocketAddr },
}

/// Asks for one cluster.
#[derive(Debug)]
pub(super) struct Client {
    settings: ResolverSettings,
    mark: bool,
}

impl Client {
    pub(super) fn new(settings: ResolverSettings, mark: bool) -> Self {
        Self { settings, mark }
    }

    /// Addresses of one family. The files are read each time, as they may change.
    pub(super) async fn lookup(&self, name: &str, v6: bool) -> Result<Answer, ResolveError> {
        let of_family = |ip: &IpAddr| ip.is_ipv6() == v6;
        if let Ok(ip) = name.parse::<IpAddr>() {
            let addresses = Some(ip).filter(of_family).into_iter().collect();
            return Ok(Answer {
                addresses,
                ttl: None,
            });
        }
        let mut known = system::hosts(name);
        if known.is_empty() && is_localhost(name) {
            known = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        }
        if !known.is_empty() {
            known.retain(of_family);
            return Ok(Answer {
                addresses: known,
                ttl: None,
            });
        }
        let system = System::load();
        let mut none = Ok(Answer::default());
        for candidate in system.candidates(name, !self.settings.no_search) {
            match self.ask_servers(&system, &candidate, v6).await {
                Ok(answer) if answer.addresses.is_empty() => {}
                Ok(answer) => return Ok(answer),
                // A server that fails for one of the names may know another.
                Err(error) => none = Err(error),
            }
        }
        none
    }

    async fn ask_servers(
        &self,
        system: &System,
        name: &str,
        v6: bool,
    ) -> Result<Answer, ResolveError> {
        let own = &self.settings.servers;
        let instead = self.settings.only_without_system && !system.servers.is_empty();
        let servers = if own.is_empty() || instead {
            &system.servers
        } else {
            own
        };
        let kind = if v6 { RecordType::AAAA } else { RecordType::A };
        let absolute =
            Name::from_utf8(format!("{name}.")).map_err(|_| ResolveError::Name(name.to_owned()))?;
        let mut query = Message::query();
        query.metadata.recursion_desired = true;
        query.add_query(Query::query(absolute, kind));
        let limit = self.settings.timeout.unwrap_or(system.timeout);
        let mut failed = ResolveError::NoServer;
        for _ in 0..self.settings.tries.unwrap_or(system.tries) {
            for server in servers {
                let asking = self.ask(*server, &query);
                let answered = tokio::time::timeout(limit, asking).await;
                let answered = answered.unwrap_or(Err(ResolveError::Timeout {
                    server: *server,
                    limit,
                }));
                match answered.and_then(|message| addresses(*server, &message, v6)) {
                    Ok(answer) => return Ok(answer),
                    Err(error) => failed = error,
                }
            }
        }
        Err(failed)
    }

    async fn ask(&self, server: SocketAddr, query: &Message) -> Result<Message, ResolveError> {
        let refused = |source| ResolveError::Server { server, source };
        let bytes = query
            .to_vec()
            .map_err(|_| ResolveError::Malformed { server })?;
        if !self.settings.tcp {
            let answer = self
                .over_udp(server, query, &bytes)
                .await
                .map_err(refused)?;
            if !answer.metadata.truncation {
                return Ok(answer);
            }
        }
        let answer = self.over_tcp(server, &bytes).await.map_err(refused)?;
        match Message::from_vec(&answer) {
            Ok(answer) if answers(query, &answer) => Ok(answer),
            _ => Err(ResolveError::Malformed { server }),
        }
    }

    /// Waits for the answer to this question; whatever else arrives may come from anywhere.
    async fn over_udp(
        &self,
        server: SocketAddr,
        query: &Message,
        bytes: &[u8],
    ) -> std::io::Result<Message> {
        let socket = UdpSocket::bind(any(server)).await?;
        if self.mark {
            lateen_sys::mark_own_socket(&socket)?;
        }
        socket.connect(server).await?;
        socket.send(bytes).await?;
        let mut buffer = vec![0; DATAGRAM];
        loop {
            let length = socket.recv(&mut buffer).await?;
            if let Ok(answer) = Message::from_vec(&buffer[..length])
                && answers(query, &answer)
            {
                return Ok(answer);
            }
        }
    }

    async fn over_tcp(&self, server: SocketAddr, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
        let socket = if server.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        if self.mark {
            lateen_sys::mark_own_socket(&socket)?;
        }
        let mut stream = socket.connect(server).await?;
        let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        let mut framed = length.to_be_bytes().to_vec();
        framed.extend_from_slice(bytes);
        stream.write_all(&framed).await?;
        let length = stream.read_u16().await?;
        let mut answer = vec![0; length.into()];
        stream.read_exact(&mut answer).await?;
        Ok(answer)
    }
}

fn any(server: SocketAddr) -> SocketAddr {
    let ip: IpAddr = if server.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    SocketAddr::new(ip, 0)
}

fn is_localhost(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

/// Whether a message answers the question that was asked.
fn answers(query: &Message, answer: &Message) -> bool {
    answer.metadata.message_type == MessageType::Response
        && answer.metadata.id == query.metadata.id
        && answer.queries == query.queries
}

fn addresses(server: SocketAddr, message: &Message, v6: bool) -> Result<Answer, ResolveError> {
    let code = message.metadata.response_code;
    if !matches!(code, ResponseCode::NoError | ResponseCode::NXDomain) {
        return Err(ResolveError::Refused { server, code });
    }
    let mut answer = Answer::default();
    // The servers follow aliases, so every address of the answer is one of the name.
    for record in message.answers.iter().take(MOST_ADDRESSES) {
        let ip: IpAddr = match &record.data {
            RData::A(address) if !v6 => address.0.into(),
            RData::AAAA(address) if v6 => address.0.into(),
            _ => continue,
        };
        let ttl = Duration::from_secs(record.ttl.into());
        answer.ttl = Some(answer.ttl.map_or(ttl, |shortest| shortest.min(ttl)));
        if !answer.addresses.contains(&ip) {
            answer.addresses.push(ip);
        }
    }
    Ok(answer)
}
