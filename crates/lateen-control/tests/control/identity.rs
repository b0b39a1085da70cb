//! Identities from the control plane, asked for over real sockets with tokens of a real API server.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use lateen_identity::bundle::validity_of;
use lateen_identity::peer::certificate_id;
use lateen_identity::service::{
    CREATE_CERTIFICATE, CertificateRequest, CertificateResponse, IMPERSONATED_IDENTITY, Metadata,
    MetadataValue,
};
use lateen_identity::{WorkloadKey, tls};
use lateen_xds::ResourceType;
use lateen_xds::client::{Security, Target, connect};
use serde_json::json;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use crate::support::{Mesh, Proxy, SIDECAR, WEB, api_of, create, eventually, service, typed};

/// Name in the control plane's certificate.
const SERVER: &str = "istiod.istio-system.svc";
const GATEWAY: &str = "router~10.0.0.10~gate.default~default.svc.cluster.local";

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_issued_for_the_identity_that_a_token_proves() {
    let mesh = Mesh::start().await;
    let roots = mesh.roots("default").await;
    let channel = mesh.channel(&roots, None).await;
    let token = mesh.token("default", "default", "istio-ca").await;
    let key = WorkloadKey::generate().unwrap();
    // The request asks for somebody else, which counts for nothing.
    let wished = "spiffe://cluster.local/ns/kube-system/sa/admin"
        .parse()
        .unwrap();
    let csr = key.request(&wished).unwrap();
    let request = |seconds| CertificateRequest {
        csr: csr.clone(),
        validity_duration: seconds,
        metadata: None,
    };
    let answer = ask(&channel, Some(&token), request(3600)).await.unwrap();
    let (chain, root) = answer.split().unwrap();
    assert_eq!(root, roots);
    let identity = key.with_chain(&chain).unwrap();
    let id = certificate_id(&identity.chain()[0]).unwrap();
    assert_eq!(
        id.to_string(),
        "spiffe://cluster.local/ns/default/sa/default"
    );
    let (start, end) = validity_of(&chain).unwrap();
    assert_eq!(
        end.duration_since(start).unwrap(),
        Duration::from_secs(3720)
    );
    assert!(start < SystemTime::now());

    let check = async |token: Option<&str>, request: CertificateRequest, expected: Code| {
        let status = ask(&channel, token, request).await.unwrap_err();
        assert_eq!(status.code(), expected, "{status}");
    };
    let other_audience = mesh.token("default", "default", "vault").await;
    check(None, request(0), Code::Unauthenticated).await;
    check(Some("nonsense"), request(0), Code::Unauthenticated).await;
    check(Some(&other_audience), request(0), Code::Unauthenticated).await;
    check(Some(&token), request(91 * 86_400), Code::InvalidArgument).await;
    check(
        Some(&token),
        CertificateRequest::default(),
        Code::InvalidArgument,
    )
    .await;
    let value = MetadataValue {
        string_value: Some("spiffe://cluster.local/ns/a/sa/b".to_owned()),
    };
    let mut impersonating = request(0);
    impersonating.metadata = Some(Metadata {
        fields: [(IMPERSONATED_IDENTITY.to_owned(), value)].into(),
    });
    check(Some(&token), impersonating, Code::Unauthenticated).await;

    // The certificate proves the same identity as the token did.
    let channel = mesh.channel(&roots, Some(identity)).await;
    let renewed = ask(&channel, None, request(0)).await.unwrap();
    let (start, end) = validity_of(&renewed.cert_chain[0]).unwrap();
    assert_eq!(end.duration_since(start).unwrap().as_secs(), 86_400 + 120);
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn discovery_over_tls_serves_a_proxy_what_its_identity_may_see() {
    let mesh = Mesh::start().await;
    create(&mesh.client, service("web")).await;
    for (name, address) in [("web", "10.0.0.9"), ("gate", "10.0.0.10")] {
        mesh.pod(name, address).await;
    }
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "other", "namespace": "default"}});
    create(&mesh.client, account).await;
    let roots = mesh.roots("default").await;
    let channel = mesh.channel(&roots, None).await;
    let token = mesh.token("default", "default", "istio-ca").await;
    let mut proxy = Proxy::over(channel.clone(), Some(&token), SIDECAR)
        .await
        .unwrap();
    proxy.until(ResourceType::Cluster, WEB).await;

    let check = async |token: Option<&str>, node: &str, expected: Code| {
        let status = match Proxy::over(channel.clone(), token, node).await {
            Err(status) => status,
            Ok(mut proxy) => proxy.next().await.unwrap_err(),
        };
        assert_eq!(status.code(), expected, "{status}");
    };
    let other = mesh.token("default", "other", "istio-ca").await;
    let elsewhere = mesh.token("istio-system", "istiod", "istio-ca").await;
    check(None, SIDECAR, Code::Unauthenticated).await;
    check(Some("nonsense"), SIDECAR, Code::Unauthenticated).await;
    check(Some(&other), SIDECAR, Code::PermissionDenied).await;
    check(Some(&elsewhere), SIDECAR, Code::PermissionDenied).await;

    // Secrets go to gateways of their namespace, and follow their changes.
    let secret = |certificate: &str| {
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": {"name": "front", "namespace": "default"},
            "stringData": {"tls.crt": certificate, "tls.key": "key"},
        })
    };
    create(&mesh.client, secret("one")).await;
    let mut gateway = Proxy::over(channel.clone(), Some(&token), GATEWAY)
        .await
        .unwrap();
    gateway.until(ResourceType::Cluster, WEB).await;
    let name = "kubernetes://front";
    gateway.subscribe(ResourceType::Secret, &[name]).await;
    gateway.until(ResourceType::Secret, name).await;
    let secrets: Api<k8s_openapi::api::core::v1::Secret> =
        Api::namespaced(mesh.client.clone(), "default");
    let patch = Patch::Merge(secret("two"));
    secrets
        .patch("front", &PatchParams::default(), &patch)
        .await
        .unwrap();
    gateway.until(ResourceType::Secret, name).await;
    proxy.subscribe(ResourceType::Secret, &[name]).await;
    let (kind, found) = proxy.next().await.unwrap();
    assert_eq!(
        (kind, found.len()),
        (ResourceType::Secret, 0),
        "a sidecar is shown none"
    );
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_password_of_a_store_goes_to_proxies_that_have_proved_who_they_are() {
    let mesh = Mesh::start().await;
    mesh.stop_validating().await;
    for definition in lateen_api::crd::all() {
        create(&mesh.client, definition).await;
    }
    create(&mesh.client, service("web")).await;
    mesh.pod("web", "10.0.0.9").await;
    let policy = json!({
        "apiVersion": "lateen.dev/v1alpha1", "kind": "StickySession",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "targetRefs": [{"kind": "Service", "name": "web"}],
            "key": {"header": "x-user"}, "idleTimeout": "60s",
            // Nobody listens there.
            "store": {"redis": {"url": "redis://127.0.0.1:1", "passwordSecretRef": {"name": "store"}}},
        },
    });
    let policies = api_of(&mesh.client, &policy);
    eventually("the kind is served", async || {
        let made = policies
            .create(&PostParams::default(), &typed(&policy))
            .await;
        made.is_ok()
    })
    .await;
    let reachable = async |wanted: &str, part: &str| {
        eventually(part, async || {
            let found = policies.get("web").await.unwrap();
            let conditions = found.data["status"]["conditions"].as_array().cloned();
            conditions.into_iter().flatten().any(|it| {
                it["type"] == "StoreReachable"
                    && it["status"] == wanted
                    && it["message"].as_str().unwrap().contains(part)
            })
        })
        .await;
    };
    reachable("False", "Secret store has no entry password").await;
    let roots = mesh.roots("default").await;
    let channel = mesh.channel(&roots, None).await;
    let token = mesh.token("default", "default", "istio-ca").await;
    let mut proxy = Proxy::over(channel, Some(&token), SIDECAR).await.unwrap();
    proxy.until(ResourceType::Cluster, WEB).await;
    let name = "sticky-store://default/web/password";
    proxy.subscribe(ResourceType::Secret, &[name]).await;
    let secret = |password: &str| {
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "store", "namespace": "default"},
            "stringData": {"password": password},
        })
    };
    create(&mesh.client, secret("one")).await;
    proxy.until(ResourceType::Secret, name).await;
    let secrets = api_of(&mesh.client, &secret("two"));
    let change = Patch::Merge(secret("two"));
    secrets
        .patch("store", &PatchParams::default(), &change)
        .await
        .unwrap();
    proxy.until(ResourceType::Secret, name).await;
    // The plain port proves nothing.
    let mut plain = Proxy::connect(&mesh, SIDECAR).await.unwrap();
    plain.until(ResourceType::Cluster, WEB).await;
    plain.subscribe(ResourceType::Secret, &[name]).await;
    let (kind, found) = plain.next().await.unwrap();
    assert_eq!((kind, found.len()), (ResourceType::Secret, 0));
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_namespace_has_the_root_certificate_and_keeps_it() {
    let mesh = Mesh::start().await;
    let roots = mesh.roots("default").await;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "late"}});
    create(&mesh.client, namespace).await;
    assert_eq!(mesh.roots("late").await, roots);
    let maps: Api<ConfigMap> = Api::namespaced(mesh.client.clone(), "late");
    let name = "istio-ca-root-cert";
    let patch = Patch::Merge(json!({"data": {"root-cert.pem": "another"}}));
    maps.patch(name, &PatchParams::default(), &patch)
        .await
        .unwrap();
    eventually("the content is put back", async || {
        mesh.roots("late").await == roots
    })
    .await;
    maps.delete(name, &DeleteParams::default()).await.unwrap();
    eventually("the map is made again", async || {
        maps.get_opt(name).await.unwrap().is_some()
    })
    .await;
    mesh.stop().await;
}

async fn ask(
    channel: &Channel,
    token: Option<&str>,
    message: CertificateRequest,
) -> Result<CertificateResponse, Status> {
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let mut request = Request::new(message);
    if let Some(token) = token {
        let value = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", value);
    }
    let path = PathAndQuery::from_static(CREATE_CERTIFICATE);
    let codec: ProstCodec<CertificateRequest, CertificateResponse> = ProstCodec::default();
    Ok(grpc.unary(request, path, codec).await?.into_inner())
}

impl Mesh {
    /// The roots that a namespace's pods are given, as soon as they are there.
    async fn roots(&self, namespace: &str) -> String {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        eventually("the root certificate is in the namespace", async || {
            maps.get_opt("istio-ca-root-cert").await.unwrap().is_some()
        })
        .await;
        let map = maps.get("istio-ca-root-cert").await.unwrap();
        map.data.unwrap()["root-cert.pem"].clone()
    }

    async fn token(&self, namespace: &str, account: &str, audience: &str) -> String {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        eventually("the service account is there", async || {
            accounts.get_opt(account).await.unwrap().is_some()
        })
        .await;
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: Some(vec![audience.to_owned()]),
                expiration_seconds: Some(3600),
                bound_object_ref: None,
            }),
            ..TokenRequest::default()
        };
        let made = accounts
            .create_token_request(account, &PostParams::default(), &request)
            .await
            .unwrap();
        made.status.unwrap().token.unwrap()
    }

    /// A connection to the TLS port, with a certificate of the mesh if given.
    async fn channel(&self, roots: &str, identity: Option<lateen_identity::Identity>) -> Channel {
        let address = self.control.addresses().secure;
        let config = match identity {
            None => tls::client_of_server(roots, &[b"h2"]).unwrap(),
            Some(identity) => tls::client_of_server_as(roots, identity, &[b"h2"]).unwrap(),
        };
        let config = Arc::new(config);
        let security = Security {
            tls: Arc::new(move || Ok(Arc::clone(&config))),
            server_name: Some(SERVER.to_owned()),
            token: Arc::new(|| None),
        };
        let target = Target::Tcp {
            host: address.ip().to_string(),
            port: address.port(),
        };
        connect(&target, None, Some(&security)).await.unwrap()
    }

    /// A running pod of the service account `default`.
    async fn pod(&self, name: &str, address: &str) {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"containers": [{"name": "app", "image": "web"}]},
        });
        create(&self.client, pod).await;
        let pods: Api<k8s_openapi::api::core::v1::Pod> =
            Api::namespaced(self.client.clone(), "default");
        let status = json!({"status": {"podIP": address, "podIPs": [{"ip": address}]}});
        let patch = Patch::Merge(status);
        pods.patch_status(name, &PatchParams::default(), &patch)
            .await
            .unwrap();
    }
}
