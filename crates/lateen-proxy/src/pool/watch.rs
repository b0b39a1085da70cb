//! Notices when idle connections end, without a task for each.

use std::sync::Arc;
use std::task::{Wake, Waker};

use tokio::sync::Notify;

/// What the sockets of idle connections wake.
pub(super) struct Watch {
    woken: Arc<Woken>,
    waker: Waker,
}

struct Woken(Notify);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.notify_one();
    }
}

impl Default for Watch {
    fn default() -> Self {
        let woken = Arc::new(Woken(Notify::new()));
        let waker = Waker::from(woken.clone());
        Self { woken, waker }
    }
}

impl Watch {
    /// For reading from a connection that should stay silent.
    pub(super) fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Returns when one was not.
    pub(super) async fn woken(&self) {
        self.woken.0.notified().await;
    }
}
