//! Secrets that come late, change and go.

use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::eventually;
use crate::tls_support::leaf;

use super::*;

#[test]
fn a_listener_waits_for_its_secrets_and_serves_nobody_without_them() {
    let upstream = Upstream::start("c");
    let mut proxy = proxy(&upstream);
    let authority = Authority::new("ours");
    let identity = authority.issue(&[WORKLOAD]);
    let chains = vec![chain(json!({}), Some(mesh_server()), "c", json!({}))];
    let address = accept(&mut proxy, "l", chains);
    assert!(TcpStream::connect(address).is_err(), "it is not open yet");
    let secrets = proxy.engine.secrets();
    assert!(secrets.wanted().contains("default") && secrets.wanted().contains("ROOTCA"));
    join_mesh(&proxy, &authority, &authority.issue(&[SERVER]));
    wait_for_listener(address);
    let options = ClientOptions {
        identity: Some(&identity),
        ..ClientOptions::default()
    };
    assert!(outcome(address, &options).is_some());
    secrets.remove("ROOTCA");
    assert!(outcome(address, &options).is_none(), "without authorities");
    assert!(outcome(address, &ClientOptions::default()).is_none());
    secrets
        .put_trust("ROOTCA", &Authority::new("other").pem)
        .unwrap();
    assert!(outcome(address, &options).is_none(), "other authorities");
    secrets.put_trust("ROOTCA", &authority.pem).unwrap();
    assert!(outcome(address, &options).is_some());
    secrets.remove("default");
    assert!(
        outcome(address, &options).is_none(),
        "without a certificate"
    );
}

#[test]
fn a_secret_of_the_discovery_stream_is_asked_for_and_used() {
    let upstream = Upstream::start("c");
    let mut proxy = proxy(&upstream);
    let authority = Authority::new("ours");
    let server = transport(
        "Downstream",
        json!({ "commonTlsContext": {
            "tlsCertificateSdsSecretConfigs": [secret("kubernetes://shop", true)],
        }}),
    );
    let chains = vec![chain(json!({}), Some(server), "c", json!({}))];
    let address = accept(&mut proxy, "l", chains);
    assert!(
        proxy
            .wanted(ResourceType::Secret)
            .contains("kubernetes://shop")
    );
    assert!(TcpStream::connect(address).is_err(), "it is not open yet");
    let resource = |identity: &Identity| json!({ "name": "kubernetes://shop", "tlsCertificate": identity.inline() });
    let (first, second) = (authority.issue(&["shop"]), authority.issue(&["shop"]));
    proxy.accept(ResourceType::Secret, &[resource(&first)]);
    wait_for_listener(address);
    let shown = || {
        TlsClient::connect(address, &ClientOptions::default())
            .unwrap()
            .server_certificate()
    };
    assert_eq!(shown(), leaf(&first));
    proxy.accept(ResourceType::Secret, &[resource(&second)]);
    assert_eq!(shown(), leaf(&second));
    let mismatch = Identity {
        chain: first.chain,
        key: second.key.clone(),
    };
    let rejected = proxy.send(ResourceType::Secret, &[resource(&mismatch)]);
    assert!(
        rejected[0].reason.contains("tls_certificate"),
        "{rejected:?}"
    );
    assert_eq!(shown(), leaf(&second), "the last good one stays");
    proxy.remove(ResourceType::Secret, "kubernetes://shop");
    let refused = TlsClient::connect(address, &ClientOptions::default());
    assert!(refused.is_err(), "a removed secret serves nobody");
    proxy.remove(ResourceType::Listener, "l");
    eventually(|| proxy.wanted(ResourceType::Secret).is_empty());
}

#[test]
fn secrets_change_under_load_without_a_failed_request() {
    let MeshListener {
        proxy,
        authority,
        address,
        ..
    } = &MeshListener::start();
    let identity = authority.issue(&[WORKLOAD]);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut requests = 0;
                    while !done.load(Ordering::Relaxed) {
                        let options = ClientOptions {
                            identity: Some(&identity),
                            protocols: MESH,
                            ..ClientOptions::default()
                        };
                        assert!(outcome(*address, &options).is_some(), "request {requests}");
                        requests += 1;
                    }
                    requests
                })
            })
            .collect();
        for _ in 0..50 {
            join_mesh(proxy, authority, &authority.issue(&[SERVER]));
            std::thread::sleep(Duration::from_millis(10));
        }
        done.store(true, Ordering::Relaxed);
        for client in clients {
            assert!(client.join().unwrap() > 0);
        }
    });
}
