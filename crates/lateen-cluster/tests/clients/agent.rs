//! Logs and exec, with a node's agent that answers on the socket as a kubelet would.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::header::{CONNECTION, UPGRADE};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{LogParams, PostParams};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener};
use tokio_rustls::TlsConnector;

use super::Running;

/// What the agent was asked, in order.
type Asked = Arc<Mutex<Vec<String>>>;

/// Answers logs with two lines, and an upgrade by echoing bytes in capital letters.
async fn answer(
    mut request: Request<Incoming>,
    asked: Asked,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().to_string();
    let secret = request.headers().contains_key("authorization");
    asked
        .lock()
        .unwrap()
        .push(format!("{path}{}", if secret { " SECRET" } else { "" }));
    if path.contains("/broken") {
        let mut response = Response::new(Full::from("container \"broken\" is waiting to start"));
        *response.status_mut() = StatusCode::BAD_REQUEST;
        return Ok(response);
    }
    let Some(protocol) = request.headers().get(UPGRADE).cloned() else {
        return Ok(Response::new(Full::from("one\ntwo\n")));
    };
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let mut stream = TokioIo::new(upgrade.await.unwrap());
        let mut buffer = [0; 64];
        while let Ok(length @ 1..) = stream.read(&mut buffer).await {
            buffer[..length].make_ascii_uppercase();
            stream.write_all(&buffer[..length]).await.unwrap();
        }
    });
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(UPGRADE, protocol);
    response
        .headers_mut()
        .insert(CONNECTION, "Upgrade".parse().unwrap());
    Ok(response)
}

async fn start_agent(running: &Running) -> Asked {
    let asked = Asked::default();
    let listener = UnixListener::bind(running.folder.path().join("kubelet.sock")).unwrap();
    let shared = asked.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let asked = shared.clone();
            let service = service_fn(move |request| answer(request, asked.clone()));
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::spawn(connection.with_upgrades());
        }
    });
    asked
}

async fn run_pod(running: &Running, name: &str, containers: &[&str]) {
    let pods: Api<Pod> = Api::default_namespaced(running.cluster.client());
    let containers: Vec<_> = containers
        .iter()
        .map(|name| json!({"name": name, "image": "x"}))
        .collect();
    let pod = json!({
        "metadata": {"name": name},
        "spec": {"nodeName": "here", "containers": containers},
    });
    let pod = serde_json::from_value(pod).unwrap();
    pods.create(&PostParams::default(), &pod).await.unwrap();
}

#[tokio::test]
async fn logs_come_from_the_agent() {
    let running = Running::start().await;
    let asked = start_agent(&running).await;
    run_pod(&running, "web", &["app"]).await;
    let pods: Api<Pod> = Api::default_namespaced(running.remote().await);
    let options = LogParams {
        tail_lines: Some(5),
        ..LogParams::default()
    };
    assert_eq!(pods.logs("web", &options).await.unwrap(), "one\ntwo\n");
    let asked = asked.lock().unwrap().join(" ");
    assert_eq!(
        asked.trim_end_matches('&'),
        "/containerLogs/default/web/app?tailLines=5"
    );
    running.stop().await;
}

#[tokio::test]
async fn the_container_must_be_clear() {
    let running = Running::start().await;
    start_agent(&running).await;
    run_pod(&running, "two", &["app", "broken"]).await;
    let pods: Api<Pod> = Api::default_namespaced(running.remote().await);
    let check = async |pod: &str, container: Option<&str>, expected: &str| {
        let options = LogParams {
            container: container.map(str::to_owned),
            ..LogParams::default()
        };
        let Err(kube::Error::Api(status)) = pods.logs(pod, &options).await else {
            panic!("{pod} answers");
        };
        assert_eq!(status.message, expected);
    };
    check(
        "two",
        None,
        "a container name must be specified for pod two, choose one of: [app broken]",
    )
    .await;
    check(
        "two",
        Some("none"),
        "container none is not valid for pod two",
    )
    .await;
    check(
        "two",
        Some("broken"),
        "container \"broken\" is waiting to start",
    )
    .await;
    check("none", None, "pods \"none\" not found").await;
    running.stop().await;
}

#[tokio::test]
async fn an_upgraded_connection_is_passed_on_byte_by_byte() {
    let running = Running::start().await;
    let asked = start_agent(&running).await;
    run_pod(&running, "web", &["app"]).await;
    let kubeconfig = running.cluster.kubeconfig(&running.url);
    let token = kubeconfig
        .lines()
        .find_map(|line| line.trim().strip_prefix("token: "))
        .unwrap()
        .trim_matches('"');
    let mut stream = connect(&running).await;
    let request = format!(
        "POST /api/v1/namespaces/default/pods/web/exec?command=cat&stdin=true HTTP/1.1\r\nHost: localhost\r\n\
         Authorization: Bearer {token}\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
         X-Stream-Protocol-Version: v4.channel.k8s.io\r\nContent-Length: 0\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    stream.write_all(b"hello").await.unwrap();
    let mut echoed = [0; 5];
    stream.read_exact(&mut echoed).await.unwrap();
    assert_eq!(&echoed, b"HELLO");
    // The client's token stays with the API server.
    let asked = asked.lock().unwrap().join(" ");
    assert_eq!(
        asked,
        "/exec/default/web/app?command=cat&stdin=true&input=1"
    );
    running.stop().await;
}

/// A TLS connection that verifies the server by its authority.
async fn connect(running: &Running) -> tokio_rustls::client::TlsStream<TcpStream> {
    use rustls_pki_types::pem::PemObject;
    let authority =
        rustls_pki_types::CertificateDer::from_pem_slice(running.cluster.ca_pem().as_bytes())
            .unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tcp = TcpStream::connect(running.url.trim_start_matches("https://"))
        .await
        .unwrap();
    let name = rustls_pki_types::ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await
        .unwrap()
}
