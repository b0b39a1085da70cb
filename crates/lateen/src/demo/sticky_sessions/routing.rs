//! Routing by header: which service answers, and which replica a user meets.

use std::collections::{BTreeMap, BTreeSet};

use http::StatusCode;
use indicatif::{ProgressBar, ProgressStyle};

use super::BACKENDS;
use super::asking::{Hit, ask, hit};
use crate::http_client::{HttpClient, HttpError};
use crate::print;

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

/// The header `target` chooses the service, whatever the body says.
pub(super) async fn by_header(client: &mut HttpClient) -> Result<bool, HttpError> {
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
pub(super) async fn one_user(client: &mut HttpClient) -> Result<bool, HttpError> {
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
pub(super) async fn many_users(client: &mut HttpClient) -> Result<bool, HttpError> {
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
pub(super) async fn no_rule(client: &mut HttpClient) -> Result<bool, HttpError> {
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

/// A bar on standard error, shown only on a terminal.
fn progress(total: usize) -> ProgressBar {
    let bar = ProgressBar::new(total as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} requests") {
        bar.set_style(style);
    }
    bar
}
