use std::os::unix::fs::PermissionsExt;

use http::Request;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{PostParams, ResourceExt};

use super::Running;

fn map(name: &str) -> ConfigMap {
    let mut map = ConfigMap::default();
    map.metadata.name = Some(name.to_owned());
    map
}

#[tokio::test]
async fn the_kubeconfig_opens_the_door() {
    let running = Running::start().await;
    let client = running.remote().await;
    let version = client.apiserver_version().await.unwrap();
    assert_eq!(
        (version.major.as_str(), version.minor.as_str()),
        ("1", "36")
    );
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    maps.create(&PostParams::default(), &map("one"))
        .await
        .unwrap();
    let inside: Api<ConfigMap> = Api::default_namespaced(running.cluster.client());
    assert_eq!(inside.get("one").await.unwrap().name_any(), "one");
    running.stop().await;
}

#[tokio::test]
async fn a_wrong_token_or_none_is_refused() {
    let running = Running::start().await;
    let kubeconfig = running.cluster.kubeconfig(&running.url);
    let token = kubeconfig
        .lines()
        .find_map(|line| line.trim().strip_prefix("token: "))
        .unwrap()
        .trim_matches('"');
    let check = async |kubeconfig: &str| {
        let client = running.remote_with(kubeconfig).await;
        let request = Request::get("/api/v1/namespaces").body(Vec::new()).unwrap();
        let Err(kube::Error::Api(status)) = client.request_text(request).await else {
            panic!("the door is open");
        };
        assert_eq!(status.code, 401);
    };
    check(&kubeconfig.replace(token, "wrong")).await;
    let last = if token.ends_with('0') { "1" } else { "0" };
    check(&kubeconfig.replace(token, &format!("{}{last}", &token[..token.len() - 1]))).await;
    running.stop().await;
}

#[tokio::test]
async fn web_pages_and_strange_names_are_refused() {
    let running = Running::start().await;
    let client = running.remote().await;
    let check = async |header: &str, value: &str, expected: u16| {
        let request = Request::get("/api/v1/namespaces")
            .header(header, value)
            .body(Vec::new())
            .unwrap();
        let code = match client.request_text(request).await {
            Ok(_) => 200,
            Err(kube::Error::Api(status)) => status.code,
            Err(error) => panic!("{error}"),
        };
        assert_eq!(code, expected, "{header}: {value}");
    };
    check("accept", "application/json", 200).await;
    check("origin", "https://evil.example", 403).await;
    check("origin", "null", 403).await;
    running.stop().await;
}

#[tokio::test]
async fn state_survives_a_restart_and_is_private() {
    let running = Running::start().await;
    let before = running.cluster.kubeconfig("https://x");
    let maps: Api<ConfigMap> = Api::default_namespaced(running.cluster.client());
    let stored = maps
        .create(&PostParams::default(), &map("one"))
        .await
        .unwrap();
    drop(maps);
    let folder = running.stop().await;
    for file in [
        "ca.key",
        "admin.token",
        "service-accounts.key",
        "store.redb",
    ] {
        let path = folder.path().join("state").join(file);
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{file} is {mode:o}");
    }
    let running = Running::restart(folder).await;
    // The same authority and token: a kubeconfig stays good.
    assert_eq!(running.cluster.kubeconfig("https://x"), before);
    let maps: Api<ConfigMap> = Api::default_namespaced(running.remote().await);
    assert_eq!(maps.get("one").await.unwrap(), stored);
    running.stop().await;
}
