//! The exchange of workload metadata on TCP connections between Istio's proxies: once in each direction, before
//! anything else, on connections that agreed on a protocol for it.
//!
//! Four bytes of magic, four bytes of length, then an `Any` with a struct of the peer's metadata and id.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use lateen_xds::pb::google::protobuf::{Any, Struct, Value, value::Kind};
use prost::Message;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::peer::{Identity, PEER_ID, PEER_METADATA, Workload};

/// The protocol that both sides agree on in the TLS handshake.
pub(crate) const PROTOCOL: &str = "istio-peer-exchange";

const MAGIC: u32 = 0x3D23_0467;
const HEADER: usize = 8;

/// A peer that sends more than this breaks the exchange.
const MOST_BYTES: usize = 64 << 10;

/// How long the peer's half is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

const STRUCT: &str = "type.googleapis.com/google.protobuf.Struct";

/// The bytes that tell the peer about this proxy.
pub(crate) fn encode(own: &Identity) -> Vec<u8> {
    let mut message = Struct::default();
    let metadata = Kind::StructValue(own.metadata.clone());
    for (key, kind) in [
        (PEER_METADATA, metadata),
        (PEER_ID, Kind::StringValue(own.id.clone())),
    ] {
        message
            .fields
            .insert(key.to_owned(), Value { kind: Some(kind) });
    }
    let any = Any {
        type_url: STRUCT.to_owned(),
        value: message.encode_to_vec(),
    };
    let body = any.encode_to_vec();
    let mut bytes = Vec::with_capacity(HEADER + body.len());
    bytes.extend(MAGIC.to_be_bytes());
    // Node metadata is far below 4 GiB: it came in a discovery request.
    bytes.extend(u32::try_from(body.len()).unwrap_or(0).to_be_bytes());
    bytes.extend(body);
    bytes
}

/// Tells the peer about this proxy and reads what it tells. What follows the peer's half is left in `prefix`.
///
/// # Errors
/// When the connection breaks, or the peer's half does not come in time or is too long.
pub(crate) async fn run<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    prefix: &mut BytesMut,
    own: &Identity,
) -> io::Result<Option<Arc<Workload>>> {
    stream.write_all(&encode(own)).await?;
    stream.flush().await?;
    match tokio::time::timeout(PATIENCE, read(stream, prefix)).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut)),
    }
}

/// Reads the peer's half. A peer that begins with something else tells nothing, and nothing is taken from it.
async fn read<S: AsyncRead + Unpin>(
    stream: &mut S,
    prefix: &mut BytesMut,
) -> io::Result<Option<Arc<Workload>>> {
    loop {
        let known = prefix.len().min(4);
        if prefix[..known] != MAGIC.to_be_bytes()[..known] {
            return Ok(None);
        }
        if prefix.len() >= HEADER {
            let length = u32::from_be_bytes([prefix[4], prefix[5], prefix[6], prefix[7]]) as usize;
            if length > MOST_BYTES {
                return Err(io::Error::from(io::ErrorKind::InvalidData));
            }
            if prefix.len() >= HEADER + length {
                prefix.advance(HEADER);
                let body = prefix.split_to(length);
                return Ok(decode(&body).map(Arc::new));
            }
        }
        if stream.read_buf(prefix).await? == 0 {
            return Ok(None);
        }
    }
}

fn decode(body: &[u8]) -> Option<Workload> {
    let any = Any::decode(body).ok()?;
    let message = Struct::decode(any.value.as_slice()).ok()?;
    match &message.fields.get(PEER_METADATA)?.kind {
        Some(Kind::StructValue(metadata)) => Some(Workload::from_struct(metadata)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use lateen_xds::pb::envoy::config::core::v3::Node;

    use super::*;

    fn identity(workload: &str) -> Identity {
        let kind = Some(Kind::StringValue(workload.to_owned()));
        Identity::from_node(&Node {
            id: format!("sidecar~10.0.0.1~{workload}.n~n.svc.cluster.local"),
            metadata: Some(Struct {
                fields: [("WORKLOAD_NAME".to_owned(), Value { kind })].into(),
            }),
            ..Node::default()
        })
    }

    #[tokio::test]
    async fn both_sides_learn_the_other_and_lose_no_byte() {
        let (mut left, mut right) = tokio::io::duplex(1 << 16);
        let (client, server) = (identity("client"), identity("server"));
        let (mut to_client, mut to_server) = (BytesMut::new(), BytesMut::new());
        let serving = async {
            let peer = run(&mut right, &mut to_server, &server).await.unwrap();
            while to_server.len() < 5 {
                right.read_buf(&mut to_server).await.unwrap();
            }
            peer.unwrap()
        };
        let asking = async {
            // The first bytes of the application may follow at once.
            let mut sent = encode(&client);
            sent.extend(b"hello");
            left.write_all(&sent).await.unwrap();
            read(&mut left, &mut to_client).await.unwrap().unwrap()
        };
        let (of_client, of_server) = tokio::join!(serving, asking);
        assert_eq!((&*of_client.name, &*of_server.name), ("client", "server"));
        assert_eq!(&to_server[..], b"hello");
        assert!(to_client.is_empty());
    }

    #[tokio::test]
    async fn a_peer_that_does_not_take_part_keeps_its_bytes() {
        for (sent, kept) in [(&b"GET / HTTP/1.1"[..], 14), (b"=#x", 3), (b"", 0)] {
            let mut prefix = BytesMut::new();
            let peer = read(&mut &sent[..], &mut prefix).await.unwrap();
            assert_eq!((peer, prefix.len()), (None, kept));
        }
        let mut huge = MAGIC.to_be_bytes().to_vec();
        huge.extend(u32::MAX.to_be_bytes());
        assert!(
            read(&mut huge.as_slice(), &mut BytesMut::new())
                .await
                .is_err()
        );
    }
}
