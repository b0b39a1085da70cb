//! Gateways: which servers a proxy has, its listeners and its route configurations.

mod listener;
mod route;
mod servers;

pub(super) use listener::listeners;
pub(super) use route::configuration as route_configuration;
pub(super) use servers::auto_passthrough_hosts;
