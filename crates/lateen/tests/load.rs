//! `lateen load` against a server of the test: counts, times, and what a pause of the server looks like.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::sleep;

/// A server of both HTTP versions. Every fifth answer is 503; the hundredth request makes all wait for half a second.
struct Server {
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
    _runtime: tokio::runtime::Runtime,
}

impl Server {
    fn start(pauses: bool) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .expect("a port");
        let address = listener.local_addr().expect("an address");
        let requests = Arc::new(AtomicUsize::new(0));
        let count = requests.clone();
        let gate = Arc::new(Mutex::new(()));
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (count, gate) = (count.clone(), gate.clone());
                let service = service_fn(move |request: Request<Incoming>| {
                    answer(request, count.clone(), pauses.then(|| gate.clone()))
                });
                tokio::spawn(async move {
                    let builder =
                        hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    let _ = builder
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self {
            address,
            requests,
            _runtime: runtime,
        }
    }

    fn url(&self) -> String {
        format!("http://{}/path?query", self.address)
    }
}

async fn answer(
    request: Request<Incoming>,
    count: Arc<AtomicUsize>,
    gate: Option<Arc<Mutex<()>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let number = count.fetch_add(1, Ordering::Relaxed) + 1;
    if let Some(gate) = gate {
        let open = gate.lock().await;
        if number == 100 {
            sleep(Duration::from_millis(500)).await;
        }
        drop(open);
    }
    let seen = format!("{} {}", request.method(), request.uri().path());
    let user = request.headers().get("x-user").cloned();
    let body = request.into_body().collect().await.expect("a body");
    let is_right = seen == "POST /path" && user.is_some() && body.to_bytes() == "hello";
    let status = match (is_right, number % 5) {
        (false, _) => 400,
        (true, 0) => 503,
        (true, _) => 200,
    };
    let mut response = Response::new(Full::from("ten bytes\n"));
    *response.status_mut() = http::StatusCode::from_u16(status).expect("a status");
    Ok(response)
}

fn load(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lateen"));
    let request = ["-H", "x-user: ann", "--data", "hello"];
    command.arg("load").args(request).args(arguments);
    command.output().expect("lateen runs")
}

fn numbers(arguments: &[&str]) -> Value {
    let done = load(&[&["-o", "json"], arguments].concat());
    assert!(done.status.success(), "{done:?}");
    serde_json::from_slice(&done.stdout).expect("JSON")
}

#[test]
fn requests_are_counted_by_code_in_either_version() {
    for version in [&[][..], &["--http2"][..]] {
        let server = Server::start(false);
        let url = server.url();
        let found = numbers(&[version, &["-n", "50", "-c", "4", &url]].concat());
        assert_eq!(
            found["codes"],
            serde_json::json!({"200": 40, "503": 10}),
            "{found}"
        );
        assert_eq!(
            (&found["answers"], &found["bytes"], &found["sockets"]),
            (&50.into(), &500.into(), &4.into())
        );
        assert_eq!(server.requests.load(Ordering::Relaxed), 50);
        let bars = found["histogram"].as_array().expect("bars").iter();
        let sum: u64 = bars.filter_map(|bar| bar["count"].as_u64()).sum();
        assert_eq!(sum, 50, "every answer is in one bar");
    }
}

#[test]
fn a_pause_of_the_server_is_seen_by_every_request_that_was_due_in_it() {
    let server = Server::start(true);
    // 200 a second for two seconds: in the half second without answers, 100 were due.
    let started = Instant::now();
    let found = numbers(&["-q", "200", "-n", "400", "-c", "2", &server.url()]);
    let took = started.elapsed();
    assert!(
        took > Duration::from_millis(1900),
        "the rate is kept: {took:?}"
    );
    let late = found["percentiles"]["90"].as_f64().expect("a time");
    // A quarter of all waited, a tenth for more than 300 ms. Two connections alone would have seen two slow answers.
    assert!(late > 0.25, "{found}");
    assert!(found["slowest"].as_f64().expect("a time") > 0.45, "{found}");
}

#[test]
fn people_see_the_shape_that_they_know() {
    let server = Server::start(false);
    let done = load(&["-n", "20", "-c", "2", &server.url()]);
    let text = String::from_utf8(done.stdout).expect("text");
    for part in [
        "Summary:\n  Total:",
        "Requests/sec:",
        "Sockets used: 2 (for perfect keepalive, would be 2)",
        "Response time histogram:\n",
        "Latency distribution:\n  10% in ",
        "  99.9% in ",
        "Status code distribution:\n  [200] 16 responses (80.0 %)\n  [503] 4 responses (20.0 %)\n",
    ] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
}

#[test]
fn what_makes_no_sense_or_is_not_there_is_said() {
    let check = |arguments: &[&str], code: i32, part: &str| {
        let done = load(arguments);
        let said = String::from_utf8_lossy(&done.stderr).into_owned()
            + &String::from_utf8_lossy(&done.stdout);
        assert_eq!(done.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(part), "{part:?} in {said}");
    };
    check(&["ftp://localhost/"], 2, "is no URL to call");
    check(&["localhost:80"], 2, "is no URL to call");
    check(&["-c", "0", "http://localhost/"], 2, "--connections 0");
    check(
        &["-H", "nothing", "http://localhost/"],
        2,
        "write NAME: VALUE",
    );
    check(&["-t", "0s", "http://localhost/"], 2, "must be above zero");
    check(
        &["--ca", "/nowhere", "https://localhost/"],
        2,
        "cannot read the authorities in /nowhere",
    );
    check(&["-n", "3", "http://127.0.0.1:1/"], 1, "[3] connect: ");
}
