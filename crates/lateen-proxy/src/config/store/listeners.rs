//! Listeners and their sockets: a listener takes effect when its routes and its secrets are known.

use std::sync::Arc;

use lateen_route::Invalid;
use lateen_xds::Resource;
use lateen_xds::client::{Rejection, Update};
use lateen_xds::pb::envoy::config::listener::v3::Listener as ListenerMessage;

use super::{Store, apply_each};
use crate::config::context::Context;
use crate::config::{decode, listener};
use crate::http::manager::RouteSource;
use crate::listener::{Listener, ListenerSlot, NetworkFilter};
use crate::shared::RouteSlot;
use crate::{net, worker};

impl Store {
    pub(super) fn apply_listeners(&mut self, update: &Update) -> Vec<Rejection> {
        let rejections = apply_each(update, |resource| self.listener(resource));
        for name in &update.removed {
            self.remove_listener(name);
        }
        rejections
    }

    fn listener(&mut self, resource: &Resource) -> Result<(), Invalid> {
        let message: ListenerMessage = decode(&resource.body)?;
        let context = Context::new(&self.shared).with_warming(&self.warming_clusters);
        let compiled = listener::compile(message, &context)?;
        let owner = self
            .shared
            .listeners
            .load()
            .by_address
            .get(&compiled.address)
            .cloned();
        if let Some(owner) = owner.and_then(|slot| slot.load())
            && owner.name != compiled.name
        {
            return Err(Invalid::new(
                "address",
                format!(
                    "`{}` is already used by listener `{}`",
                    compiled.address, owner.name
                ),
            ));
        }
        if is_complete(&compiled) {
            self.warming_listeners.remove(&resource.name);
            return self.activate_listener(Arc::new(compiled));
        }
        self.warming_listeners
            .insert(resource.name.clone(), Arc::new(compiled));
        Ok(())
    }

    /// Puts listeners into effect whose routes and secrets have arrived.
    pub(super) fn activate_listeners(&mut self) {
        let ready: Vec<_> = self
            .warming_listeners
            .iter()
            .filter(|(_, listener)| is_complete(listener))
            .map(|(name, _)| name.clone())
            .collect();
        for name in ready {
            if let Some(listener) = self.warming_listeners.remove(&name)
                && let Err(error) = self.activate_listener(listener)
            {
                tracing::error!(name, %error, "listener cannot take effect");
            }
        }
    }

    fn activate_listener(&self, listener: Arc<Listener>) -> Result<(), Invalid> {
        let mut set = (**self.shared.listeners.load()).clone();
        if let Some(slot) = set.by_name.get(&listener.name) {
            let before = slot.load();
            if before.is_some_and(|before| {
                before.address == listener.address && before.bind == listener.bind
            }) {
                // The sockets stay; only what new connections see changes.
                slot.store(Some(listener));
                return Ok(());
            }
        }
        let slot = Arc::new(ListenerSlot::new(listener.clone()));
        if listener.bind {
            self.open_sockets(&listener, &slot)?;
        }
        if let Some(old) = set.by_name.insert(listener.name.clone(), slot.clone()) {
            if let Some(before) = old.load() {
                set.by_address.remove(&before.address);
            }
            old.store(None);
        }
        set.by_address.insert(listener.address, slot);
        self.shared.listeners.store(Arc::new(set));
        Ok(())
    }

    /// Opens one socket per worker. The kernel spreads connections over them.
    fn open_sockets(&self, listener: &Listener, slot: &Arc<ListenerSlot>) -> Result<(), Invalid> {
        let refused = |error: std::io::Error| {
            Invalid::new(
                "address",
                format!("cannot bind `{}`: {error}", listener.address),
            )
        };
        let sockets = self
            .shared
            .workers
            .iter()
            .map(|_| net::listen(listener.address))
            .collect::<Result<Vec<_>, _>>()
            .map_err(refused)?;
        for (worker, socket) in self.shared.workers.iter().zip(sockets) {
            let _ = worker.send(worker::Command::Listen {
                socket,
                slot: slot.clone(),
            });
        }
        Ok(())
    }

    fn remove_listener(&mut self, name: &str) {
        self.warming_listeners.remove(name);
        let mut set = (**self.shared.listeners.load()).clone();
        let Some(slot) = set.by_name.remove(name) else {
            return;
        };
        if let Some(listener) = slot.load() {
            set.by_address.remove(&listener.address);
        }
        self.shared.listeners.store(Arc::new(set));
        slot.store(None);
    }
}

/// The route tables that a listener refers to by name.
pub(super) fn route_slots(listener: &Listener) -> impl Iterator<Item = &Arc<RouteSlot>> {
    listener
        .chains
        .iter()
        .chain(&listener.default_chain)
        .filter_map(|chain| match &chain.filter {
            NetworkFilter::Http(manager) => match &manager.routes {
                RouteSource::Dynamic(slot) => Some(slot),
                RouteSource::Inline(_) => None,
            },
            NetworkFilter::Tcp(_) => None,
        })
}

/// Whether nothing is waited for: all routes are known, and all secrets.
fn is_complete(listener: &Listener) -> bool {
    let mut chains = listener.chains.iter().chain(&listener.default_chain);
    route_slots(listener).all(|slot| slot.table.load().is_some())
        && chains.all(|chain| chain.tls.as_ref().is_none_or(|tls| tls.is_settled()))
}
