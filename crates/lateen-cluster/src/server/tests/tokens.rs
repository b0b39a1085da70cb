use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderValue};
use serde_json::{Value, json};

use super::Server;

const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";

async fn token(server: &Server, spec: Value) -> String {
    let request =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
    let answer = server
        .post(&format!("{ACCOUNTS}/robot/token"), &request)
        .await
        .ok();
    assert!(answer["status"]["expirationTimestamp"].is_string());
    answer["status"]["token"].as_str().unwrap().to_owned()
}

fn name_of(server: &Server, token: &str) -> Option<String> {
    let mut headers = HeaderMap::new();
    let value = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
    headers.insert(AUTHORIZATION, value);
    let user = server
        .api
        .tokens
        .authenticate(&headers, server.api.store())
        .ok()?;
    user.map(|user| user.name)
}

#[tokio::test]
async fn a_service_account_is_who_its_token_says() {
    let server = Server::start().await;
    server
        .post(ACCOUNTS, &json!({"metadata": {"name": "robot"}}))
        .await
        .ok();
    let plain = token(&server, json!({})).await;
    assert_eq!(
        name_of(&server, &plain).as_deref(),
        Some("system:serviceaccount:default:robot")
    );
    let admin = server.api.tokens.admin().to_owned();
    assert_eq!(name_of(&server, &admin).as_deref(), Some("admin"));
    assert_eq!(name_of(&server, "wrong"), None);
    // A token for others is no key to this server, but a review tells whose it is.
    let other = token(&server, json!({"audiences": ["istio-ca"]})).await;
    assert_eq!(name_of(&server, &other), None);
    let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
    let spec = json!({"spec": {"token": other, "audiences": ["istio-ca"]}});
    let review = server.post(reviews, &spec).await.ok();
    assert_eq!(review["status"]["authenticated"], true);
    assert_eq!(
        review["status"]["user"]["username"],
        "system:serviceaccount:default:robot"
    );
    // A token dies with its account.
    server
        .delete(&format!("{ACCOUNTS}/robot"), &json!({}))
        .await
        .ok();
    assert_eq!(name_of(&server, &plain), None);
    let review = server.post(reviews, &spec).await.ok();
    assert_eq!(review["status"]["authenticated"], false);
}

#[tokio::test]
async fn a_token_of_a_pod_dies_with_the_pod() {
    let server = Server::start().await;
    server
        .post(ACCOUNTS, &json!({"metadata": {"name": "robot"}}))
        .await
        .ok();
    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({"metadata": {"name": "web"}, "spec": {"containers": [{"name": "web", "image": "web"}]}});
    let made = server.post(pods, &pod).await.ok();
    let bound =
        json!({"boundObjectRef": {"kind": "Pod", "name": "web", "uid": made["metadata"]["uid"]}});
    let bound = token(&server, bound).await;
    assert!(name_of(&server, &bound).is_some());
    server.delete(&format!("{pods}/web"), &json!({})).await.ok();
    assert_eq!(name_of(&server, &bound), None);
}

#[tokio::test]
async fn everybody_who_is_known_may_do_everything() {
    let server = Server::start().await;
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let spec = json!({"spec": {"resourceAttributes": {"verb": "create", "resource": "pods"}}});
    let review = server.post(path, &spec).await;
    assert_eq!(
        (review.code, &review.body["status"]["allowed"]),
        (201, &json!(true))
    );
    let who = server
        .post(
            "/apis/authentication.k8s.io/v1/selfsubjectreviews",
            &json!({}),
        )
        .await
        .ok();
    assert_eq!(who["status"]["userInfo"]["username"], "admin");
    let request = http::Request::get("/api/v1/namespaces")
        .body(super::full(""))
        .unwrap();
    let nobody = server.api.clone().handle(request, None).await;
    assert_eq!(nobody.status(), 401);
    assert!(review.warnings.is_empty());
}
