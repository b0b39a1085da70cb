//! A compiled route: its conditions and what is done with a request that satisfies them.

use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};

use crate::RequestView;
use crate::balance::subset::Labels;
use crate::filter::PerFilter;
use crate::hash::HashPolicy;
use crate::header_match::{CookieMatch, HeaderMatch, QueryMatch};
use crate::internal_redirect::InternalRedirects;
use crate::mutate::Mutations;
use crate::path_match::PathMatch;
use crate::redirect::Redirect;
use crate::retry::RetryPolicy;
use crate::rewrite::{HostRewrite, PathRewrite};

/// Routes for a set of domains.
#[derive(Debug)]
pub struct VirtualHost {
    /// Name, for statistics and explanations.
    pub name: String,
    /// Routes in the order in which they are tried.
    pub routes: Vec<Route>,
    /// Requests that did not come over TLS are redirected to `https`.
    pub require_tls: bool,
    /// Upstream requests carry `x-envoy-attempt-count`.
    pub attempt_count_in_request: bool,
    /// Responses carry `x-envoy-attempt-count`.
    pub attempt_count_in_response: bool,
    /// Header changes for all its routes.
    pub mutations: Mutations,
    /// What it says about filters for all its routes.
    pub filters: PerFilter,
    pub(crate) index: crate::table::index::RouteIndex,
}

/// One route.
#[derive(Debug)]
pub struct Route {
    /// Name, for the access log; empty when it has none.
    pub name: String,
    /// Operation name for tracing that others are told (`x-envoy-decorator-operation`).
    pub operation: Option<HeaderValue>,
    /// Header changes of this route.
    pub mutations: Mutations,
    /// What it says about filters.
    pub filters: PerFilter,
    /// What is done with the request.
    pub action: Action,
    pub(crate) path: PathMatch,
    pub(crate) case_sensitive: bool,
    pub(crate) headers: Vec<HeaderMatch>,
    pub(crate) query: Vec<QueryMatch>,
    pub(crate) cookies: Vec<CookieMatch>,
    /// The request must be gRPC.
    pub(crate) grpc: bool,
    pub(crate) fraction: Option<crate::fraction::Fraction>,
}

impl Route {
    /// Whether the request satisfies all conditions; `random` draws the fraction, if the route has one.
    pub fn matches(&self, request: &RequestView<'_>, random: u64) -> bool {
        self.path.matches(request.path_only(), self.case_sensitive)
            && self.matches_besides_path(request, random)
    }

    pub(crate) fn matches_besides_path(&self, request: &RequestView<'_>, random: u64) -> bool {
        self.fraction.is_none_or(|fraction| fraction.draws(random))
            && (!self.grpc || is_grpc(request))
            && self.headers.iter().all(|matcher| matcher.matches(request))
            && self.query.iter().all(|matcher| matcher.matches(request))
            && self.cookies.iter().all(|matcher| matcher.matches(request))
    }
}

/// What a route does.
#[derive(Debug)]
pub enum Action {
    /// Send the request to a cluster.
    Forward(Box<Forward>),
    /// Answer with a redirect.
    Redirect(Redirect),
    /// Answer at once.
    Direct {
        /// Status of the answer.
        status: StatusCode,
        /// Its body, possibly empty.
        body: std::sync::Arc<[u8]>,
    },
}

/// Forwarding to a cluster.
#[derive(Debug)]
pub struct Forward {
    /// Where to.
    pub target: Target,
    /// Change of the path.
    pub path_rewrite: Option<PathRewrite>,
    /// Change of the host.
    pub host_rewrite: Option<HostRewrite>,
    /// The host before its change goes into `x-forwarded-host`.
    pub append_forwarded_host: bool,
    /// Time for the whole response; nothing: unlimited.
    pub timeout: Option<Duration>,
    /// Limit for the time that `grpc-timeout` may ask for: nothing: the header is ignored; zero: no limit.
    pub grpc_timeout_max: Option<Duration>,
    /// What is taken off the time that `grpc-timeout` asks for, if it is less.
    pub grpc_timeout_offset: Duration,
    /// Time for the request with its whole response, whatever happens on it; nothing: the listener's.
    pub stream_limit: Option<Duration>,
    /// Limit for the time of the stream that `grpc-timeout` may ask for: nothing: the header is ignored; zero: no limit.
    pub grpc_stream_max: Option<Duration>,
    /// Time without progress on the stream; nothing: the listener's.
    pub idle_timeout: Option<Duration>,
    /// When and how to try again.
    pub retry: Option<RetryPolicy>,
    /// What the consistent hash is made of.
    pub hash: Vec<HashPolicy>,
    /// Copies of the request to other clusters.
    pub mirrors: Vec<Mirror>,
    /// Status when the cluster does not exist.
    pub cluster_not_found: StatusCode,
    /// Upgrades that this route allows or forbids, overriding the listener's list.
    pub upgrades: Vec<RouteUpgrade>,
    /// Redirects of endpoints that the proxy follows; nothing: none.
    pub internal_redirects: Option<InternalRedirects>,
    /// Requests use the circuit breakers and connections of high priority.
    pub high_priority: bool,
    /// The subset of the cluster that takes the request.
    pub subset: Labels,
}

/// What a route says about a change of protocol.
#[derive(Debug)]
pub struct RouteUpgrade {
    /// What clients ask for, lower case; `connect` for tunnels.
    pub name: String,
    /// Whether they may.
    pub enabled: bool,
    /// Tunnels end here, and their bytes go to the endpoint; nothing: the request for a tunnel is passed on.
    pub terminates: Option<Terminate>,
}

/// How tunnels end at the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terminate {
    /// The bytes begin with a PROXY header; nothing: they are the client's alone.
    pub announces: Option<Announcement>,
}

/// The version of a PROXY header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Announcement {
    /// As text.
    V1,
    /// Binary.
    V2,
}

/// Where a request is forwarded to.
#[derive(Debug)]
pub enum Target {
    /// One cluster.
    Cluster(String),
    /// The cluster that a header names.
    Header(HeaderName),
    /// One of several by weight.
    Weighted {
        /// The candidates, in order.
        clusters: Vec<WeightedCluster>,
        /// Sum of the weights, positive.
        total: u64,
        /// A header whose number draws instead of chance.
        number: Option<HeaderName>,
    },
}

/// A candidate of a weighted target.
#[derive(Debug)]
pub struct WeightedCluster {
    /// Cluster name.
    pub name: String,
    /// Share of the total.
    pub weight: u64,
    /// Header changes when this one is drawn.
    pub mutations: Mutations,
    /// What it says about filters when this one is drawn.
    pub filters: PerFilter,
    /// Change of the host when this one is drawn.
    pub host_rewrite: Option<String>,
    /// What the subset must have beside what the route says; wins where both name a key.
    pub subset: Labels,
}

impl Target {
    /// The candidate that a random number draws, or a number in the request; nothing for unweighted targets.
    pub fn draw(&self, request: &RequestView<'_>, random: u64) -> Option<usize> {
        let Self::Weighted {
            clusters,
            total,
            number,
        } = self
        else {
            return None;
        };
        let given = number.as_ref().and_then(|name| {
            let value = request.headers.get(name)?;
            value.to_str().ok()?.parse::<u64>().ok()
        });
        let mut point = given.unwrap_or(random) % total;
        for (index, cluster) in clusters.iter().enumerate() {
            if point < cluster.weight {
                return Some(index);
            }
            point -= cluster.weight;
        }
        None
    }
}

/// A copy of the request, whose answer is ignored.
#[derive(Debug)]
pub struct Mirror {
    /// Cluster that gets the copy.
    pub cluster: String,
    /// Share of requests that are copied.
    pub fraction: crate::fraction::Fraction,
    /// The copy's host gets `-shadow` appended.
    pub shadow_suffix: bool,
}

fn is_grpc(request: &RequestView<'_>) -> bool {
    request
        .headers
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|value| {
            let value = value.as_bytes();
            value
                .strip_prefix(b"application/grpc")
                .is_some_and(|rest| matches!(rest.first(), None | Some(b'+')))
        })
}
