//! Services on the host: node ports and load balancers listen on the mesh's own loopback
//! network, and what connects there is carried into the mesh.
//!
//! A load balancer's port below 1024 that this user may not open on the host appears under its
//! node port on the same address instead. The annotation `lateen.dev/host-address` of the Service
//! has what really listens: `ADDRESS:PORT` for each TCP port, separated by commas.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::network::services::{Protocol, endpoints, protocol};
use crate::relay::{relay, reset};
use crate::world::{Key, World};
use crate::{HostAddresses, Outside};

/// Annotation of a Service with the addresses on the host that work.
pub const HOST_ADDRESS: &str = "lateen.dev/host-address";

/// How long a connection to an endpoint may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Pause after a failed accept (out of descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Pause before a socket or a status that could not be had is asked for again.
const RETRY: Duration = Duration::from_secs(2);

/// Keeps the host's listeners in step with the services, for ever.
pub(crate) async fn follow(
    world: Arc<World>,
    outside: Outside,
    hosts: HostAddresses,
    client: kube::Client,
) {
    let mut changes = world.changes();
    let mut exposure = Exposure {
        world: world.clone(),
        outside,
        hosts,
        client,
        listeners: BTreeMap::new(),
    };
    world.complete().await;
    loop {
        changes.borrow_and_update();
        let complete = exposure.update().await;
        if complete {
            if changes.changed().await.is_err() {
                return;
            }
        } else {
            // Something was refused: tried again with the next change, or after a while.
            let _ = tokio::time::timeout(RETRY, changes.changed()).await;
        }
    }
}

/// A port of a service that is to be seen on the host.
type Target = (Key, i32);

struct Exposure {
    world: Arc<World>,
    outside: Outside,
    hosts: HostAddresses,
    client: kube::Client,
    listeners: BTreeMap<SocketAddrV4, (Target, JoinHandle<()>)>,
}

impl Drop for Exposure {
    fn drop(&mut self) {
        for (_, task) in self.listeners.values() {
            task.abort();
        }
    }
}

impl Exposure {
    /// Opens and closes listeners, and tells in each service's status; false when not all could
    /// be had.
    async fn update(&mut self) -> bool {
        let services: Vec<_> = self
            .world
            .services()
            .into_iter()
            .filter(|service| exposed(service))
            .collect();
        let addresses = self.assign(&services);
        let mut keep = BTreeSet::new();
        let mut complete = true;
        for service in &services {
            let key = key_of(service);
            let balancer = addresses.get(&key).copied();
            let mut shown = Vec::new();
            for port in service
                .spec
                .iter()
                .flat_map(|spec| spec.ports.iter().flatten())
            {
                if protocol(port) != Some(Protocol::Tcp) {
                    continue;
                }
                let listening = self.listen_for(&key, port, balancer).await;
                complete &= !listening.is_empty();
                shown.extend(listening.first().copied());
                keep.extend(listening);
            }
            complete &= self.tell(service, balancer, &shown).await;
        }
        self.listeners.retain(|address, (_, task)| {
            let kept = keep.contains(address);
            if !kept {
                task.abort();
            }
            kept
        });
        complete
    }

    /// An address for each load balancer: the one it has, else the first free one.
    fn assign(&self, services: &[Arc<Service>]) -> BTreeMap<Key, Ipv4Addr> {
        let balancers: Vec<_> = services
            .iter()
            .filter(|service| kind(service) == "LoadBalancer")
            .collect();
        let range: Vec<Ipv4Addr> = (0..=u8::MAX)
            .map_while(|n| self.hosts.load_balancer(n))
            .collect();
        let mut assigned = BTreeMap::new();
        let mut used = BTreeSet::new();
        for service in &balancers {
            if let Some(present) = present_address(service)
                && range.contains(&present)
                && used.insert(present)
            {
                assigned.insert(key_of(service), present);
            }
        }
        for service in balancers {
            let key = key_of(service);
            if !assigned.contains_key(&key)
                && let Some(free) = range.iter().find(|address| !used.contains(address))
            {
                used.insert(*free);
                assigned.insert(key, *free);
            }
        }
        assigned
    }

    /// Listens for a port; what listens, best first.
    async fn listen_for(
        &mut self,
        key: &Key,
        port: &ServicePort,
        balancer: Option<Ipv4Addr>,
    ) -> Vec<SocketAddrV4> {
        let target = (key.clone(), port.port);
        let number = |port: i32| u16::try_from(port).ok().filter(|port| *port > 0);
        let node_port = port.node_port.and_then(number);
        let mut listening = Vec::new();
        if let (Some(address), Some(port)) = (balancer, number(port.port)) {
            let wanted = SocketAddrV4::new(address, port);
            match self.listen(wanted, &target).await {
                Ok(()) => listening.push(wanted),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    if let Some(port) = node_port {
                        let instead = SocketAddrV4::new(address, port);
                        if self.listen(instead, &target).await.is_ok() {
                            listening.push(instead);
                        }
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, address = %wanted, "cannot listen on the host")
                }
            }
        }
        if let Some(port) = node_port {
            let wanted = SocketAddrV4::new(self.hosts.node(), port);
            match self.listen(wanted, &target).await {
                Ok(()) => listening.push(wanted),
                Err(error) => {
                    tracing::warn!(%error, address = %wanted, "cannot listen on the host")
                }
            }
        }
        listening
    }

    async fn listen(&mut self, address: SocketAddrV4, target: &Target) -> io::Result<()> {
        if let Some((present, task)) = self.listeners.get(&address) {
            if present == target {
                return Ok(());
            }
            // The address moved to another service: a new task takes the socket's place.
            task.abort();
            self.listeners.remove(&address);
        }
        let listener = self.outside.listen(SocketAddr::V4(address)).await?;
        let listener = TcpListener::from_std(listener)?;
        let task = tokio::spawn(serve(listener, self.world.clone(), target.clone()));
        self.listeners.insert(address, (target.clone(), task));
        Ok(())
    }

    /// Writes the service's status and annotation, where they differ.
    async fn tell(
        &self,
        service: &Service,
        balancer: Option<Ipv4Addr>,
        shown: &[SocketAddrV4],
    ) -> bool {
        let (namespace, name) = key_of(service);
        let api: Api<Service> = Api::namespaced(self.client.clone(), &namespace);
        let params = PatchParams::default();
        let mut told = true;
        let text = shown
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(",");
        let annotations = service.metadata.annotations.as_ref();
        if annotations
            .and_then(|all| all.get(HOST_ADDRESS))
            .is_none_or(|old| *old != text)
        {
            let patch = json!({"metadata": {"annotations": {HOST_ADDRESS: text}}});
            told &= written(api.patch(&name, &params, &Patch::Merge(patch)).await);
        }
        if let Some(address) = balancer
            && present_address(service) != Some(address)
        {
            let patch = json!({"status": {"loadBalancer": {"ingress": [
                {"ip": address, "ipMode": "VIP"}]}}});
            told &= written(api.patch_status(&name, &params, &Patch::Merge(patch)).await);
        }
        told
    }
}

fn written<T>(result: kube::Result<T>) -> bool {
    match result {
        Ok(_) => true,
        // Deleted meanwhile.
        Err(kube::Error::Api(answer)) if answer.code == 404 => true,
        Err(error) => {
            tracing::debug!(%error, "service not updated");
            false
        }
    }
}

fn exposed(service: &Service) -> bool {
    matches!(kind(service), "NodePort" | "LoadBalancer")
        && service.metadata.deletion_timestamp.is_none()
}

fn kind(service: &Service) -> &str {
    service
        .spec
        .as_ref()
        .and_then(|spec| spec.type_.as_deref())
        .unwrap_or("ClusterIP")
}

fn key_of(service: &Service) -> Key {
    let meta = &service.metadata;
    (
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
    )
}

fn present_address(service: &Service) -> Option<Ipv4Addr> {
    let balancer = service.status.as_ref()?.load_balancer.as_ref()?;
    balancer
        .ingress
        .as_ref()?
        .first()?
        .ip
        .as_ref()?
        .parse()
        .ok()
}

/// Accepts on the host and carries each connection to an endpoint.
async fn serve(listener: TcpListener, world: Arc<World>, target: Target) {
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                tokio::spawn(carry(client, world.clone(), target.clone()));
            }
            Err(error) => {
                tracing::debug!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Carries one connection.
async fn carry(client: TcpStream, world: Arc<World>, target: Target) {
    match connect(&world, &target).await {
        Some(server) => relay(client, server).await,
        // Nobody to talk to.
        None => reset(&client),
    }
}

/// Connects to an endpoint, chosen at random; to the others when it does not answer.
async fn connect(world: &World, ((namespace, name), port): &Target) -> Option<TcpStream> {
    let service = world.service(namespace, name)?;
    let ports = service.spec.as_ref()?.ports.as_deref()?;
    let port = ports.iter().find(|known| known.port == *port)?;
    let endpoints = endpoints(world, &service, port);
    let first = usize::from(random()) % endpoints.len().max(1);
    for endpoint in endpoints.iter().cycle().skip(first).take(endpoints.len()) {
        let address = SocketAddr::new(IpAddr::V4(*endpoint.ip()), endpoint.port());
        let connecting = TcpStream::connect(address);
        if let Ok(Ok(stream)) = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            return Some(stream);
        }
    }
    None
}

/// A number that spreads connections; std's hasher keys are random.
fn random() -> u16 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0) as u16
}
