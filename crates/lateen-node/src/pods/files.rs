//! Files that every pod gets: host name, `/etc/hosts`, `/etc/resolv.conf`, and where the node
//! keeps what belongs to a pod.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;

use crate::container::Bind;

/// Most bytes of a pod's files and of its volumes from the API together.
const SIZE: u64 = 64 << 20;

/// Name of the folder for what pods have on the disk.
const ON_DISK: &str = "writable";

/// Longest host name that Linux takes, in bytes.
const LONGEST_HOSTNAME: usize = 63;

/// The folder of a pod below the node's state.
#[derive(Clone, Debug)]
pub(crate) struct PodFolder(PathBuf);

impl PodFolder {
    pub(crate) fn of(state: &Path, uid: &str) -> Self {
        Self(state.join("pods").join(uid))
    }

    /// Makes the folder, in memory and of limited size: containers may write to files in it, and
    /// must not fill the host's disk; and secrets are never written to that.
    pub(crate) fn create(&self) -> io::Result<()> {
        fs::create_dir_all(&self.0)?;
        let device = |path: &Path| fs::metadata(path).map(|found| found.dev());
        let parent = self.0.parent().unwrap_or(&self.0);
        if device(&self.0)? == device(parent)? {
            lateen_sys::mount::tmpfs(&self.0, SIZE, 0o755)?;
        }
        Ok(())
    }

    /// A volume's folder.
    pub(crate) fn volume(&self, name: &str) -> PathBuf {
        self.0.join("volumes").join(name)
    }

    /// A file that is shown in all containers.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// An empty folder where a container's root is put together.
    pub(crate) fn staging(&self) -> io::Result<PathBuf> {
        let path = self.0.join("root");
        fs::create_dir_all(&path)?;
        Ok(path)
    }

    /// An empty folder on the disk for what a container changes in its image.
    pub(crate) fn writable(&self, container: &str) -> io::Result<PathBuf> {
        let folder = self.on_disk().join(container);
        remove(&folder)?;
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// What belongs to the pod and is too large for memory.
    fn on_disk(&self) -> PathBuf {
        let uid = self.0.file_name().unwrap_or_default();
        let state = self.0.parent().and_then(Path::parent);
        state.unwrap_or(&self.0).join(ON_DISK).join(uid)
    }

    /// The file through which a container may leave a last message; emptied.
    pub(crate) fn termination_message(&self, container: &str) -> io::Result<PathBuf> {
        let path = self.0.join(format!("termination-{container}"));
        fs::write(&path, "")?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o666);
        fs::set_permissions(&path, mode)?;
        Ok(path)
    }

    /// Removes everything, with the volumes that are mounted in it.
    pub(crate) fn remove(&self) {
        // An error means that it was never mounted.
        let _ = lateen_sys::mount::unmount(&self.0);
        for folder in [&self.0, &self.on_disk()] {
            if let Err(error) = remove(folder) {
                tracing::warn!(%error, folder = %folder.display(), "cannot remove a pod's folder");
            }
        }
    }
}

/// Removes what pods of an earlier life left.
pub(crate) fn forget_all(state: &Path) {
    for folder in [state.join("pods"), state.join(ON_DISK)] {
        if let Err(error) = remove(&folder) {
            tracing::warn!(%error, folder = %folder.display(), "cannot remove old pods' folders");
        }
    }
}

/// Removes a folder, if it is there.
fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The pod's host name: as given, else its name, cut to what Linux takes.
pub(crate) fn hostname(pod: &Pod) -> String {
    let given = pod.spec.as_ref().and_then(|spec| spec.hostname.clone());
    let mut name = given
        .or_else(|| pod.metadata.name.clone())
        .unwrap_or_default();
    name.truncate(LONGEST_HOSTNAME);
    name.trim_end_matches(['-', '.']).to_owned()
}

/// Writes `hosts` and `resolv.conf` and says where they appear.
pub(crate) fn write(
    folder: &PodFolder,
    pod: &Pod,
    address: Ipv4Addr,
    dns: Ipv4Addr,
    domain: &str,
) -> io::Result<Vec<Bind>> {
    folder.create()?;
    let files = [
        ("hosts", hosts(pod, address, domain)),
        ("resolv.conf", resolv_conf(pod, dns, domain)),
    ];
    let mut binds = Vec::new();
    for (name, text) in files {
        let source = folder.file(name);
        fs::write(&source, text)?;
        let target = Path::new("/etc").join(name);
        binds.push(Bind {
            source,
            target,
            read_only: false,
        });
    }
    Ok(binds)
}

fn hosts(pod: &Pod, address: Ipv4Addr, domain: &str) -> String {
    let mut text = String::from(
        "# Kubernetes-managed hosts file.\n\
         127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n",
    );
    let name = hostname(pod);
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let spec = pod.spec.as_ref();
    // Writing to a String cannot fail.
    let _ = match spec.and_then(|spec| spec.subdomain.as_deref()) {
        Some(subdomain) => {
            writeln!(
                text,
                "{address}\t{name}.{subdomain}.{namespace}.svc.{domain}\t{name}"
            )
        }
        None => writeln!(text, "{address}\t{name}"),
    };
    for alias in spec
        .and_then(|spec| spec.host_aliases.as_deref())
        .unwrap_or_default()
    {
        let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
        let _ = writeln!(text, "{}\t{names}", alias.ip);
    }
    text
}

fn resolv_conf(pod: &Pod, dns: Ipv4Addr, domain: &str) -> String {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let spec = pod.spec.as_ref();
    let policy = spec
        .and_then(|spec| spec.dns_policy.as_deref())
        .unwrap_or("ClusterFirst");
    let own = spec.and_then(|spec| spec.dns_config.as_ref());
    let (mut servers, mut searches, mut options) = (Vec::new(), Vec::new(), Vec::new());
    // `Default` asks for the host's resolvers, which a pod cannot reach: the cluster's serve too.
    if policy != "None" {
        servers.push(dns.to_string());
        searches.push(format!("{namespace}.svc.{domain}"));
        searches.push(format!("svc.{domain}"));
        searches.push(domain.to_owned());
        options.push("ndots:5".to_owned());
    }
    if let Some(own) = own {
        servers.extend(own.nameservers.clone().unwrap_or_default());
        searches.extend(own.searches.clone().unwrap_or_default());
        for option in own.options.iter().flatten() {
            let Some(name) = &option.name else { continue };
            options.retain(|known: &String| known.split(':').next() != Some(name));
            options.push(match &option.value {
                Some(value) => format!("{name}:{value}"),
                None => name.clone(),
            });
        }
    }
    let mut text = String::new();
    if !searches.is_empty() {
        let _ = writeln!(text, "search {}", searches.join(" "));
    }
    for server in servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    if !options.is_empty() {
        let _ = writeln!(text, "options {}", options.join(" "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "web-7", "namespace": "lab"}, "spec": spec,
        }))
        .unwrap()
    }

    #[test]
    fn resolv_conf_searches_the_pods_namespace_first() {
        let dns = Ipv4Addr::new(10, 96, 0, 10);
        let usual = resolv_conf(
            &pod(serde_json::json!({"containers": []})),
            dns,
            "cluster.local",
        );
        assert_eq!(
            usual,
            "search lab.svc.cluster.local svc.cluster.local cluster.local\n\
             nameserver 10.96.0.10\noptions ndots:5\n"
        );
        let own = serde_json::json!({"containers": [], "dnsPolicy": "None", "dnsConfig": {
            "nameservers": ["1.2.3.4"], "searches": ["a"], "options": [{"name": "ndots", "value": "2"}]}});
        let own = resolv_conf(&pod(own), dns, "cluster.local");
        assert_eq!(own, "search a\nnameserver 1.2.3.4\noptions ndots:2\n");
    }

    #[test]
    fn hosts_has_the_pods_own_names_and_aliases() {
        let spec = serde_json::json!({"containers": [], "hostname": "db-0", "subdomain": "db",
            "hostAliases": [{"ip": "10.0.0.9", "hostnames": ["x", "y"]}]});
        let text = hosts(&pod(spec), Ipv4Addr::new(10, 244, 0, 9), "cluster.local");
        assert!(
            text.contains("10.244.0.9\tdb-0.db.lab.svc.cluster.local\tdb-0\n"),
            "{text}"
        );
        assert!(text.ends_with("10.0.0.9\tx\ty\n"), "{text}");
    }
}
