//! Where the mesh's services appear on the host: a loopback network of the mesh's own.

use std::hash::Hasher;
use std::net::Ipv4Addr;
use std::path::Path;

/// The loopback network `127.x.y.0/24` of one mesh. All of 127.0.0.0/8 is local on Linux without
/// any set-up, so a mesh can have as many addresses as it has services, and two meshes do not
/// meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostAddresses {
    network: [u8; 3],
}

impl HostAddresses {
    /// The network of the mesh whose state lies in `folder`: always the same for the same folder.
    pub fn of(folder: &Path) -> Self {
        // FNV-1a: the result must stay the same over releases, which std's hasher does not promise.
        let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
        hash.write(folder.as_os_str().as_encoded_bytes());
        let bytes = (hash.finish() ^ (hash.finish() >> 32)).to_le_bytes();
        // 127.0.0.0/16 and .53. (the stub resolver) stay free for others.
        let second = 64 + bytes[0] % 128;
        Self {
            network: [127, second, bytes[1]],
        }
    }

    /// The node's address: node ports listen here.
    pub fn node(self) -> Ipv4Addr {
        self.nth(1)
    }

    /// The address of the `n`th load balancer, counted from 0; none beyond the network's size.
    pub fn load_balancer(self, n: u8) -> Option<Ipv4Addr> {
        n.checked_add(2)
            .filter(|last| *last < 255)
            .map(|last| self.nth(last))
    }

    fn nth(self, last: u8) -> Ipv4Addr {
        let [a, b, c] = self.network;
        Ipv4Addr::new(a, b, c, last)
    }
}

struct Fnv(u64);

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_always_has_the_same_network_and_others_have_others() {
        let one = HostAddresses::of(Path::new("/home/ana/.local/state/lateen"));
        assert_eq!(
            one,
            HostAddresses::of(Path::new("/home/ana/.local/state/lateen"))
        );
        assert_ne!(
            one,
            HostAddresses::of(Path::new("/home/ana/.local/state/lateen2"))
        );
        assert!(one.node().is_loopback());
        assert_eq!(one.load_balancer(0).unwrap().octets()[3], 2);
        assert_eq!(one.load_balancer(252).unwrap().octets()[3], 254);
        assert_eq!(one.load_balancer(253), None);
    }
}
