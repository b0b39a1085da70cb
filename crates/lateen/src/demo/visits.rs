//! Visits to a site, told apart by what they showed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use http::{HeaderName, Method};

use super::stage::{Stage, failed};
use crate::exit::Result;
use crate::http_client::{Answer, HttpClient};
use crate::print;

/// How long a change may take to reach every sidecar before it is judged: a hundred times what it takes.
const SETTLE: Duration = Duration::from_millis(500);

/// A page that is visited.
pub(super) struct Site<'s> {
    pub(super) path: &'s str,
    pub(super) headers: Vec<(HeaderName, &'s str)>,
    /// What an answer shows.
    pub(super) shows: fn(&Answer) -> String,
}

/// What visits are to show.
pub(super) enum Expected {
    /// All the same.
    All(&'static str),
    /// This one in a share of the visits, in percent.
    Share(&'static str, std::ops::RangeInclusive<usize>),
    /// Each of them at least once.
    Every(&'static [&'static str]),
    /// This one, after a time in milliseconds.
    After(&'static str, std::ops::RangeInclusive<u64>),
}

/// Applies a step's manifests.
pub(super) async fn change(stage: &Stage, files: &[(&str, &str)]) -> Result<()> {
    for (name, text) in files {
        stage.apply(name, text).await?;
    }
    tokio::time::sleep(SETTLE).await;
    Ok(())
}

/// Visits a site some times, shows what came, and judges it as a claim.
pub(super) async fn visit(
    stage: &Stage,
    who: &str,
    site: &Site<'_>,
    count: usize,
    expected: &Expected,
    claim: &str,
) -> Result<bool> {
    let mut client = HttpClient::new(stage.gateway);
    let mut shown: BTreeMap<String, usize> = BTreeMap::new();
    let began = Instant::now();
    for _ in 0..count {
        let answer = client
            .send(Method::GET, site.path, &site.headers, "")
            .await
            .map_err(failed)?;
        *shown.entry((site.shows)(&answer)).or_default() += 1;
    }
    let each = began.elapsed() / count.max(1) as u32;
    let rows = shown.iter().map(|(what, times)| {
        let bar = "▇".repeat((times * 20).div_ceil(count.max(1)));
        vec![who.to_owned(), what.clone(), times.to_string(), bar]
    });
    println!("{}", print::table(&["who", "sees", "visits", ""], rows));
    let of = |what: &str| shown.get(what).copied().unwrap_or(0);
    let holds = match expected {
        Expected::All(what) => of(what) == count,
        Expected::Share(what, range) => range.contains(&(of(what) * 100 / count.max(1))),
        Expected::Every(all) => all.iter().all(|what| of(what) > 0),
        Expected::After(what, range) => {
            let millis = u64::try_from(each.as_millis()).unwrap_or(u64::MAX);
            of(what) == count && range.contains(&millis)
        }
    };
    let time = match expected {
        Expected::After(..) => format!(" ({:.1} s)", each.as_secs_f64()),
        _ => String::new(),
    };
    print::verdict(holds, &format!("{claim}{time}"));
    Ok(holds)
}
