//! The connections and requests of the cases.

use serde_json::Value;

/// Address of clients and servers that a case does not name.
const SOME_ADDRESS: &str = "1.3.3.7";

/// A connection or request.
pub(super) struct Call<'a> {
    pub(super) address: &'a str,
    pub(super) port: u32,
    pub(super) path: &'a str,
    pub(super) protocol: &'a str,
    pub(super) tls: &'a str,
    pub(super) alpn: String,
    pub(super) host: &'a str,
    pub(super) server_name: &'a str,
    pub(super) inbound: bool,
    /// Name of the server's certificate that a client of mutual TLS expects.
    pub(super) client_secret: &'a str,
}

impl<'a> Call<'a> {
    pub(super) fn of(call: &'a Value) -> Self {
        let text = |field: &str, default: &'static str| -> &'a str {
            call[field]
                .as_str()
                .filter(|text| !text.is_empty())
                .unwrap_or(default)
        };
        let (protocol, tls, host) = (
            text("Protocol", ""),
            text("TLS", "plaintext"),
            text("HostHeader", ""),
        );
        let alpn = match (text("Alpn", ""), tls, protocol) {
            ("", "plaintext", "http") | ("", "tls", "http") => "http/1.1",
            ("", "plaintext", "http2") => "h2c",
            ("", "tls", "http2") => "h2",
            ("", "mtls", "http") => "istio-http/1.1",
            ("", "mtls", "http2") => "istio-h2",
            ("", "mtls", "tcp") => "istio",
            (given, _, _) => given,
        };
        Self {
            address: text("Address", SOME_ADDRESS),
            port: call["Port"]
                .as_u64()
                .and_then(|port| u32::try_from(port).ok())
                .unwrap_or_default(),
            path: text("Path", "/"),
            alpn: alpn.to_owned(),
            server_name: match text("Sni", "") {
                // Clients of TLS name the host that they call.
                "" if tls == "tls" => host,
                given => given,
            },
            inbound: text("CallMode", "") == "inbound",
            client_secret: text("MtlsSecretConfigName", "default"),
            protocol,
            tls,
            host,
        }
    }
}
