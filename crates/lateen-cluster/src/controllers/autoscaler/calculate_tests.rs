//! The cases of the documented algorithm.

use serde_json::json;

use super::*;

/// State of a pod: what it uses, whether it is ready, its phase and its request in thousandths of a processor.
#[derive(Clone, Copy)]
struct State {
    uses: Option<i64>,
    ready: bool,
    phase: &'static str,
    requests: Option<i64>,
    deleting: bool,
    /// Seconds since its start.
    age: i64,
    /// Seconds that its readiness came after its start.
    turned_after: i64,
}

const RUNNING: State = State {
    uses: None,
    ready: true,
    phase: "Running",
    requests: Some(1000),
    deleting: false,
    age: 3600,
    turned_after: 0,
};

fn uses(amount: i64) -> State {
    State {
        uses: Some(amount),
        ..RUNNING
    }
}

fn unready(amount: i64) -> State {
    State {
        uses: Some(amount),
        ready: false,
        age: 60,
        ..RUNNING
    }
}

fn ask(
    resource: &str,
    target: Target,
    current: i32,
    states: &[State],
    default_cpu_request: Option<i64>,
) -> Result<Answer, CalculateError> {
    ask_within(
        resource,
        target,
        current,
        states,
        default_cpu_request,
        TOLERANCES,
    )
}

const TOLERANCES: Tolerances = Tolerances { up: 0.1, down: 0.1 };

fn ask_within(
    resource: &str,
    target: Target,
    current: i32,
    states: &[State],
    default_cpu_request: Option<i64>,
    tolerances: Tolerances,
) -> Result<Answer, CalculateError> {
    let now = Timestamp::from_second(1_000_000).unwrap();
    let before = |seconds: i64| now - SignedDuration::from_secs(seconds);
    let mut usage = BTreeMap::new();
    let pods: Vec<Pod> = states
        .iter()
        .enumerate()
        .map(|(index, state)| {
            let name = format!("pod-{index}");
            if let Some(amount) = state.uses {
                let window = Duration::from_secs(10);
                usage.insert(name.clone(), Usage { amount, at: now, window });
            }
            let requests = state.requests.map_or(json!({}), |amount| {
                json!({resource: format!("{amount}m")})
            });
            let ready = if state.ready { "True" } else { "False" };
            let mut pod = json!({
                "metadata": {"name": name},
                "spec": {"containers": [{"name": "main", "resources": {"requests": requests}}]},
                "status": {
                    "phase": state.phase,
                    "startTime": before(state.age).to_string(),
                    "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": before(state.age - state.turned_after).to_string()}],
                },
            });
            if state.deleting {
                pod["metadata"]["deletionTimestamp"] = json!(now.to_string());
            }
            serde_json::from_value(pod).unwrap()
        })
        .collect();
    let pods: Vec<&Pod> = pods.iter().collect();
    let question = Question {
        resource,
        container: None,
        target,
        current,
        tolerances,
        config: &AutoscalerConfig {
            default_cpu_request,
            ..AutoscalerConfig::default()
        },
        now,
    };
    calculate(&question, &pods, &usage)
}

#[test]
fn replicas_follow_the_utilization() {
    let check = |percent, current, states: &[State], replicas, utilization, average| {
        let answer = ask("cpu", Target::Utilization(percent), current, states, None);
        let expected = Answer {
            replicas,
            utilization: Some(utilization),
            average,
        };
        assert_eq!(answer, Ok(expected), "{current} replicas at {percent} %");
    };
    let all = |amounts: &[i64]| {
        amounts
            .iter()
            .map(|amount| uses(*amount))
            .collect::<Vec<_>>()
    };
    check(30, 3, &all(&[300, 500, 700]), 5, 50, 500);
    check(50, 5, &all(&[100, 300, 500, 250, 250]), 3, 28, 280);
    // Within the tolerance.
    check(100, 3, &all(&[1010, 1030, 1020]), 3, 102, 1020);
    // Unready pods count as idle when scaling up.
    check(30, 3, &[unready(300), uses(500), uses(700)], 4, 60, 600);
    check(40, 3, &[uses(400), unready(500), unready(700)], 3, 40, 400);
    let down = [uses(100), uses(300), uses(500), unready(250), unready(250)];
    check(50, 5, &down, 2, 30, 300);
    // Failed and deleted pods don't count.
    let failed = State {
        phase: "Failed",
        ..uses(900)
    };
    let deleting = State {
        deleting: true,
        ..uses(900)
    };
    check(30, 2, &[uses(500), uses(700), failed, failed], 4, 60, 600);
    check(30, 2, &[uses(500), uses(700), deleting], 4, 60, 600);
    // Missing metrics hold a change back.
    check(100, 4, &[uses(400), uses(95), RUNNING, RUNNING], 3, 24, 247);
    check(100, 2, &[uses(1000), RUNNING], 2, 100, 1000);
    check(100, 2, &[uses(1900), RUNNING], 2, 190, 1900);
    check(100, 2, &[uses(600), RUNNING], 2, 60, 600);
    check(50, 3, &[unready(100), uses(450), RUNNING], 3, 45, 450);
    check(50, 3, &[unready(100), uses(2000), RUNNING], 4, 200, 2000);
    let of = |amount, requests| State {
        requests: Some(requests),
        ..uses(amount)
    };
    // Missing pods count as wholly used when scaling down: with what is wished, where that is more than the request.
    let pods = [
        State {
            ready: false,
            age: 60,
            ..of(200, 1000)
        },
        of(100, 1000),
        of(100, 2000),
        State {
            requests: Some(2000),
            ..RUNNING
        },
    ];
    check(300, 4, &pods, 2, 6, 100);
    // A pod beyond the replicas, as while versions change, with metrics that are still to come.
    check(50, 2, &[uses(100), uses(100), RUNNING], 2, 10, 100);
    // A pod that was ready long ago and is not now does count, as its work is not that of starting.
    let broken = State {
        ready: false,
        turned_after: 1800,
        ..uses(900)
    };
    check(30, 3, &[uses(300), uses(300), broken], 5, 50, 500);
}

#[test]
fn deviations_within_the_tolerance_are_left_alone() {
    let check = |down, up, amounts: [i64; 3], replicas, utilization| {
        let states: Vec<State> = amounts
            .iter()
            .zip([900, 1000, 1100])
            .map(|(amount, request)| State {
                requests: Some(request),
                ..uses(*amount)
            })
            .collect();
        let tolerances = Tolerances { up, down };
        let target = Target::Utilization(100);
        let answer = ask_within("cpu", target, 3, &states, None, tolerances).unwrap();
        let found = (answer.replicas, answer.utilization);
        assert_eq!(
            found,
            (replicas, Some(utilization)),
            "{down} {up} {amounts:?}"
        );
    };
    check(0.0, 0.0, [909, 1010, 1111], 4, 101);
    check(0.1, 2.0, [1890, 1910, 1900], 3, 190);
    check(2.0, 0.08, [1100, 1080, 1090], 4, 109);
    check(0.36, 0.1, [660, 640, 650], 3, 65);
    check(0.34, 0.1, [660, 640, 650], 2, 65);
}

#[test]
fn requests_are_those_of_the_pod_or_of_its_containers() {
    let container = |name: &str, cpu: Option<&str>| {
        let requests = cpu.map_or(json!({}), |cpu| json!({"cpu": cpu}));
        json!({"name": name, "resources": {"requests": requests}})
    };
    let config = AutoscalerConfig::default();
    let check = |own: serde_json::Value,
                 containers: &[serde_json::Value],
                 wanted,
                 expected: Result<i64, &str>| {
        let pod = json!({
            "metadata": {"name": "pod"},
            "spec": {"resources": {"requests": own}, "containers": containers},
        });
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let question = Question {
            resource: "cpu",
            container: wanted,
            target: Target::Utilization(50),
            current: 1,
            tolerances: TOLERANCES,
            config: &config,
            now: Timestamp::UNIX_EPOCH,
        };
        let found = request(&question, &pod).map_err(|error| error.to_string());
        assert_eq!(
            found,
            expected.map_err(str::to_owned),
            "{own} {containers:?} {wanted:?}"
        );
    };
    let (one, two) = (
        container("one", Some("100m")),
        container("two", Some("50m")),
    );
    let silent = container("silent", None);
    check(json!({}), &[one.clone(), two.clone()], None, Ok(150));
    check(
        json!({"cpu": "800m"}),
        &[one.clone(), two.clone()],
        None,
        Ok(800),
    );
    check(
        json!({"cpu": "800m"}),
        &[silent.clone(), two.clone()],
        None,
        Ok(800),
    );
    check(
        json!({"cpu": "800m"}),
        &[one.clone(), two.clone()],
        Some("two"),
        Ok(50),
    );
    check(
        json!({"memory": "1Gi"}),
        &[one.clone(), silent.clone()],
        None,
        Ok(100),
    );
    check(
        json!({"memory": "1Gi"}),
        std::slice::from_ref(&silent),
        None,
        Err("missing pod-level request for cpu in Pod pod"),
    );
    check(
        json!({}),
        &[silent.clone(), two],
        None,
        Err("missing request for cpu in container silent of Pod pod"),
    );
    check(
        json!({}),
        &[one, silent],
        Some("three"),
        Err("container three not found in Pod pod"),
    );
}

#[test]
fn replicas_follow_the_average_value() {
    let check = |target, current, amounts: &[i64], replicas, average| {
        let states: Vec<State> = amounts.iter().map(|amount| uses(*amount)).collect();
        let answer = ask(
            "memory",
            Target::AverageValue(target),
            current,
            &states,
            None,
        );
        let expected = Answer {
            replicas,
            utilization: None,
            average,
        };
        assert_eq!(answer, Ok(expected), "{current} replicas at {target}");
    };
    check(15_000, 3, &[20_000, 10_000, 30_000], 4, 20_000);
    check(20_000, 3, &[12_000, 12_000, 12_000], 2, 12_000);
    check(20_000, 3, &[20_666, 20_666, 20_666], 3, 20_666);
}

#[test]
fn says_what_is_missing() {
    let half = Target::Utilization(50);
    let no_request = State {
        requests: None,
        ..uses(200)
    };
    assert_eq!(
        ask("cpu", half, 1, &[], None),
        Err(CalculateError::Selection)
    );
    assert_eq!(
        ask("cpu", half, 1, &[RUNNING], None),
        Err(CalculateError::Metrics)
    );
    assert_eq!(
        ask("cpu", half, 1, &[no_request], None).map_err(|error| error.to_string()),
        Err("missing request for cpu in container main of Pod pod-0".to_owned())
    );
    let assumed = ask("cpu", half, 1, &[no_request], Some(100)).unwrap();
    assert_eq!((assumed.replicas, assumed.utilization), (4, Some(200)));
    let memory = ask("memory", half, 1, &[no_request], Some(100));
    assert!(matches!(memory, Err(CalculateError::Request { .. })));
}
