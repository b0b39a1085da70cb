//! The fault filter: delays, aborts, and responses at a low rate.

use std::sync::Arc;

use http::StatusCode;
use lateen_route::fault::{Abort, Fault};

use super::super::exchange::Exchange;
use super::super::reply::LocalReply;
use crate::flags::Flags;
use crate::stats::{HttpStats, PerWorker};

/// A request that a fault was injected into, counted until dropped.
#[derive(Debug)]
pub(crate) struct ActiveFault(Arc<PerWorker<HttpStats>>);

impl Drop for ActiveFault {
    fn drop(&mut self) {
        self.0.here().faults_active.dec();
    }
}

/// Injects what is drawn for a request.
pub(super) async fn inject(
    exchange: &mut Exchange,
    fault: &Fault,
    cluster: Option<&str>,
) -> Result<(), LocalReply> {
    if !fault.applies(&exchange.head.view(), cluster) {
        return Ok(());
    }
    let stats = exchange.connection.manager.stats.clone();
    let rate = fault.rate(&exchange.head.headers, fastrand::u64(..));
    if let Some(rate) = rate
        && activate(exchange, fault)
    {
        stats.here().faults_rate_limited.inc();
        exchange.response_rate = Some(rate);
    }
    let delay = fault.delay(&exchange.head.headers, fastrand::u64(..));
    if let Some(delay) = delay
        && activate(exchange, fault)
    {
        stats.here().faults_delayed.inc();
        exchange.record.flags.set(Flags::DELAY_INJECTED);
        tokio::time::sleep(delay).await;
    }
    match fault.abort(&exchange.head.headers, fastrand::u64(..)) {
        Some(abort) if activate(exchange, fault) => {
            stats.here().faults_aborted.inc();
            Err(aborted(abort))
        }
        _ => Ok(()),
    }
}

/// Counts the request among those with a fault; false when there are too many already.
fn activate(exchange: &mut Exchange, fault: &Fault) -> bool {
    if exchange.fault.is_some() {
        return true;
    }
    let stats = &exchange.connection.manager.stats;
    if let Some(most) = fault.max_active
        && stats.sum(|stats| &stats.faults_active) >= u64::from(most)
    {
        stats.here().faults_overflow.inc();
        return false;
    }
    stats.here().faults_active.inc();
    exchange.fault = Some(ActiveFault(stats.clone()));
    true
}

fn aborted(abort: Abort) -> LocalReply {
    let (status, grpc) = match abort {
        Abort::Http(status) => (status, None),
        // The status is in the headers, whatever the request was.
        Abort::Grpc(code) => (StatusCode::OK, Some(code)),
    };
    let flags = Flags::FAULT_INJECTED;
    let mut reply = LocalReply::new(status, "fault filter abort", flags, "fault_filter_abort");
    reply.grpc_status = grpc;
    reply
}
