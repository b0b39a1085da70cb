//! The lab on the project's own samples, from the first command to the last, as an ordinary user.

mod support;

use std::path::{Path, PathBuf};

use support::account::Account;
use support::lab::{Lab, Scenario, Step};
use support::mesh::Mesh;

const SAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../samples");

fn manifests(step: Step) -> Vec<PathBuf> {
    let files: &[&str] = match step {
        Step::Gateway => &["bookinfo/gateway"],
        Step::AllV1 => &["bookinfo/steps/1-all-v1"],
        Step::Jason => &["bookinfo/steps/2-jason-sees-v2"],
        Step::Delay => &["bookinfo/steps/3-delay-for-jason"],
        Step::Abort => &["bookinfo/steps/4-abort-for-jason"],
        Step::Half => &["bookinfo/steps/5-half-to-v3"],
        Step::AllV3 => &["bookinfo/steps/6-all-to-v3"],
        Step::SlowRatings => &["bookinfo/steps/7-slow-ratings"],
        Step::Impatient => &["bookinfo/steps/8-impatient-reviews"],
        Step::Echo => &["tcp-echo/gateway"],
        Step::EchoShift => &["tcp-echo/steps/1-20-to-v2"],
        Step::Breaker => &["httpbin/steps/1-circuit-breaker"],
        Step::HttpbinV1 => &["httpbin/steps/2-all-to-v1"],
        Step::Mirror => &["httpbin/steps/3-mirror-to-v2"],
    };
    files.iter().map(|file| sample(file)).collect()
}

fn sample(name: &str) -> PathBuf {
    Path::new(SAMPLES).join(format!("{name}.yaml"))
}

#[test]
fn the_lab_works_on_the_samples() {
    let files = ["bookinfo/bookinfo", "tcp-echo/echo", "httpbin/httpbin"].map(sample);
    let files = files.each_ref().map(PathBuf::as_path);
    let mesh = Mesh::up(Account::ordinary(), &files);
    let scenario = Scenario {
        store: "bookinfo",
        echo: "tcp-echo",
        httpbin: "httpbin",
        step: manifests,
        fortio: false,
    };
    Lab {
        mesh: &mesh,
        scenario: &scenario,
    }
    .run();
    mesh.down();
}
