use std::fs;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, DiscoveryType, LbPolicy,
};
use envoy_types::pb::envoy::config::core::v3::TransportSocket;
use envoy_types::pb::envoy::config::core::v3::transport_socket::ConfigType;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::UpstreamTlsContext;
use envoy_types::pb::google::protobuf::Duration;
use envoy_types::util::pack_any;
use serde_json::json;

use super::*;

const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
const TLS: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";

fn cluster(typed_config: Any) -> Cluster {
    Cluster {
        name: "one".to_owned(),
        connect_timeout: Some(Duration {
            seconds: 0,
            nanos: 250_000_000,
        }),
        lb_policy: LbPolicy::RingHash.into(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())),
        transport_socket: Some(TransportSocket {
            name: "tls".to_owned(),
            config_type: Some(ConfigType::TypedConfig(typed_config)),
        }),
        ..Cluster::default()
    }
}

#[test]
fn any_is_expanded_in_both_namings_and_read_back() {
    let check = |names: FieldNames, expected: Value| {
        let tls = UpstreamTlsContext {
            sni: "a.example".to_owned(),
            ..UpstreamTlsContext::default()
        };
        let any = pack_any(cluster(pack_any(tls)));
        let printed = from_any(&any, names).unwrap();
        assert_eq!(printed, expected);
        assert_eq!(to_any(&printed).unwrap(), any);
    };
    check(
        FieldNames::Camel,
        json!({"@type": CLUSTER, "name": "one", "type": "EDS", "connectTimeout": "0.250s", "lbPolicy": "RING_HASH",
            "transportSocket": {"name": "tls", "typedConfig": {"@type": TLS, "sni": "a.example"}}}),
    );
    check(
        FieldNames::Proto,
        json!({"@type": CLUSTER, "name": "one", "type": "EDS", "connect_timeout": "0.250s", "lb_policy": "RING_HASH",
            "transport_socket": {"name": "tls", "typed_config": {"@type": TLS, "sni": "a.example"}}}),
    );
}

#[test]
fn forgotten_descriptors_come_back() {
    let any = pack_any(cluster(Any::default()));
    let printed = from_any(&any, FieldNames::Proto).unwrap();
    forget_descriptors();
    assert_eq!(from_any(&any, FieldNames::Proto).unwrap(), printed);
}

#[test]
fn any_of_an_unknown_type_survives() {
    let opaque = Any {
        type_url: "type.googleapis.com/nobody.Knows".to_owned(),
        value: vec![8, 1],
    };
    let any = pack_any(cluster(opaque));
    let printed = from_any(&any, FieldNames::Proto).unwrap();
    assert_eq!(
        printed["transport_socket"]["typed_config"],
        json!({"@type": "type.googleapis.com/nobody.Knows", "@value": "CAE="})
    );
    assert_eq!(to_any(&printed).unwrap(), any);
}

#[test]
fn values_that_do_not_fit_are_refused() {
    let check = |value: Value, part: &str| {
        let error = to_any(&value).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    };
    check(json!({"name": "one"}), "@type");
    check(json!({"@type": CLUSTER, "nom": "one"}), "nom");
    check(
        json!({"@type": CLUSTER, "connect_timeout": true}),
        "invalid type",
    );
    check(
        json!({"@type": "type.googleapis.com/nobody.Knows"}),
        "nobody.Knows",
    );
}

#[test]
fn unsupported_fields_are_named_by_path() {
    let tls = UpstreamTlsContext {
        sni: "a.example".to_owned(),
        allow_renegotiation: true,
        ..UpstreamTlsContext::default()
    };
    let any = pack_any(cluster(pack_any(tls)));
    let check = |refused: &[&str], expected: &[&str]| {
        let found = unsupported_fields(&any, |_, field| !refused.contains(&field)).unwrap();
        assert_eq!(found, expected);
    };
    check(&[], &[]);
    check(&["lb_policy"], &["lb_policy"]);
    check(
        &["allow_renegotiation"],
        &["transport_socket.typed_config.allow_renegotiation"],
    );
    // What is below a refused field is not reported again.
    check(&["transport_socket", "sni"], &["transport_socket"]);
}

#[test]
fn nesting_is_limited() {
    let mut any = Any {
        type_url: "type.googleapis.com/google.protobuf.Any".to_owned(),
        value: Vec::new(),
    };
    for _ in 0..MAX_DEPTH {
        any = Any {
            type_url: any.type_url.clone(),
            value: any.encode_to_vec(),
        };
    }
    assert!(matches!(
        from_any(&any, FieldNames::Camel),
        Err(JsonError::TooDeep(_))
    ));
}

#[test]
fn descriptors_come_from_the_release_that_is_built_with() {
    let lock =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.lock")).unwrap();
    let expected = format!("name = \"envoy-types\"\nversion = \"{DESCRIPTORS_VERSION}\"");
    assert!(
        lock.contains(&expected),
        "run: cargo run -p lateen-xds --example descriptors"
    );
}
