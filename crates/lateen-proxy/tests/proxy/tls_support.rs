//! Certificates, clients and upstreams with TLS.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use lateen_identity::handshake_signatures;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, ServerConfig, StreamOwned};
use serde_json::{Value, json};

use crate::support::PATIENCE;

/// A certificate authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
}

/// A certificate with its key, as PEM.
#[derive(Clone)]
pub struct Identity {
    pub chain: String,
    pub key: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    /// A certificate with these names: those with `://` are URIs, the others DNS names.
    pub fn issue(&self, names: &[&str]) -> Identity {
        self.issue_with(names, |_| {})
    }

    /// A list that revokes the certificates with these serial numbers, as PEM.
    pub fn revoke(&self, serials: &[u64]) -> String {
        let revoked = |serial: &u64| rcgen::RevokedCertParams {
            serial_number: (*serial).into(),
            revocation_time: rcgen::date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = rcgen::CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2024, 1, 1),
            next_update: rcgen::date_time_ymd(3000, 1, 1),
            crl_number: 1_u64.into(),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }

    pub fn issue_with(
        &self,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Identity {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.subject_alt_names = names
            .iter()
            .map(|name| {
                let text = (*name).try_into().unwrap();
                if name.contains("://") {
                    SanType::URI(text)
                } else {
                    SanType::DnsName(text)
                }
            })
            .collect();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity {
            chain: certificate.pem(),
            key: key.serialize_pem(),
        }
    }
}

impl Identity {
    /// As an inline `TlsCertificate`.
    pub fn inline(&self) -> Value {
        json!({
            "certificateChain": { "inlineString": self.chain },
            "privateKey": { "inlineString": self.key },
        })
    }

    fn der(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let chain = CertificateDer::pem_slice_iter(self.chain.as_bytes())
            .collect::<Result<_, _>>()
            .unwrap();
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap();
        (chain, key)
    }
}

/// A transport socket with this context, of `Downstream` or `Upstream`.
pub fn transport(direction: &str, context: Value) -> Value {
    let mut context = context;
    context["@type"] = json!(format!(
        "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.{direction}TlsContext"
    ));
    json!({ "name": "tls", "typedConfig": context })
}

/// A secret of the agent or of the discovery stream.
pub fn secret(name: &str, discovery: bool) -> Value {
    let source = if discovery {
        json!({ "ads": {}, "initialFetchTimeout": "0s" })
    } else {
        json!({
            "apiConfigSource": {
                "apiType": "GRPC",
                "grpcServices": [{ "envoyGrpc": { "clusterName": "sds-grpc" } }],
            },
            "initialFetchTimeout": "0s",
        })
    };
    json!({ "name": name, "sdsConfig": source })
}

/// Accepts every server certificate: tests look at it themselves.
#[derive(Debug)]
struct AnyServer(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    handshake_signatures!(0);
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// What a TLS client does.
#[derive(Clone, Default)]
pub struct ClientOptions<'o> {
    pub identity: Option<&'o Identity>,
    pub server_name: &'o str,
    pub protocols: &'o [&'o str],
}

/// A connection after its handshake, on which text can be exchanged.
pub struct TlsClient(pub StreamOwned<ClientConnection, TcpStream>);

impl TlsClient {
    /// Connects and shakes hands. The error is what the client sees. In TLS 1.3 a server refuses a client's certificate
    /// after the client is done, so the refusal shows with the first answer.
    pub fn connect(address: SocketAddr, options: &ClientOptions<'_>) -> std::io::Result<Self> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer(
                provider().signature_verification_algorithms,
            )));
        let mut config = match options.identity {
            Some(identity) => {
                let (chain, key) = identity.der();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = options
            .protocols
            .iter()
            .map(|protocol| protocol.as_bytes().to_vec())
            .collect();
        let name = match options.server_name {
            "" => ServerName::IpAddress(address.ip().into()),
            name => ServerName::try_from(name.to_owned()).unwrap(),
        };
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut stream = StreamOwned::new(connection, stream);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Self(stream))
    }

    /// One HTTP/1.1 request that ends the connection; the whole answer as text.
    pub fn get(&mut self, path: &str, headers: &[&str]) -> std::io::Result<String> {
        let lines: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{lines}\r\n");
        self.0.write_all(request.as_bytes())?;
        let mut answer = String::new();
        match self.0.read_to_string(&mut answer) {
            Err(error) if answer.is_empty() => Err(error),
            _ => Ok(answer),
        }
    }

    /// The first certificate that the server showed.
    pub fn server_certificate(&self) -> CertificateDer<'static> {
        self.0.conn.peer_certificates().unwrap()[0]
            .clone()
            .into_owned()
    }
}

/// The first certificate of an identity.
pub fn leaf(identity: &Identity) -> CertificateDer<'static> {
    identity.der().0.remove(0)
}

/// An upstream with TLS that answers every connection's first request with the facts of the handshake.
pub struct TlsUpstream {
    pub address: SocketAddr,
}

impl TlsUpstream {
    /// Shows `identity`; asks for a client certificate of `clients`.
    pub fn start(identity: &Identity, clients: Option<&Authority>, protocols: &[&str]) -> Self {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = rustls::RootCertStore::empty();
                roots
                    .add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap())
                    .unwrap();
                let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
                    Arc::new(roots),
                    provider(),
                );
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let (chain, key) = identity.der();
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.alpn_protocols = protocols
            .iter()
            .map(|protocol| protocol.as_bytes().to_vec())
            .collect();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let config = config.clone();
                std::thread::spawn(move || {
                    let _ = answer(stream?, config);
                    std::io::Result::Ok(())
                });
            }
        });
        Self { address }
    }
}

/// Answers requests on a connection with what is known of its handshake.
fn answer(stream: TcpStream, config: Arc<ServerConfig>) -> std::io::Result<()> {
    let connection = rustls::ServerConnection::new(config).unwrap();
    let mut stream = StreamOwned::new(connection, stream);
    loop {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            if stream.read(&mut byte)? == 0 {
                return Ok(());
            }
            head.push(byte[0]);
        }
        let seen = json!({
            "sni": stream.conn.server_name(),
            "alpn": stream.conn.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned()),
            "client": stream.conn.peer_certificates().is_some(),
            "head": String::from_utf8_lossy(&head),
        })
        .to_string();
        let response = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{seen}",
            seen.len()
        );
        stream.write_all(response.as_bytes())?;
    }
}
