//! Upstream connections of a cluster: addresses, keepalive, protocol, and how long they are used.

use std::time::Duration;

use lateen_route::{Invalid, Within, refuse_rest};
use lateen_xds::pb::envoy::config::cluster::v3 as pb;
use lateen_xds::pb::envoy::config::core::v3::HttpProtocolOptions as Common;
use lateen_xds::pb::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use lateen_xds::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::UpstreamProtocolOptions;
use lateen_xds::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::explicit_http_config::ProtocolConfig;

use super::sticky;
use super::{ClusterSpec, breakers};
use crate::cluster::{ServerNameRules, UpstreamProtocol};
use crate::config::context::Context;
use crate::config::{decode, ip_and_port, limit};

const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

impl ClusterSpec {
    pub(super) fn connections(
        &mut self,
        message: &mut pb::Cluster,
        context: &Context<'_>,
    ) -> Result<(), Invalid> {
        if let Some(mut bind) = message.upstream_bind_config.take() {
            let source = bind.source_address.take().ok_or_else(|| {
                Invalid::new("upstream_bind_config.source_address", "is required")
            })?;
            let address = ip_and_port(source).within("upstream_bind_config.source_address")?;
            if address.port() != 0 {
                return Err(Invalid::unsupported(
                    "upstream_bind_config.source_address.port_value",
                ));
            }
            self.bind = Some(address.ip());
            // Further addresses are for the other family; connections use the address that fits or none.
            bind.additional_source_addresses.clear();
            bind.extra_source_addresses.clear();
            refuse_rest(&bind).within("upstream_bind_config")?;
        }
        if let Some(mut options) = message.upstream_connection_options.take() {
            self.keepalive = options.tcp_keepalive.take().map(|alive| {
                let seconds = |value: Option<lateen_xds::pb::google::protobuf::UInt32Value>| {
                    value.map(|value| Duration::from_secs(value.value.max(1).into()))
                };
                let mut keepalive = socket2::TcpKeepalive::new();
                if let Some(time) = seconds(alive.keepalive_time) {
                    keepalive = keepalive.with_time(time);
                }
                if let Some(interval) = seconds(alive.keepalive_interval) {
                    keepalive = keepalive.with_interval(interval);
                }
                match alive.keepalive_probes {
                    Some(probes) => keepalive.with_retries(probes.value.max(1)),
                    None => keepalive,
                }
            });
            refuse_rest(&options).within("upstream_connection_options")?;
        }
        if let Some(breakers) = message.circuit_breakers.take() {
            self.limits = breakers::compile(breakers).within("circuit_breakers")?;
        }
        if let Some(value) = message.max_requests_per_connection.take() {
            self.max_requests_per_connection = Some(value.value).filter(|value| *value > 0);
        }
        if let Some(options) = message.http2_protocol_options.take() {
            self.max_concurrent_streams = options.max_concurrent_streams.map(|value| value.value);
            self.protocol = UpstreamProtocol::Http2;
        }
        // How the protocol is chosen does not depend on it any more: the options above say it.
        message.http_protocol_options = None;
        if let Some(common) = message.common_http_protocol_options.take() {
            self.common(common).within("common_http_protocol_options")?;
        }
        for (name, any) in std::mem::take(&mut message.typed_extension_protocol_options) {
            let path = format!("typed_extension_protocol_options[{name}]");
            if name == sticky::NAME {
                self.sticky = Some(sticky::compile(&any, context).within(&path)?);
                continue;
            }
            if name != HTTP_OPTIONS {
                return Err(Invalid::unsupported(path));
            }
            let options = decode::<HttpProtocolOptions>(&any).within(&path)?;
            self.http_options(options).within(&path)?;
        }
        Ok(())
    }

    fn http_options(&mut self, mut options: HttpProtocolOptions) -> Result<(), Invalid> {
        if let Some(common) = options.common_http_protocol_options.take() {
            self.common(common).within("common_http_protocol_options")?;
        }
        if let Some(mut names) = options.upstream_http_protocol_options.take() {
            self.server_name = ServerNameRules {
                of_request: std::mem::take(&mut names.auto_sni),
                check: std::mem::take(&mut names.auto_san_validation),
                header: Some(std::mem::take(&mut names.override_auto_sni_header))
                    .filter(|name| !name.is_empty()),
            };
            refuse_rest(&names).within("upstream_http_protocol_options")?;
        }
        self.protocol = match options.upstream_protocol_options.take() {
            None => UpstreamProtocol::Http1,
            Some(UpstreamProtocolOptions::ExplicitHttpConfig(config)) => {
                match config.protocol_config {
                    Some(ProtocolConfig::HttpProtocolOptions(_)) | None => UpstreamProtocol::Http1,
                    Some(ProtocolConfig::Http2ProtocolOptions(options)) => {
                        self.max_concurrent_streams =
                            options.max_concurrent_streams.map(|value| value.value);
                        UpstreamProtocol::Http2
                    }
                    Some(ProtocolConfig::Http3ProtocolOptions(_)) => {
                        return Err(Invalid::unsupported(
                            "explicit_http_config.http3_protocol_options",
                        ));
                    }
                }
            }
            Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(_)) => {
                UpstreamProtocol::Downstream
            }
            Some(UpstreamProtocolOptions::AutoConfig(mut config)) => {
                // How HTTP/1.1 is written does not depend on it.
                config.http_protocol_options = None;
                self.max_concurrent_streams = config
                    .http2_protocol_options
                    .take()
                    .and_then(|options| Some(options.max_concurrent_streams?.value));
                refuse_rest(&config).within("auto_config")?;
                if !self.transports.all_negotiate() {
                    let reason = "needs TLS, which is where the version is agreed on";
                    return Err(Invalid::new("auto_config", reason));
                }
                UpstreamProtocol::Negotiated
            }
        };
        refuse_rest(&options)
    }

    fn common(&mut self, mut common: Common) -> Result<(), Invalid> {
        self.idle_timeout =
            limit(common.idle_timeout.take(), self.idle_timeout).within("idle_timeout")?;
        if let Some(value) = common.max_requests_per_connection.take() {
            self.max_requests_per_connection = Some(value.value).filter(|value| *value > 0);
        }
        self.max_connection_duration = limit(
            common.max_connection_duration.take(),
            self.max_connection_duration,
        )
        .within("max_connection_duration")?;
        refuse_rest(&common)
    }
}
