//! What is known of a request or connection when it is reported.

use super::StatsFilter;
use super::peer::Workload;
use super::series::Metric;
use crate::flags::Flags;

/// Where traffic goes, as the labels name it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Service<'f> {
    pub(crate) host: &'f str,
    pub(crate) name: &'f str,
    pub(crate) namespace: &'f str,
}

/// Everything that the labels are made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts<'f> {
    pub(crate) filter: &'f StatsFilter,
    pub(crate) own: &'f Workload,
    pub(crate) peer: Option<&'f Workload>,
    /// Names in the certificates; empty without mutual TLS.
    pub(crate) own_principal: &'f str,
    pub(crate) peer_principal: &'f str,
    pub(crate) service: Service<'f>,
    pub(crate) kind: Kind,
    pub(crate) flags: Flags,
    /// Values of the filter's expressions.
    pub(crate) values: &'f [String],
}

/// What is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Connection,
    Request {
        status: u16,
        /// For gRPC: the status, if there was one.
        grpc: Option<Option<u16>>,
    },
}

impl Facts<'_> {
    pub(crate) fn is_request(&self) -> bool {
        self.kind != Kind::Connection
    }

    /// Whether the metric is one of what is reported.
    pub(crate) fn applies(&self, metric: Metric) -> bool {
        use Metric as M;
        match metric {
            M::RequestMessages | M::ResponseMessages => {
                matches!(self.kind, Kind::Request { grpc: Some(_), .. })
            }
            M::Requests | M::Duration | M::RequestBytes | M::ResponseBytes => self.is_request(),
            M::TcpOpened | M::TcpClosed | M::TcpSent | M::TcpReceived => !self.is_request(),
        }
    }

    /// A short form of everything that makes a difference for the labels.
    pub(crate) fn write_key(&self, key: &mut Vec<u8>) {
        self.write_overflow_key(key);
        key.extend(self.peer.map_or(0, |peer| peer.id).to_le_bytes());
        key.extend(self.flags.bits().to_le_bytes());
        if let Kind::Request { status, grpc } = self.kind {
            key.extend(status.to_le_bytes());
            key.extend(
                match grpc {
                    None => 0u32,
                    Some(None) => 1,
                    Some(Some(status)) => 2 + u32::from(status),
                }
                .to_le_bytes(),
            );
        }
        let Service {
            host,
            name,
            namespace,
        } = self.service;
        let texts = [
            self.own_principal,
            self.peer_principal,
            host,
            name,
            namespace,
        ];
        for text in texts
            .into_iter()
            .chain(self.values.iter().map(String::as_str))
        {
            key.extend((text.len() as u32).to_le_bytes());
            key.extend(text.as_bytes());
        }
    }

    /// The key of the series that takes what is too much.
    pub(crate) fn write_overflow_key(&self, key: &mut Vec<u8>) {
        key.extend(self.filter.id.to_le_bytes());
        key.push(u8::from(self.is_request()));
    }
}
