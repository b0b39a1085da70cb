//! Logs, exec, attach and port-forward: passed on to the node's agent, with its answer passed back byte by byte.

use std::path::PathBuf;

use http::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, UPGRADE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

use super::body::{Body, BodyError};
use super::route::{Call, not_allowed};
use crate::status::{Result, Status};

/// The most bytes of an error's text that are read.
const ERROR_LIMIT: usize = 64 * 1024;

/// The most bytes of a page that are read.
const PAGE_LIMIT: usize = 16 * 1024 * 1024;

/// The client's half of a connection that is to become something else than HTTP.
pub(super) type Upgrade = Option<OnUpgrade>;

/// Where the node's agent listens.
#[derive(Debug, Clone)]
pub(crate) struct Kubelet {
    pub(crate) socket: PathBuf,
}

pub(super) async fn answer(
    call: &Call<'_>,
    method: &Method,
    upgrade: Upgrade,
) -> Result<Response<Body>> {
    let subresource = call.target.subresource.as_str();
    let allowed = match subresource {
        "log" => *method == Method::GET,
        _ => *method == Method::GET || *method == Method::POST,
    };
    if !allowed {
        return Err(not_allowed());
    }
    let name = &call.target.name;
    let pod = call
        .api
        .store
        .get(&call.target.key())
        .ok_or_else(|| call.target.not_found())?;
    let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    let path = path_of(call, &pod)?;
    if node.is_empty() {
        if subresource == "log" {
            // A pod that never ran has no lines, which is no error.
            return Ok(super::respond::with_type(200, "text/plain", ""));
        }
        return Err(Status::bad_request(format!(
            "pod {name} does not have a host assigned"
        )));
    }
    let mut request = Request::builder().method(method).uri(&path);
    if let Some(headers) = request.headers_mut() {
        *headers = passed_on(&call.headers, subresource != "log");
        headers.insert(HOST, http::HeaderValue::from_static("kubelet"));
    }
    let request = request
        .body(Empty::<bytes::Bytes>::new())
        .map_err(Status::internal)?;
    let mut response = send(&call.api.kubelet, request).await?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let Some(client) = upgrade else {
            return Err(Status::bad_request("the connection cannot be upgraded"));
        };
        join(client, hyper::upgrade::on(&mut response), call);
        let (parts, _) = response.into_parts();
        return Ok(Response::from_parts(parts, super::body::full("")));
    }
    if !response.status().is_success() {
        return Err(failure(call, response).await);
    }
    let (mut parts, body) = response.into_parts();
    parts.headers.remove(CONNECTION);
    parts.headers.remove(http::header::TRANSFER_ENCODING);
    if subresource == "log" && !parts.headers.contains_key(CONTENT_TYPE) {
        let plain = http::HeaderValue::from_static("text/plain");
        parts.headers.insert(CONTENT_TYPE, plain);
    }
    Ok(Response::from_parts(
        parts,
        body.map_err(BodyError::new).boxed_unsync(),
    ))
}

/// Reads a page of the node's agent, of a bounded size.
pub(super) async fn read(kubelet: &Kubelet, path: &'static str) -> Result<bytes::Bytes> {
    let request = Request::get(path)
        .header(HOST, "kubelet")
        .body(Empty::<bytes::Bytes>::new())
        .map_err(Status::internal)?;
    let response = send(kubelet, request).await?;
    let code = response.status();
    if !code.is_success() {
        return Err(Status::internal(format!(
            "the node answers {path} with {code}"
        )));
    }
    let body = Limited::new(response.into_body(), PAGE_LIMIT)
        .collect()
        .await;
    let body =
        body.map_err(|error| Status::internal(format!("reading {path} of the node: {error}")))?;
    Ok(body.to_bytes())
}

/// The kubelet's path for what the client asks of a pod.
fn path_of(call: &Call<'_>, pod: &Value) -> Result<String> {
    let (namespace, name) = (&call.target.namespace, &call.target.name);
    let query = call.query.encoded(|key| key != "container");
    let verb = match call.target.subresource.as_str() {
        "portforward" => return Ok(format!("/portForward/{namespace}/{name}?{query}")),
        "log" => "containerLogs",
        "exec" => "exec",
        _ => "attach",
    };
    let container = container(pod, call.query.get("container"), name)?;
    // The kubelet calls the streams of exec and attach by other names than the API does.
    let streams = [
        ("stdin", "input"),
        ("stdout", "output"),
        ("stderr", "error"),
    ];
    let mut query = query;
    if verb != "containerLogs" {
        for (_, kubelet) in streams.iter().filter(|(api, _)| call.query.flag(api)) {
            query.push_str(&format!("&{kubelet}=1"));
        }
    }
    Ok(format!("/{verb}/{namespace}/{name}/{container}?{query}"))
}

/// The container that is meant: the one that is named, or the only one.
fn container(pod: &Value, wanted: Option<&str>, pod_name: &str) -> Result<String> {
    let names = |field: &str| -> Vec<&str> {
        let list = pod["spec"][field].as_array();
        list.into_iter()
            .flatten()
            .filter_map(|container| container["name"].as_str())
            .collect()
    };
    let main = names("containers");
    let init = names("initContainers");
    if let Some(wanted) = wanted {
        let known = main
            .iter()
            .chain(&init)
            .chain(&names("ephemeralContainers"))
            .any(|name| *name == wanted);
        if known {
            return Ok(wanted.to_owned());
        }
        return Err(Status::bad_request(format!(
            "container {wanted} is not valid for pod {pod_name}"
        )));
    }
    if let [only] = main.as_slice() {
        return Ok((*only).to_owned());
    }
    let mut why = format!(
        "a container name must be specified for pod {pod_name}, choose one of: [{}]",
        main.join(" ")
    );
    if !init.is_empty() {
        why.push_str(&format!(
            " or one of the init containers: [{}]",
            init.join(" ")
        ));
    }
    Err(Status::bad_request(why))
}

/// Headers that concern the stream; the client's credentials stay here.
fn passed_on(headers: &HeaderMap, upgrades: bool) -> HeaderMap {
    let mut kept = HeaderMap::new();
    let wanted = |name: &HeaderName| {
        (upgrades && (name == CONNECTION || name == UPGRADE))
            || name.as_str().starts_with("sec-websocket-")
            || name.as_str().starts_with("x-stream-protocol-version")
    };
    for (name, value) in headers.iter().filter(|(name, _)| wanted(name)) {
        // A subprotocol may carry a token, which is for this server only.
        let secret = value
            .to_str()
            .is_ok_and(|text| text.contains("base64url.bearer.authorization.k8s.io"));
        if !secret {
            kept.append(name.clone(), value.clone());
        }
    }
    kept
}

async fn send(
    kubelet: &Kubelet,
    request: Request<Empty<bytes::Bytes>>,
) -> Result<Response<hyper::body::Incoming>> {
    let unavailable = |error: &dyn std::fmt::Display| {
        Status::new(
            503,
            "ServiceUnavailable",
            format!("the node does not answer: {error}"),
        )
    };
    let stream = UnixStream::connect(&kubelet.socket)
        .await
        .map_err(|error| unavailable(&error))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| unavailable(&error))?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "the connection to the node's agent ended early");
        }
    });
    sender
        .send_request(request)
        .await
        .map_err(|error| unavailable(&error))
}

/// Copies both ways until one side ends or the server stops.
fn join(client: OnUpgrade, node: OnUpgrade, call: &Call<'_>) {
    let stopping = call.api.stopping.clone();
    tokio::spawn(async move {
        let (Ok(client), Ok(node)) = tokio::join!(client, node) else {
            return;
        };
        let (mut client, mut node) = (TokioIo::new(client), TokioIo::new(node));
        tokio::select! {
            // How it ended is told within the stream, if at all.
            _ended = tokio::io::copy_bidirectional(&mut client, &mut node) => {}
            () = stopping.cancelled() => {}
        }
    });
}

/// The agent's error, which is plain text, as a status.
async fn failure(call: &Call<'_>, response: Response<hyper::body::Incoming>) -> Status {
    let code = response.status().as_u16();
    let body = Limited::new(response.into_body(), ERROR_LIMIT)
        .collect()
        .await;
    let bytes = body
        .map(http_body_util::Collected::to_bytes)
        .unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).trim().to_owned();
    match code {
        400 => Status::bad_request(text),
        404 => Status::new(
            404,
            "NotFound",
            format!(
                "the server could not find the requested resource ( {}/{} {}): {text}",
                call.target.resource.plural, call.target.subresource, call.target.name
            ),
        ),
        403 => Status::forbidden(text),
        _ => Status::internal(text),
    }
}
