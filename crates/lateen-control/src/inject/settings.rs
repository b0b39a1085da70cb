//! What a pod's annotations say about its sidecar.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::{INJECT, InjectConfig, STATUS};

const PREFIXES: [&str; 2] = ["sidecar.istio.io/", "traffic.sidecar.istio.io/"];
const TEMPLATES: &str = "inject.istio.io/templates";
const PROXY_CONFIG: &str = "proxy.istio.io/config";

/// A value that cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("annotation {annotation}: {value:?} is not {expected}")]
pub struct SettingError {
    /// Name of the annotation.
    pub annotation: String,
    /// Its value.
    pub value: String,
    /// What it should be.
    pub expected: &'static str,
}

/// The sidecar of one pod.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Settings {
    pub(super) native_sidecar: bool,
    /// Is the proxy a gateway rather than a sidecar?
    pub(super) gateway: bool,
    pub(super) image: String,
    pub(super) log_level: String,
    pub(super) component_log_level: String,
    /// Given to the proxy as `PROXY_CONFIG`.
    pub(super) proxy_config: Value,
    /// `resources` of the container.
    pub(super) resources: Value,
    /// Outbound addresses that are redirected, and those that are not.
    pub(super) include_ranges: String,
    pub(super) exclude_ranges: String,
    pub(super) include_outbound_ports: String,
    pub(super) exclude_outbound_ports: String,
    /// Inbound ports that are redirected, and those that are not.
    pub(super) include_inbound_ports: String,
    pub(super) exclude_inbound_ports: String,
    /// Whether the application's probes are asked of the agent.
    pub(super) rewrite_probes: bool,
    pub(super) warnings: Vec<String>,
}

impl Settings {
    pub(super) fn of(pod: &Value, config: &InjectConfig) -> Result<Self, SettingError> {
        let mut settings = Self {
            native_sidecar: config.hold_application,
            gateway: false,
            image: config.image.clone(),
            log_level: "warning".to_owned(),
            component_log_level: "misc:error".to_owned(),
            proxy_config: json!({"discoveryAddress": config.discovery_address}),
            resources: json!({
                "requests": {"cpu": "10m", "memory": "40Mi"},
                "limits": {"cpu": "2", "memory": "1Gi"},
            }),
            include_ranges: "*".to_owned(),
            exclude_ranges: String::new(),
            include_outbound_ports: String::new(),
            exclude_outbound_ports: String::new(),
            include_inbound_ports: "*".to_owned(),
            exclude_inbound_ports: String::new(),
            rewrite_probes: true,
            warnings: Vec::new(),
        };
        let annotations = pod["metadata"]["annotations"].as_object();
        for (name, value) in annotations.into_iter().flatten() {
            let value = value.as_str().unwrap_or_default();
            settings.set(name, value)?;
        }
        Ok(settings)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), SettingError> {
        let text = value.to_owned();
        match name {
            INJECT | STATUS => {}
            TEMPLATES => {
                self.gateway = match value {
                    "gateway" => true,
                    "sidecar" => false,
                    _ => return Err(refused(name, value, "sidecar or gateway")),
                }
            }
            PROXY_CONFIG => self.set_proxy_config(value)?,
            "sidecar.istio.io/proxyImage" => self.image = text,
            "sidecar.istio.io/logLevel" => self.log_level = text,
            "sidecar.istio.io/componentLogLevel" => self.component_log_level = text,
            "sidecar.istio.io/discoveryAddress" => {
                self.proxy_config["discoveryAddress"] = text.into();
            }
            "sidecar.istio.io/nativeSidecar" => self.native_sidecar = boolean(name, value)?,
            "sidecar.istio.io/proxyCPU" => self.resources["requests"]["cpu"] = text.into(),
            "sidecar.istio.io/proxyMemory" => self.resources["requests"]["memory"] = text.into(),
            "sidecar.istio.io/proxyCPULimit" => self.resources["limits"]["cpu"] = text.into(),
            "sidecar.istio.io/proxyMemoryLimit" => self.resources["limits"]["memory"] = text.into(),
            "traffic.sidecar.istio.io/includeOutboundIPRanges" => {
                self.include_ranges = ranges(name, value)?;
            }
            "traffic.sidecar.istio.io/excludeOutboundIPRanges" => {
                self.exclude_ranges = ranges(name, value)?;
            }
            "traffic.sidecar.istio.io/includeOutboundPorts" => {
                self.include_outbound_ports = ports(name, value)?;
            }
            "traffic.sidecar.istio.io/excludeOutboundPorts" => {
                self.exclude_outbound_ports = ports(name, value)?;
            }
            "traffic.sidecar.istio.io/includeInboundPorts" => {
                self.include_inbound_ports = ports(name, value)?;
            }
            "traffic.sidecar.istio.io/excludeInboundPorts" => {
                self.exclude_inbound_ports = ports(name, value)?;
            }
            "sidecar.istio.io/rewriteAppHTTPProbers" => {
                self.rewrite_probes = boolean(name, value)?;
            }
            "sidecar.istio.io/interceptionMode" if value == "REDIRECT" => {}
            "sidecar.istio.io/interceptionMode" => {
                let expected = "REDIRECT, the only mode that is supported";
                return Err(refused(name, value, expected));
            }
            other if PREFIXES.iter().any(|prefix| other.starts_with(prefix)) => {
                self.warnings
                    .push(format!("annotation {other} has no effect in this mesh"));
            }
            _ => {}
        }
        Ok(())
    }

    /// `proxy.istio.io/config` is YAML of Istio's ProxyConfig; it is laid over the mesh's.
    fn set_proxy_config(&mut self, value: &str) -> Result<(), SettingError> {
        let expected = "a YAML object of ProxyConfig fields";
        let parsed: Value =
            serde_saphyr::from_str(value).map_err(|_| refused(PROXY_CONFIG, value, expected))?;
        let Value::Object(fields) = parsed else {
            return Err(refused(PROXY_CONFIG, value, expected));
        };
        for (key, value) in fields {
            match (key.as_str(), value) {
                ("holdApplicationUntilProxyStarts", Value::Bool(hold)) => {
                    self.native_sidecar |= hold;
                }
                (_, value) => self.proxy_config[key] = value,
            }
        }
        Ok(())
    }
}

fn refused(annotation: &str, value: &str, expected: &'static str) -> SettingError {
    SettingError {
        annotation: annotation.to_owned(),
        value: value.to_owned(),
        expected,
    }
}

fn boolean(name: &str, value: &str) -> Result<bool, SettingError> {
    value
        .parse()
        .map_err(|_| refused(name, value, "true or false"))
}

/// A list of ports or `*`, as Istio takes it.
fn ports(name: &str, value: &str) -> Result<String, SettingError> {
    let fits = |port: &str| port.trim().parse::<u16>().is_ok_and(|port| port > 0);
    list(name, value, fits, "* or a list of ports such as 80,8080")
}

/// A list of address ranges or `*`.
fn ranges(name: &str, value: &str) -> Result<String, SettingError> {
    let fits = |range: &str| {
        let range = range.trim();
        let (address, length) = range.split_once('/').unwrap_or((range, "0"));
        let longest = match address.parse() {
            Ok(IpAddr::V4(_)) => 32,
            Ok(IpAddr::V6(_)) => 128,
            Err(_) => return false,
        };
        length.parse::<u8>().is_ok_and(|length| length <= longest)
    };
    list(
        name,
        value,
        fits,
        "* or a list of ranges such as 10.0.0.0/8,192.168.1.1/32",
    )
}

fn list(
    name: &str,
    value: &str,
    fits: impl Fn(&str) -> bool,
    expected: &'static str,
) -> Result<String, SettingError> {
    let listed = value.is_empty() || value == "*" || value.split(',').all(fits);
    if listed {
        Ok(value.replace(' ', ""))
    } else {
        Err(refused(name, value, expected))
    }
}
