//! The lab and the canary on their original manifests, unmodified, with fortio. Built only with the feature `oracles`, since
//! the manifests are not part of the project: `LATEEN_SEED_MANIFESTS` names their folder; fortio must be in `PATH`.

mod support;

use std::path::PathBuf;

use support::account::Account;
use support::canary;
use support::lab::{Lab, Scenario, Step};
use support::mesh::Mesh;

fn folder(name: &str) -> PathBuf {
    let folder = std::env::var_os("LATEEN_SEED_MANIFESTS").expect("LATEEN_SEED_MANIFESTS");
    PathBuf::from(folder).join(name)
}

fn manifests(step: Step) -> Vec<PathBuf> {
    let files: &[&str] = match step {
        Step::Gateway => &["01-create-gateway-virtual-service.yaml"],
        Step::AllV1 => &[
            "02-create-destination-rules.yaml",
            "03-create-reviews-virtual-service.yaml",
        ],
        Step::Jason => &["04-create-reviews-user-virtual-service.yaml"],
        Step::Half => &["05-apply-weight-based-routing.yaml"],
        Step::AllV3 => &["06-apply-total-weight-based-routing.yaml"],
        Step::Delay => &["07-inject-fault-user-trafficdelay.yaml"],
        Step::Abort => &["08-inject-fault-user-aborttest.yaml"],
        Step::Echo => &["10-apply-tcpecho-v1-routealltraffic.yaml"],
        Step::EchoShift => &["11-apply-tcpecho-v1-route20traffic.yaml"],
        Step::SlowRatings => &[
            "12-create-reviews-route-requests.yaml",
            "13-apply-ratings-2secdelay.yaml",
        ],
        Step::Impatient => &["14-apply-reviews-0.5sectimeout.yaml"],
        Step::Breaker => &["16-create-httpbin-destination-rule.ymal"],
        Step::HttpbinV1 => &["21-route-httpbin-alltraffic-v1.yaml"],
        Step::Mirror => &["later-commits-not-in-seed/22-route-httpbin-alltraffic-v2.yaml"],
    };
    files
        .iter()
        .map(|file| folder("004-learn-istio").join(file))
        .collect()
}

#[test]
fn the_lab_works_on_its_original_manifests() {
    let mesh = Mesh::up(Account::root(), &[]);
    let namespace = "istio-lab";
    mesh.kubectl(&["create", "namespace", namespace]);
    mesh.kubectl(&["label", "namespace", namespace, "istio-injection=enabled"]);
    let mut workloads = vec![folder(
        "istio-samples/1.1.2/bookinfo/platform/kube/bookinfo.yaml",
    )];
    for file in [
        "09-create-tcpecho-service.yaml",
        "15-create-httpbin-service.yaml",
        "17-create-client-fortio.yaml",
        "18-deploy-httpbin-v1.yaml",
        "19-deploy-httpbin-v2.yaml",
        "20-deploy-httpbin-sleep.yaml",
    ] {
        workloads.push(folder("004-learn-istio").join(file));
    }
    for file in workloads {
        mesh.apply(
            namespace,
            &std::fs::read_to_string(file).expect("a manifest"),
        );
    }
    let scenario = Scenario {
        store: namespace,
        echo: namespace,
        httpbin: namespace,
        step: manifests,
        fortio: true,
    };
    Lab {
        mesh: &mesh,
        scenario: &scenario,
    }
    .run();
    mesh.down();
}

#[test]
fn the_canary_works_on_its_original_manifests() {
    let mesh = Mesh::up(Account::root(), &[]);
    mesh.kubectl(&["label", "namespace", "default", "istio-injection=enabled"]);
    let shown = folder("002-flask/as-shown-in-seed");
    canary::Canary {
        mesh: &mesh,
        namespace: "default",
        workloads: vec![folder("002-flask/repo/kubernetes.yaml")],
        gateway: vec![shown.join("01-gateway-and-virtualservice.yaml")],
        tenth: vec![folder("002-flask/repo/canary_ingress.yaml")],
        half: vec![shown.join("03-canary-50-50-virtualservice.yaml")],
    }
    .run();
    mesh.down();
}
