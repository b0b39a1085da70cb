//! Deployments.

use super::*;

#[test]
fn a_deployment_gets_its_defaults() {
    let (object, errors) = create(
        "deployments",
        deployment(json!({
            "replicas": 0,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": "example/web:1", "ports": [{"containerPort": 8080}]}]},
            },
        })),
    );
    assert_eq!(errors, Vec::<String>::new());
    assert_eq!(
        object["spec"],
        json!({
            "replicas": 0,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {
                    "containers": [{
                        "name": "web",
                        "image": "example/web:1",
                        "ports": [{"containerPort": 8080, "protocol": "TCP"}],
                        "imagePullPolicy": "IfNotPresent",
                        "terminationMessagePath": "/dev/termination-log",
                        "terminationMessagePolicy": "File",
                        "resources": {},
                    }],
                    "dnsPolicy": "ClusterFirst",
                    "restartPolicy": "Always",
                    "securityContext": {},
                    "terminationGracePeriodSeconds": 30,
                    "schedulerName": "default-scheduler",
                },
            },
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}},
            "revisionHistoryLimit": 10,
            "progressDeadlineSeconds": 600,
        })
    );
    assert_eq!(object["metadata"]["generation"], 1);
}

#[test]
fn an_invalid_deployment_is_explained_in_kubernetes_order() {
    let mut object = deployment(json!({
        "replicas": -1,
        "selector": {"matchLabels": {"app": "a"}},
        "template": {
            "metadata": {"labels": {"app": "b"}},
            "spec": {"containers": [{"name": "", "image": ""}], "restartPolicy": "Never"},
        },
    }));
    object["metadata"]["name"] = json!("Bad_Name");
    let (_, errors) = create("deployments", object);
    assert_eq!(
        errors,
        [
            "metadata.name: Invalid value: \"Bad_Name\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
            "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
            "spec.template.metadata.labels: Invalid value: {\"app\":\"b\"}: `selector` does not match template `labels`",
            "spec.template.spec.containers[0].name: Required value",
            "spec.template.spec.containers[0].image: Required value",
            "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
        ]
    );
}

#[test]
fn legacy_deployments_are_stored_as_apps_v1() {
    for version in ["extensions/v1beta1", "apps/v1beta1"] {
        let (object, errors) = create(
            "deployments",
            json!({"apiVersion": version, "kind": "Deployment", "metadata": {"name": "web"}, "spec": {
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web", "image": "x"}]}}}}),
        );
        assert_eq!(errors, Vec::<String>::new(), "{version}");
        assert_eq!(object["apiVersion"], "apps/v1");
        assert_eq!(
            object["spec"]["selector"],
            json!({"matchLabels": {"app": "web"}})
        );
        assert_eq!(object["metadata"]["labels"], json!({"app": "web"}));
    }
}
