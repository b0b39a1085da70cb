//! Settings of the agent, from the environment that injection sets and from Istio's `ProxyConfig`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use lateen_identity::SpiffeId;
use lateen_identity::rotation::Renewal;
use lateen_identity::spiffe::TrustDomain;
use lateen_xds::client::Target;
use serde_json::Value;

use super::{CertificateConfig, DrainConfig, Probes, Scrape, SecureDiscovery};

/// Authorities of the control plane, as injection mounts them.
const ROOTS: &str = "/var/run/secrets/istio/root-cert.pem";
/// The token for the audience `istio-ca`, as injection mounts it.
const TOKEN: &str = "/var/run/secrets/tokens/istio-token";
/// Token and authorities of Kubernetes, for meshes that use those.
const KUBERNETES: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// The control plane's port for TLS.
const SECURE_PORT: u16 = 15012;
/// Longest lifetime that is asked for.
const LONGEST_LIFETIME: Duration = Duration::from_secs(90 * 24 * 3600);
/// Longest `PROXY_CONFIG`.
const MAX_CONFIG: usize = 1 << 20;

/// Why the environment cannot be followed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct SettingError(String);

/// Environment variables; empty ones count as absent.
pub(crate) struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The variables, with those of `proxyMetadata` that are not set otherwise.
    pub(crate) fn new(variables: &BTreeMap<String, String>, config: &Value) -> Self {
        let mut all = variables.clone();
        let more = config.get("proxyMetadata").and_then(Value::as_object);
        for (name, value) in more.into_iter().flatten() {
            if let Some(text) = value.as_str() {
                all.entry(name.clone()).or_insert_with(|| text.to_owned());
            }
        }
        Self(all)
    }

    /// The value of a variable.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let value = self.0.get(name).map(String::as_str);
        value.filter(|value| !value.is_empty())
    }

    /// All variables.
    pub(crate) fn all(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    fn duration(&self, name: &str) -> Result<Option<Duration>, SettingError> {
        self.get(name).map(|text| named(name, text)).transpose()
    }

    fn ratio(&self, name: &str, usual: f64) -> Result<f64, SettingError> {
        let Some(text) = self.get(name) else {
            return Ok(usual);
        };
        let number = text
            .parse()
            .ok()
            .filter(|number| (0.0..=1.0).contains(number));
        number.ok_or_else(|| SettingError(format!("{name}: `{text}` is not between 0 and 1")))
    }

    fn boolean(&self, name: &str) -> Result<bool, SettingError> {
        match self.get(name) {
            None => Ok(false),
            Some("true" | "1" | "t" | "T" | "TRUE" | "True") => Ok(true),
            Some("false" | "0" | "f" | "F" | "FALSE" | "False") => Ok(false),
            Some(text) => Err(SettingError(format!(
                "{name}: `{text}` is not true or false"
            ))),
        }
    }
}

/// Reads `PROXY_CONFIG`, which is YAML, of which JSON is a part.
pub(crate) fn proxy_config(text: &str) -> Result<Value, SettingError> {
    if text.len() > MAX_CONFIG {
        return Err(SettingError(format!(
            "PROXY_CONFIG is longer than {MAX_CONFIG} bytes"
        )));
    }
    let parsed: Value = if text.trim().is_empty() {
        Value::Null
    } else {
        serde_saphyr::from_str(text)
            .map_err(|error| SettingError(format!("PROXY_CONFIG is not valid YAML: {error}")))?
    };
    match parsed {
        Value::Null => Ok(Value::Object(serde_json::Map::new())),
        Value::Object(_) => Ok(parsed),
        _ => Err(SettingError("PROXY_CONFIG is not an object".to_owned())),
    }
}

/// How the control plane is spoken to: without TLS on its plaintext port, on unix sockets, and where
/// `controlPlaneAuthPolicy` says `NONE`.
pub(crate) fn discovery(
    environment: &Environment,
    config: &Value,
    target: &Target,
) -> Option<SecureDiscovery> {
    let policy = config.get("controlPlaneAuthPolicy").and_then(Value::as_str);
    let secure = match (policy, target) {
        (_, Target::Unix(_)) | (Some("NONE"), _) => false,
        (Some("MUTUAL_TLS"), Target::Tcp { port, .. }) => *port != 15010,
        (_, Target::Tcp { port, .. }) => *port == SECURE_PORT,
    };
    secure.then(|| security(environment, "XDS_ROOT_CA"))
}

/// Where the identity comes from: `CA_ADDR`, or the control plane when it is spoken to over TLS.
pub(crate) fn certificates(
    environment: &Environment,
    discovery: &Target,
    secure: bool,
    namespace: &str,
) -> Result<Option<CertificateConfig>, SettingError> {
    let authority = match environment.get("CA_ADDR") {
        Some(address) => target(address)?,
        None if secure => discovery.clone(),
        None => return Ok(None),
    };
    let domain = environment.get("TRUST_DOMAIN").unwrap_or("cluster.local");
    let refused = |error| SettingError(format!("the identity of this proxy: {error}"));
    let domain: TrustDomain = domain.parse().map_err(refused)?;
    let account = environment.get("SERVICE_ACCOUNT").unwrap_or("default");
    let usual = Renewal::default();
    Ok(Some(CertificateConfig {
        authority,
        security: security(environment, "CA_ROOT_CA"),
        id: SpiffeId::workload(&domain, namespace, account).map_err(refused)?,
        lifetime: environment
            .duration("SECRET_TTL")?
            .unwrap_or(Duration::from_secs(24 * 3600))
            .min(LONGEST_LIFETIME),
        renewal: Renewal {
            fraction: 1.0 - environment.ratio("SECRET_GRACE_PERIOD_RATIO", 1.0 - usual.fraction)?,
            jitter: environment.ratio("SECRET_GRACE_PERIOD_RATIO_JITTER", usual.jitter)?,
        },
    }))
}

fn security(environment: &Environment, roots: &str) -> SecureDiscovery {
    let kubernetes = environment.get("PILOT_CERT_PROVIDER") == Some("kubernetes");
    let first_party = environment.get("JWT_POLICY") == Some("first-party-jwt");
    let path = |kubernetes: bool, name: &str, usual: &str| {
        if kubernetes {
            PathBuf::from(format!("{KUBERNETES}/{name}"))
        } else {
            PathBuf::from(usual)
        }
    };
    SecureDiscovery {
        roots: environment
            .get(roots)
            .map_or_else(|| path(kubernetes, "ca.crt", ROOTS), PathBuf::from),
        token: path(first_party, "token", TOKEN),
        server_name: environment.get("ISTIOD_SAN").map(str::to_owned),
    }
}

/// How the process ends.
pub(crate) fn drain(
    environment: &Environment,
    config: &Value,
) -> Result<DrainConfig, SettingError> {
    let usual = DrainConfig::default();
    let configured = |name: &str, usual: Duration| {
        let text = config.get(name).and_then(Value::as_str);
        text.map_or(Ok(usual), |text| named(name, text))
    };
    let until_unused = environment.boolean("EXIT_ON_ZERO_ACTIVE_CONNECTIONS")?;
    let shortest = environment.duration("MINIMUM_DRAIN_DURATION")?;
    Ok(DrainConfig {
        graceful: configured("drainDuration", usual.graceful)?,
        longest: configured("terminationDrainDuration", usual.longest)?,
        // Counts only together with the other, as in Istio, where it is five seconds then.
        shortest: if until_unused {
            shortest.unwrap_or(Duration::from_secs(5))
        } else {
            usual.shortest
        },
        until_unused,
    })
}

/// The application's probes. `application` is the address of the pod.
pub(crate) fn probes(
    environment: &Environment,
    application: IpAddr,
) -> Result<Probes, SettingError> {
    let Some(text) = environment.get("ISTIO_KUBE_APP_PROBERS") else {
        return Ok(Probes::default());
    };
    Probes::parse(text, application).map_err(|error| SettingError(error.to_string()))
}

/// The application's metrics. `own` are ports of the proxy.
pub(crate) fn scrape(
    environment: &Environment,
    own: &[u16],
) -> Result<Option<Scrape>, SettingError> {
    let Some(text) = environment.get("ISTIO_PROMETHEUS_ANNOTATIONS") else {
        return Ok(None);
    };
    Scrape::parse(text, own).map_err(|error| SettingError(error.to_string()))
}

/// Reads `host:port` or `unix:path`.
pub(crate) fn target(address: &str) -> Result<Target, SettingError> {
    if let Some(path) = address.strip_prefix("unix:") {
        return Ok(Target::Unix(path.into()));
    }
    let wrong = |what: &str| SettingError(format!("address `{address}` has no {what}"));
    let (host, port) = address.rsplit_once(':').ok_or_else(|| wrong("port"))?;
    let port = port.parse().map_err(|_| wrong("valid port"))?;
    let host = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .to_owned();
    Ok(Target::Tcp { host, port })
}

fn named(name: &str, text: &str) -> Result<Duration, SettingError> {
    let wrong = || {
        SettingError(format!(
            "{name}: `{text}` is not a duration such as 5s or 1h30m"
        ))
    };
    duration(text).ok_or_else(wrong)
}

/// A duration as Go and protobuf write it: numbers with units, `1h30m`, `5s`, `1.5s`, `250ms`.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    if rest == "0" {
        return Some(total);
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let unit = tail
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        let number: f64 = number.parse().ok()?;
        total = total.checked_add(Duration::try_from_secs_f64(number * seconds).ok()?)?;
        rest = tail;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_of_go_and_protobuf_are_read() {
        for (text, milliseconds) in [
            ("5s", Some(5000)),
            ("1.5s", Some(1500)),
            ("24h0m0s", Some(86_400_000)),
            ("250ms", Some(250)),
            ("0", Some(0)),
            ("", None),
            ("5", None),
            ("5d", None),
            ("s", None),
            ("-5s", None),
            ("99999999999999999999h", None),
        ] {
            let expected = milliseconds.map(Duration::from_millis);
            assert_eq!(duration(text), expected, "{text}");
        }
    }

    #[test]
    fn settings_come_from_the_environment_and_the_proxy_config() {
        let config = proxy_config(
            "drainDuration: 20s\nterminationDrainDuration: 7s\nproxyMetadata:\n  MINIMUM_DRAIN_DURATION: 2s\n  EXIT_ON_ZERO_ACTIVE_CONNECTIONS: 'true'\n  SECRET_TTL: 1h\n",
        )
        .unwrap();
        let set = BTreeMap::from([
            ("SECRET_TTL".to_owned(), "30m".to_owned()),
            ("SERVICE_ACCOUNT".to_owned(), "web".to_owned()),
            ("SECRET_GRACE_PERIOD_RATIO".to_owned(), "0.2".to_owned()),
        ]);
        let environment = Environment::new(&set, &config);
        let drain = drain(&environment, &config).unwrap();
        let expected = DrainConfig {
            graceful: Duration::from_secs(20),
            longest: Duration::from_secs(7),
            shortest: Duration::from_secs(2),
            until_unused: true,
        };
        assert_eq!(drain, expected);
        let istiod = target("istiod.istio-system.svc:15012").unwrap();
        let found = certificates(&environment, &istiod, true, "shop")
            .unwrap()
            .unwrap();
        assert_eq!(
            found.id.to_string(),
            "spiffe://cluster.local/ns/shop/sa/web"
        );
        // What is set wins over what the configuration adds.
        assert_eq!(found.lifetime, Duration::from_secs(1800));
        assert!((found.renewal.fraction - 0.8).abs() < 1e-9);
        assert_eq!(found.authority, istiod);
        assert!(
            certificates(&environment, &istiod, false, "shop")
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn discovery_is_secure_unless_it_cannot_be() {
        let environment = Environment::new(&BTreeMap::new(), &Value::Null);
        let check = |address: &str, policy: &str, secure: bool| {
            let config = serde_json::json!({"controlPlaneAuthPolicy": policy});
            let found = discovery(&environment, &config, &target(address).unwrap());
            assert_eq!(found.is_some(), secure, "{address} {policy}");
        };
        check("istiod:15012", "", true);
        check("istiod:15012", "NONE", false);
        check("istiod:15010", "MUTUAL_TLS", false);
        check("istiod:443", "MUTUAL_TLS", true);
        check("127.0.0.1:9000", "", false);
        check("unix:/tmp/xds", "MUTUAL_TLS", false);
        assert!(target("istiod").is_err());
    }
}
