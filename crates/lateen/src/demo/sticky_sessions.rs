//! The tour of `samples/sticky-sessions`: the header `target` chooses a service, `x-user` keeps a user on one replica.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use http::{HeaderName, Method, StatusCode};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use crate::cli::StateArguments;
use crate::exit::{CommandError, Result};
use crate::http_client::{Answer, HttpClient, HttpError};
use crate::{print, up};

/// The sample's files, so that the tour needs nothing but the binary.
const FILES: [(&str, &str); 2] = [
    (
        "backends.yaml",
        include_str!("../../../../samples/sticky-sessions/backends.yaml"),
    ),
    (
        "routes.yaml",
        include_str!("../../../../samples/sticky-sessions/routes.yaml"),
    ),
];

const BACKENDS: [&str; 3] = ["backend-1", "backend-2", "backend-3"];
const TARGET: HeaderName = HeaderName::from_static("target");
const USER: HeaderName = HeaderName::from_static("x-user");

/// How long the routes may take to work once everything is ready.
const ROUTES_WITHIN: Duration = Duration::from_secs(20);

/// One answer of a backend.
struct Hit {
    service: String,
    pod: String,
}

/// Who answered, gathered over many requests.
#[derive(Default)]
struct Tally {
    /// Service and pod -> how many answers.
    pods: BTreeMap<(String, String), usize>,
}

impl Tally {
    fn add(&mut self, hit: Hit) {
        *self.pods.entry((hit.service, hit.pod)).or_default() += 1;
    }

    fn services(&self) -> BTreeSet<&str> {
        self.pods
            .keys()
            .map(|(service, _)| service.as_str())
            .collect()
    }
}

/// Runs the tour: brings the mesh up where none runs, applies the sample, asks, and judges the answers.
pub(crate) fn run(state: StateArguments) -> Result<()> {
    let started = Instant::now();
    let mesh = up::ensure(
        state,
        &FILES.map(|(name, text)| (format!("sticky-sessions/{name}"), text)),
    )?;
    let gateway = mesh.gateway_address().ok_or_else(|| {
        CommandError::findings("the mesh has no gateway address")
            .advise("see: kubectl -n istio-system get service istio-ingressgateway")
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CommandError::unavailable(format!("cannot start: {error}")))?;
    let holds = runtime
        .block_on(tour(gateway, started))
        .map_err(|error| CommandError::findings(error.to_string()))?;
    print::heading("The mesh stays up");
    mesh.print_how_to_reach();
    println!(
        "  try: curl -s -X POST -H 'target: backend-2' -H 'x-user: ann' -d '{{\"username\": \"ann\"}}' http://{gateway}/hit_backend"
    );
    println!("  end: lateen down{}", mesh.state_flag());
    if holds {
        Ok(())
    } else {
        Err(CommandError::findings(
            "not every answer was as the scenario promises",
        ))
    }
}

async fn tour(gateway: SocketAddr, started: Instant) -> Result<bool, HttpError> {
    let mut client = HttpClient::new(gateway);
    wait_for_routes(&mut client).await?;
    print::note(&format!(
        "first routed request {:.1} s after the start",
        started.elapsed().as_secs_f64()
    ));
    let by_header = by_header(&mut client).await?;
    let one_user = one_user(&mut client).await?;
    let many_users = many_users(&mut client).await?;
    let no_rule = no_rule(&mut client).await?;
    Ok(by_header && one_user && many_users && no_rule)
}

/// The header `target` chooses the service, whatever the body says.
async fn by_header(client: &mut HttpClient) -> Result<bool, HttpError> {
    const EACH: usize = 20;
    print::heading("1. The header `target` chooses the service");
    let progress = progress(EACH * BACKENDS.len());
    let mut rows = Vec::new();
    let mut holds = true;
    for backend in BACKENDS {
        let mut tally = Tally::default();
        for _ in 0..EACH {
            tally.add(hit(client, backend, None).await?);
            progress.inc(1);
        }
        holds &= tally.services() == BTreeSet::from([backend]);
        for ((service, pod), answers) in tally.pods {
            rows.push(vec![backend.to_owned(), service, pod, answers.to_string()]);
        }
    }
    progress.finish_and_clear();
    println!(
        "{}",
        print::table(&["asked for", "answered by", "pod", "answers"], rows)
    );
    print::verdict(holds, "every request reached the service it named");
    Ok(holds)
}

/// The same `x-user` always meets the same replica.
async fn one_user(client: &mut HttpClient) -> Result<bool, HttpError> {
    const REQUESTS: usize = 30;
    print::heading("2. One user, many requests");
    let progress = progress(REQUESTS);
    let mut tally = Tally::default();
    for _ in 0..REQUESTS {
        tally.add(hit(client, "backend-2", Some("ann")).await?);
        progress.inc(1);
    }
    progress.finish_and_clear();
    let holds = tally.pods.len() == 1;
    let rows = tally
        .pods
        .into_iter()
        .map(|((service, pod), answers)| vec!["ann".to_owned(), service, pod, answers.to_string()]);
    println!(
        "{}",
        print::table(&["user", "answered by", "pod", "answers"], rows)
    );
    print::verdict(holds, "ann stayed on one replica");
    Ok(holds)
}

/// Users spread over the replicas, and each stays where it is.
async fn many_users(client: &mut HttpClient) -> Result<bool, HttpError> {
    const USERS: usize = 60;
    const EACH: usize = 3;
    print::heading("3. Many users");
    let progress = progress(USERS * EACH);
    let mut homes: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for _ in 0..EACH {
        for user in 0..USERS {
            let user = format!("user-{user}");
            let pod = hit(client, "backend-1", Some(&user)).await?.pod;
            homes.entry(user).or_default().insert(pod);
            progress.inc(1);
        }
    }
    progress.finish_and_clear();
    let moved = homes.values().filter(|pods| pods.len() > 1).count();
    let mut users_of: BTreeMap<&str, usize> = BTreeMap::new();
    for pod in homes.values().flatten() {
        *users_of.entry(pod).or_default() += 1;
    }
    let spread = users_of.len() > 1;
    let rows: Vec<Vec<String>> = users_of
        .iter()
        .map(|(pod, users)| vec![(*pod).to_owned(), users.to_string(), "▇".repeat(users / 2)])
        .collect();
    println!("{}", print::table(&["pod of backend-1", "users", ""], rows));
    print::verdict(
        spread,
        &format!("{USERS} users spread over {} replicas", users_of.len()),
    );
    print::verdict(moved == 0, &format!("{moved} of them moved"));
    Ok(spread && moved == 0)
}

/// What no rule names is answered by the gateway itself.
async fn no_rule(client: &mut HttpClient) -> Result<bool, HttpError> {
    print::heading("4. A target that no rule names");
    let answer = ask(client, "backend-9", None).await?;
    let server = answer
        .headers
        .get("server")
        .and_then(|server| server.to_str().ok());
    let holds = answer.status == StatusCode::NOT_FOUND && server == Some("istio-envoy");
    let text = format!(
        "{} from the gateway itself (server: {})",
        answer.status,
        server.unwrap_or("-")
    );
    print::verdict(holds, &text);
    Ok(holds)
}

async fn wait_for_routes(client: &mut HttpClient) -> Result<(), HttpError> {
    let deadline = Instant::now() + ROUTES_WITHIN;
    for backend in BACKENDS {
        loop {
            match ask(client, backend, None).await {
                Ok(answer) if answer.status == StatusCode::OK => break,
                Err(error) if Instant::now() > deadline => return Err(error),
                Ok(answer) if Instant::now() > deadline => {
                    return Err(HttpError::Exchange {
                        address: client.address(),
                        why: format!("{backend} answers {}", answer.status),
                    });
                }
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }
    Ok(())
}

async fn hit(client: &mut HttpClient, backend: &str, user: Option<&str>) -> Result<Hit, HttpError> {
    let answer = ask(client, backend, user).await?;
    let fields: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let field = |name: &str| fields[name].as_str().unwrap_or("?").to_owned();
    if answer.status == StatusCode::OK {
        Ok(Hit {
            service: field("service_name"),
            pod: field("pod_id"),
        })
    } else {
        Ok(Hit {
            service: answer.status.to_string(),
            pod: "-".to_owned(),
        })
    }
}

async fn ask(
    client: &mut HttpClient,
    backend: &str,
    user: Option<&str>,
) -> Result<Answer, HttpError> {
    let body = serde_json::json!({"username": user.unwrap_or("nobody")}).to_string();
    let mut headers = vec![
        (TARGET, backend),
        (http::header::CONTENT_TYPE, "application/json"),
    ];
    if let Some(user) = user {
        headers.push((USER, user));
    }
    client
        .send(Method::POST, "/hit_backend", &headers, body)
        .await
}

/// A bar on standard error, shown only on a terminal.
fn progress(total: usize) -> ProgressBar {
    let bar = ProgressBar::new(total as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} requests") {
        bar.set_style(style);
    }
    bar
}
