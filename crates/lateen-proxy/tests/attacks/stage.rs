//! A proxy that is attacked, and whoever else uses it meanwhile.

use std::net::SocketAddr;
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use lateen_proxy::EngineConfig;
use lateen_xds::ResourceType;
use serde_json::{Value, json};

use crate::MEMORY;
use crate::support::{
    Client, Proxy, free_address, http_filter, merge, socket_address, to, wait_for_listener,
};

/// Memory is counted for the whole process, so that tests that bound it have the stage for themselves.
static TURN: RwLock<()> = RwLock::new(());

/// What a test holds while others may run.
pub(crate) enum Turn {
    Shared(#[allow(dead_code, reason = "held")] RwLockReadGuard<'static, ()>),
    Alone(#[allow(dead_code, reason = "held")] RwLockWriteGuard<'static, ()>),
}

/// The turn of a test that has no stage.
pub(crate) fn beside_others() -> Turn {
    Turn::Shared(TURN.read().unwrap_or_else(|poisoned| poisoned.into_inner()))
}

/// A proxy with one worker and one listener: `/direct` is answered by itself, all else by the cluster `one`.
pub(crate) struct Stage {
    pub(crate) proxy: Proxy,
    pub(crate) address: SocketAddr,
    turn: Turn,
}

impl Stage {
    /// A stage beside others, with more fields of the connection manager.
    pub(crate) fn new(endpoint: SocketAddr, manager: Value) -> Self {
        Self::with(EngineConfig::default(), endpoint, json!({}), manager)
    }

    /// The same with these options of the engine, and fields of the route's action.
    pub(crate) fn with(
        config: EngineConfig,
        endpoint: SocketAddr,
        action: Value,
        manager: Value,
    ) -> Self {
        Self::start(beside_others(), config, endpoint, action, manager)
    }

    /// A stage while no other is there, for [`Stage::peak_of`].
    pub(crate) fn alone(endpoint: SocketAddr, action: Value, manager: Value) -> Self {
        let turn = TURN
            .write()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let config = EngineConfig::default();
        Self::start(Turn::Alone(turn), config, endpoint, action, manager)
    }

    fn start(
        turn: Turn,
        config: EngineConfig,
        endpoint: SocketAddr,
        action: Value,
        manager: Value,
    ) -> Self {
        let mut proxy = Proxy::start_with(&config);
        proxy.cluster("one", &[endpoint], json!({}));
        let direct = json!({
            "match": { "prefix": "/direct" },
            "directResponse": { "status": 200, "body": { "inlineString": "direct" } },
        });
        let address = proxy.http(json!([direct, to("one", action)]), manager);
        Self {
            proxy,
            address,
            turn,
        }
    }

    /// Another listener with the same routes, and with more fields of itself and of its filter chain.
    pub(crate) fn listener(&mut self, more: Value, chain: Value) -> SocketAddr {
        let address = free_address();
        let mut chains = json!({ "filters": [http_filter(json!({}))] });
        merge(&mut chains, chain);
        let mut listener = json!({
            "name": format!("at-{}", address.port()),
            "address": socket_address(address),
            "filterChains": [chains],
        });
        merge(&mut listener, more);
        self.proxy.accept(ResourceType::Listener, &[listener]);
        wait_for_listener(address);
        address
    }

    /// What `run` returns, and the most bytes that the process used on top of what it used before.
    pub(crate) fn peak_of<T>(&self, run: impl FnOnce() -> T) -> (T, usize) {
        assert!(
            matches!(self.turn, Turn::Alone(_)),
            "others use memory, too"
        );
        MEMORY.peak_of(run)
    }

    /// A number of the connection manager's.
    pub(crate) fn counted(&self, name: &str) -> u64 {
        let full = format!("envoy_http_{name}{{envoy_http_conn_manager_prefix=\"test\"}}");
        let all = self.proxy.engine.metrics();
        let value = |line: &str| line.strip_prefix(&full)?.trim().parse().ok();
        all.lines().find_map(value).unwrap_or_default()
    }
}

/// A client of a stage that keeps to the rules is served, request after request.
#[track_caller]
pub(crate) fn serves_others(address: SocketAddr) {
    let mut client = Client::connect(address);
    for _ in 0..20 {
        let answer = client.get("/direct", &[]).expect("others are served");
        assert_eq!((answer.status, answer.body.as_str()), (200, "direct"));
    }
}
