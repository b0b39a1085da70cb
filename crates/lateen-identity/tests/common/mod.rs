//! Authorities, workloads and handshakes in memory.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses a part of it"
)]

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use lateen_identity::{
    AllowList, CertificateAuthority, Identity, Signer, SpiffeId, TrustBundle, TrustDomain,
    WorkloadKey, alpn, peer, tls,
};
use rustls::{ClientConnection, ServerConnection};

pub const HOUR: Duration = Duration::from_secs(3600);
pub const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

pub fn domain(name: &str) -> TrustDomain {
    name.parse().unwrap()
}

pub fn id(text: &str) -> SpiffeId {
    text.parse().unwrap()
}

/// An authority whose root was made a day ago, so that certificates of the past can be issued.
pub fn authority(name: &str) -> CertificateAuthority {
    let start = SystemTime::now() - 24 * HOUR;
    let signer = Signer::self_made(&domain(name), YEAR, start).unwrap();
    CertificateAuthority::new(domain(name), signer)
}

pub fn issue(
    ca: &CertificateAuthority,
    of: &str,
    from: SystemTime,
    lifetime: Duration,
) -> Identity {
    let key = WorkloadKey::generate().unwrap();
    let csr = key.request(&id(of)).unwrap();
    let issued = ca.sign(&csr, &id(of), lifetime, from).unwrap();
    key.with_chain(&issued.chain_pem()).unwrap()
}

/// A certificate for an hour from now.
pub fn fresh(ca: &CertificateAuthority, of: &str) -> Identity {
    issue(ca, of, SystemTime::now(), HOUR)
}

/// One side of a handshake: what it shows, whom it trusts, whom it accepts.
#[derive(Clone)]
pub struct Side {
    pub identity: Identity,
    pub bundle: TrustBundle,
    pub allowed: AllowList,
}

/// A handshake of both sides with Istio's protocols. The ids that client and server saw, or what failed first.
pub fn handshake(client: Side, server: Side) -> Result<(SpiffeId, SpiffeId), String> {
    let required = tls::ClientCertificate::Required;
    let server_config = tls::server(
        server.identity,
        &server.bundle,
        server.allowed,
        required,
        alpn::SERVER_HTTP,
    )
    .map_err(|e| e.to_string())?;
    let client_config = tls::client(
        client.identity,
        &client.bundle,
        client.allowed,
        alpn::CLIENT_HTTP11,
    )
    .map_err(|e| e.to_string())?;
    let (client, server) = connect(client_config, server_config)?;
    assert_eq!(client.alpn_protocol(), Some(alpn::HTTP11));
    Ok((
        peer::peer_id(client.peer_certificates()).unwrap(),
        peer::peer_id(server.peer_certificates()).unwrap(),
    ))
}

/// Passes bytes between the two until both are done, or one gives up.
pub fn connect(
    client: rustls::ClientConfig,
    server: rustls::ServerConfig,
) -> Result<(ClientConnection, ServerConnection), String> {
    let name = "outbound_.8000_._.httpbin.default.svc.cluster.local"
        .try_into()
        .unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    // A handshake has at most three flights, and TLS 1.3 clients learn of a refusal after their last one.
    for _ in 0..6 {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut input = bytes.as_slice();
        while !input.is_empty() {
            server.read_tls(&mut input).unwrap();
            server
                .process_new_packets()
                .map_err(|e| format!("server: {e}"))?;
        }
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut input = bytes.as_slice();
        while !input.is_empty() {
            client.read_tls(&mut input).unwrap();
            client
                .process_new_packets()
                .map_err(|e| format!("client: {e}"))?;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok((client, server))
}
