//! Who a workload is: the name and address of its pod.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

/// The pod that this process runs in.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// Pod name: `POD_NAME`, else the host name (which Kubernetes sets to the pod's name).
    pub(crate) pod_name: String,
    /// Pod address: `POD_IP`, else the address that outgoing traffic would carry.
    pub(crate) pod_ip: String,
}

impl Identity {
    /// Reads the identity from the environment and the system.
    pub(crate) fn discover() -> Self {
        let pod_name = variable("POD_NAME")
            .or_else(|| {
                let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
                Some(name.trim().to_owned())
            })
            .unwrap_or_else(|| "unknown".to_owned());
        let pod_ip = variable("POD_IP")
            .or_else(|| outgoing_address().map(|address| address.to_string()))
            .unwrap_or_else(|| Ipv4Addr::LOCALHOST.to_string());
        Self { pod_name, pod_ip }
    }
}

/// A variable that is set and not empty.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The source address of the default route. Connecting a datagram socket sends nothing; it only asks for the route.
fn outgoing_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}
