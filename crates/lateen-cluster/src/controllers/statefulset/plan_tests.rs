use serde_json::{Value, json};

use super::*;
use crate::controllers::meta::now;

fn target(name: &str) -> Target {
    Target {
        name: name.to_owned(),
        template: serde_json::from_value(json!({"spec": {"containers": []}})).unwrap(),
    }
}

/// A pod from a text such as `2 old ready`: its number, its revision (`old` or `new`), and its state: `ready`, `starting`,
/// `failed`, `leaving` (while ready) or `unlabelled` (ready, without its labels).
fn pod(text: &str) -> Pod {
    let [number, revision, state]: [&str; 3] = text
        .split(' ')
        .collect::<Vec<_>>()
        .try_into()
        .expect("number, revision and state");
    let name = format!("web-{number}");
    let phase = match state {
        "starting" => "Pending",
        "failed" => "Failed",
        _ => "Running",
    };
    let ready = if phase == "Running" { "True" } else { "False" };
    let mut pod = json!({
        "metadata": {"name": name, "labels": {"controller-revision-hash": revision,
            "statefulset.kubernetes.io/pod-name": name}},
        "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready,
            "lastTransitionTime": now()}]},
    });
    match state {
        "leaving" => pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"),
        "unlabelled" => {
            pod["metadata"]["labels"] = json!({"controller-revision-hash": revision});
        }
        _ => {}
    }
    serde_json::from_value(pod).unwrap()
}

/// A step as `+2 old`, `-2` or `=2`.
fn show(step: &Step<'_>) -> String {
    let name = |pod: &Pod| {
        let name = pod.metadata.name.clone().unwrap_or_default();
        name.trim_start_matches("web-").to_owned()
    };
    match step {
        Step::Create(pod) => format!("+{} {}", name(pod), revision_of(pod)),
        Step::Delete(pod) => format!("-{}", name(pod)),
        Step::Label(pod, _) => format!("={}", name(pod)),
    }
}

/// The steps of a set with three replicas that is updated to the revision `new`, all parts together.
fn check(spec: Value, pods: &[&str], expected: &[&str]) {
    let mut object = json!({"metadata": {"name": "web"}, "spec": {
        "replicas": 3, "selector": {}, "template": {}, "podManagementPolicy": "OrderedReady",
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
    }});
    json_patch::merge(&mut object["spec"], &spec);
    let set: StatefulSet = serde_json::from_value(object).unwrap();
    let made: Vec<Pod> = pods.iter().map(|text| pod(text)).collect();
    let old = pods.iter().filter(|text| text.contains("old")).count();
    let (current, update) = (target("old"), target("new"));
    let plan = Plan::new(&set, &made, &current, &update, i32::try_from(old).unwrap());
    let steps = plan.steps();
    let all: Vec<String> = [&steps.replicas, &steps.surplus, &steps.update]
        .into_iter()
        .flatten()
        .map(show)
        .collect();
    assert_eq!(all, expected, "{spec} with {pods:?}");
}

const NOTHING: &[&str] = &[];

#[test]
fn pods_are_made_one_after_the_other() {
    let ordered = || json!({});
    check(ordered(), &[], &["+0 new"]);
    check(ordered(), &["0 new starting"], NOTHING);
    check(ordered(), &["0 new ready"], &["+1 new"]);
    check(json!({"minReadySeconds": 60}), &["0 new ready"], NOTHING);
    check(ordered(), &["0 new leaving", "1 new ready"], NOTHING);
    check(ordered(), &["1 new ready", "2 new ready"], &["+0 new"]);
    check(
        json!({"ordinals": {"start": 4}}),
        &["4 new ready"],
        &["+5 new"],
    );
    check(
        ordered(),
        &["0 new ready", "1 new ready", "2 new ready"],
        NOTHING,
    );
    check(ordered(), &["0 new unlabelled"], &["=0", "+1 new"]);
}

#[test]
fn parallel_pods_do_not_wait_for_each_other() {
    let parallel = |more: Value| {
        let mut spec = json!({"podManagementPolicy": "Parallel"});
        json_patch::merge(&mut spec, &more);
        spec
    };
    check(parallel(json!({})), &[], &["+0 new", "+1 new", "+2 new"]);
    let pods = [
        "0 new starting",
        "1 new failed",
        "3 new ready",
        "4 new starting",
    ];
    check(parallel(json!({})), &pods, &["-1", "+2 new", "-4", "-3"]);
    check(
        parallel(json!({"replicas": 0})),
        &pods,
        &["-4", "-3", "-1", "-0"],
    );
}

#[test]
fn pods_that_ended_are_made_anew() {
    check(
        json!({}),
        &["0 new ready", "1 new failed", "2 new ready"],
        &["-1"],
    );
    check(json!({}), &["0 new ready", "2 new ready"], &["+1 new"]);
}

#[test]
fn surplus_pods_go_from_the_highest_number() {
    let one = || json!({"replicas": 1});
    check(
        one(),
        &["0 new ready", "1 new ready", "2 new ready"],
        &["-2"],
    );
    check(
        one(),
        &["0 new ready", "1 new ready", "2 new leaving"],
        NOTHING,
    );
    check(
        one(),
        &["0 new starting", "1 new ready", "2 new ready"],
        NOTHING,
    );
    // One that is down holds the others back until it is the highest itself.
    check(
        one(),
        &["0 new ready", "1 new starting", "2 new ready"],
        &["-2"],
    );
    check(
        one(),
        &["0 new ready", "1 new starting", "2 new starting"],
        NOTHING,
    );
    check(one(), &["0 new ready", "1 new starting"], &["-1"]);
    check(
        json!({"replicas": 1, "ordinals": {"start": 1}}),
        &["0 new ready", "1 new ready"],
        &["-0"],
    );
}

#[test]
fn updates_go_from_the_highest_number_down_to_the_partition() {
    let from =
        |partition: i32| json!({"updateStrategy": {"rollingUpdate": {"partition": partition}}});
    check(
        from(0),
        &["0 old ready", "1 old ready", "2 old ready"],
        &["-2"],
    );
    check(
        from(0),
        &["0 old ready", "1 old ready", "2 old leaving"],
        NOTHING,
    );
    check(from(0), &["0 old ready", "1 old ready"], &["+2 new"]);
    check(
        from(0),
        &["0 old ready", "1 old ready", "2 new starting"],
        NOTHING,
    );
    check(
        from(0),
        &["0 old ready", "1 old ready", "2 new ready"],
        &["-1"],
    );
    check(
        from(2),
        &["0 old ready", "1 old ready", "2 new ready"],
        NOTHING,
    );
    check(from(2), &["0 old ready", "2 new ready"], &["+1 old"]);
    check(
        from(9),
        &["0 old ready", "1 old ready", "2 old ready"],
        NOTHING,
    );
    // Without a partition the revision of a missing pod is told by how many are not updated yet.
    let plain = || json!({"updateStrategy": {"rollingUpdate": null}});
    check(plain(), &["0 old ready", "1 old ready"], &["+2 new"]);
    check(plain(), &["1 old ready", "2 new ready"], &["+0 old"]);
    check(
        plain(),
        &["0 old ready", "1 old ready", "2 old ready"],
        &["-2"],
    );
}

#[test]
fn more_than_one_pod_may_be_down_if_the_set_allows_it() {
    let pods = ["0 old ready", "1 old ready", "2 old ready"];
    for (most, expected) in [
        (json!(1), &["-2"] as &[&str]),
        (json!(2), &["-2", "-1"]),
        (json!("70%"), &["-2", "-1"]),
        (json!("10%"), &["-2"]),
        (json!(9), &["-2", "-1", "-0"]),
    ] {
        let spec = json!({"updateStrategy": {"rollingUpdate": {"maxUnavailable": most}}});
        check(spec, &pods, expected);
    }
    let two = json!({"podManagementPolicy": "Parallel",
        "updateStrategy": {"rollingUpdate": {"maxUnavailable": 2, "partition": 1}}});
    check(two.clone(), &pods, &["-2", "-1"]);
    check(
        two.clone(),
        &["0 old ready", "1 old ready", "2 new starting"],
        &["-1"],
    );
    check(
        two,
        &["0 old ready", "1 old starting", "2 new starting"],
        NOTHING,
    );
}

#[test]
fn updates_on_deletion_wait_for_it() {
    let on_delete = || json!({"updateStrategy": {"type": "OnDelete", "rollingUpdate": null}});
    check(
        on_delete(),
        &["0 old ready", "1 old ready", "2 old ready"],
        NOTHING,
    );
    check(on_delete(), &["0 old ready", "1 old ready"], &["+2 new"]);
    check(on_delete(), &["0 old ready", "2 old ready"], &["+1 new"]);
}
