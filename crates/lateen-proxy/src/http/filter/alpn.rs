//! The filter `istio.alpn`: which application protocols TLS connections to upstreams offer, by their HTTP version.

use crate::cluster::Cluster;
use crate::tls::client::AskedOfTls;

/// Application protocols instead of those of the cluster; an empty list leaves these.
#[derive(Debug, Default)]
pub(crate) struct UpstreamProtocols {
    pub(crate) http1: Vec<Vec<u8>>,
    pub(crate) http2: Vec<Vec<u8>>,
}

impl UpstreamProtocols {
    /// Changes what a connection to a cluster asks for, unless the cluster is an exception.
    pub(crate) fn apply(&self, cluster: &Cluster, http2: bool, asked: &mut AskedOfTls) {
        let protocols = if http2 { &self.http2 } else { &self.http1 };
        if !protocols.is_empty() && !cluster.notes.keeps_protocols {
            asked.protocols = Some(protocols.clone());
        }
    }
}
