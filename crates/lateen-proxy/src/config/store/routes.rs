//! Route tables that listeners refer to by name.

use std::collections::BTreeSet;
use std::sync::Arc;

use lateen_route::{Invalid, RouteTable};
use lateen_xds::Resource;
use lateen_xds::client::{Rejection, Update};
use lateen_xds::pb::envoy::config::route::v3::RouteConfiguration;

use super::listeners::route_slots;
use super::{Store, apply_each};
use crate::config::context::Context;
use crate::config::decode;

impl Store {
    pub(super) fn apply_routes(&self, update: &Update) -> Vec<Rejection> {
        let rejections = apply_each(update, |resource| self.route(resource));
        for name in &update.removed {
            self.missing_route(name);
        }
        rejections
    }

    fn route(&self, resource: &Resource) -> Result<(), Invalid> {
        let table = RouteTable::compile(decode::<RouteConfiguration>(&resource.body)?)?;
        // A table of its own may arrive before its clusters, so they are only looked for when that is asked for.
        if table.validate_clusters == Some(true) {
            let context = Context::new(&self.shared).with_warming(&self.warming_clusters);
            context.check_clusters(&table)?;
        }
        let slot = Context::new(&self.shared).route_slot(&resource.name);
        slot.table.store(Some(Arc::new(table)));
        Ok(())
    }

    /// The server says that there is no such table: listeners that wait for it go on without routes; others keep what
    /// they have.
    fn missing_route(&self, name: &str) {
        let slot = Context::new(&self.shared).route_slot(name);
        if slot.table.load().is_none() {
            slot.table.store(Some(Arc::new(RouteTable::empty(name))));
        }
    }

    /// Names of the route tables that listeners refer to.
    pub(super) fn route_names(&self) -> BTreeSet<String> {
        let active = self.shared.listeners.load();
        let active = active.by_name.values().filter_map(|slot| slot.load());
        let all = active.chain(self.warming_listeners.values().cloned());
        all.flat_map(|listener| {
            route_slots(&listener)
                .map(|slot| slot.name.clone())
                .collect::<Vec<_>>()
        })
        .collect()
    }
}
