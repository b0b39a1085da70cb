//! What a decision found for a request: its route, and the levels of configuration around it.

use lateen_route::filter::FilterLevels;
use lateen_route::mutate::Mutations;
use lateen_route::route::{Target, WeightedCluster};
use lateen_route::{Decision, Forward, Route, RouteTable, VirtualHost};

use super::head::Head;

/// A route that was found.
#[derive(Clone, Copy)]
pub(super) struct Found<'t> {
    pub(super) virtual_host: &'t VirtualHost,
    pub(super) route: &'t Route,
    /// The candidate that was drawn, if the route goes to one of several clusters.
    pub(super) chosen: Option<&'t WeightedCluster>,
}

impl<'t> Found<'t> {
    pub(super) fn new(decision: &Decision<'t>) -> Option<Self> {
        let Decision::Route {
            virtual_host,
            route,
            weighted,
        } = *decision
        else {
            return None;
        };
        let chosen = weighted.and_then(|index| match &route.forward()?.target {
            Target::Weighted { clusters, .. } => clusters.get(index),
            _ => None,
        });
        Some(Self {
            virtual_host,
            route,
            chosen,
        })
    }

    /// The levels of header changes in the order in which they apply: the most specific first, unless configured the
    /// other way round, so that what applies last wins.
    pub(super) fn mutation_levels(&self, table: &'t RouteTable) -> Vec<&'t Mutations> {
        let of_cluster = self.chosen.map(|cluster| &cluster.mutations);
        let mut levels: Vec<_> = of_cluster
            .into_iter()
            .chain([
                &self.route.mutations,
                &self.virtual_host.mutations,
                &table.mutations,
            ])
            .collect();
        if table.most_specific_mutations_win {
            levels.reverse();
        }
        levels
    }

    /// The levels of filter configuration, the most specific first.
    pub(super) fn filter_levels(&self, table: &'t RouteTable) -> FilterLevels<'t> {
        FilterLevels([
            self.chosen.map(|cluster| &cluster.filters),
            Some(&self.route.filters),
            Some(&self.virtual_host.filters),
            Some(&table.filters),
        ])
    }

    /// Where the request is about to go.
    pub(super) fn cluster<'n>(&'n self, head: &'n Head) -> Option<&'n str> {
        target(self.route.forward()?, self.chosen, head)
    }
}

/// The name of the cluster that a request goes to.
pub(super) fn target<'n>(
    action: &'n Forward,
    chosen: Option<&'n WeightedCluster>,
    head: &'n Head,
) -> Option<&'n str> {
    match &action.target {
        Target::Cluster(name) => Some(name),
        Target::Weighted { .. } => chosen.map(|cluster| cluster.name.as_str()),
        Target::Header(name) => head.headers.get(name)?.to_str().ok(),
    }
}
