//! Proxies are sent what they understand.

use lateen_api::decode;
use lateen_mesh::{Change, Proxy, resources};
use lateen_xds::{Names, ResourceType};
use serde_json::json;

use crate::{mesh, names, proxy};

#[test]
fn a_proxy_is_sent_only_what_it_says_it_has() {
    let index = mesh();
    let text = |proxy: &Proxy| {
        let kinds = [ResourceType::Cluster, ResourceType::Listener];
        let all = kinds
            .iter()
            .flat_map(|kind| resources(&index, proxy, *kind, &Names::All));
        all.map(|resource| String::from_utf8_lossy(&resource.body.value).into_owned())
            .collect::<String>()
    };
    let check = |extensions: &[&str], extension: &str, expected: bool| {
        let proxy = proxy("sidecar", &[("app", "a")], extensions);
        assert_eq!(
            text(&proxy).contains(extension),
            expected,
            "{extension} with {extensions:?}"
        );
    };
    check(&[], "envoy.filters.http.fault", true);
    check(&[], "envoy.transport_sockets.tls", true);
    let plain = ["envoy.filters.http.router", "envoy.filters.http.fault"];
    check(&plain, "envoy.filters.http.fault", true);
    check(&plain, "envoy.filters.http.cors", false);
    check(&plain, "envoy.transport_sockets.tls", false);
    check(&plain, "tls_inspector", false);
}

#[test]
fn a_proxy_without_tls_accepts_nothing_where_tls_is_demanded() {
    let check = |mode: &str, extensions: &[&str], forwards: bool| {
        let mut index = mesh();
        let policy = decode(&json!({
            "apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication",
            "metadata": {"name": "default", "namespace": "shop"}, "spec": {"mtls": {"mode": mode}},
        }));
        index.apply(Change::PeerAuthentication(policy.expect("a valid policy")));
        let proxy = proxy("sidecar", &[("app", "a")], extensions);
        let found = resources(
            &index,
            &proxy,
            ResourceType::Listener,
            &names(&["virtualInbound"]),
        );
        let text = String::from_utf8_lossy(&found[0].body.value).into_owned();
        assert_eq!(
            text.contains("inbound|8080||"),
            forwards,
            "{mode} with {extensions:?}"
        );
    };
    let plain = ["envoy.filters.http.router"];
    check("STRICT", &plain, false);
    check("PERMISSIVE", &plain, true);
    check("DISABLE", &plain, true);
    check("STRICT", &[], true);
}
