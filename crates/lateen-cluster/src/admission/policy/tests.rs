//! Policies asked about real writes.

use serde_json::{Value, json};

use crate::testing::TestCluster;

/// A cluster with a policy for Deployments and a binding that denies; the arguments change their specs.
async fn start(policy: Value, binding: Value) -> TestCluster {
    let cluster = TestCluster::start(json!({"tier": "test"})).await;
    let limits = json!({"metadata": {"name": "limits"}, "data": {"most": "3"}});
    cluster
        .create("/api/v1/namespaces/test/configmaps", &limits)
        .await;
    let mut whole = json!({
        "metadata": {"name": "replicas"},
        "spec": {"matchConstraints": {"resourceRules": [{
            "apiGroups": ["apps"],
            "apiVersions": ["v1"],
            "operations": ["CREATE", "UPDATE"],
            "resources": ["deployments"],
        }]}},
    });
    merge(&mut whole["spec"], policy);
    let group = "/apis/admissionregistration.k8s.io/v1";
    cluster
        .create(&format!("{group}/validatingadmissionpolicies"), &whole)
        .await;
    let mut whole = json!({
        "metadata": {"name": "everywhere"},
        "spec": {"policyName": "replicas", "validationActions": ["Deny"]},
    });
    merge(&mut whole["spec"], binding);
    cluster
        .create(
            &format!("{group}/validatingadmissionpolicybindings"),
            &whole,
        )
        .await;
    cluster
}

async fn deploy(cluster: &TestCluster, replicas: u32) -> (u16, Value, Vec<String>) {
    let body = json!({
        "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "a", "image": "x"}]},
            },
        },
    });
    cluster
        .send("POST", "/apis/apps/v1/namespaces/test/deployments", &body)
        .await
}

fn merge(into: &mut Value, from: Value) {
    for (key, value) in from.as_object().into_iter().flatten() {
        into[key] = value.clone();
    }
}

#[tokio::test]
async fn a_denial_names_policy_and_binding() {
    let denied = "deployments.apps \"web\" is forbidden: ValidatingAdmissionPolicy 'replicas' with binding 'everywhere' denied request: ";
    let check = async |policy: Value, binding: Value, code: u16, message: &str| {
        let cluster = start(policy, binding).await;
        let (found, answer, _) = deploy(&cluster, 9).await;
        let text = answer["message"].as_str().unwrap_or_default().to_owned();
        let expected = if code == 201 {
            String::new()
        } else {
            format!("{denied}{message}")
        };
        assert_eq!((found, text), (code, expected));
    };
    let rule = |expression: &str| json!({"expression": expression});
    let with = |validation: Value| json!({"validations": [validation]});
    let none = || json!({});
    check(
        with(rule("object.spec.replicas <= 5")),
        none(),
        422,
        "failed expression: object.spec.replicas <= 5",
    )
    .await;
    check(with(rule("object.spec.replicas <= 9")), none(), 201, "").await;
    check(
        with(json!({"expression": "false", "message": "never", "reason": "Forbidden"})),
        none(),
        403,
        "never",
    )
    .await;
    check(
        json!({
            "variables": [
                {"name": "asked", "expression": "object.spec.replicas"},
                {"name": "over", "expression": "variables.asked - 5"},
            ],
            "validations": [{"expression": "variables.over <= 0", "messageExpression": "string(variables.over) + ' too many'"}],
        }),
        none(),
        422,
        "4 too many",
    )
    .await;
    check(
        json!({
            "matchConditions": [{"name": "test", "expression": "namespaceObjectIsMissing"}],
            "failurePolicy": "Ignore",
            "validations": [{"expression": "false"}],
        }),
        none(),
        201,
        "",
    )
    .await;
    check(
        with(rule("namespaceObject.metadata.labels.tier != 'test'")),
        json!({"matchResources": {"namespaceSelector": {"matchLabels": {"tier": "other"}}}}),
        201,
        "",
    )
    .await;
    check(
        json!({
            "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
            "validations": [{"expression": "object.spec.replicas <= int(params.data.most)", "message": "more than the limit"}],
        }),
        json!({"paramRef": {"name": "limits", "namespace": "test", "parameterNotFoundAction": "Deny"}}),
        422,
        "more than the limit",
    )
    .await;
    check(
        json!({
            "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
            "validations": [{"expression": "true"}],
        }),
        json!({"paramRef": {"name": "other", "namespace": "test", "parameterNotFoundAction": "Deny"}}),
        422,
        "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction",
    )
    .await;
}

#[tokio::test]
async fn a_binding_can_warn_instead() {
    let policy =
        json!({"validations": [{"expression": "object.spec.replicas <= 5", "message": "many"}]});
    let cluster = start(policy, json!({"validationActions": ["Warn"]})).await;
    let (code, _, warnings) = deploy(&cluster, 9).await;
    let warning = "299 - \"Validation failed for ValidatingAdmissionPolicy 'replicas' with binding 'everywhere': many\"";
    assert_eq!((code, warnings), (201, vec![warning.to_owned()]));
}
