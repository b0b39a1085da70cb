//! The lab that the book store, the TCP echo and httpbin make up, row by row (`docs/scenarios.md` says what the rows are).
//!
//! It runs on the project's own samples and, where they are at hand, on the lab's original manifests: the same claims must
//! hold on both.

mod echo;
mod httpbin;
mod store;

use std::path::PathBuf;
use std::time::Duration;

use crate::rows;

use super::eventually;
use super::mesh::Mesh;

const SECONDS: fn(u64) -> Duration = Duration::from_secs;

/// A change of the configuration that the lab makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The store's page at the gateway.
    Gateway,
    /// Subsets, and every service at v1.
    AllV1,
    /// Reviews v2 for jason.
    Jason,
    /// Half of the visits to v1 and v3 of reviews.
    Half,
    /// All to v3 of reviews.
    AllV3,
    /// Ratings late for jason: longer than the page waits.
    Delay,
    /// Ratings fail for jason.
    Abort,
    /// Reviews v2, and ratings two seconds late for everyone.
    SlowRatings,
    /// Reviews may take half a second.
    Impatient,
    /// TCP at the gateway, to v1.
    Echo,
    /// One connection in five to v2.
    EchoShift,
    /// One connection and one waiting request to httpbin.
    Breaker,
    /// All to v1 of httpbin.
    HttpbinV1,
    /// And a copy to v2.
    Mirror,
}

/// What differs between the samples and the original.
pub struct Scenario {
    /// Namespaces of the store, the echo and httpbin.
    pub store: &'static str,
    pub echo: &'static str,
    pub httpbin: &'static str,
    /// The manifests of a step.
    pub step: fn(Step) -> Vec<PathBuf>,
    /// Is the load generator fortio there, or is load made with curl?
    pub fortio: bool,
}

/// A lab on a running mesh.
pub struct Lab<'a> {
    pub mesh: &'a Mesh,
    pub scenario: &'a Scenario,
}

impl Lab<'_> {
    /// All rows, in the order of the lab: each begins with what the one before left.
    pub fn run(&self) {
        rows!(self;
            pods_are_ready,
            nothing_answers_before_the_gateway_f04,
            paths_are_routed_f12_f13,
            pages_are_served_by_every_address_f92_f93,
            every_version_answers_without_rules_f23,
            one_version_alone_f24,
            the_user_decides_f14_f15,
            a_delay_meets_the_pages_timeouts_f50,
            an_abort_leaves_reviews_without_stars_f51,
            weights_divide_visits_f42,
            all_visits_move_f43,
            slow_ratings_delay_the_page_f52,
            a_timeout_ends_slow_calls_f60,
            tcp_goes_to_one_version_f44_f46,
            tcp_is_divided_by_connection_f45,
            limits_open_the_circuit_f70_f72_f73,
            all_requests_are_logged_by_one_version_f80_f105,
            copies_reach_the_other_version_f81,
            headers_are_added_on_the_way_f94,
        );
    }

    fn namespace(&self, step: Step) -> &'static str {
        match step {
            Step::Echo | Step::EchoShift => self.scenario.echo,
            Step::Breaker | Step::HttpbinV1 | Step::Mirror => self.scenario.httpbin,
            _ => self.scenario.store,
        }
    }

    /// Applies the manifests of a step.
    fn apply(&self, step: Step) {
        for file in (self.scenario.step)(step) {
            let text = std::fs::read_to_string(&file).expect("a manifest");
            self.mesh.apply(self.namespace(step), &text);
        }
    }

    fn pods_are_ready(&self) {
        for namespace in [
            self.scenario.store,
            self.scenario.echo,
            self.scenario.httpbin,
        ] {
            eventually(&format!("pods of {namespace}"), SECONDS(60), || {
                let arguments = ["-n", namespace, "get", "pods", "--no-headers"];
                let pods = self.mesh.kubectl(&arguments);
                let ready = |line: &str| line.contains("2/2") && line.contains("Running");
                if !pods.is_empty() && pods.lines().all(ready) {
                    Ok(())
                } else {
                    Err(pods)
                }
            });
        }
    }

    /// Runs a program in a container and returns what it prints, reports on standard error included; it must succeed.
    fn execute(&self, workload: &str, container: &str, program: &[&str]) -> String {
        let namespace = self.scenario.httpbin;
        let exec = ["-n", namespace, "exec", workload, "-c", container, "--"];
        let done = self.mesh.kubectl_with(&[&exec, program].concat(), None);
        assert_eq!(done.code, 0, "{program:?}: {done:?}");
        done.stdout + &done.stderr
    }
}

/// Checks that a count is near what its probability says: within five standard deviations.
fn near(count: usize, draws: usize, probability: f64, what: &str) {
    let (count, draws) = (count as f64, draws as f64);
    let expected = draws * probability;
    let allowed = 5.0 * (draws * probability * (1.0 - probability)).sqrt();
    assert!(
        (count - expected).abs() <= allowed,
        "{what}: {count} of {draws}, expected {expected} within {allowed:.0}"
    );
}
