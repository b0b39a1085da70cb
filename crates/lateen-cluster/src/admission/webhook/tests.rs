//! Webhooks over real sockets: a server that stores pods, and a webhook server with a certificate of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::testing::TestCluster;

/// What a webhook answers to a request, besides its uid.
type Answer = Arc<dyn Fn(&Value) -> Value + Send + Sync>;

/// A webhook server on a loopback port.
struct Server {
    port: u16,
    bundle: String,
    connections: Arc<AtomicUsize>,
    /// The requests that came, in order.
    seen: Arc<Mutex<Vec<Value>>>,
}

impl Server {
    /// Serves as `mutator.test.svc` and `localhost`.
    async fn start(answer: Answer) -> Self {
        let names = vec!["mutator.test.svc".to_owned(), "localhost".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).expect("makes a certificate");
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("knows versions")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .expect("takes the certificate");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let server = Self {
            port: listener.local_addr().expect("has an address").port(),
            bundle: STANDARD.encode(made.cert.pem()),
            connections: Arc::default(),
            seen: Arc::default(),
        };
        let (connections, seen) = (server.connections.clone(), server.seen.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::Relaxed);
                let (acceptor, answer, seen) = (acceptor.clone(), answer.clone(), seen.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let service = service_fn(|request: Request<Incoming>| {
                        let (answer, seen) = (answer.clone(), seen.clone());
                        async move {
                            let body = request.into_body().collect().await?.to_bytes();
                            let review: Value = serde_json::from_slice(&body).expect("is JSON");
                            let request = review["request"].clone();
                            let mut response = answer(&request);
                            if response.is_object() {
                                response["uid"] = request["uid"].clone();
                            }
                            seen.lock().push(request);
                            let review = json!({
                                "apiVersion": "admission.k8s.io/v1",
                                "kind": "AdmissionReview",
                                "response": response,
                            });
                            Ok::<_, hyper::Error>(Response::new(Full::new(Bytes::from(
                                review.to_string(),
                            ))))
                        }
                    });
                    let _ended = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        server
    }

    /// A configuration of `kind` with one webhook for the creation of pods; `edit` changes the webhook.
    fn configuration(&self, kind: &str, name: &str, edit: impl FnOnce(&mut Value)) -> Value {
        let mut webhook = json!({
            "name": format!("{name}.example.org"),
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "clientConfig": {
                "url": format!("https://localhost:{}/hook", self.port),
                "caBundle": self.bundle,
            },
            "rules": [{
                "operations": ["CREATE"],
                "apiGroups": [""],
                "apiVersions": ["v1"],
                "resources": ["pods"],
            }],
        });
        edit(&mut webhook);
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": kind,
            "metadata": {"name": name},
            "webhooks": [webhook],
        })
    }
}

async fn start() -> TestCluster {
    TestCluster::start(json!({"hooks": "on"})).await
}

async fn configure(cluster: &TestCluster, configuration: &Value) {
    let plural = match configuration["kind"].as_str() {
        Some(MUTATING) => "mutatingwebhookconfigurations",
        _ => "validatingwebhookconfigurations",
    };
    let path = format!("/apis/admissionregistration.k8s.io/v1/{plural}");
    cluster.create(&path, configuration).await;
}

/// Creates a pod with `labels`.
async fn create(cluster: &TestCluster, name: &str, labels: Value) -> (u16, Value, Vec<String>) {
    cluster.send("POST", PODS, &pod(name, labels)).await
}

fn pod(name: &str, labels: Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "spec": {"containers": [{"name": "a", "image": "x"}]},
    })
}

fn allow() -> Value {
    json!({"allowed": true})
}

/// An answer that sets a label.
fn labelling(key: &str, value: &str) -> Value {
    let patch = json!([{"op": "add", "path": format!("/metadata/labels/{key}"), "value": value}]);
    json!({"allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(patch.to_string())})
}

const PODS: &str = "/api/v1/namespaces/test/pods";
const MUTATING: &str = "MutatingWebhookConfiguration";
const VALIDATING: &str = "ValidatingWebhookConfiguration";

#[tokio::test]
async fn a_mutating_webhook_changes_the_object_over_one_connection() {
    let server = Server::start(Arc::new(|request| {
        let mut answer = labelling("seen", request["operation"].as_str().expect("is there"));
        answer["warnings"] = json!(["careful"]);
        answer
    }))
    .await;
    let cluster = start().await;
    configure(&cluster, &server.configuration(MUTATING, "one", |_| {})).await;
    for name in ["a", "b", "c"] {
        let (code, pod, warnings) = create(&cluster, name, json!({"app": "x"})).await;
        assert_eq!(
            (code, &pod["metadata"]["labels"]),
            (201, &json!({"app": "x", "seen": "CREATE"}))
        );
        assert_eq!(warnings, [r#"299 - "careful""#]);
    }
    assert_eq!(server.connections.load(Ordering::Relaxed), 1);
    let seen = server.seen.lock();
    let request = &seen[0];
    assert_eq!(
        request["kind"],
        json!({"group": "", "version": "v1", "kind": "Pod"})
    );
    assert_eq!(
        request["resource"],
        json!({"group": "", "version": "v1", "resource": "pods"})
    );
    assert_eq!(
        (&request["namespace"], &request["name"]),
        (&json!("test"), &json!("a"))
    );
    assert_eq!(request["userInfo"]["username"], "admin");
    assert_eq!(request["object"]["spec"]["containers"][0]["image"], "x");
    assert_eq!(
        (&request["oldObject"], &request["dryRun"]),
        (&Value::Null, &json!(false))
    );
}

#[tokio::test]
async fn a_denial_is_told_in_the_words_of_kubernetes() {
    let server = Server::start(Arc::new(|request| match request["name"].as_str() {
        Some("plain") => json!({"allowed": false}),
        Some("code") => json!({"allowed": false, "status": {"code": 403, "reason": "Forbidden", "message": "not you"}}),
        Some("reason") => json!({"allowed": false, "status": {"reason": "Whim"}}),
        _ => allow(),
    }))
    .await;
    let cluster = start().await;
    configure(&cluster, &server.configuration(VALIDATING, "gate", |_| {})).await;
    let denied = r#"admission webhook "gate.example.org" denied the request"#;
    for (name, code, reason, message) in [
        ("plain", 400, "", format!("{denied} without explanation")),
        ("code", 403, "Forbidden", format!("{denied}: not you")),
        ("reason", 400, "", format!("{denied}: Whim")),
    ] {
        let (found, status, _) = create(&cluster, name, json!({})).await;
        assert_eq!(
            (found, status["message"].as_str()),
            (code, Some(message.as_str())),
            "{status}"
        );
        assert_eq!(status["reason"].as_str().unwrap_or_default(), reason);
    }
    assert_eq!(create(&cluster, "fine", json!({})).await.0, 201);
}

#[tokio::test]
async fn only_requests_that_match_are_shown() {
    let server = Server::start(Arc::new(
        |_| json!({"allowed": false, "status": {"message": "no"}}),
    ))
    .await;
    /// Name, what is changed in the hook, whether it is still shown the request.
    type Case = (&'static str, fn(&mut Value), bool);
    let cases: [Case; 9] = [
        ("all", |_| {}, true),
        (
            "object",
            |hook| hook["objectSelector"] = json!({"matchLabels": {"app": "x"}}),
            true,
        ),
        (
            "other-object",
            |hook| {
                hook["objectSelector"] =
                    json!({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]})
            },
            false,
        ),
        (
            "namespace",
            |hook| {
                hook["namespaceSelector"] = json!({"matchExpressions": [{"key": "hooks", "operator": "In", "values": ["on"]}]})
            },
            true,
        ),
        (
            "other-namespace",
            |hook| hook["namespaceSelector"] = json!({"matchLabels": {"hooks": "off"}}),
            false,
        ),
        (
            "wildcards",
            |hook| hook["rules"][0] = json!({"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}),
            true,
        ),
        (
            "cluster",
            |hook| hook["rules"][0]["scope"] = json!("Cluster"),
            false,
        ),
        (
            "subresource",
            |hook| hook["rules"][0]["resources"] = json!(["pods/status"]),
            false,
        ),
        (
            "condition",
            |hook| {
                hook["matchConditions"] =
                    json!([{"name": "labelled", "expression": "object.metadata.labels.app == 'y'"}])
            },
            false,
        ),
    ];
    for (name, edit, called) in cases {
        let cluster = start().await;
        configure(&cluster, &server.configuration(VALIDATING, name, edit)).await;
        let (code, answer, _) = create(&cluster, "p", json!({"app": "x"})).await;
        assert_eq!(code, if called { 400 } else { 201 }, "{name}: {answer}");
    }
}

#[tokio::test]
async fn a_webhook_behind_a_service_is_found_by_its_endpoints() {
    let server = Server::start(Arc::new(|_| labelling("seen", "yes"))).await;
    let cluster = start().await;
    let hook = server.configuration(MUTATING, "service", |hook| {
        hook["clientConfig"] = json!({
            "service": {"namespace": "test", "name": "mutator", "path": "/inject", "port": 443},
            "caBundle": hook["clientConfig"]["caBundle"],
        });
    });
    configure(&cluster, &hook).await;
    let failed = r#"Internal error occurred: failed calling webhook "service.example.org": failed to call webhook: Post "https://mutator.test.svc:443/inject?timeout=10s": "#;
    let message = |answer: &Value| answer["message"].as_str().unwrap_or_default().to_owned();

    let (code, answer, _) = create(&cluster, "early", json!({})).await;
    assert_eq!(
        (code, message(&answer)),
        (500, format!("{failed}service \"mutator\" not found"))
    );

    let service = json!({"metadata": {"name": "mutator"}, "spec": {"ports": [{"name": "https", "port": 443, "targetPort": 9443}]}});
    assert_eq!(
        cluster
            .send("POST", "/api/v1/namespaces/test/services", &service)
            .await
            .0,
        201
    );
    let (code, answer, _) = create(&cluster, "early", json!({})).await;
    assert_eq!(
        (code, message(&answer)),
        (
            500,
            format!("{failed}no endpoints available for service \"mutator\"")
        )
    );

    let slice = json!({
        "metadata": {"name": "mutator-1", "namespace": "test", "labels": {"kubernetes.io/service-name": "mutator"}},
        "addressType": "IPv4",
        "ports": [{"name": "https", "port": server.port, "protocol": "TCP"}],
        "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": true}}],
    });
    // The API takes no loopback addresses, which a test has to use.
    let key = crate::store::Key {
        resource: "endpointslices.discovery.k8s.io".into(),
        namespace: "test".to_owned(),
        name: "mutator-1".to_owned(),
    };
    cluster
        .cluster
        .api()
        .store()
        .create(key, slice)
        .await
        .expect("stores");
    let (code, pod, _) = create(&cluster, "late", json!({"a": "b"})).await;
    assert_eq!(
        (code, &pod["metadata"]["labels"]["seen"]),
        (201, &json!("yes"))
    );
}

#[tokio::test]
async fn failures_follow_the_policy_and_the_deadline() {
    let slow = Server::start(Arc::new(|_| {
        std::thread::sleep(std::time::Duration::from_millis(1500));
        allow()
    }))
    .await;
    let wrong = Server::start(Arc::new(|_| Value::Null)).await;
    let check = async |configuration: Value, code: u16, message: &str| {
        let cluster = start().await;
        configure(&cluster, &configuration).await;
        let (found, answer, _) = create(&cluster, "p", json!({})).await;
        assert_eq!(found, code, "{answer}");
        let text = answer["message"].as_str().unwrap_or_default();
        assert!(text.contains(message), "{text}");
    };
    check(
        slow.configuration(VALIDATING, "slow", |hook| hook["timeoutSeconds"] = json!(1)),
        500,
        "/hook?timeout=1s\": context deadline exceeded",
    )
    .await;
    check(
        wrong.configuration(VALIDATING, "wrong", |_| {}),
        500,
        "failed calling webhook \"wrong.example.org\": received invalid webhook response: webhook response was absent",
    )
    .await;
    check(
        wrong.configuration(VALIDATING, "ignored", |hook| {
            hook["failurePolicy"] = json!("Ignore")
        }),
        201,
        "",
    )
    .await;
    check(
        slow.configuration(VALIDATING, "stranger", |hook| {
            hook["clientConfig"]["caBundle"] = json!(wrong.bundle);
        }),
        500,
        "tls: failed to verify certificate: invalid peer certificate",
    )
    .await;
}

#[tokio::test]
async fn webhooks_with_side_effects_are_not_called_for_dry_runs() {
    let server = Server::start(Arc::new(|_| allow())).await;
    let cluster = start().await;
    let hook = server.configuration(VALIDATING, "writes", |hook| {
        hook["sideEffects"] = json!("Some")
    });
    // Such webhooks cannot be configured any more, but old ones may be stored.
    let key = crate::store::Key {
        resource: "validatingwebhookconfigurations.admissionregistration.k8s.io".into(),
        namespace: String::new(),
        name: "writes".to_owned(),
    };
    cluster
        .cluster
        .api()
        .store()
        .create(key, hook)
        .await
        .expect("stores");
    let path = "/api/v1/namespaces/test/pods?dryRun=All";
    let (code, answer, _) = cluster.send("POST", path, &pod("p", json!({}))).await;
    let message = r#"admission webhook "writes.example.org" does not support dry run"#;
    assert_eq!((code, answer["message"].as_str()), (400, Some(message)));
    assert_eq!(server.seen.lock().len(), 0);
}

#[tokio::test]
async fn earlier_webhooks_see_later_changes_once_when_they_ask() {
    let first =
        Server::start(Arc::new(
            |request| match request["object"]["metadata"]["labels"]["late"].as_str() {
                Some(_) => labelling("first", "saw-late"),
                None => labelling("first", "alone"),
            },
        ))
        .await;
    let second = Server::start(Arc::new(|_| labelling("late", "yes"))).await;
    let cluster = start().await;
    configure(
        &cluster,
        &first.configuration(MUTATING, "a-first", |hook| {
            hook["reinvocationPolicy"] = json!("IfNeeded");
        }),
    )
    .await;
    configure(
        &cluster,
        &second.configuration(MUTATING, "b-second", |_| {}),
    )
    .await;
    let (code, pod, _) = create(&cluster, "p", json!({"app": "x"})).await;
    assert_eq!(code, 201, "{pod}");
    assert_eq!(
        pod["metadata"]["labels"],
        json!({"app": "x", "first": "saw-late", "late": "yes"})
    );
    assert_eq!((first.seen.lock().len(), second.seen.lock().len()), (2, 1));
}

#[tokio::test]
async fn deletes_show_the_old_object_and_changed_configurations_count_at_once() {
    let server = Server::start(Arc::new(
        |request| json!({"allowed": request["oldObject"]["metadata"]["labels"]["keep"].is_null()}),
    ))
    .await;
    let cluster = start().await;
    let rule = |hook: &mut Value| hook["rules"][0]["operations"] = json!(["DELETE"]);
    configure(&cluster, &server.configuration(VALIDATING, "keeper", rule)).await;
    assert_eq!(create(&cluster, "kept", json!({"keep": "me"})).await.0, 201);
    let path = "/api/v1/namespaces/test/pods/kept";
    assert_eq!(cluster.send("DELETE", path, &json!({})).await.0, 400);
    assert_eq!(server.seen.lock()[0]["object"], Value::Null);
    let configuration =
        "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/keeper";
    assert_eq!(
        cluster.send("DELETE", configuration, &json!({})).await.0,
        200
    );
    assert_eq!(cluster.send("DELETE", path, &json!({})).await.0, 200);
}
