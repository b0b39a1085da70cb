//! Probes and HTTP hooks, made from inside the pod's network: its own address, its own loopback,
//! past the proxy's redirection.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{
    Container, ExecAction, HTTPGetAction, HTTPHeader, Probe, TCPSocketAction,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::net::{TcpSocket, TcpStream};

use super::exec;
use super::supervise::Run;
use crate::network::PodNetwork;

/// A readiness or startup probe is asked this often until its first success ...
const EAGER: Duration = Duration::from_millis(50);

/// ... but an exec probe, which costs a process, only this often ...
const EAGER_EXEC: Duration = Duration::from_millis(250);

/// ... and only for so long after the container's start.
const EAGER_FOR: Duration = Duration::from_secs(10);

/// Longest answer that a failed probe's message shows, in bytes.
const LONGEST_ANSWER: usize = 1024;

/// When a probe is made and how many results decide; Kubernetes' defaults filled in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    pub(crate) initial: Duration,
    pub(crate) period: Duration,
    pub(crate) timeout: Duration,
    pub(crate) successes: i32,
    pub(crate) failures: i32,
}

impl Timing {
    pub(crate) fn of(probe: &Probe) -> Self {
        let seconds = |given: Option<i32>, usual: u64| {
            let given = given.and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0);
            Duration::from_secs(given.unwrap_or(usual))
        };
        Self {
            initial: seconds(probe.initial_delay_seconds, 0),
            period: seconds(probe.period_seconds, 10),
            timeout: seconds(probe.timeout_seconds, 1),
            successes: probe.success_threshold.unwrap_or(1).max(1),
            failures: probe.failure_threshold.unwrap_or(3).max(1),
        }
    }
}

/// Asks the probe again and again and reports each verdict that differs from the one before,
/// until `verdict` returns false. `eager`: ask quickly until the first success, so that a
/// container counts as ready within milliseconds of being so; failures in that time do not count.
pub(crate) async fn watch(
    run: &Run,
    probe: &Probe,
    eager: bool,
    mut verdict: impl FnMut(Result<(), String>) -> bool,
) {
    let timing = Timing::of(probe);
    tokio::time::sleep(timing.initial).await;
    let quick = if probe.exec.is_some() {
        EAGER_EXEC
    } else {
        EAGER
    };
    let eager_until = tokio::time::Instant::now() + EAGER_FOR;
    let mut eager = eager;
    let (mut successes, mut failures) = (0, 0);
    loop {
        match once(run, probe, timing.timeout).await {
            Ok(()) => {
                eager = false;
                failures = 0;
                successes += 1;
                if successes >= timing.successes && !verdict(Ok(())) {
                    return;
                }
            }
            Err(_) if eager && tokio::time::Instant::now() < eager_until => {
                tokio::time::sleep(quick).await;
                continue;
            }
            Err(reason) => {
                eager = false;
                successes = 0;
                failures += 1;
                if failures >= timing.failures && !verdict(Err(reason)) {
                    return;
                }
            }
        }
        tokio::time::sleep(timing.period).await;
    }
}

async fn once(run: &Run, probe: &Probe, timeout: Duration) -> Result<(), String> {
    let container = &run.container;
    let network = &run.network;
    if let Some(action) = &probe.http_get {
        http_get(network, container, action, timeout).await
    } else if let Some(action) = &probe.tcp_socket {
        tcp(network, container, action, timeout).await
    } else if let Some(action) = &probe.exec {
        exec_action(run, action, timeout).await
    } else {
        Err("this kind of probe is not supported by lateen; use httpGet, tcpSocket or exec".into())
    }
}

/// Runs a command in the container; its exit code decides.
pub(crate) async fn exec_action(
    run: &Run,
    action: &ExecAction,
    timeout: Duration,
) -> Result<(), String> {
    let command = action.command.clone().unwrap_or_default();
    match tokio::time::timeout(timeout, exec::output(run, command)).await {
        Ok(Ok((0, _))) => Ok(()),
        Ok(Ok((code, output))) => Err(format!("command exited with {code}: {}", shorten(&output))),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("command timed out after {timeout:?}")),
    }
}

async fn tcp(
    network: &PodNetwork,
    container: &Container,
    action: &TCPSocketAction,
    timeout: Duration,
) -> Result<(), String> {
    let port = port(container, &action.port)?;
    let connecting = connect(network, action.host.as_deref(), port);
    match tokio::time::timeout(timeout, connecting).await {
        Ok(connected) => connected.map(drop),
        Err(_) => Err(format!(
            "dial tcp {}:{port}: i/o timeout",
            network.address()
        )),
    }
}

/// Makes the request; any status from 200 to 399 is a success.
pub(crate) async fn http_get(
    network: &PodNetwork,
    container: &Container,
    action: &HTTPGetAction,
    timeout: Duration,
) -> Result<(), String> {
    if action
        .scheme
        .as_deref()
        .is_some_and(|scheme| !scheme.eq_ignore_ascii_case("http"))
    {
        return Err("HTTPS probes are not supported by lateen; use tcpSocket".into());
    }
    let port = port(container, &action.port)?;
    let path = action.path.as_deref().unwrap_or("/");
    let url = format!("http://{}:{port}{path}", network.address());
    match tokio::time::timeout(timeout, request(network, action, port, path)).await {
        Ok(Ok((status, _))) if (200..400).contains(&status) => Ok(()),
        Ok(Ok((status, body))) => Err(format!(
            "HTTP probe failed with statuscode: {status} {}",
            shorten(&body)
        )),
        Ok(Err(error)) => Err(format!("Get \"{url}\": {error}")),
        Err(_) => Err(format!("Get \"{url}\": context deadline exceeded")),
    }
}

async fn request(
    network: &PodNetwork,
    action: &HTTPGetAction,
    port: u16,
    path: &str,
) -> Result<(u16, Vec<u8>), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let stream = connect(network, action.host.as_deref(), port).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| text(&error))?;
    let driver = tokio::spawn(connection);
    let headers: &[HTTPHeader] = action.http_headers.as_deref().unwrap_or_default();
    let named = |name: &str| {
        headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name))
    };
    let host = format!("{}:{port}", network.address());
    let host = named("host").map_or(host.as_str(), |header| header.value.as_str());
    let mut builder = http::Request::get(path)
        .header("host", host)
        .header("connection", "close");
    if named("user-agent").is_none() {
        builder = builder.header("user-agent", "kube-probe/1.36");
    }
    for header in headers
        .iter()
        .filter(|header| !header.name.eq_ignore_ascii_case("host"))
    {
        builder = builder.header(&header.name, &header.value);
    }
    let request = builder
        .body(Empty::<Bytes>::new())
        .map_err(|error| text(&error))?;
    let answer = sender
        .send_request(request)
        .await
        .map_err(|error| text(&error))?;
    let status = answer.status().as_u16();
    let mut body = Vec::new();
    let mut answer = answer.into_body();
    while body.len() < LONGEST_ANSWER
        && let Some(Ok(frame)) = answer.frame().await
    {
        body.extend(frame.into_data().unwrap_or_default());
    }
    driver.abort();
    Ok((status, body))
}

/// Connects from within the pod's network to its own address, or to the one given.
pub(crate) async fn connect(
    network: &PodNetwork,
    host: Option<&str>,
    port: u16,
) -> Result<TcpStream, String> {
    let ip = match host.filter(|host| !host.is_empty()) {
        Some("localhost") => IpAddr::from([127, 0, 0, 1]),
        Some(host) => host
            .parse()
            .map_err(|_| format!("host {host:?} is not an address"))?,
        None => IpAddr::V4(network.address()),
    };
    let address = SocketAddr::new(ip, port);
    let refuse = |error: std::io::Error| format!("dial tcp {address}: {error}");
    // A socket belongs to the network in which it was made.
    let namespace = network.namespace().try_clone().map_err(refuse)?;
    let socket = tokio::task::spawn_blocking(move || {
        lateen_sys::namespace::in_network(namespace.as_fd(), || {
            let domain = socket2::Domain::for_address(address);
            let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        })
    });
    let socket = socket
        .await
        .map_err(|error| error.to_string())?
        .map_err(refuse)?;
    TcpSocket::from_std_stream(socket.into())
        .connect(address)
        .await
        .map_err(refuse)
}

/// A port by number or by the container's name for it.
pub(crate) fn port(container: &Container, port: &IntOrString) -> Result<u16, String> {
    match port {
        IntOrString::Int(number) => {
            u16::try_from(*number).map_err(|_| format!("{number} is not a port"))
        }
        IntOrString::String(name) => {
            let ports = container.ports.as_deref().unwrap_or_default();
            let named = ports.iter().find(|port| port.name.as_ref() == Some(name));
            let number = named
                .map(|port| port.container_port)
                .or_else(|| name.parse().ok());
            number
                .and_then(|number| u16::try_from(number).ok())
                .ok_or_else(|| format!("the container has no port named {name:?}"))
        }
    }
}

fn shorten(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(LONGEST_ANSWER)]);
    text.trim_end().to_owned()
}
