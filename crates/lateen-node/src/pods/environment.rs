//! A container's environment variables, and `$(NAME)` in its command.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{
    ConfigMap, Container, EnvVar, EnvVarSource, Pod, ResourceFieldSelector, Secret, Service,
};
use kube::api::Api;
use thiserror::Error;

use super::resources;

/// Programs of the host are found here.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/.lateen";

/// Why an environment could not be put together; the message is shown as a container's
/// `CreateContainerConfigError`.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum EnvironmentError {
    /// A ConfigMap or Secret that is not optional is missing.
    #[error("{kind} \"{name}\" not found")]
    Missing { kind: &'static str, name: String },
    /// A key of it that is not optional is missing.
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    MissingKey {
        kind: &'static str,
        namespace: String,
        name: String,
        key: String,
    },
    /// The field cannot be exposed.
    #[error("field {0} is not supported as a variable")]
    Field(String),
    /// The API did not answer.
    #[error(transparent)]
    Api(#[from] kube::Error),
}

/// What variables can refer to.
pub(crate) struct Sources<'a> {
    pub(crate) client: &'a kube::Client,
    pub(crate) pod: &'a Pod,
    pub(crate) address: Ipv4Addr,
    pub(crate) node_address: Ipv4Addr,
    /// Services of the pod's namespace, and `default/kubernetes`.
    pub(crate) services: &'a [std::sync::Arc<Service>],
}

/// All variables of the container, in the order in which Kubernetes resolves them.
///
/// # Errors
/// When something that is referred to, and not optional, does not exist.
pub(crate) async fn build(
    sources: &Sources<'_>,
    container: &Container,
    image: &BTreeMap<String, String>,
) -> Result<Vec<(String, String)>, EnvironmentError> {
    let mut variables = Variables::default();
    variables.set("PATH", PATH);
    variables.set("HOSTNAME", &super::files::hostname(sources.pod));
    variables.set("HOME", "/root");
    for (name, value) in image {
        variables.set(name, value);
    }
    let links = sources
        .pod
        .spec
        .as_ref()
        .and_then(|spec| spec.enable_service_links);
    for (name, value) in service_variables(sources, links.unwrap_or(true)) {
        variables.set(&name, &value);
    }
    let namespace = sources
        .pod
        .metadata
        .namespace
        .as_deref()
        .unwrap_or("default");
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        let data = if let Some(map) = &from.config_map_ref {
            config_map(sources, namespace, &map.name, map.optional).await?
        } else if let Some(secret) = &from.secret_ref {
            self::secret(sources, namespace, &secret.name, secret.optional).await?
        } else {
            BTreeMap::new()
        };
        for (name, value) in data {
            variables.set(&format!("{prefix}{name}"), &value);
        }
    }
    for variable in container.env.iter().flatten() {
        if let Some(value) = resolve(sources, container, namespace, variable, &variables).await? {
            variables.set(&variable.name, &value);
        }
    }
    Ok(variables.0)
}

/// Replaces `$(NAME)` by the variable's value; `$$` stands for `$`; an unknown name stays.
pub(crate) fn expand(text: &str, variables: &[(String, String)]) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        result.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            result.push('$');
            rest = after;
        } else if let Some((name, after)) = rest
            .strip_prefix('(')
            .and_then(|inner| inner.split_once(')'))
        {
            match variables.iter().find(|(known, _)| known == name) {
                Some((_, value)) => result.push_str(value),
                None => {
                    result.push_str("$(");
                    result.push_str(name);
                    result.push(')');
                }
            }
            rest = after;
        } else {
            result.push('$');
        }
    }
    result.push_str(rest);
    result
}

/// Variables in order; a later value of a name replaces the earlier one in place.
#[derive(Default)]
struct Variables(Vec<(String, String)>);

impl Variables {
    fn set(&mut self, name: &str, value: &str) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => value.clone_into(old),
            None => self.0.push((name.to_owned(), value.to_owned())),
        }
    }
}

async fn resolve(
    sources: &Sources<'_>,
    container: &Container,
    namespace: &str,
    variable: &EnvVar,
    known: &Variables,
) -> Result<Option<String>, EnvironmentError> {
    let Some(from) = &variable.value_from else {
        return Ok(Some(expand(
            variable.value.as_deref().unwrap_or_default(),
            &known.0,
        )));
    };
    let EnvVarSource {
        field_ref,
        resource_field_ref,
        config_map_key_ref,
        secret_key_ref,
        ..
    } = from;
    if let Some(field) = field_ref {
        let value = super::fields::value(
            sources.pod,
            &field.field_path,
            sources.address,
            sources.node_address,
        );
        return value
            .map(Some)
            .ok_or_else(|| EnvironmentError::Field(field.field_path.clone()));
    }
    if let Some(resource) = resource_field_ref {
        return resource_value(sources.pod, container, resource).map(Some);
    }
    let (kind, name, key, optional, data) = if let Some(map) = config_map_key_ref {
        let data = config_map(sources, namespace, &map.name, map.optional).await?;
        ("ConfigMap", &map.name, &map.key, map.optional, data)
    } else if let Some(secret) = secret_key_ref {
        let data = self::secret(sources, namespace, &secret.name, secret.optional).await?;
        ("Secret", &secret.name, &secret.key, secret.optional, data)
    } else {
        return Ok(None);
    };
    match data.get(key) {
        Some(value) => Ok(Some(value.clone())),
        None if optional == Some(true) => Ok(None),
        None => Err(EnvironmentError::MissingKey {
            kind,
            namespace: namespace.to_owned(),
            name: name.clone(),
            key: key.clone(),
        }),
    }
}

fn resource_value(
    pod: &Pod,
    container: &Container,
    selector: &ResourceFieldSelector,
) -> Result<String, EnvironmentError> {
    let containers = pod
        .spec
        .as_ref()
        .map(|spec| spec.containers.as_slice())
        .unwrap_or_default();
    let container = match &selector.container_name {
        Some(name) => containers
            .iter()
            .find(|other| other.name == *name)
            .unwrap_or(container),
        None => container,
    };
    let divisor = selector.divisor.as_ref().map(|divisor| divisor.0.as_str());
    resources::field(container, &selector.resource, divisor)
        .ok_or_else(|| EnvironmentError::Field(selector.resource.clone()))
}

async fn config_map(
    sources: &Sources<'_>,
    namespace: &str,
    name: &str,
    optional: Option<bool>,
) -> Result<BTreeMap<String, String>, EnvironmentError> {
    let api: Api<ConfigMap> = Api::namespaced(sources.client.clone(), namespace);
    match api.get_opt(name).await? {
        Some(map) => Ok(map.data.unwrap_or_default()),
        None if optional == Some(true) => Ok(BTreeMap::new()),
        None => Err(EnvironmentError::Missing {
            kind: "configmap",
            name: name.to_owned(),
        }),
    }
}

async fn secret(
    sources: &Sources<'_>,
    namespace: &str,
    name: &str,
    optional: Option<bool>,
) -> Result<BTreeMap<String, String>, EnvironmentError> {
    let api: Api<Secret> = Api::namespaced(sources.client.clone(), namespace);
    match api.get_opt(name).await? {
        Some(secret) => {
            let data = secret.data.unwrap_or_default().into_iter();
            // Variables are text; bytes that are none are shown as well as can be.
            Ok(data
                .map(|(key, value)| (key, String::from_utf8_lossy(&value.0).into_owned()))
                .collect())
        }
        None if optional == Some(true) => Ok(BTreeMap::new()),
        None => Err(EnvironmentError::Missing {
            kind: "secret",
            name: name.to_owned(),
        }),
    }
}

/// `NAME_SERVICE_HOST` and its relatives, as Kubernetes makes them: always for the API's own
/// service, for the namespace's services where `links` are on.
fn service_variables(sources: &Sources<'_>, links: bool) -> Vec<(String, String)> {
    let namespace = sources.pod.metadata.namespace.as_deref();
    let mut variables = Vec::new();
    for service in sources.services {
        let Some(name) = service.metadata.name.as_deref() else {
            continue;
        };
        let of = service.metadata.namespace.as_deref();
        let api_server = of == Some("default") && name == "kubernetes";
        let linked = links && of == namespace;
        if !api_server && !linked {
            continue;
        }
        add_service(&mut variables, name, service);
    }
    variables
}

fn add_service(variables: &mut Vec<(String, String)>, name: &str, service: &Service) {
    let Some(spec) = &service.spec else { return };
    let Some(ip) = spec
        .cluster_ip
        .as_deref()
        .filter(|ip| !ip.is_empty() && *ip != "None")
    else {
        return;
    };
    let ports = spec.ports.as_deref().unwrap_or_default();
    let Some(first) = ports.first() else { return };
    let name = upper(name);
    let mut add = |key: String, value: String| variables.push((key, value));
    add(format!("{name}_SERVICE_HOST"), ip.to_owned());
    add(format!("{name}_SERVICE_PORT"), first.port.to_string());
    for port in ports {
        if let Some(port_name) = &port.name {
            add(
                format!("{name}_SERVICE_PORT_{}", upper(port_name)),
                port.port.to_string(),
            );
        }
    }
    for (n, port) in ports.iter().enumerate() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let url = format!("{}://{ip}:{}", protocol.to_lowercase(), port.port);
        if n == 0 {
            add(format!("{name}_PORT"), url.clone());
        }
        let prefix = format!("{name}_PORT_{}_{protocol}", port.port);
        add(prefix.clone(), url);
        add(format!("{prefix}_PROTO"), protocol.to_lowercase());
        add(format!("{prefix}_PORT"), port.port.to_string());
        add(format!("{prefix}_ADDR"), ip.to_owned());
    }
}

fn upper(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let variables = [
            ("A".to_owned(), "1".to_owned()),
            ("NS".to_owned(), "lab".to_owned()),
        ];
        assert_eq!(expand(text, &variables), expected, "{text}");
    }

    #[test]
    fn references_expand_as_in_kubernetes() {
        check("backend.$(NS).svc", "backend.lab.svc");
        check("$(A)$(NS)", "1lab");
        check("$(UNKNOWN)", "$(UNKNOWN)");
        check("$$(A)", "$(A)");
        check("$$$(A)", "$1");
        check("$A ${A} $", "$A ${A} $");
        check("$(A", "$(A");
    }

    #[test]
    fn service_variables_have_kubernetes_names() {
        let service: Service = serde_json::from_value(serde_json::json!({
            "spec": {"clusterIP": "10.96.0.7", "ports": [{"name": "http-web", "port": 80}]},
        }))
        .unwrap();
        let mut variables = Vec::new();
        add_service(&mut variables, "my-app", &service);
        let shown: Vec<_> = variables
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        assert_eq!(
            shown,
            [
                "MY_APP_SERVICE_HOST=10.96.0.7",
                "MY_APP_SERVICE_PORT=80",
                "MY_APP_SERVICE_PORT_HTTP_WEB=80",
                "MY_APP_PORT=tcp://10.96.0.7:80",
                "MY_APP_PORT_80_TCP=tcp://10.96.0.7:80",
                "MY_APP_PORT_80_TCP_PROTO=tcp",
                "MY_APP_PORT_80_TCP_PORT=80",
                "MY_APP_PORT_80_TCP_ADDR=10.96.0.7",
            ]
        );
    }
}
