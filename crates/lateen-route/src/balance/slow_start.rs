//! Slow start: a new endpoint gets a share of its weight that grows with its age.

use std::time::Duration;

/// Shortest age that counts, so that a new endpoint has some share at once.
const SHORTEST: Duration = Duration::from_millis(1);

/// How the share of a new endpoint grows. Envoy's `Cluster.SlowStartConfig`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SlowStart {
    /// Time until an endpoint has its full share.
    pub window: Duration,
    /// 1 grows evenly, more grows faster in the beginning. Positive.
    pub aggression: f64,
    /// Smallest share, from 0 to 1.
    pub minimum: f64,
}

impl SlowStart {
    /// The share of its weight that an endpoint of this age has.
    pub fn factor(&self, age: Duration) -> f64 {
        if age >= self.window {
            return 1.0;
        }
        let elapsed = age.max(SHORTEST).as_secs_f64() / self.window.as_secs_f64();
        let grown = if self.aggression == 1.0 {
            elapsed
        } else {
            elapsed.powf(1.0 / self.aggression)
        };
        grown.max(self.minimum).min(1.0)
    }
}
