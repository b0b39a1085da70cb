//! Phases and conditions for given containers.

use super::*;

fn pod() -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "lab"},
        "spec": {
            "initContainers": [{"name": "init", "image": "i"},
                               {"name": "side", "image": "s", "restartPolicy": "Always"}],
            "containers": [{"name": "app", "image": "a"}],
        },
    }))
    .unwrap()
}

fn end(code: i32) -> Phase {
    Phase::Terminated(Terminated {
        code,
        reason: "Completed".into(),
        message: None,
        started: None,
        finished: Timestamp::now(),
        id: "x".into(),
    })
}

fn condition(status: &Value, kind: &str) -> String {
    let conditions = status["conditions"].as_array().unwrap();
    let found = conditions
        .iter()
        .find(|condition| condition["type"] == kind)
        .unwrap();
    found["status"].as_str().unwrap().to_owned()
}

#[test]
fn the_phase_follows_the_containers() {
    let pod = pod();
    let mut state = PodState::new(&pod, Ipv4Addr::LOCALHOST);
    assert_eq!(state.phase(), "Pending");
    state.records[0].phase = end(0);
    state.records[1].started = true;
    state.records[1].ready = true;
    assert_eq!(state.phase(), "Pending");
    state.records[2].phase = Phase::Running {
        since: Timestamp::now(),
    };
    assert_eq!(state.phase(), "Running");
    assert_eq!(condition(&state.status(&pod), "Ready"), "False");
    state.records[2].ready = true;
    assert_eq!(condition(&state.status(&pod), "Ready"), "True");
    state.records[2].phase = end(1);
    assert_eq!(state.phase(), "Running", "it will be restarted");
    state.records[2].finished = true;
    assert_eq!(state.phase(), "Failed");
    state.records[2].phase = end(0);
    assert_eq!(state.phase(), "Succeeded");
    assert_eq!(condition(&state.status(&pod), "Ready"), "False");
}

#[test]
fn an_init_container_that_did_its_work_is_ready() {
    let pod = pod();
    let mut state = PodState::new(&pod, Ipv4Addr::LOCALHOST);
    for (phase, ready) in [(end(1), false), (end(0), true)] {
        state.records[0].phase = phase;
        let status = state.status(&pod);
        assert_eq!(status["initContainerStatuses"][0]["ready"], ready);
    }
}

#[test]
fn a_failed_init_container_that_is_not_retried_fails_the_pod() {
    let mut state = PodState::new(&pod(), Ipv4Addr::LOCALHOST);
    state.records[0].phase = end(1);
    assert_eq!(state.phase(), "Pending");
    state.records[0].finished = true;
    assert_eq!(state.phase(), "Failed");
}

#[test]
fn a_pod_of_an_earlier_life_counts_as_restarted() {
    let mut pod = pod();
    let mut first = PodState::new(&pod, Ipv4Addr::LOCALHOST);
    first.records[2].phase = Phase::Running {
        since: Timestamp::now(),
    };
    first.records[2].restarts = 2;
    first.records[2].id = "lateen://1".into();
    pod.status = Some(serde_json::from_value(first.status(&pod)).unwrap());
    let again = PodState::new(&pod, Ipv4Addr::LOCALHOST);
    assert_eq!(again.records[2].restarts, 3);
    assert_eq!(again.records[2].last.as_ref().unwrap().reason, "Unknown");
    assert_eq!(again.records[0].restarts, 0);
}
