//! The Istio lab on the project's own samples: subsets, identity routing, faults, timeouts, traffic shifting of requests
//! and connections, circuit breaking and mirroring, step by step with `kubectl`, as an ordinary user.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use support::account::Account;
use support::eventually;
use support::mesh::{Answer, Mesh};

fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../samples")
        .join(name)
}

/// The mesh with the samples `files`, all of whose pods are ready.
fn up(namespaces: &[&str], files: &[&str]) -> Mesh {
    let files: Vec<PathBuf> = files.iter().map(|name| sample(name)).collect();
    let files: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
    let mesh = Mesh::up(Account::ordinary(), &files);
    for namespace in namespaces {
        mesh.kubectl(&[
            "-n",
            namespace,
            "wait",
            "--for=condition=Ready",
            "pod",
            "--all",
            "--timeout=60s",
        ]);
    }
    mesh
}

fn apply(mesh: &Mesh, step: &str) {
    let text = fs::read_to_string(sample(step)).expect(step);
    let done = mesh.kubectl_with(&["apply", "-f", "-"], Some(&text));
    assert_eq!(done.code, 0, "{step}: {done:?}");
}

/// A visit of the product page, by a user who is signed in or by nobody.
fn visit(mesh: &Mesh, cookie: Option<&str>) -> (Answer, Duration) {
    let url = format!("{}/productpage", mesh.gateway());
    let cookie = cookie.map(|cookie| format!("cookie: {cookie}"));
    let mut arguments = vec!["--max-time", "20"];
    if let Some(cookie) = &cookie {
        arguments.extend(["-H", cookie]);
    }
    arguments.push(&url);
    let begun = Instant::now();
    let answer = mesh.curl(&arguments);
    assert_eq!(answer.status, 200, "{answer:?}");
    (answer, begun.elapsed())
}

/// Which version of the reviews the page shows.
fn version(answer: &Answer) -> &'static str {
    let shown = ["reviews-v1", "reviews-v2", "reviews-v3"];
    let found = shown.into_iter().find(|name| answer.body.contains(name));
    found.unwrap_or("none")
}

/// Waits until visits are as a step says.
fn until(mesh: &Mesh, what: &str, cookie: Option<&str>, is: impl Fn(&Answer, Duration) -> bool) {
    eventually(what, Duration::from_secs(60), || {
        let (answer, time) = visit(mesh, cookie);
        match is(&answer, time) {
            true => Ok(()),
            false => Err(format!("{} after {time:?}", version(&answer))),
        }
    });
}

/// Signs in and returns the cookie.
fn sign_in(mesh: &Mesh, name: &str) -> String {
    let url = format!("{}/login", mesh.gateway());
    let form = format!("username={name}&passwd=any");
    let answer = mesh.curl(&["-d", &form, &url]);
    let cookie = answer.header("set-cookie").expect("a session");
    cookie.split(';').next().unwrap_or_default().to_owned()
}

#[test]
fn the_book_store_is_routed_delayed_and_broken_as_its_steps_say() {
    let mesh = up(
        &["bookinfo"],
        &["bookinfo/bookinfo.yaml", "bookinfo/gateway.yaml"],
    );
    let jason = sign_in(&mesh, "jason");
    let jason = Some(jason.as_str());
    let excuse = "Error fetching product reviews";

    // Without rules all versions take turns.
    let seen: std::collections::BTreeSet<_> =
        (0..30).map(|_| version(&visit(&mesh, None).0)).collect();
    assert_eq!(seen.len(), 3, "{seen:?}");

    apply(&mesh, "bookinfo/steps/1-all-v1.yaml");
    until(&mesh, "all see v1", None, |answer, _| {
        version(answer) == "reviews-v1"
    });
    assert!((0..10).all(|_| version(&visit(&mesh, None).0) == "reviews-v1"));

    apply(&mesh, "bookinfo/steps/2-jason-sees-v2.yaml");
    until(&mesh, "jason sees v2", jason, |answer, _| {
        version(answer) == "reviews-v2"
    });
    assert!((0..5).all(|_| version(&visit(&mesh, jason).0) == "reviews-v2"));
    assert!((0..5).all(|_| version(&visit(&mesh, None).0) == "reviews-v1"));

    // The page tries reviews twice, three seconds each, while ratings take seven.
    apply(&mesh, "bookinfo/steps/3-delay-for-jason.yaml");
    until(&mesh, "jason waits in vain", jason, |answer, time| {
        answer.body.contains(excuse) && time >= Duration::from_secs(6)
    });
    let (answer, time) = visit(&mesh, None);
    assert!(
        !answer.body.contains(excuse) && time < Duration::from_secs(3),
        "{time:?}"
    );

    apply(&mesh, "bookinfo/steps/4-abort-for-jason.yaml");
    let no_ratings = "Ratings service is currently unavailable";
    until(&mesh, "jason gets no ratings", jason, |answer, time| {
        answer.body.contains(no_ratings) && time < Duration::from_secs(3)
    });
    assert!(!visit(&mesh, None).0.body.contains(no_ratings));

    apply(&mesh, "bookinfo/steps/5-half-to-v3.yaml");
    until(&mesh, "some see v3", None, |answer, _| {
        version(answer) == "reviews-v3"
    });
    let share = (0..100)
        .filter(|_| version(&visit(&mesh, None).0) == "reviews-v3")
        .count();
    // Four standard deviations around 50.
    assert!((30..=70).contains(&share), "{share} of 100 saw v3");

    apply(&mesh, "bookinfo/steps/6-all-to-v3.yaml");
    until(&mesh, "nobody sees v1", None, |_, _| {
        (0..10).all(|_| version(&visit(&mesh, None).0) == "reviews-v3")
    });

    apply(&mesh, "bookinfo/steps/7-slow-ratings.yaml");
    until(&mesh, "ratings take two seconds", None, |_, time| {
        time >= Duration::from_secs(2)
    });
    apply(&mesh, "bookinfo/steps/8-impatient-reviews.yaml");
    // Half a second, twice.
    until(&mesh, "reviews are given up", None, |answer, time| {
        answer.body.contains(excuse) && time >= Duration::from_secs(1)
    });
    mesh.down();
}

/// What the echo answers to a connection of its own.
fn echo(address: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("the gateway listens");
    let limit = Some(Duration::from_secs(20));
    stream.set_read_timeout(limit).expect("a time limit");
    stream.write_all(b"hello\n").expect("sent");
    let mut text = [0; 64];
    let length = stream.read(&mut text).unwrap_or_default();
    String::from_utf8_lossy(&text[..length]).into_owned()
}

#[test]
fn connections_are_shifted_between_versions() {
    let mesh = up(
        &["tcp-echo"],
        &["tcp-echo/tcp-echo.yaml", "tcp-echo/gateway.yaml"],
    );
    let gateway = mesh.gateway();
    let host = gateway.trim_start_matches("http://");
    let host = host.split(':').next().unwrap_or_default();
    let address = format!("{host}:31400");
    eventually(
        "the echo answers",
        Duration::from_secs(30),
        || match TcpStream::connect(&address).map(|_| echo(&address)) {
            Ok(text) if text == "one hello\n" => Ok(()),
            other => Err(format!("{other:?}")),
        },
    );
    assert!((0..10).all(|_| echo(&address) == "one hello\n"));
    apply(&mesh, "tcp-echo/steps/1-20-to-v2.yaml");
    eventually("v2 answers", Duration::from_secs(30), || {
        match echo(&address).as_str() {
            "two hello\n" => Ok(()),
            other => Err(other.to_owned()),
        }
    });
    let share = (0..100).filter(|_| echo(&address) == "two hello\n").count();
    // Four standard deviations around 20.
    assert!((4..=36).contains(&share), "{share} of 100 reached v2");
    mesh.down();
}

/// Responses by code in a report of `hey`.
fn codes(report: &str, code: &str) -> usize {
    let line = report
        .lines()
        .find(|line| line.trim().starts_with(&format!("[{code}]")));
    let count = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    count.unwrap_or(0)
}

#[test]
fn a_backend_is_spared_and_copied() {
    let mesh = up(&["httpbin"], &["httpbin/httpbin.yaml"]);
    apply(&mesh, "httpbin/steps/1-circuit-breaker.yaml");
    let load = |callers: u32, requests: u32| {
        format!("hey -c {callers} -n {requests} http://httpbin:8000/get\n")
    };
    let counters = "curl -s 'localhost:15000/stats?filter=httpbin.*pending_overflow'\n";
    // What is in flight when the limits come takes part in nothing.
    let script = format!(
        "sleep 2\n{}{}{}{counters}",
        load(1, 20),
        load(2, 20),
        load(3, 30)
    );
    let printed = mesh.in_pod("httpbin", true, &script);
    let reports: Vec<&str> = printed.split("Summary:").skip(1).collect();
    let [alone, pair, three] = reports.as_slice() else {
        panic!("{printed}")
    };
    let mix = |report: &str| (codes(report, "200"), codes(report, "503"));
    assert_eq!(mix(alone), (20, 0), "{printed}");
    // hey gives every caller the same number of requests.
    assert!(
        mix(pair).0 >= 10 && mix(pair).0 + mix(pair).1 == 20,
        "{printed}"
    );
    let (good, refused) = mix(three);
    assert!(good >= 10 && (3..=20).contains(&refused), "{printed}");
    let refused_all = mix(pair).1 + refused;
    let counted = printed.lines().find_map(|line| {
        let (name, count) = line.rsplit_once(": ")?;
        let of_all =
            name.ends_with("httpbin.httpbin.svc.cluster.local.upstream_rq_pending_overflow");
        count.parse::<usize>().ok().filter(|_| of_all)
    });
    assert_eq!(counted, Some(refused_all), "{printed}");

    apply(&mesh, "httpbin/steps/2-all-to-v1.yaml");
    let lines = |version: &str| {
        let selector = format!("version={version}");
        let logs = mesh.kubectl(&[
            "-n",
            "httpbin",
            "logs",
            "-l",
            &selector,
            "-c",
            "httpbin",
            "--tail=-1",
        ]);
        logs.lines()
            .filter(|line| line.contains("/headers"))
            .count()
    };
    let ten = "sleep 2; for i in 1 2 3 4 5 6 7 8 9 10; do curl -s -o /dev/null http://httpbin:8000/headers; done";
    mesh.in_pod("httpbin", true, ten);
    assert_eq!((lines("v1"), lines("v2")), (10, 0));
    apply(&mesh, "httpbin/steps/3-mirror-to-v2.yaml");
    mesh.in_pod("httpbin", true, ten);
    eventually("copies arrive", Duration::from_secs(20), || {
        match (lines("v1"), lines("v2")) {
            (20, 10) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    mesh.down();
}
