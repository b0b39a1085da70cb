//! Metrics of TCP connections.

use std::sync::Arc;

use super::StatsFilter;
use super::facts::Kind;
use super::http::with_facts;
use super::series::{Metric, Series};
use crate::record::Record;
use crate::worker::Worker;

/// The reports of one filter about one connection.
pub(crate) struct Reports {
    series: Option<Arc<Series>>,
    sent: u64,
    received: u64,
}

impl Reports {
    pub(crate) fn new() -> Self {
        Self {
            series: None,
            sent: 0,
            received: 0,
        }
    }

    /// Reports what moved since the last time. The first report says that the connection was opened: the peer and the
    /// endpoint, and with them the labels, are known only after a while.
    pub(crate) fn report(&mut self, filter: &StatsFilter, worker: &Worker, record: &Record) {
        let series = self.series.get_or_insert_with(|| {
            let series = with_facts(filter, worker, record, Kind::Connection, |facts| {
                worker.series.find(facts, &worker.shared.names.telemetry)
            });
            series.add(Metric::TcpOpened, 1);
            series
        });
        // As in Istio: sent is what goes to the client.
        series.add(Metric::TcpSent, record.bytes_sent - self.sent);
        series.add(Metric::TcpReceived, record.bytes_received - self.received);
        self.sent = record.bytes_sent;
        self.received = record.bytes_received;
    }

    /// Reports the end.
    pub(crate) fn end(&mut self, filter: &StatsFilter, worker: &Worker, record: &Record) {
        self.report(filter, worker, record);
        if let Some(series) = &self.series {
            series.add(Metric::TcpClosed, 1);
        }
    }
}
