//! `lateen status`: what runs and how to reach it, and the running mesh as other commands see it.

use std::net::SocketAddr;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{Api, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, ResourceExt};
use serde::Serialize;

use crate::apply::Applier;
use crate::cli::{OutputFormat, StatusArguments};
use crate::exit::{CommandError, Result, chain};
use crate::manifests::Manifest;
use crate::print;
use crate::state::{MeshInfo, StateDir};

/// Where a Service of type LoadBalancer is reached on the host, `address:port` for each of its ports in order, joined
/// by commas. Set by the node.
const HOST_ADDRESS: &str = "lateen.dev/host-address";

/// A running mesh.
pub(crate) struct Mesh {
    state: StateDir,
    info: MeshInfo,
    gateways: Vec<Gateway>,
    pods: PodCount,
}

/// A Service of type LoadBalancer and the URLs that reach it from the host.
#[derive(Debug, Clone, Serialize)]
struct Gateway {
    namespace: String,
    name: String,
    urls: Vec<String>,
}

#[derive(Debug, Clone, Default, Serialize)]
struct PodCount {
    total: usize,
    ready: usize,
}

/// What `status -o json` prints.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    api: &'a str,
    kubeconfig: &'a PathBuf,
    gateways: &'a [Gateway],
    xds: &'a str,
    pods: &'a PodCount,
    mode: &'a str,
    pid: i32,
    state: &'a std::path::Path,
}

/// `lateen status`.
pub(crate) fn run(arguments: StatusArguments) -> Result<()> {
    let mesh = Mesh::find(&StateDir::new(arguments.state.state))?;
    match arguments.output {
        OutputFormat::Table => mesh.print_table(),
        OutputFormat::Json => println!("{}", to_json(&mesh.document())?),
        OutputFormat::Yaml => {
            let text = serde_saphyr::to_string(&mesh.document())
                .map_err(|error| CommandError::unavailable(error.to_string()))?;
            print!("{text}");
        }
    }
    Ok(())
}

impl Mesh {
    /// The mesh that runs from a state folder.
    pub(crate) fn find(state: &StateDir) -> Result<Self> {
        let info = state
            .running()
            .map_err(CommandError::unavailable)?
            .ok_or_else(|| {
                CommandError::unavailable(format!(
                    "no mesh is running from {}",
                    state.root().display()
                ))
                .advise("start one with: lateen up; or name its folder with --state")
            })?;
        let (gateways, pods) = blocking(async {
            let client = client(&info).await?;
            let gateways = gateways(client.clone())
                .await
                .map_err(|error| api_error(&error))?;
            let pods = pods(client).await.map_err(|error| api_error(&error))?;
            Ok((gateways, pods))
        })?;
        Ok(Self {
            state: state.clone(),
            info,
            gateways,
            pods,
        })
    }

    /// Applies manifests to the running mesh.
    pub(crate) fn apply(self, manifests: &[Manifest]) -> Result<Self> {
        blocking(async {
            let mut applier = Applier::new(client(&self.info).await?);
            for manifest in manifests {
                applier.apply(&manifest.object).await.map_err(|error| {
                    CommandError::findings(format!("{}: {}", manifest.place, chain(&error)))
                })?;
            }
            Ok(())
        })?;
        Self::find(&self.state)
    }

    /// The socket address behind the first HTTP URL of a gateway.
    pub(crate) fn gateway_address(&self) -> Option<SocketAddr> {
        let urls = self.gateways.iter().flat_map(|gateway| &gateway.urls);
        urls.filter_map(|url| url.strip_prefix("http://")?.parse().ok())
            .next()
    }

    /// A client of the mesh's Kubernetes API.
    pub(crate) async fn client(&self) -> Result<Client> {
        client(&self.info).await
    }

    /// Prints how to reach the mesh, for people.
    pub(crate) fn print_how_to_reach(&self) {
        for gateway in &self.gateways {
            for url in &gateway.urls {
                println!("  gateway: {url}  ({}/{})", gateway.namespace, gateway.name);
            }
        }
        println!(
            "  kubectl: export KUBECONFIG={}",
            self.info.kubeconfig.display()
        );
    }

    /// ` --state DIR` where the state folder is not the default one.
    pub(crate) fn state_flag(&self) -> String {
        if StateDir::new(None).root() == self.state.root() {
            String::new()
        } else {
            format!(" --state {}", self.state.root().display())
        }
    }

    fn print_table(&self) {
        let mut rows = vec![
            vec!["api".to_owned(), self.info.api.clone()],
            vec![
                "kubeconfig".to_owned(),
                self.info.kubeconfig.display().to_string(),
            ],
            vec!["xds".to_owned(), self.info.xds.clone()],
            vec![
                "pods".to_owned(),
                format!("{} of {} ready", self.pods.ready, self.pods.total),
            ],
            vec!["mode".to_owned(), self.info.mode.clone()],
            vec!["state".to_owned(), self.state.root().display().to_string()],
        ];
        for gateway in &self.gateways {
            let name = format!("gateway {}/{}", gateway.namespace, gateway.name);
            rows.push(vec![name, gateway.urls.join(" ")]);
        }
        println!("{}", print::table(&["what", "where"], rows));
    }

    fn document(&self) -> Document<'_> {
        Document {
            api: &self.info.api,
            kubeconfig: &self.info.kubeconfig,
            gateways: &self.gateways,
            xds: &self.info.xds,
            pods: &self.pods,
            mode: &self.info.mode,
            pid: self.info.pid,
            state: self.state.root(),
        }
    }
}

/// The gateways: Services of type LoadBalancer that the node has given an address.
async fn gateways(client: Client) -> kube::Result<Vec<Gateway>> {
    let services: Api<Service> = Api::all(client);
    let found = services.list(&ListParams::default()).await?.items;
    Ok(found.iter().filter_map(gateway).collect())
}

fn gateway(service: &Service) -> Option<Gateway> {
    let addresses = service.annotations().get(HOST_ADDRESS)?;
    let ports = service.spec.as_ref()?.ports.as_ref()?;
    let urls = ports
        .iter()
        .zip(addresses.split(','))
        .filter_map(|(port, address)| {
            let scheme = scheme(port.name.as_deref().unwrap_or_default())?;
            Some(format!("{scheme}://{}", address.trim()))
        })
        .collect();
    Some(Gateway {
        namespace: service.namespace().unwrap_or_default(),
        name: service.name_any(),
        urls,
    })
}

/// The scheme that a port's name stands for, as Istio reads port names; none for ports that no browser or `curl` opens.
fn scheme(port_name: &str) -> Option<&'static str> {
    match port_name.split('-').next().unwrap_or_default() {
        "http" | "http2" => Some("http"),
        "https" => Some("https"),
        _ => None,
    }
}

async fn pods(client: Client) -> kube::Result<PodCount> {
    let pods: Api<Pod> = Api::all(client);
    let found = pods.list(&ListParams::default()).await?.items;
    let ready = found.iter().filter(|pod| is_ready(pod)).count();
    Ok(PodCount {
        total: found.len(),
        ready,
    })
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// A client that speaks to the mesh's API as `kubectl` would.
async fn client(info: &MeshInfo) -> Result<Client> {
    let unusable = |error: &dyn std::error::Error| {
        CommandError::unavailable(format!("{}: {}", info.kubeconfig.display(), chain(error)))
    };
    let kubeconfig = Kubeconfig::read_from(&info.kubeconfig).map_err(|error| unusable(&error))?;
    let options = KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .map_err(|error| unusable(&error))?;
    Client::try_from(config).map_err(|error| unusable(&error))
}

/// Runs API calls to their end. They have a thread of their own, as `up` asks from within its runtime.
fn blocking<T: Send>(work: impl Future<Output = Result<T>> + Send) -> Result<T> {
    let run = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| CommandError::unavailable(format!("cannot start: {error}")))?
            .block_on(work)
    };
    std::thread::scope(|scope| scope.spawn(run).join())
        .unwrap_or_else(|_| Err(CommandError::unavailable("the API client failed")))
}

fn api_error(error: &kube::Error) -> CommandError {
    CommandError::unavailable(format!("the mesh's API does not answer: {}", chain(error)))
}

fn to_json(document: &Document<'_>) -> Result<String> {
    serde_json::to_string_pretty(document)
        .map_err(|error| CommandError::unavailable(error.to_string()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(ports: serde_json::Value, addresses: &str, expected: &[&str]) {
        let service: Service = serde_json::from_value(json!({
            "metadata": {"name": "edge", "namespace": "x", "annotations": {HOST_ADDRESS: addresses}},
            "spec": {"ports": ports},
        }))
        .expect("a service");
        assert_eq!(gateway(&service).expect("a gateway").urls, expected);
    }

    #[test]
    fn urls_follow_the_names_of_ports() {
        check(
            json!([
                {"name": "status-port", "port": 15021}, {"name": "http2", "port": 80},
                {"name": "https", "port": 443}, {"name": "tcp", "port": 31400},
            ]),
            "127.1.2.3:15021,127.1.2.3:80,127.1.2.3:443,127.1.2.3:31400",
            &["http://127.1.2.3:80", "https://127.1.2.3:443"],
        );
        check(
            json!([{"name": "http-web", "port": 80}]),
            "127.1.2.1:30080",
            &["http://127.1.2.1:30080"],
        );
        check(json!([{"port": 80}]), "127.1.2.1:30080", &[]);
    }
}
