//! Traffic that leaves the mesh of an ordinary user: by address, by name, through sidecars, and as policies allow.
//!
//! The host is a network namespace of the test's own, with an address that is neither the mesh's nor loopback.

mod support;

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Child, Command};
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};

use support::account::Account;
use support::eventually;
use support::mesh::{Mesh, finish};

/// The host's address, of a range that is for documentation.
const HOST: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);

/// An outside service by name, and one whose answers come too late.
const ENTRIES: &str = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: shop}
spec:
  hosts: [shop.example]
  ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8080}]
  resolution: DNS
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop}
spec:
  hosts: [shop.example]
  http:
  - timeout: 1s
    route: [{destination: {host: shop.example, port: {number: 80}}}]
---
apiVersion: v1
kind: Service
metadata: {name: away}
spec: {type: ExternalName, externalName: shop.example}
";

/// Only what the mesh knows.
const REGISTRY_ONLY: &str = "
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: default}
spec:
  egress: [{hosts: ['*/*']}]
  outboundTrafficPolicy: {mode: REGISTRY_ONLY}
";

/// F97: a ServiceEntry names what is outside, with a timeout for it; with REGISTRY_ONLY nothing else is reached.
#[test]
fn pods_reach_the_outside_as_policies_allow() {
    let host = Host::make();
    let nameserver = host.nameserver.to_string();
    let mesh = Mesh::up_with(Account::ordinary(), &[], &["--nameserver", &nameserver]);
    let _shop = Server::start(&mesh);
    mesh.apply("default", ENTRIES);

    let plain = |url: &str| status(&mesh, false, url);
    let meshed = |url: &str| status(&mesh, true, url);
    let by_address = format!("http://{HOST}:8080");
    for (what, url, code) in [
        ("an address", format!("{by_address}/status/418"), "418"),
        (
            "a name",
            "http://shop.example:8080/status/418".into(),
            "418",
        ),
        ("an alias", "http://away:8080/status/418".into(), "418"),
        ("a closed port", format!("http://{HOST}:9/"), "000"),
        ("no name", "http://none.example/".into(), "000"),
    ] {
        assert_eq!(plain(&url), code, "{what} without a sidecar");
    }
    for (what, url, code) in [
        ("an address", format!("{by_address}/status/418"), "418"),
        (
            "a name",
            "http://shop.example:8080/status/418".into(),
            "418",
        ),
        (
            "a port of the entry",
            "http://shop.example/status/418".into(),
            "418",
        ),
        ("a late answer", "http://shop.example/delay/3".into(), "504"),
        // A port of HTTP in the mesh, and one that the mesh knows nothing of.
        ("a closed port", format!("http://{HOST}/"), "503"),
        ("an unknown closed port", format!("http://{HOST}:9/"), "000"),
    ] {
        assert_eq!(meshed(&url), code, "{what} through a sidecar");
    }

    mesh.apply("default", REGISTRY_ONLY);
    for (what, url, code) in [
        ("an unknown port", format!("{by_address}/status/418"), "000"),
        ("an address", format!("http://{HOST}/"), "502"),
        (
            "a port of the entry",
            "http://shop.example/status/418".into(),
            "418",
        ),
    ] {
        eventually(what, Duration::from_secs(20), || match meshed(&url) {
            found if found == code => Ok(()),
            found => Err(found),
        });
    }
    mesh.down();
}

/// The status of a page as a pod sees it; `000` if there is none.
fn status(mesh: &Mesh, injected: bool, url: &str) -> String {
    let script = format!("curl -s -m 15 -o /dev/null -w '%{{http_code}}' {url}");
    mesh.in_pod("default", injected, &script).trim().to_owned()
}

/// The test's own host.
struct Host {
    nameserver: SocketAddr,
}

impl Host {
    /// Moves the calling thread, and all that it starts, into a network of its own.
    fn make() -> Self {
        unshare(CloneFlags::CLONE_NEWNET).expect("run this test as root");
        let address = format!("{HOST}/32");
        for arguments in [
            ["link", "set", "up", "dev", "lo"],
            ["address", "add", &address, "dev", "lo"],
        ] {
            let mut command = Command::new("ip");
            command.args(arguments);
            let done = finish(command, None);
            assert_eq!(done.code, 0, "{done:?}");
        }
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let nameserver = socket.local_addr().expect("an address");
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((length, client)) = socket.recv_from(&mut buffer) {
                // A client that is gone needs no answer.
                let _ = socket.send_to(&answer(&buffer[..length]), client);
            }
        });
        Self { nameserver }
    }
}

/// The answer of a nameserver (RFC 1035, section 4.1) that knows the address of `shop.example` alone.
fn answer(query: &[u8]) -> Vec<u8> {
    const NAME: &[u8] = b"\x04shop\x07example\0";
    let end = 12
        + query[12..]
            .iter()
            .position(|byte| *byte == 0)
            .expect("a name")
        + 5;
    let question = &query[12..end];
    let known = question.to_ascii_lowercase().starts_with(NAME);
    let address = known && question.ends_with(&[0, 1, 0, 1]);
    let code = if known { 0x80 } else { 0x83 };
    let mut answer = [
        &query[..2],
        &[0x81, code, 0, 1, 0, u8::from(address), 0, 0, 0, 0],
    ]
    .concat();
    answer.extend_from_slice(question);
    if address {
        answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend_from_slice(&HOST.octets());
    }
    answer
}

/// A server on the host.
struct Server(Child);

impl Server {
    fn start(mesh: &Mesh) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_lateen"))
            .args(["sample", "httpbin", "-b", "0.0.0.0:8080"])
            .spawn()
            .expect("a server");
        let url = format!("http://{HOST}:8080/");
        eventually("the server", Duration::from_secs(10), || {
            match mesh.curl(&[&url]).status {
                200 => Ok(()),
                status => Err(format!("status {status}")),
            }
        });
        Self(child)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
