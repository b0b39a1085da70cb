//! The inner half: what is checked in a running mesh.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Event, Pod, Service};
use kube::api::{AttachParams, ListParams, LogParams};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::world::{Mesh, PATIENCE, is_ready, phase, pod, wait};

pub(crate) fn run() -> ExitCode {
    let Ok(inner) = lateen_node::enter::inside() else {
        return ExitCode::FAILURE;
    };
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let scenario = inner.config["scenario"].as_str().unwrap().to_owned();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mesh = Mesh::start(inner).await;
        match scenario.as_str() {
            "checks" => all(&mesh).await,
            _ => idle(&mesh).await,
        }
        mesh.stop().await;
    });
    ExitCode::SUCCESS
}

/// Runs a pod and waits to be killed.
async fn idle(mesh: &Mesh) {
    let container = json!({"name": "main", "image": "host", "command": ["sleep", "1000"]});
    let made = mesh
        .create::<Pod>(pod("idle", json!({"containers": [container]})))
        .await;
    let ready = mesh.wait_pod("idle", is_ready).await;
    let error = made.and(ready).err();
    mesh.outside.tell(json!({"error": error})).await.unwrap();
    mesh.outside.asked_to_stop().await;
}

async fn all(mesh: &Mesh) {
    macro_rules! check {
        ($($name:ident),* $(,)?) => {$(
            let begun = Instant::now();
            let error = $name(mesh).await.err();
            let name = format!("{} [{} ms]", stringify!($name), begun.elapsed().as_millis());
            mesh.outside.tell(json!({"name": name, "error": error})).await.unwrap();
        )*};
    }
    check!(
        a_script_runs_once_and_its_log_is_kept,
        services_work_by_every_address,
        a_load_balancer_works_from_the_host,
        containers_cannot_reach_the_host,
        an_unknown_image_says_what_to_do,
        a_failing_container_backs_off,
        init_containers_run_in_order_before_the_rest,
        a_failed_liveness_probe_restarts_the_container,
        deletion_is_graceful_and_complete,
        a_program_runs_in_a_running_container,
        redirected_traffic_reaches_the_proxy_except_its_own,
    );
    mesh.outside.tell(json!("complete")).await.unwrap();
}

fn same<T: PartialEq + std::fmt::Debug>(seen: T, expected: T) -> Result<(), String> {
    if seen == expected {
        Ok(())
    } else {
        Err(format!("saw {seen:?}, expected {expected:?}"))
    }
}

async fn a_script_runs_once_and_its_log_is_kept(mesh: &Mesh) -> Result<(), String> {
    let text = mesh
        .script("once", "echo hello from $(hostname); echo bad >&2; exit 3")
        .await?;
    // The order of the two streams is not kept, here as elsewhere.
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    same(lines, vec!["bad", "hello from once"])?;
    let pod = mesh.wait_pod("once", |pod| phase(pod) == "Failed").await?;
    let statuses = pod
        .status
        .and_then(|status| status.container_statuses)
        .unwrap_or_default();
    let end = statuses[0]
        .state
        .clone()
        .and_then(|state| state.terminated)
        .unwrap();
    same((end.exit_code, end.reason.as_deref()), (3, Some("Error")))?;
    let tail = LogParams {
        tail_lines: Some(1),
        ..LogParams::default()
    };
    same(mesh.logs("once", tail).await?.lines().count(), 1)
}

async fn services_work_by_every_address(mesh: &Mesh) -> Result<(), String> {
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

async fn a_load_balancer_works_from_the_host(mesh: &Mesh) -> Result<(), String> {
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

async fn containers_cannot_reach_the_host(mesh: &Mesh) -> Result<(), String> {
    let script = r#"
        for path in /home/* /root/* /work /var/lib /etc/shadow /run/* /sys/* /mnt; do
            if [ -e "$path" ]; then echo "sees $path"; fi
        done
        for path in /usr/x /bin/x /.lateen/lateen /proc/sys/kernel/hostname /proc/sysrq-trigger; do
            if (echo x > "$path") 2>/dev/null; then echo "writes $path"; fi
        done
        # Its own few processes only.
        for pid in /proc/[0-9]*; do echo "$pid"; done | grep -c . | (read n; [ "$n" -le 6 ] || echo "sees $n processes")
        for file in /tmp/fill /fill /etc/hosts /dev/termination-log /dev/shm/fill; do
            dd if=/dev/zero of="$file" bs=1M count=600 2>/dev/null && echo "fills $file"
            rm -f "$file" 2>/dev/null || : > "$file"
        done
        grep -q '^NoNewPrivs:.1' /proc/self/status || echo "may gain rights"
        grep '^CapEff:.0*$' /proc/self/status > /dev/null || grep CapEff /proc/self/status
        mount -t tmpfs x /mnt 2>/dev/null && echo mounts
        ip link add x type veth 2>/dev/null && echo "makes links"
        true
    "#;
    same(mesh.script("prisoner", script).await?.as_str(), "")
}

async fn an_unknown_image_says_what_to_do(mesh: &Mesh) -> Result<(), String> {
    let container = json!({"name": "main", "image": "127.0.0.1:9/nothing:1"});
    mesh.create::<Pod>(pod("unknown", json!({"containers": [container]})))
        .await?;
    let pod = mesh
        .wait_pod("unknown", |pod| {
            let text = serde_json::to_string(&pod.status).unwrap();
            text.contains("ErrImagePull") || text.contains("ImagePullBackOff")
        })
        .await?;
    let text = serde_json::to_string(&pod.status).unwrap();
    same(
        (phase(&pod), text.contains("lateen image load")),
        ("Pending", true),
    )?;
    mesh.delete_pod("unknown").await
}

async fn a_failing_container_backs_off(mesh: &Mesh) -> Result<(), String> {
    let container =
        json!({"name": "main", "image": "host", "command": ["sh", "-c", "echo run; exit 1"]});
    mesh.create::<Pod>(pod("crash", json!({"containers": [container]})))
        .await?;
    let pod = mesh
        .wait_pod("crash", |pod| {
            serde_json::to_string(&pod.status)
                .unwrap()
                .contains("CrashLoopBackOff")
        })
        .await?;
    let status = pod.status.unwrap().container_statuses.unwrap().remove(0);
    same(status.restart_count, 1)?;
    same(
        status
            .last_state
            .and_then(|state| state.terminated)
            .map(|end| end.exit_code),
        Some(1),
    )?;
    let previous = LogParams {
        previous: true,
        ..LogParams::default()
    };
    same(mesh.logs("crash", previous).await?.as_str(), "run\n")?;
    let events = wait("the back-off event", async || {
        let events = mesh.api::<Event>().list(&ListParams::default()).await;
        let events = events.map_err(|error| error.to_string())?;
        let of_pod = events
            .items
            .into_iter()
            .filter(|e| e.involved_object.name.as_deref() == Some("crash"));
        let mut reasons: Vec<_> = of_pod.filter_map(|event| event.reason).collect();
        reasons.sort();
        reasons.dedup();
        if reasons.contains(&"BackOff".to_owned()) {
            Ok(reasons)
        } else {
            Err(format!("{reasons:?}"))
        }
    })
    .await?;
    same(
        events,
        ["BackOff", "Created", "Pulled", "Scheduled", "Started"]
            .map(String::from)
            .to_vec(),
    )?;
    mesh.delete_pod("crash").await
}

async fn init_containers_run_in_order_before_the_rest(mesh: &Mesh) -> Result<(), String> {
    let mount = json!([{"name": "shared", "mountPath": "/shared"}]);
    let step = |name: &str, script: &str| json!({"name": name, "image": "host", "command": ["sh", "-c", script], "volumeMounts": mount});
    let mut sidecar = step("side", "echo side >> /shared/order; sleep 1000");
    sidecar["restartPolicy"] = json!("Always");
    sidecar["startupProbe"] = json!({"exec": {"command": ["grep", "side", "/shared/order"]}});
    let spec = json!({
        "initContainers": [step("first", "echo first >> /shared/order"), sidecar,
                           step("last", "echo last >> /shared/order")],
        "containers": [step("main", "cat /shared/order; echo $POD $(KUBERNETES_SERVICE_HOST)")],
        "restartPolicy": "Never",
        "volumes": [{"name": "shared", "emptyDir": {}}],
    });
    let mut object = pod("ordered", spec);
    object["spec"]["containers"][0]["env"] = json!([
        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "POD", "value": "$(NAME).lab"}]);
    mesh.create::<Pod>(object).await?;
    mesh.wait_pod("ordered", |pod| phase(pod) == "Succeeded")
        .await?;
    let main = LogParams {
        container: Some("main".into()),
        ..LogParams::default()
    };
    same(
        mesh.logs("ordered", main).await?.as_str(),
        "first\nside\nlast\nordered.lab 10.96.0.1\n",
    )
}

async fn a_failed_liveness_probe_restarts_the_container(mesh: &Mesh) -> Result<(), String> {
    let container = json!({
        "name": "main", "image": "host", "command": ["sh", "-c", "touch /tmp/alive; sleep 1; rm /tmp/alive; sleep 1000"],
        "livenessProbe": {"exec": {"command": ["test", "-e", "/tmp/alive"]}, "periodSeconds": 1,
                          "failureThreshold": 1},
    });
    mesh.create::<Pod>(pod("sick", json!({"containers": [container]})))
        .await?;
    let pod = mesh
        .wait_pod("sick", |pod| {
            let statuses = pod
                .status
                .as_ref()
                .and_then(|status| status.container_statuses.as_ref());
            statuses.is_some_and(|statuses| statuses[0].restart_count == 1)
        })
        .await?;
    let status = pod.status.unwrap().container_statuses.unwrap().remove(0);
    let code = status
        .last_state
        .and_then(|state| state.terminated)
        .map(|end| end.exit_code);
    same(code, Some(143))?;
    mesh.delete_pod("sick").await
}

async fn deletion_is_graceful_and_complete(mesh: &Mesh) -> Result<(), String> {
    let script = "trap 'echo asked; exit 0' TERM; echo up; while :; do sleep 0.05; done";
    let container = json!({"name": "main", "image": "host", "command": ["sh", "-c", script],
        "lifecycle": {"preStop": {"exec": {"command": ["sh", "-c", "echo hook > /proc/1/fd/1"]}}}});
    mesh.create::<Pod>(pod("polite", json!({"containers": [container]})))
        .await?;
    mesh.wait_pod("polite", is_ready).await?;
    wait("its first words", async || {
        let text = mesh.logs("polite", LogParams::default()).await?;
        if text == "up\n" { Ok(()) } else { Err(text) }
    })
    .await?;
    let api = mesh.api::<Pod>();
    let follow = LogParams {
        follow: true,
        ..LogParams::default()
    };
    let mut stream = api
        .log_stream("polite", &follow)
        .await
        .map_err(|error| error.to_string())?;
    mesh.delete_pod("polite").await?;
    let mut text = String::new();
    let reading = futures_util::AsyncReadExt::read_to_string(&mut stream, &mut text);
    tokio::time::timeout(Duration::from_secs(10), reading)
        .await
        .map_err(|_| "the log did not end".to_owned())?
        .map_err(|error| error.to_string())?;
    same(text.as_str(), "up\nhook\nasked\n")?;
    wait("the object's end", async || {
        match api.get_opt("polite").await {
            Ok(None) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

async fn a_program_runs_in_a_running_container(mesh: &Mesh) -> Result<(), String> {
    let api: kube::Api<Pod> = kube::Api::namespaced(mesh.remote_client().await?, "lab");
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let command = [
        "sh",
        "-c",
        "cat; hostname; echo $POD_WORD; echo problem >&2; exit 7",
    ];
    let params = AttachParams::default().stdin(true).stderr(true);
    let mut process = api
        .exec("web", command, &params)
        .await
        .map_err(|error| text(&error))?;
    let mut input = process.stdin().ok_or("no input")?;
    let status = process.take_status().ok_or("no status")?;
    let (mut output, mut error) = (String::new(), String::new());
    let mut stdout = process.stdout().ok_or("no output")?;
    let mut stderr = process.stderr().ok_or("no error output")?;
    input
        .write_all(b"typed\n")
        .await
        .map_err(|error| text(&error))?;
    // Its end is told to the program: `cat` ends.
    input.shutdown().await.map_err(|error| text(&error))?;
    drop(input);
    let reading = async {
        tokio::join!(
            stdout.read_to_string(&mut output),
            stderr.read_to_string(&mut error)
        )
    };
    tokio::time::timeout(PATIENCE, reading)
        .await
        .map_err(|_| "the program did not end")?
        .0
        .map_err(|error| text(&error))?;
    same(
        (output.as_str(), error.as_str()),
        ("typed\nweb\nhere\n", "problem\n"),
    )?;
    let status = status.await.ok_or("no status")?;
    let causes = status
        .details
        .and_then(|details| details.causes)
        .unwrap_or_default();
    same(
        causes
            .first()
            .and_then(|cause| cause.message.clone())
            .as_deref(),
        Some("7"),
    )?;

    let params = AttachParams::default().stderr(false).tty(true);
    let mut process = api
        .exec("web", ["sh", "-c", "test -c $(tty)"], &params)
        .await
        .map_err(|error| text(&error))?;
    let status = process
        .take_status()
        .ok_or("no status")?
        .await
        .ok_or("no status")?;
    same(status.status.as_deref(), Some("Success"))
}

async fn redirected_traffic_reaches_the_proxy_except_its_own(mesh: &Mesh) -> Result<(), String> {
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
