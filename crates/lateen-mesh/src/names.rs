//! The names that Istio gives to clusters.

use std::fmt;

/// Direction of a cluster's traffic, seen from the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// To the application of this workload.
    Inbound,
    /// To other workloads.
    Outbound,
}

/// Istio's name of a cluster, `outbound|8000|v1|httpbin.default.svc.cluster.local`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClusterName<'a> {
    /// Seen from the proxy.
    pub direction: Direction,
    /// Port of the service (outbound) or of the workload (inbound).
    pub port: u32,
    /// Subset, empty for all endpoints.
    pub subset: &'a str,
    /// Host of the service; empty for inbound clusters.
    pub host: &'a str,
}

impl<'a> ClusterName<'a> {
    /// Name of the cluster of a service's port and subset.
    pub fn outbound(port: u32, subset: &'a str, host: &'a str) -> Self {
        Self {
            direction: Direction::Outbound,
            port,
            subset,
            host,
        }
    }

    /// Name of the cluster of a port of the workload itself.
    pub fn inbound(port: u32) -> Self {
        Self {
            direction: Direction::Inbound,
            port,
            subset: "",
            host: "",
        }
    }

    /// Takes a name apart; `None` for names of another form.
    pub fn parse(name: &'a str) -> Option<Self> {
        let mut parts = name.splitn(4, '|');
        let direction = match parts.next()? {
            "inbound" => Direction::Inbound,
            "outbound" => Direction::Outbound,
            _ => return None,
        };
        let port = parts.next()?.parse().ok()?;
        Some(Self {
            direction,
            port,
            subset: parts.next()?,
            host: parts.next()?,
        })
    }

    /// Takes a name apart that has the form of a server name; `None` for names of another form.
    pub fn parse_server_name(name: &'a str) -> Option<Self> {
        let mut parts = name.strip_prefix("outbound_.")?.splitn(3, "_.");
        let port = parts.next()?.parse().ok()?;
        Some(Self::outbound(port, parts.next()?, parts.next()?))
    }

    /// The form that can be a server name: `outbound_.8000_.v1_.httpbin.default.svc.cluster.local`.
    pub fn server_name(&self) -> String {
        format!("outbound_.{}_.{}_.{}", self.port, self.subset, self.host)
    }
}

impl fmt::Display for ClusterName<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = match self.direction {
            Direction::Inbound => "inbound",
            Direction::Outbound => "outbound",
        };
        write!(
            formatter,
            "{direction}|{}|{}|{}",
            self.port, self.subset, self.host
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_names_round_trip() {
        let check = |text: &str, expected: Option<ClusterName<'_>>| {
            assert_eq!(ClusterName::parse(text), expected, "{text}");
            if let Some(name) = expected {
                assert_eq!(name.to_string(), text);
            }
        };
        check(
            "outbound|80|v1|a.b.svc.cluster.local",
            Some(ClusterName::outbound(80, "v1", "a.b.svc.cluster.local")),
        );
        check("inbound|8080||", Some(ClusterName::inbound(8080)));
        check("PassthroughCluster", None);
        check("outbound|x||h", None);
    }

    #[test]
    fn server_names_round_trip() {
        for subset in ["", "v1"] {
            let name = ClusterName::outbound(80, subset, "a.b.svc.cluster.local");
            let text = name.server_name();
            assert_eq!(ClusterName::parse_server_name(&text), Some(name), "{text}");
        }
        assert_eq!(ClusterName::parse_server_name("outbound|80||a"), None);
    }
}
