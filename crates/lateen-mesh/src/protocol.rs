//! Protocols of service ports and how they are told apart.

/// What is spoken on a port, as far as routing is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// HTTP/1.1
    Http,
    /// HTTP/2 with prior knowledge
    Http2,
    /// gRPC
    Grpc,
    /// gRPC-Web
    GrpcWeb,
    /// TLS that is not decrypted (`https` and `tls` ports)
    Tls,
    /// Any bytes
    Tcp,
    /// Datagrams; not proxied
    Udp,
    /// Not declared: told apart by the first bytes
    Auto,
}

/// Ports of well-known protocols in which the server speaks first: waiting for the client's first bytes would hang.
const SERVER_FIRST: [u32; 4] = [25, 53, 3306, 27017];

impl Protocol {
    /// The protocol of a Kubernetes service port: `appProtocol`, else the port's name up to the first `-`.
    pub fn of_service_port(
        transport: &str,
        app_protocol: Option<&str>,
        name: &str,
        number: u32,
    ) -> Self {
        if transport.eq_ignore_ascii_case("UDP") {
            return Self::Udp;
        }
        let declared = match app_protocol {
            Some("kubernetes.io/h2c") => Some(Self::Http2),
            Some("kubernetes.io/ws") => Some(Self::Http),
            Some("kubernetes.io/wss") => Some(Self::Tls),
            Some(protocol) => Self::named(protocol),
            None if name.to_ascii_lowercase().starts_with("grpc-web") => Some(Self::GrpcWeb),
            None => Self::named(name.split('-').next().unwrap_or_default()),
        };
        match declared {
            Some(protocol) => protocol,
            None if SERVER_FIRST.contains(&number) => Self::Tcp,
            None => Self::Auto,
        }
    }

    /// The protocol that an Istio kind names (`HTTP`, `https`, ...); `Auto` when the name is empty or unknown.
    pub fn of_name(name: &str) -> Self {
        Self::named(name).unwrap_or(Self::Auto)
    }

    fn named(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "http" => Self::Http,
            "http2" => Self::Http2,
            "grpc" => Self::Grpc,
            "grpc-web" => Self::GrpcWeb,
            "https" | "tls" => Self::Tls,
            "tcp" | "mongo" | "mysql" | "redis" => Self::Tcp,
            "udp" => Self::Udp,
            _ => return None,
        })
    }

    /// Whether requests are routed one by one.
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Http2 | Self::Grpc | Self::GrpcWeb)
    }

    /// Whether the upstream connection speaks HTTP/2.
    pub fn is_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::Grpc | Self::GrpcWeb)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selects_the_protocol() {
        let check = |app: Option<&str>, name: &str, port: u32, expected: Protocol| {
            assert_eq!(
                Protocol::of_service_port("TCP", app, name, port),
                expected,
                "{app:?} {name} {port}"
            );
        };
        check(None, "http-web", 80, Protocol::Http);
        check(None, "HTTP2", 80, Protocol::Http2);
        check(None, "grpc-web-x", 80, Protocol::GrpcWeb);
        check(None, "tcp-x", 80, Protocol::Tcp);
        check(None, "", 80, Protocol::Auto);
        check(None, "status-port", 15021, Protocol::Auto);
        check(None, "", 3306, Protocol::Tcp);
        check(Some("http"), "tcp-x", 80, Protocol::Http);
        check(Some("kubernetes.io/h2c"), "", 80, Protocol::Http2);
        check(Some("example.com/own"), "http", 80, Protocol::Auto);
        assert_eq!(
            Protocol::of_service_port("UDP", None, "http", 1),
            Protocol::Udp
        );
    }
}
