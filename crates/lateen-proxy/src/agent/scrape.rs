//! The application's metrics, merged with the proxy's at `/stats/prometheus` of the status port.
//!
//! Injection moves the pod's `prometheus.io/*` annotations here (`ISTIO_PROMETHEUS_ANNOTATIONS`), so that one scrape of
//! the pod has both.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, header};
use serde::Deserialize;
use tokio::time::timeout;

use super::http_get::Get;

/// Longest time for one target.
const TIME: Duration = Duration::from_secs(10);
/// Largest answer of one target, in bytes.
const MAX_BODY: usize = 64 << 20;
/// Most targets of a pod.
const MAX_TARGETS: usize = 16;
/// End of a document in the OpenMetrics format.
const END: &str = "# EOF";
/// What Prometheus says about its own patience.
const PATIENCE: HeaderName = HeaderName::from_static("x-prometheus-scrape-timeout-seconds");

/// Why metrics of the application cannot be merged.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScrapeError {
    #[error("ISTIO_PROMETHEUS_ANNOTATIONS is not valid JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("ISTIO_PROMETHEUS_ANNOTATIONS: `{0}` is not a port")]
    Port(String),
    #[error("ISTIO_PROMETHEUS_ANNOTATIONS: port {0} is the proxy's own")]
    Own(u16),
    #[error("ISTIO_PROMETHEUS_ANNOTATIONS has more than {MAX_TARGETS} targets")]
    TooMany,
}

/// Where the application serves its metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scrape {
    targets: Vec<(u16, String)>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Annotations {
    scrape: String,
    path: String,
    port: String,
    targets: Vec<Target>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Target {
    port: String,
    path: String,
}

impl Scrape {
    /// Reads the environment's JSON; `None` when the pod is not to be scraped. `own` are ports of the proxy, whose
    /// metrics would count twice or for ever.
    pub(crate) fn parse(text: &str, own: &[u16]) -> Result<Option<Self>, ScrapeError> {
        let mut annotations: Annotations = serde_json::from_str(text)?;
        if annotations.scrape == "false" {
            return Ok(None);
        }
        if annotations.targets.is_empty() {
            let or = |text: String, usual: &str| {
                if text.is_empty() {
                    usual.to_owned()
                } else {
                    text
                }
            };
            annotations.targets.push(Target {
                port: or(annotations.port, "80"),
                path: annotations.path,
            });
        }
        if annotations.targets.len() > MAX_TARGETS {
            return Err(ScrapeError::TooMany);
        }
        let mut targets = Vec::new();
        for Target { port, path } in annotations.targets {
            let number = port.parse().ok().filter(|number| *number > 0);
            let number: u16 = number.ok_or(ScrapeError::Port(port))?;
            if own.contains(&number) {
                return Err(ScrapeError::Own(number));
            }
            let path = match path.as_str() {
                "" => "/metrics".to_owned(),
                path => format!("/{}", path.trim_start_matches('/')),
            };
            targets.push((number, path));
        }
        Ok(Some(Self { targets }))
    }

    /// Adds the application's metrics to the proxy's. A target that fails is left out. Returns the content type of
    /// the whole when an application chose one.
    pub(crate) async fn merge(&self, asked: &HeaderMap, into: &mut String) -> Option<String> {
        let mut content_type = None;
        let mut ended = false;
        for (port, path) in &self.targets {
            match timeout(TIME, self.get(*port, path, asked)).await {
                Ok(Ok((body, kind))) => {
                    let text = String::from_utf8_lossy(&body);
                    let text = text.trim_end();
                    let open = text.ends_with(END);
                    ended |= open;
                    into.push_str(text.trim_end_matches(END).trim_end());
                    into.push('\n');
                    content_type = content_type.or(kind);
                }
                Ok(Err(error)) => tracing::debug!(port, path, %error, "application not scraped"),
                Err(_) => {
                    tracing::debug!(port, path, "application did not answer a scrape in time")
                }
            }
        }
        if ended {
            into.push_str("# EOF\n");
        }
        content_type
    }

    async fn get(
        &self,
        port: u16,
        path: &str,
        asked: &HeaderMap,
    ) -> std::io::Result<(Bytes, Option<String>)> {
        let mut headers = HeaderMap::new();
        for name in [header::ACCEPT, PATIENCE] {
            if let Some(value) = asked.get(&name) {
                headers.insert(name, value.clone());
            }
        }
        let answer = Get {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            from: None,
            tls: false,
            path,
            headers,
            limit: MAX_BODY,
        }
        .send()
        .await?;
        if !answer.status.is_success() {
            return Err(std::io::Error::other(format!("status {}", answer.status)));
        }
        let kind = answer.headers.get(header::CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).map(str::to_owned);
        Ok((answer.body, kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_say_what_is_scraped() {
        let parse = |text: &str| Scrape::parse(text, &[15020]);
        let check = |text: &str, expected: Option<&[(u16, &str)]>| {
            let found = parse(text).unwrap().map(|scrape| scrape.targets);
            let expected = expected.map(|targets| {
                targets
                    .iter()
                    .map(|(port, path)| (*port, (*path).to_owned()))
                    .collect::<Vec<_>>()
            });
            assert_eq!(found, expected, "{text}");
        };
        check("{}", Some(&[(80, "/metrics")]));
        check(r#"{"scrape":"false"}"#, None);
        check(
            r#"{"scrape":"true","port":"9080","path":"m"}"#,
            Some(&[(9080, "/m")]),
        );
        check(
            r#"{"targets":[{"port":"1"},{"port":"2","path":"/x"}]}"#,
            Some(&[(1, "/metrics"), (2, "/x")]),
        );
        for text in [
            "x",
            r#"{"port":"http"}"#,
            r#"{"port":"0"}"#,
            r#"{"port":"015020"}"#,
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
