//! Why a request goes where it goes: every virtual host and route that was looked at, and the first condition that
//! failed.

use crate::route::{Action, Route, Target};
use crate::{RequestView, RouteTable};

/// The trace of one decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The virtual host that serves the host, if any.
    pub virtual_host: Option<String>,
    /// Routes in the order in which they were tried; the last one matched unless `matched` is false.
    pub steps: Vec<Step>,
    /// Whether a route matched.
    pub matched: bool,
}

/// One route that was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Name of the route, or its position when it has none.
    pub route: String,
    /// What happened: where the request goes, or which condition failed.
    pub verdict: Verdict,
}

/// The outcome for one route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The path did not match.
    Path,
    /// A header condition failed; its position in the route.
    Header(usize),
    /// A query parameter condition failed; its position in the route.
    Query(usize),
    /// The request is not gRPC, or the route's fraction did not draw it.
    Other,
    /// The route matched; what it does, in one line.
    Matched(String),
}

impl RouteTable {
    /// Decides one by one, without the index, and keeps the reasons.
    pub fn explain(&self, request: &RequestView<'_>, random: u64) -> Explanation {
        let mut explanation = Explanation {
            virtual_host: None,
            steps: Vec::new(),
            matched: false,
        };
        let Some(host) = self.virtual_host(request.authority) else {
            return explanation;
        };
        explanation.virtual_host = Some(host.name.clone());
        for (position, route) in host.routes.iter().enumerate() {
            let verdict = judge(route, request, random);
            explanation.matched = matches!(verdict, Verdict::Matched(_));
            let name = &route.name;
            let route = if name.is_empty() {
                format!("#{position}")
            } else {
                name.clone()
            };
            explanation.steps.push(Step { route, verdict });
            if explanation.matched {
                break;
            }
        }
        explanation
    }
}

fn judge(route: &Route, request: &RequestView<'_>, random: u64) -> Verdict {
    if !route
        .path
        .matches(request.path_only(), route.case_sensitive)
    {
        return Verdict::Path;
    }
    if let Some(failed) = route
        .headers
        .iter()
        .position(|matcher| !matcher.matches(request))
    {
        return Verdict::Header(failed);
    }
    if let Some(failed) = route
        .query
        .iter()
        .position(|matcher| !matcher.matches(request))
    {
        return Verdict::Query(failed);
    }
    if !route.matches(request, random) {
        return Verdict::Other;
    }
    Verdict::Matched(match &route.action {
        Action::Direct { status, .. } => format!("answers {status}"),
        Action::Redirect(redirect) => {
            format!("redirects to {}", redirect.location(Some(route), request))
        }
        Action::Forward(forward) => match &forward.target {
            Target::Cluster(name) => format!("cluster {name}"),
            Target::Header(name) => format!("cluster named by header {name}"),
            Target::Weighted {
                clusters, total, ..
            } => {
                let drawn = forward
                    .target
                    .draw(request, random)
                    .and_then(|drawn| clusters.get(drawn));
                drawn.map_or_else(String::new, |cluster| {
                    format!(
                        "cluster {} (weight {} of {total})",
                        cluster.name, cluster.weight
                    )
                })
            }
        },
    })
}
