//! A worker: one thread with its own runtime, sockets, connection pools and balancing positions.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use foldhash::fast::RandomState;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::balancing::{Positions, Wish};
use crate::cluster::{Cluster, Host};
use crate::connection;
use crate::http::held::HeldBytes;
use crate::http::shadow::Shadows;
use crate::listener::{Listener, ListenerSlot};
use crate::pool::Pools;
use crate::shared::Shared;
use crate::stats;
use crate::sticky::{Connection as StoreConnection, Store};
use crate::telemetry::peer::Peers;
use crate::telemetry::series::WorkerSeries;

/// Pause after a failed accept, which usually means that descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How often idle upstream connections are looked over.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Most sessions of a shard that end in one sweep, so that it takes no longer than a few milliseconds.
const SWEPT_SESSIONS: usize = 20_000;

/// Held until a worker comes to it; see [`Shared::wait_for_workers`].
pub(crate) type PassToken = std::sync::mpsc::Sender<()>;

/// What the control side asks of a worker.
pub(crate) enum Command {
    /// Accept connections from a socket.
    Listen {
        socket: std::net::TcpListener,
        slot: Arc<ListenerSlot>,
    },
    /// Clusters changed: drop what belongs to endpoints that are gone.
    Prune,
    /// Drop the token: whatever this worker had looked up before is used by now.
    Pass(PassToken),
    /// Another worker waits for a connection of this cluster, or of any: close idle ones.
    CloseIdle(Option<u64>),
    /// End now.
    Stop,
}

/// The state of one worker.
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) pools: Pools,
    pub(crate) shadows: Shadows,
    pub(crate) held_bytes: HeldBytes,
    /// Workloads that have presented themselves.
    pub(crate) peers: Peers,
    /// Series of the standard metrics.
    pub(crate) series: WorkerSeries,
    /// Position among the workers.
    pub(crate) index: usize,
    /// Balancing positions by cluster, with the generation that they belong to.
    balancing: RefCell<HashMap<u64, (u64, Positions), RandomState>>,
    /// Connections to stores of sessions, by the store.
    stores: RefCell<HashMap<u64, Rc<StoreConnection>>>,
    next_connection: Cell<u64>,
}

/// Starts the thread of a worker. It ends with [`Command::Stop`].
pub(crate) fn spawn(
    index: usize,
    shared: Arc<Shared>,
    commands: mpsc::UnboundedReceiver<Command>,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new()
        .name(format!("worker-{index}"))
        .spawn(move || {
            stats::enter_slot(index + 1);
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build_local(tokio::runtime::LocalOptions::default());
            match runtime {
                Ok(runtime) => runtime.block_on(Rc::new(Worker::new(index, shared)).run(commands)),
                Err(error) => tracing::error!(%error, "cannot start a worker"),
            }
        })
}

impl Worker {
    fn new(index: usize, shared: Arc<Shared>) -> Self {
        Self {
            pools: Pools::default(),
            shadows: Shadows::default(),
            held_bytes: HeldBytes::default(),
            peers: Peers::default(),
            series: WorkerSeries::default(),
            index,
            balancing: RefCell::default(),
            stores: RefCell::default(),
            next_connection: Cell::new(0),
            shared,
        }
    }

    async fn run(self: Rc<Self>, mut commands: mpsc::UnboundedReceiver<Command>) {
        let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Listen { socket, slot }) => {
                        tokio::task::spawn_local(self.clone().accept(socket, slot));
                    }
                    Some(Command::Prune) => {
                        self.prune();
                        self.follow_stores();
                    }
                    Some(Command::Pass(token)) => drop(token),
                    Some(Command::CloseIdle(cluster)) => self.pools.close_idle(cluster),
                    Some(Command::Stop) | None => return,
                },
                () = self.pools.ended() => self.pools.forget_ended(),
                _ = sweep.tick() => {
                    self.pools.sweep();
                    self.sweep_sessions();
                }
            }
        }
    }

    /// Accepts connections until the listener is removed or the process drains.
    async fn accept(self: Rc<Self>, socket: std::net::TcpListener, slot: Arc<ListenerSlot>) {
        let (Ok(socket), Some(mut listener)) = (TcpListener::from_std(socket), slot.load()) else {
            return;
        };
        let mut changed = slot.subscribe();
        let mut draining = self.shared.draining.subscribe();
        loop {
            tokio::select! {
                accepted = socket.accept() => match accepted {
                    Ok((stream, remote)) => self.start(stream, remote, &slot, &listener),
                    Err(error) => {
                        tracing::warn!(listener = listener.name, %error, "cannot accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                _ = changed.changed() => match slot.load() {
                    Some(current) => listener = current,
                    None => break,
                },
                _ = draining.wait_for(|draining| *draining) => break,
            }
        }
        // Whoever the kernel has already connected is served, not reset.
        while let Ok(Ok((stream, remote))) =
            tokio::time::timeout(Duration::ZERO, socket.accept()).await
        {
            self.start(stream, remote, &slot, &listener);
        }
    }

    fn start(
        self: &Rc<Self>,
        stream: TcpStream,
        remote: SocketAddr,
        slot: &Arc<ListenerSlot>,
        listener: &Arc<Listener>,
    ) {
        let open = self.shared.connections.fetch_add(1, Ordering::Relaxed);
        let count = OpenConnection(self.shared.clone());
        if open >= self.shared.most_connections {
            listener.stats.here().cx_overflow.inc();
            return;
        }
        let (worker, slot, listener) = (self.clone(), slot.clone(), listener.clone());
        tokio::task::spawn_local(async move {
            let _count = count;
            connection::serve(worker, stream, remote, slot, listener).await;
        });
    }

    /// A number for a new connection, unique in the process.
    pub(crate) fn connection_id(&self) -> u64 {
        let next = self.next_connection.get();
        self.next_connection.set(next + 1);
        next * self.shared.workers.len() as u64 + self.index as u64
    }

    /// Chooses an endpoint.
    pub(crate) fn pick(&self, cluster: &Cluster, wish: &Wish<'_>) -> Option<Arc<Host>> {
        let epoch = || cluster.shared.outliers.epoch();
        let current = cluster.balancing.current(&cluster.hosts, epoch);
        let mut balancing = self.balancing.borrow_mut();
        let entry = balancing.entry(cluster.shared.id).or_default();
        if entry.0 != current.generation {
            *entry = (current.generation, Positions::default());
        }
        current
            .pick(&mut entry.1, &cluster.hosts, wish)
            .map(|host| cluster.hosts[host].clone())
    }

    /// Ends sessions that were idle for too long. One worker does it for all.
    fn sweep_sessions(&self) {
        if self.index != 0 {
            return;
        }
        let now = std::time::Instant::now();
        for cluster in self.shared.clusters.load().values() {
            if let Some(sticky) = &cluster.sticky {
                sticky.table.sweep(now, SWEPT_SESSIONS);
            }
        }
    }

    /// This worker's connection to a store of sessions.
    pub(crate) fn store(self: &Rc<Self>, store: &Arc<Store>) -> Rc<StoreConnection> {
        let mut stores = self.stores.borrow_mut();
        let connection = stores
            .entry(store.id)
            .or_insert_with(|| StoreConnection::open(self, store.clone()));
        connection.clone()
    }

    /// Connects to the stores that are configured, before the first request needs them, and leaves the others.
    fn follow_stores(self: &Rc<Self>) {
        let clusters = self.shared.clusters.load();
        let sticky = clusters.values().filter_map(|it| it.sticky.as_ref());
        let wanted: Vec<_> = sticky.filter_map(|it| it.store.as_ref()).collect();
        let is_wanted = |id: &u64| wanted.iter().any(|store| store.id == *id);
        self.stores.borrow_mut().retain(|id, _| is_wanted(id));
        for store in wanted {
            self.store(store);
        }
    }

    fn prune(&self) {
        let clusters = self.shared.clusters.load();
        self.balancing
            .borrow_mut()
            .retain(|id, _| clusters.values().any(|c| c.shared.id == *id));
        self.pools.prune(&clusters);
    }
}

/// Counts an open connection until dropped.
struct OpenConnection(Arc<Shared>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
