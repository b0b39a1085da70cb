//! The compiled form of one route configuration, and the decision it makes.

pub mod explain;
pub(crate) mod index;

use std::collections::HashMap;

use lateen_xds::pb::envoy::config::route::v3::RouteConfiguration;

use crate::filter::PerFilter;
use crate::mutate::Mutations;
use crate::redirect::split_port;
use crate::route::{Action, Forward, Route, Target, VirtualHost};
use crate::{Invalid, RequestView, compile};

/// A compiled route configuration.
#[derive(Debug, Default)]
pub struct RouteTable {
    /// Name of the resource.
    pub name: String,
    /// Virtual hosts in the order of the resource.
    pub virtual_hosts: Vec<VirtualHost>,
    /// Header changes for all its routes.
    pub mutations: Mutations,
    /// What it says about filters for all its routes.
    pub filters: PerFilter,
    /// Changes of the table override those of virtual hosts, and these those of routes, unless this is set.
    pub most_specific_mutations_win: bool,
    /// Whether the table is refused when one of its clusters does not exist; nothing: as it is usual where it comes
    /// from.
    pub validate_clusters: Option<bool>,
    pub(crate) ignore_port: bool,
    pub(crate) domains: Domains,
}

/// The outcome for one request.
#[derive(Debug, Clone, Copy)]
pub enum Decision<'t> {
    /// No virtual host serves the request's host, or none of its routes matches.
    NotFound,
    /// The virtual host wants TLS.
    RedirectToHttps(&'t VirtualHost),
    /// A route matched.
    Route {
        /// Where the route was found.
        virtual_host: &'t VirtualHost,
        /// The first route that matched.
        route: &'t Route,
        /// Which candidate of a weighted target was drawn.
        weighted: Option<usize>,
    },
}

/// Domains of all virtual hosts by kind; the values are positions in the list of virtual hosts.
#[derive(Debug, Default)]
pub(crate) struct Domains {
    exact: HashMap<String, usize>,
    /// `*suffix`, longest first.
    suffixes: Vec<(usize, HashMap<String, usize>)>,
    /// `prefix*`, longest first.
    prefixes: Vec<(usize, HashMap<String, usize>)>,
    any: Option<usize>,
}

impl RouteTable {
    /// Compiles the resource. An error names the first field that cannot be accepted.
    pub fn compile(configuration: RouteConfiguration) -> Result<Self, Invalid> {
        compile::table(configuration)
    }

    /// A table that serves no host: what a removed resource leaves behind.
    pub fn empty(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ..Self::default()
        }
    }

    /// Decides where a request goes. `random` draws weights and fractions.
    pub fn decide(&self, request: &RequestView<'_>, random: u64) -> Decision<'_> {
        let Some(virtual_host) = self.virtual_host(request.authority) else {
            return Decision::NotFound;
        };
        if virtual_host.require_tls && request.scheme != "https" {
            return Decision::RedirectToHttps(virtual_host);
        }
        match virtual_host
            .index
            .find(&virtual_host.routes, request, random)
        {
            None => Decision::NotFound,
            Some(position) => {
                let route = &virtual_host.routes[position];
                Decision::Route {
                    virtual_host,
                    route,
                    weighted: route.draw(request, random),
                }
            }
        }
    }

    /// The virtual host of a request's host: exact, then the longest `*suffix`, then the longest `prefix*`, then `*`.
    pub fn virtual_host(&self, authority: &str) -> Option<&VirtualHost> {
        let host = if self.ignore_port {
            split_port(authority).0
        } else {
            authority
        };
        let position = if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            self.domains.find(&host.to_ascii_lowercase())
        } else {
            self.domains.find(host)
        }?;
        self.virtual_hosts.get(position)
    }

    /// Every cluster that a route of this table may send requests to, except those named by headers.
    pub fn clusters(&self) -> impl Iterator<Item = &str> {
        self.virtual_hosts
            .iter()
            .flat_map(|host| &host.routes)
            .flat_map(|route| {
                let forward = match &route.action {
                    Action::Forward(forward) => Some(forward),
                    _ => None,
                };
                forward.into_iter().flat_map(|forward| {
                    let (one, many) = match &forward.target {
                        Target::Cluster(name) => (Some(name.as_str()), [].as_slice()),
                        Target::Weighted { clusters, .. } => (None, clusters.as_slice()),
                        Target::Header(_) => (None, [].as_slice()),
                    };
                    let mirrors = forward.mirrors.iter().map(|mirror| mirror.cluster.as_str());
                    one.into_iter()
                        .chain(many.iter().map(|c| c.name.as_str()))
                        .chain(mirrors)
                })
            })
    }
}

impl Route {
    /// The forwarding action, if this route forwards.
    pub fn forward(&self) -> Option<&Forward> {
        match &self.action {
            Action::Forward(forward) => Some(forward),
            _ => None,
        }
    }

    fn draw(&self, request: &RequestView<'_>, random: u64) -> Option<usize> {
        self.forward()
            .and_then(|forward| forward.target.draw(request, random))
    }
}

impl Domains {
    /// Adds a domain; the error says why it cannot be added.
    pub(crate) fn insert(&mut self, domain: &str, host: usize) -> Result<(), String> {
        let domain = domain.to_ascii_lowercase();
        let previous = if domain == "*" {
            self.any.replace(host)
        } else if let Some(suffix) = domain.strip_prefix('*') {
            insert_by_length(&mut self.suffixes, suffix, host)
        } else if let Some(prefix) = domain.strip_suffix('*') {
            insert_by_length(&mut self.prefixes, prefix, host)
        } else if domain.is_empty() {
            return Err("must not be empty".to_owned());
        } else {
            self.exact.insert(domain.clone(), host)
        };
        match previous {
            None => Ok(()),
            Some(_) if domain == "*" => {
                Err("only a single wildcard domain is permitted".to_owned())
            }
            Some(_) => Err(format!(
                "domain `{domain}` appears twice; domains must be unique"
            )),
        }
    }

    fn find(&self, host: &str) -> Option<usize> {
        if let Some(found) = self.exact.get(host) {
            return Some(*found);
        }
        for (length, suffixes) in &self.suffixes {
            // A wildcard stands for at least one character.
            if let Some(suffix) = host
                .len()
                .checked_sub(*length)
                .filter(|start| *start > 0)
                .and_then(|start| host.get(start..))
                && let Some(found) = suffixes.get(suffix)
            {
                return Some(*found);
            }
        }
        for (length, prefixes) in &self.prefixes {
            if *length < host.len()
                && let Some(prefix) = host.get(..*length)
                && let Some(found) = prefixes.get(prefix)
            {
                return Some(*found);
            }
        }
        self.any
    }
}

fn insert_by_length(
    lists: &mut Vec<(usize, HashMap<String, usize>)>,
    text: &str,
    host: usize,
) -> Option<usize> {
    let position = match lists.binary_search_by(|(length, _)| text.len().cmp(length)) {
        Ok(position) => position,
        Err(position) => {
            lists.insert(position, (text.len(), HashMap::new()));
            position
        }
    };
    lists[position].1.insert(text.to_owned(), host)
}
