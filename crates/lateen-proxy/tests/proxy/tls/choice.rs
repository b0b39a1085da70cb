//! What the client's hello chooses: chain, certificate and protocol.

use crate::tls_support::leaf;

use super::*;

#[test]
fn the_server_name_chooses_chain_and_certificate() {
    let (one, two) = (Upstream::start("one"), Upstream::start("two"));
    let mut proxy = Proxy::start(1);
    proxy.cluster("one", &[one.address], json!({}));
    proxy.cluster("two", &[two.address], json!({}));
    let authority = Authority::new("ours");
    let identities = [
        authority.issue(&["one.test"]),
        authority.issue(&["*.two.test"]),
        authority.issue(&["other.two.test"]),
    ];
    let server = |identities: &[&Identity]| {
        let certificates: Vec<_> = identities
            .iter()
            .map(|identity| identity.inline())
            .collect();
        transport(
            "Downstream",
            json!({ "commonTlsContext": { "tlsCertificates": certificates } }),
        )
    };
    let chains = vec![
        chain(
            json!({ "serverNames": ["one.test"] }),
            Some(server(&[&identities[0]])),
            "one",
            json!({}),
        ),
        chain(
            json!({ "serverNames": ["*.two.test"] }),
            Some(server(&[&identities[1], &identities[2]])),
            "two",
            json!({}),
        ),
    ];
    let address = open(&mut proxy, "l", chains);
    for (server_name, shown) in [
        ("one.test", Some(0)),
        ("ONE.test", Some(0)),
        ("a.two.test", Some(1)),
        ("three.test", None),
        ("", None),
    ] {
        let options = ClientOptions {
            server_name,
            ..ClientOptions::default()
        };
        let client = TlsClient::connect(address, &options);
        let found = client.ok().map(|client| client.server_certificate());
        let wanted = shown.map(|index: usize| leaf(&identities[index]));
        assert_eq!(found, wanted, "{server_name}");
    }
}

#[test]
fn protocols_are_agreed_on_and_foreign_lists_do_no_harm() {
    let MeshListener {
        authority, address, ..
    } = &MeshListener::start();
    let identity = authority.issue(&[WORKLOAD]);
    for (protocols, agreed) in [
        (&["http/1.1"][..], Some("http/1.1")),
        (&["http/1.1", "h2"], Some("h2")),
        (&["istio-http/1.1", "istio"], None),
        (&[], None),
    ] {
        let options = ClientOptions {
            identity: Some(&identity),
            protocols,
            ..ClientOptions::default()
        };
        let mut client = TlsClient::connect(*address, &options).unwrap();
        let found = client.0.conn.alpn_protocol().map(<[u8]>::to_vec);
        assert_eq!(found.as_deref(), agreed.map(str::as_bytes), "{protocols:?}");
        if agreed != Some("h2") {
            let answer = client.get("/", &[]).unwrap();
            assert!(
                answer.starts_with("HTTP/1.1 200"),
                "{protocols:?}: {answer}"
            );
        }
    }
}
