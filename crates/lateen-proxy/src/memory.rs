//! Keeps an idle process small: what was needed for a while only is given back when it is over.
//!
//! Most of a proxy's code serves its start, new configuration and the admin interface, not requests.

use std::time::Duration;

use lateen_sys::memory::{give_back_heap, give_back_program};
use lateen_xds::json::forget_descriptors;
use tokio::sync::Notify;

/// How long nothing happens until it counts as over. Configuration comes in several updates.
pub(crate) const QUIET: Duration = Duration::from_secs(5);

/// Gives memory of the process back.
pub(crate) fn give_back() {
    forget_descriptors();
    give_back_heap();
    if let Err(error) = give_back_program() {
        tracing::debug!(%error, "cannot give memory back");
    }
}

/// Calls `give_back` whenever the work that `worked` tells of has been over for the time `quiet`. The start is such work.
pub(crate) async fn when_quiet(worked: &Notify, quiet: Duration, give_back: impl Fn()) {
    loop {
        while tokio::time::timeout(quiet, worked.notified()).await.is_ok() {}
        give_back();
        worked.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn memory_is_given_back_once_when_work_is_over() {
        let (worked, quiet) = (Notify::new(), Duration::from_millis(400));
        let times = Cell::new(0);
        let work = async {
            for expected in [0, 1] {
                // As long as there is more to do, it is not over.
                for _ in 0..4 {
                    worked.notify_one();
                    tokio::time::sleep(quiet / 2).await;
                    assert_eq!(times.get(), expected);
                }
                tokio::time::sleep(quiet * 2).await;
                assert_eq!(times.get(), expected + 1);
            }
        };
        tokio::select! {
            () = when_quiet(&worked, quiet, || times.set(times.get() + 1)) => {}
            () = work => {}
        }
    }
}
