//! `/drain_listeners`.

use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;

use super::query::Query;
use super::reply::{TEXT, reply};
use crate::shared::{Leaving, Shared};

/// Stops listeners: all, or those for the workload beside the proxy. Open connections are asked to end. A graceful drain
/// asks for that first, for some time in which new connections are still served, and may leave it at that.
pub(super) fn drain(shared: &Arc<Shared>, query: &Query<'_>) -> Response<Full<Bytes>> {
    let inbound_only = query.has("inboundonly");
    let stops = !query.has("skip_exit");
    if !query.has("graceful") {
        if !stops {
            let text = "skip_exit requires graceful\n";
            return reply(StatusCode::BAD_REQUEST, TEXT, text.to_owned());
        }
        stop_listeners(shared, inbound_only);
        return reply(StatusCode::OK, TEXT, "OK\n".to_owned());
    }
    let whom = if inbound_only {
        Leaving::Inbound
    } else {
        Leaving::All
    };
    // One that has begun goes on.
    let begun = shared.leaving.send_if_modified(|leaving| {
        let begins = *leaving == Leaving::Nobody;
        if begins {
            *leaving = whom;
        }
        begins
    });
    if begun && stops {
        let shared = shared.clone();
        tokio::spawn(async move {
            tokio::time::sleep(shared.drain_time).await;
            stop_listeners(&shared, inbound_only);
        });
    }
    reply(StatusCode::OK, TEXT, "OK\n".to_owned())
}

fn stop_listeners(shared: &Shared, inbound_only: bool) {
    if inbound_only {
        for slot in shared.listeners.load().by_name.values() {
            if slot.load().is_some_and(|listener| listener.inbound) {
                slot.store(None);
            }
        }
    } else {
        shared.draining.send_replace(true);
    }
}
