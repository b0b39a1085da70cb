//! A burst that scales a backend out and in again while its users stay, and idle users who are free.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};
use tokio::time::Instant;

use super::asking::hit;
use super::crowd::Crowd;
use super::plot::{self, Sample};
use super::{BACKENDS, NAMESPACE, Stage, failed};
use crate::exit::{CommandError, Result};
use crate::http_client::HttpClient;
use crate::print;

const BACKEND: &str = BACKENDS[0];
const USERS: usize = 60;
const GUESTS: usize = 20;
/// Connections that call without a pause during the burst.
const BURST: usize = 80;
/// How often what is seen is noted.
const TICK: Duration = Duration::from_millis(500);
/// Replicas at first and at last, and in the burst.
const RANGE: (usize, usize) = (3, 5);
/// How long scaling may take in either direction before the tour says that it did not happen.
const WITHIN: Duration = Duration::from_secs(90);

/// Runs the burst and judges what the users saw.
pub(super) async fn run(stage: &Stage, idle: Duration, client: &mut HttpClient) -> Result<bool> {
    print::heading("6. A burst scales out while users stay, and idle users are free");
    let text = include_str!("scaling.yaml").replace("IDLE", &format!("{}s", idle.as_secs_f64()));
    stage.apply("scaling.yaml", &text).await?;
    burst(stage, idle, client).await
}

async fn burst(stage: &Stage, idle: Duration, client: &mut HttpClient) -> Result<bool> {
    let names = |kind: &str, count| {
        (0..count)
            .map(|n| format!("{kind}-{n}"))
            .collect::<Vec<_>>()
    };
    let mut watch = Watch::new(stage.kubernetes.clone(), idle);
    watch
        .until("3 replicas to begin with", |it| it.replicas() == RANGE.0)
        .await?;
    // Who stays away for longer than the idle time is a guest; the others call again within a fraction of it.
    let period = (idle / 4).min(Duration::from_secs(1));
    watch.crowd = Some(Crowd::start(
        stage.gateway,
        BACKEND,
        &names("resident", USERS),
        period,
    ));
    let guests = names("guest", GUESTS);
    watch
        .until("every user's first answer", |it| it.users() == USERS)
        .await?;
    let before = places(client, &guests).await?;
    let left = Instant::now();
    println!(
        "{USERS} users call every {:.1} s; {GUESTS} guests called once and stay away",
        period.as_secs_f64()
    );

    let crowd = names("burst", BURST);
    watch.load = Some(Crowd::start(stage.gateway, BACKEND, &crowd, Duration::ZERO));
    let began = Instant::now();
    watch
        .until("5 replicas", |it| it.replicas() == RANGE.1)
        .await?;
    println!(
        "a burst of other users: 5 replicas after {:.0} s",
        began.elapsed().as_secs_f64()
    );
    let free_at = left + idle + Duration::from_millis(500);
    let settled = Instant::now() + Duration::from_secs(2);
    watch
        .until("the guests' idle time", |_| {
            Instant::now() > free_at.max(settled)
        })
        .await?;
    let known = guests_known(stage).await?;
    let after = places(client, &guests).await?;
    let moved_while_out = watch.moves();
    watch.load = None;

    let began = Instant::now();
    watch
        .until("3 replicas again", |it| it.replicas() == RANGE.0)
        .await?;
    println!(
        "the burst is over: 3 replicas again after {:.0} s",
        began.elapsed().as_secs_f64()
    );
    let settled = Instant::now() + Duration::from_secs(2);
    watch
        .until("the last answers", |_| Instant::now() > settled)
        .await?;
    watch.print();

    let free = guests
        .iter()
        .filter(|guest| before.get(*guest) != after.get(*guest))
        .count();
    Ok(judge(&watch, moved_while_out, known, free))
}

/// Says which promises hold.
fn judge(watch: &Watch, moved_while_out: usize, known: usize, free: usize) -> bool {
    let Some(crowd) = &watch.crowd else {
        return false;
    };
    let seen = crowd.seen.borrow();
    let left: BTreeSet<&String> = watch.pods.iter().collect();
    // A user may leave only a pod that has gone.
    let (mut forced, mut unforced) = (0, 0);
    for pods in seen.pods.values() {
        for pod in &pods[..pods.len().saturating_sub(1)] {
            if left.contains(pod) {
                unforced += 1;
            } else {
                forced += 1;
            }
        }
    }
    let most = watch.samples.iter().map(|sample| sample.replicas).max();
    let claims = [
        (
            most == Some(RANGE.1),
            format!(
                "it scaled from {} to {} and back, never above",
                RANGE.0, RANGE.1
            ),
        ),
        (
            moved_while_out == 0,
            format!("{moved_while_out} of {USERS} users moved while replicas were added"),
        ),
        (
            unforced == 0,
            format!(
                "{forced} moved when their own replica was removed, {unforced} for any other reason"
            ),
        ),
        (
            seen.failures.is_empty(),
            match seen.failures.first() {
                None => format!("{} answers, none failed", seen.answers),
                Some(first) => format!("{} calls failed, such as {first}", seen.failures.len()),
            },
        ),
        (
            known == 0,
            format!(
                "{known} of {GUESTS} guests had a session left at the gateway after the idle time"
            ),
        ),
        (
            free > 0,
            format!("{free} of them began anew on another replica: the ring has five now"),
        ),
    ];
    for (holds, text) in &claims {
        print::verdict(*holds, text);
    }
    claims.iter().all(|(holds, _)| *holds)
}

/// Guests that the gateway still has a session for.
async fn guests_known(stage: &Stage) -> Result<usize> {
    let gateway = ("istio-system", "istio=ingressgateway", "istio-proxy");
    let ask = "curl -s 'localhost:15000/sticky_sessions?limit=100000'";
    let shown = stage.run(gateway, ask).await?;
    Ok(shown.matches("::guest-").count())
}

/// Where each user is answered now.
async fn places(client: &mut HttpClient, users: &[String]) -> Result<BTreeMap<String, String>> {
    let mut places = BTreeMap::new();
    for user in users {
        let hit = hit(client, BACKEND, Some(user)).await.map_err(failed)?;
        places.insert(user.clone(), hit.pod);
    }
    Ok(places)
}

/// What is seen over time.
struct Watch {
    api: Api<Pod>,
    crowd: Option<Crowd>,
    /// The burst, while it lasts.
    load: Option<Crowd>,
    /// Waited for, however long.
    idle: Duration,
    /// Pods that are ready now.
    pods: Vec<String>,
    samples: Vec<Sample>,
    started: Instant,
    next: Instant,
    /// Answers and moves at the last sample.
    counted: (usize, usize),
}

impl Watch {
    fn new(client: Client, idle: Duration) -> Self {
        Self {
            api: Api::namespaced(client, NAMESPACE),
            crowd: None,
            load: None,
            idle,
            pods: Vec::new(),
            samples: Vec::new(),
            started: Instant::now(),
            next: Instant::now(),
            counted: (0, 0),
        }
    }

    fn replicas(&self) -> usize {
        self.pods.len()
    }

    /// Users that were answered.
    fn users(&self) -> usize {
        self.crowd
            .as_ref()
            .map_or(0, |crowd| crowd.seen.borrow().pods.len())
    }

    fn moves(&self) -> usize {
        self.crowd
            .as_ref()
            .map_or(0, |crowd| crowd.seen.borrow().moves)
    }

    /// Takes samples until something holds.
    async fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) -> Result<()> {
        let deadline = Instant::now() + WITHIN + self.idle;
        loop {
            self.sample().await?;
            if holds(self) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(
                    CommandError::findings(format!("waited in vain for {what}")).advise(format!(
                        "see: kubectl -n {NAMESPACE} describe hpa {BACKEND}"
                    )),
                );
            }
            self.next += TICK;
            tokio::time::sleep_until(self.next).await;
        }
    }

    async fn sample(&mut self) -> Result<()> {
        let selector = ListParams::default().labels(&format!("app={BACKEND}"));
        let pods = self.api.list(&selector).await.map_err(failed)?;
        let is_ready = |pod: &Pod| {
            let conditions = pod
                .status
                .iter()
                .flat_map(|status| status.conditions.iter().flatten());
            let mut ready = conditions.filter(|it| it.type_ == "Ready" && it.status == "True");
            pod.metadata.deletion_timestamp.is_none() && ready.next().is_some()
        };
        let ready = pods.items.iter().filter(|pod| is_ready(pod));
        self.pods = ready.map(ResourceExt::name_any).collect();
        if let Some(crowd) = &self.crowd {
            let seen = crowd.seen.borrow();
            let load = self.load.as_ref();
            let of_load = load.map_or(0, |load| {
                std::mem::take(&mut load.seen.borrow_mut().answers)
            });
            self.samples.push(Sample {
                at: self.started.elapsed(),
                replicas: self.pods.len(),
                moved: seen.moves - self.counted.1,
                answers: seen.answers - self.counted.0 + of_load,
            });
            self.counted = (seen.answers, seen.moves);
        }
        Ok(())
    }

    fn print(&self) {
        println!();
        for line in plot::draw(&self.samples, print::width(), plot::is_unicode()) {
            println!("{line}");
        }
        println!();
    }
}
