//! The bodies in `bodies/` are what kubectl 1.37 sends for `create namespace lab`, `create deployment web
//! --image=example/web:1 --port=8080 --replicas=2`, `create configmap c --from-literal=a=b`, `create secret generic s
//! --from-literal=k=v`, `create token robot --duration=10m --audience=x`, `create service nodeport n --tcp=80:8080
//! --node-port=30001`, `create poddisruptionbudget p --selector=a=b --min-available=50%`, `auth can-i create
//! deployments.apps`, `auth whoami` and `create serviceaccount robot`.

use serde_json::{Value, json};

use super::decode;

fn check(body: &[u8], expected: Value) {
    assert_eq!(decode(body).unwrap(), expected);
}

#[test]
fn bodies_of_kubectl_become_the_objects_it_means() {
    check(
        include_bytes!("bodies/namespace.bin"),
        json!({"metadata": {"name": "lab"}, "spec": {}, "status": {}, "apiVersion": "v1", "kind": "Namespace"}),
    );
    check(
        include_bytes!("bodies/configmap.bin"),
        json!({"metadata": {"name": "c"}, "data": {"a": "b"}, "apiVersion": "v1", "kind": "ConfigMap"}),
    );
    check(
        include_bytes!("bodies/secret.bin"),
        json!({"metadata": {"name": "s"}, "data": {"k": "dg=="}, "apiVersion": "v1", "kind": "Secret"}),
    );
    check(
        include_bytes!("bodies/account.bin"),
        json!({"metadata": {"name": "robot"}, "apiVersion": "v1", "kind": "ServiceAccount"}),
    );
    let deployment = decode(include_bytes!("bodies/deployment.bin")).unwrap();
    assert_eq!(deployment["spec"]["replicas"], 2);
    assert_eq!(
        deployment["spec"]["selector"],
        json!({"matchLabels": {"app": "web"}})
    );
    assert_eq!(
        deployment["spec"]["template"]["spec"]["containers"],
        json!([{"name": "web", "image": "example/web:1", "ports": [{"containerPort": 8080}], "resources": {}}])
    );
    let service = decode(include_bytes!("bodies/service.bin")).unwrap();
    assert_eq!(
        service["spec"]["ports"],
        json!([{"name": "80-8080", "protocol": "TCP", "port": 80, "targetPort": 8080, "nodePort": 30001}])
    );
    let budget = decode(include_bytes!("bodies/budget.bin")).unwrap();
    assert_eq!(
        budget["spec"],
        json!({"minAvailable": "50%", "selector": {"matchLabels": {"a": "b"}}})
    );
}

#[test]
fn bodies_of_reviews_and_tokens_are_understood() {
    let token = decode(include_bytes!("bodies/token.bin")).unwrap();
    assert_eq!(
        token["spec"],
        json!({"audiences": ["x"], "expirationSeconds": 600})
    );
    assert_eq!(token["kind"], "TokenRequest");
    let access = decode(include_bytes!("bodies/access.bin")).unwrap();
    assert_eq!(access["spec"]["resourceAttributes"]["verb"], "create");
    assert_eq!(access["spec"]["resourceAttributes"]["namespace"], "default");
    let identity = decode(include_bytes!("bodies/whoami.bin")).unwrap();
    assert_eq!(identity["kind"], "SelfSubjectReview");
}

#[test]
fn malformed_bodies_are_refused() {
    let body = include_bytes!("bodies/deployment.bin");
    for broken in [
        &body[1..],
        &body[..4],
        &body[..30],
        &body[..body.len() - 1],
        b"{}",
    ] {
        assert_eq!(decode(broken).unwrap_err().code, 400, "{broken:?}");
    }
    // Every shortened or altered body is an answer, never a crash.
    for at in 4..body.len() {
        for bit in [1, 0x80] {
            let mut altered = body.to_vec();
            altered[at] ^= bit;
            if let Err(status) = decode(&altered) {
                assert_eq!(status.code, 400);
            }
        }
    }
}
