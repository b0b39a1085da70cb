//! When to renew a certificate. Pure: time and chance are the caller's.

use std::time::{Duration, SystemTime};

/// When, within a certificate's lifetime, its successor is asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Renewal {
    /// Part of the lifetime that passes first, between 0 and 1.
    pub fraction: f64,
    /// Largest part of the lifetime by which a renewal comes earlier or later, so that workloads that started
    /// together do not renew together.
    pub jitter: f64,
}

impl Default for Renewal {
    /// Half of the lifetime and 1 %, as Istio's agent (`SECRET_GRACE_PERIOD_RATIO` and its jitter).
    fn default() -> Self {
        Self {
            fraction: 0.5,
            jitter: 0.01,
        }
    }
}

impl Renewal {
    /// When to renew a certificate that is valid between the two times. `random` is uniform in `0..1`, drawn once per
    /// certificate. The answer always lies within the validity, whatever the settings; a certificate that ends
    /// before it starts is due at its start.
    pub fn due(&self, not_before: SystemTime, not_after: SystemTime, random: f64) -> SystemTime {
        let lifetime = not_after
            .duration_since(not_before)
            .unwrap_or(Duration::ZERO);
        let part = self.fraction + self.jitter * (2.0 * random - 1.0);
        // `clamp` keeps NaN, which would make the multiplication below panic.
        let part = if part.is_nan() {
            0.0
        } else {
            part.clamp(0.0, 1.0)
        };
        not_before + lifetime.mul_f64(part).min(lifetime)
    }

    /// How long to wait before the next attempt after `failures` failed ones: 1 s, doubling, at most a minute and
    /// at most a tenth of what is left of the certificate, so that several attempts fit in before it ends.
    pub fn retry(&self, failures: u32, now: SystemTime, not_after: SystemTime) -> Duration {
        let backoff = Duration::from_secs(1 << failures.saturating_sub(1).min(6)).min(LONGEST_WAIT);
        let left = not_after.duration_since(now).unwrap_or(Duration::ZERO);
        backoff.min((left / 10).max(SHORTEST_WAIT))
    }
}

/// Longest time between two attempts.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Shortest time between two attempts, which also holds when the certificate has ended.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::{Duration, Renewal, SystemTime};

    #[test]
    fn a_renewal_is_due_within_the_lifetime_around_the_fraction() {
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        for (fraction, jitter, random, seconds) in [
            (0.5, 0.0, 0.7, 500),
            (0.5, 0.1, 0.0, 400),
            (0.5, 0.1, 0.5, 500),
            (0.5, 0.1, 1.0, 600),
            (0.9, 0.5, 1.0, 1000),
            (0.1, 0.5, 0.0, 0),
            (f64::NAN, 0.1, 0.0, 0),
        ] {
            let due =
                Renewal { fraction, jitter }.due(start, start + Duration::from_secs(1000), random);
            let after = due.duration_since(start).unwrap();
            assert!(
                after.abs_diff(Duration::from_secs(seconds)) < Duration::from_millis(1),
                "{fraction} {jitter} {random}: {after:?}"
            );
        }
    }

    #[test]
    fn a_certificate_that_ends_before_it_starts_is_due_at_once() {
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        assert_eq!(
            Renewal::default().due(start, SystemTime::UNIX_EPOCH, 0.5),
            start
        );
    }

    #[test]
    fn attempts_come_closer_when_little_time_is_left() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        for (failures, left, wait) in [
            (1, 86_400, 1),
            (2, 86_400, 2),
            (5, 86_400, 16),
            (7, 86_400, 60),
            (1000, 86_400, 60),
            (7, 100, 10),
            (7, 5, 1),
            (7, 0, 1),
        ] {
            let waited = Renewal::default().retry(failures, now, now + Duration::from_secs(left));
            assert_eq!(waited, Duration::from_secs(wait), "{failures} {left}");
        }
    }
}
