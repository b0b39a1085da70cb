//! Sticky sessions on clusters: which proxies get the option, from which policy, and what it says.

use lateen_api::decode;
use lateen_mesh::index::{StoreSecret, parse_store_secret, store_secret};
use lateen_mesh::{Change, Impact, Index, Key, MeshConfig, Proxy, resources};
use lateen_xds::TypedStruct;
use lateen_xds::pb::envoy::config::{cluster::v3::Cluster, core::v3::Node};
use lateen_xds::pb::google::protobuf::value::Kind;
use lateen_xds::pb::google::protobuf::{Struct, Value as Field};
use lateen_xds::{Names, ResourceType};
use prost::Message;
use serde_json::{Value, json};

const EXTENSION: &str = "lateen.sticky_session";
const WHOLE: &str = "outbound|80||web.shop.svc.cluster.local";
const SUBSET: &str = "outbound|80|v1|web.shop.svc.cluster.local";

fn object(api_version: &str, kind: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": api_version, "kind": kind, "spec": spec,
        "metadata": {"name": name, "namespace": "shop"},
    })
}

/// A mesh with the Service `web` and its subset `v1`.
fn mesh() -> Index {
    let mut index = Index::new(MeshConfig::default());
    let spec = json!({"ports": [{"port": 80, "name": "http"}], "clusterIP": "10.0.0.1"});
    let service = object("v1", "Service", "web", spec);
    index.apply(Change::Service(
        serde_json::from_value(service).expect("a service"),
    ));
    let spec = json!({"host": "web", "subsets": [{"name": "v1"}]});
    let rule = object("networking.istio.io/v1", "DestinationRule", "web", spec);
    index.apply(Change::DestinationRule(decode(&rule).expect("a rule")));
    index
}

/// Applies a policy for the whole service, or for a subset of it.
fn apply(index: &mut Index, name: &str, subset: Option<&str>, more: Value) -> Impact {
    let mut target = json!({"kind": "Service", "name": "web"});
    if let Some(subset) = subset {
        target["sectionName"] = json!(subset);
    }
    let mut spec =
        json!({"targetRefs": [target], "key": {"header": "x-user"}, "idleTimeout": "60s"});
    for (field, value) in more.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    let policy = object("lateen.dev/v1alpha1", "StickySession", name, spec);
    index.apply(Change::StickySession(decode(&policy).expect("a policy")))
}

fn proxy(namespace: &str, extensions: &[&str]) -> Proxy {
    let extension = |name: &&str| lateen_xds::pb::envoy::config::core::v3::Extension {
        name: (*name).to_owned(),
        ..Default::default()
    };
    let node = Node {
        id: format!("sidecar~10.0.0.9~a.{namespace}~{namespace}.svc.cluster.local"),
        extensions: extensions.iter().map(extension).collect(),
        ..Node::default()
    };
    Proxy::from_node(&node).expect("a valid node")
}

/// The option of a cluster as JSON.
fn option(index: &Index, proxy: &Proxy, cluster: &str) -> Option<Value> {
    let found = resources(index, proxy, ResourceType::Cluster, &Names::All);
    let found = found.iter().find(|resource| resource.name == cluster);
    let body = &found.expect(cluster).body;
    let message = Cluster::decode(body.value.as_slice()).expect("a cluster");
    let any = message.typed_extension_protocol_options.get(EXTENSION)?;
    let options = TypedStruct::decode(any.value.as_slice()).expect("a struct");
    Some(to_json(options.value.unwrap_or_default()))
}

fn to_json(value: Struct) -> Value {
    let field = |field: Field| match field.kind {
        Some(Kind::StringValue(text)) => json!(text),
        Some(Kind::NumberValue(number)) => json!(number as u64),
        Some(Kind::BoolValue(flag)) => json!(flag),
        Some(Kind::StructValue(value)) => to_json(value),
        other => panic!("{other:?}"),
    };
    let fields = value.fields.into_iter();
    fields.map(|(name, value)| (name, field(value))).collect()
}

#[test]
fn proxies_that_keep_sessions_get_the_option_and_others_do_not() {
    let mut index = mesh();
    apply(&mut index, "web", None, json!({}));
    let expected = json!({
        "key": {"header": "x-user"}, "idle_timeout": "60s", "max_entries": 1_048_576,
    });
    for cluster in [WHOLE, SUBSET] {
        assert_eq!(
            option(&index, &proxy("shop", &[EXTENSION]), cluster),
            Some(expected.clone())
        );
        assert_eq!(option(&index, &proxy("shop", &[]), cluster), None);
    }
}

#[test]
fn the_policy_of_a_subset_comes_before_the_one_of_the_service() {
    let mut index = mesh();
    apply(&mut index, "a", None, json!({"idleTimeout": "10s"}));
    apply(&mut index, "b", Some("v1"), json!({"idleTimeout": "20s"}));
    apply(&mut index, "c", Some("v1"), json!({"idleTimeout": "30s"}));
    let idle = |cluster: &str| {
        option(&index, &proxy("shop", &[EXTENSION]), cluster)
            .map(|option| option["idle_timeout"].clone())
    };
    assert_eq!(idle(WHOLE), Some(json!("10s")));
    assert_eq!(
        idle(SUBSET),
        Some(json!("20s")),
        "the names decide among the same age"
    );
}

#[test]
fn every_key_and_store_is_passed_on() {
    let check = |more: Value, field: &str, expected: Value| {
        let mut index = mesh();
        apply(&mut index, "web", None, more);
        let found = option(&index, &proxy("shop", &[EXTENSION]), WHOLE).unwrap_or_default();
        assert_eq!(found[field], expected);
    };
    check(
        json!({"key": {"cookie": "id"}}),
        "key",
        json!({"cookie": "id"}),
    );
    check(json!({"key": {"query": "u"}}), "key", json!({"query": "u"}));
    check(
        json!({"key": {"sourceIp": true}}),
        "key",
        json!({"source_ip": true}),
    );
    check(
        json!({"store": {"memory": {"maxEntries": 5}}}),
        "max_entries",
        json!(5),
    );
    check(json!({"store": {"memory": {}}}), "redis", Value::Null);
    let redis = |redis: Value| json!({"store": {"redis": redis}});
    check(
        redis(json!({"url": "redis://[::1]/2"})),
        "redis",
        json!({"host": "::1", "port": 6379, "database": 2}),
    );
    check(
        redis(json!({
            "url": "redis://store:6380",
            "passwordSecretRef": {"name": "secret"},
            "tls": {"caSecretRef": {"name": "roots"}},
        })),
        "redis",
        json!({
            "host": "store", "port": 6380, "database": 0,
            "password_secret": "sticky-store://shop/web/password",
            "tls": {"ca_secret": "sticky-store://shop/web/authorities", "server_name": "store"},
        }),
    );
}

#[test]
fn secrets_of_a_store_are_found_for_proxies_that_see_the_service() {
    let mut index = mesh();
    let policy = Key::new("shop", "web");
    let redis = json!({
        "url": "redis://store", "passwordSecretRef": {"name": "secret", "key": "pw"},
    });
    let impact = apply(&mut index, "web", None, json!({"store": {"redis": redis}}));
    let name = store_secret(&policy, StoreSecret::Password);
    let subscribed: Names = [name.as_str(), "default"].into_iter().collect();
    let narrowed = impact.narrow(&proxy("shop", &[]), ResourceType::Secret, &subscribed);
    assert_eq!(narrowed, [name.as_str()].into_iter().collect());
    let of = |index: &Index, namespace: &str, policy: &Key, secret| {
        let found = index.store_secret(&proxy(namespace, &[]), policy, secret);
        found.map(|(secret, entry)| (secret.to_owned(), entry.to_owned()))
    };
    let found = Some(("secret".to_owned(), "pw".to_owned()));
    assert_eq!(
        of(&index, "elsewhere", &policy, StoreSecret::Password),
        found
    );
    assert_eq!(of(&index, "shop", &policy, StoreSecret::Authorities), None);
    assert_eq!(
        of(
            &index,
            "shop",
            &Key::new("shop", "other"),
            StoreSecret::Password
        ),
        None
    );
    // A service that is not exported takes its secrets with it.
    let mut service = object("v1", "Service", "web", json!({"ports": [{"port": 80}]}));
    service["metadata"]["annotations"] = json!({"networking.istio.io/exportTo": "."});
    index.apply(Change::Service(
        serde_json::from_value(service).expect("a service"),
    ));
    assert_eq!(
        of(&index, "elsewhere", &policy, StoreSecret::Password),
        None
    );
    assert_eq!(of(&index, "shop", &policy, StoreSecret::Password), found);
}

#[test]
fn names_of_store_secrets_are_read_back() {
    for secret in [StoreSecret::Password, StoreSecret::Authorities] {
        let policy = Key::new("shop", "web");
        assert_eq!(
            parse_store_secret(&store_secret(&policy, secret)),
            Some((policy, secret))
        );
    }
    for name in [
        "default",
        "kubernetes://a/b/password",
        "sticky-store://a/b",
        "sticky-store://a/b/c",
        "sticky-store://a/b/password/d",
    ] {
        assert_eq!(parse_store_secret(name), None, "{name}");
    }
}
