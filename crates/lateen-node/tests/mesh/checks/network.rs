//! How services, load balancers and redirected traffic reach pods.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::LogParams;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::same;
use crate::world::{Mesh, is_ready, pod, wait};

pub(super) async fn services_work_by_every_address(mesh: &Mesh) -> Result<(), String> {
    let container = json!({
        "name": "web", "image": "lateen.dev/samples/backend:1", "args": ["web"],
        "ports": [{"name": "http", "containerPort": 8080}],
        "env": [{"name": "POD_WORD", "value": "here"}],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}},
    });
    let begun = Instant::now();
    mesh.create::<Pod>(pod("web", json!({"containers": [container]})))
        .await?;
    mesh.create::<Service>(json!({
        "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "type": "LoadBalancer",
                 "ports": [{"port": 80, "targetPort": "http"}]},
    }))
    .await?;
    let web = mesh.wait_pod("web", is_ready).await?;
    if begun.elapsed() > Duration::from_secs(2) {
        return Err(format!("a pod took {:?} to be ready", begun.elapsed()));
    }
    let address = web.status.and_then(|status| status.pod_ip).unwrap();
    let service = mesh.service("web").await?;
    let cluster_ip = service
        .spec
        .as_ref()
        .and_then(|spec| spec.cluster_ip.clone())
        .unwrap();
    let node_port = service.spec.as_ref().unwrap().ports.as_ref().unwrap()[0]
        .node_port
        .unwrap();
    let urls = [
        format!("http://{address}:8080/healthz"),
        format!("http://{cluster_ip}/healthz"),
        "http://web/healthz".to_owned(),
        "http://web.lab/healthz".to_owned(),
        "http://web.lab.svc.cluster.local/healthz".to_owned(),
        format!("http://10.244.0.1:{node_port}/healthz"),
    ];
    let script = urls
        .iter()
        .map(|url| format!("curl -sS --retry 20 --retry-delay 0 --retry-connrefused --retry-max-time 5 -m 5 {url}"))
        .collect::<Vec<_>>()
        .join("; ");
    same(
        mesh.script("client", &script).await?.as_str(),
        "ok\n".repeat(urls.len()).as_str(),
    )?;
    // A service without endpoints refuses at once; a name that does not exist is told at once.
    mesh.create::<Service>(json!({
        "metadata": {"name": "empty"},
        "spec": {"selector": {"app": "nobody"}, "ports": [{"port": 80}]},
    }))
    .await?;
    let script = "curl -sS -m 2 http://empty; echo $?; curl -sS -m 2 http://nowhere; echo $?";
    let text = mesh.script("client-of-nobody", script).await?;
    let codes: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with("curl"))
        .collect();
    same(codes, vec!["7", "6"])
}

pub(super) async fn a_load_balancer_works_from_the_host(mesh: &Mesh) -> Result<(), String> {
    let shown = wait("the service's address on the host", async || {
        let service = mesh.service("web").await?;
        let annotations = service.metadata.annotations.unwrap_or_default();
        let balancer = service.status.and_then(|status| status.load_balancer);
        match (
            annotations.get(lateen_node::HOST_ADDRESS),
            balancer.and_then(|b| b.ingress),
        ) {
            (Some(address), Some(_)) if !address.is_empty() => Ok(address.clone()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    let address = shown.parse().map_err(|error| format!("{shown}: {error}"))?;
    let stream = mesh
        .outside
        .connect(address)
        .await
        .map_err(|error| error.to_string())?;
    let mut stream = tokio::net::TcpStream::from_std(stream).unwrap();
    let request = "GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stream
        .write_all(request.as_bytes())
        .await
        .map_err(|error| error.to_string())?;
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .await
        .map_err(|error| error.to_string())?;
    same(
        (answer.starts_with("HTTP/1.1 200"), answer.ends_with("ok\n")),
        (true, true),
    )
}

pub(super) async fn redirected_traffic_reaches_the_proxy_except_its_own(
    mesh: &Mesh,
) -> Result<(), String> {
    // The "proxy" answers on 15001 (outbound) and 15006 (inbound) with a constant.
    let server = |port: u16, word: &str| {
        format!(
            "python3 -c \"
import http.server
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(s):
        s.send_response(200); s.end_headers(); s.wfile.write(b'{word}\\n')
    def log_message(s, *a): pass
http.server.ThreadingHTTPServer(('0.0.0.0', {port}), H).serve_forever()\" &"
        )
    };
    let own = "python3 -c \"
import socket
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, 36, 1337)
s.connect(('web', 80))
s.sendall(b'GET /healthz HTTP/1.0\\r\\n\\r\\n')
print(s.makefile().read().split('\\n')[-2])\"";
    let script = format!(
        "{}\n{}\n{}\nuntil curl -s 127.0.0.1:15001 && curl -s 127.0.0.1:15006 && curl -s 127.0.0.1:8080; do sleep 0.05; done > /dev/null
         curl -s http://web/healthz
         curl -s http://10.244.0.1:15020/
         curl -s http://127.0.0.1:8080/
         {own}
         sleep 1000",
        server(15001, "outbound"),
        server(15006, "inbound"),
        server(8080, "application"),
    );
    let admin = json!({"capabilities": {"add": ["NET_ADMIN", "NET_RAW"]}});
    let spec = json!({
        "initContainers": [
            {"name": "init", "image": "lateen.dev/lateen:0.1.0", "args": ["init"], "securityContext": admin},
            {"name": "again", "image": "lateen.dev/lateen:0.1.0", "args": ["init"], "securityContext": admin}],
        "containers": [{"name": "main", "image": "host", "command": ["sh", "-c", script],
                        "securityContext": admin,
                        "readinessProbe": {"httpGet": {"port": 8080}}}],
    });
    mesh.create::<Pod>(pod("meshed", spec)).await?;
    let meshed = mesh.wait_pod("meshed", is_ready).await?;
    let main = LogParams {
        container: Some("main".into()),
        ..LogParams::default()
    };
    wait("what the application saw", async || {
        let text = mesh.logs("meshed", main.clone()).await?;
        if text.lines().count() < 4 {
            Err(text)
        } else {
            Ok(text)
        }
    })
    .await
    .and_then(|text| same(text.as_str(), "outbound\noutbound\napplication\nok\n"))?;
    let address = meshed.status.and_then(|status| status.pod_ip).unwrap();
    let script = format!("curl -s http://{address}:8080/; curl -s http://{address}:7777/");
    same(
        mesh.script("visitor", &script).await?.as_str(),
        "inbound\ninbound\n",
    )
}
