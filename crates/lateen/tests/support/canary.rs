//! The session that the canary scenario describes, row by row (`docs/scenarios.md` says what the rows are).

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::rows;

use super::eventually;
use super::forward::{Forward, Speech};
use super::mesh::{Answer, Mesh, finish};

const HOST: &str = "Host: flask.example.com";

/// The scenario on a running mesh.
pub struct Canary<'a> {
    pub mesh: &'a Mesh,
    pub namespace: &'static str,
    /// The front end's first version, and the back end.
    pub workloads: Vec<PathBuf>,
    /// The gateway, and the route to the front end.
    pub gateway: Vec<PathBuf>,
    /// The second version with a tenth of the requests.
    pub tenth: Vec<PathBuf>,
    /// The second version with half of them.
    pub half: Vec<PathBuf>,
}

impl Canary<'_> {
    /// All rows, in the order of the scenario.
    pub fn run(&self) {
        self.apply(&self.workloads);
        self.apply(&self.gateway);
        rows!(self;
            one_host_and_two_paths_are_served_f02_f12_f13,
            a_service_is_reached_by_port_forward_f118,
            weights_divide_requests_of_one_connection_f40,
            calls_inside_the_mesh_are_not_weighted_f06,
            weights_change_under_load_f41_f98,
        );
    }

    /// F02, F12, F13: one host, also with a port, and two paths; others get 404 from the gateway.
    fn one_host_and_two_paths_are_served_f02_f12_f13(&self) {
        for name in ["flaskfrontend", "flaskbackend"] {
            self.rolled_out(name);
        }
        eventually("the page", Duration::from_secs(20), || {
            let answer = self.get(&["-H", HOST], "/home");
            match answer.status {
                200 => Ok(()),
                _ => Err(format!("{answer:?}")),
            }
        });
        let with_port = "Host: flask.example.com:31688";
        for (arguments, path, status, body) in [
            (&["-H", HOST][..], "/home", 200, "testing v1"),
            (&["-H", HOST], "/homes", 404, "flaskfrontend has no page"),
            (&["-H", HOST], "/list", 200, "A Fire Upon the Deep"),
            (&["-H", HOST], "/list", 200, "<td>Merc</td>"),
            (&["-H", with_port], "/home", 200, "testing v1"),
            (&["-H", HOST], "/", 404, ""),
            (&["-H", "Host: other.example.com"], "/home", 404, ""),
            (&[], "/home", 404, ""),
        ] {
            let answer = self.get(arguments, path);
            assert_eq!(answer.status, status, "{arguments:?} {path} {answer:?}");
            assert!(
                answer.body.contains(body),
                "{arguments:?} {path} {answer:?}"
            );
            assert_eq!(
                answer.body.is_empty(),
                body.is_empty(),
                "{arguments:?} {path}"
            );
        }
        let head = self.get(&["-I", "-H", HOST], "/list");
        assert_eq!((head.status, head.body.as_str()), (200, ""), "{head:?}");
        assert_eq!(head.header("server"), Some("istio-envoy"));
        assert_eq!(
            head.header("content-type"),
            Some("text/html; charset=utf-8")
        );
        assert!(
            head.header("x-envoy-upstream-service-time").is_some(),
            "{head:?}"
        );
    }

    /// F118: a service is reached by port-forward, by old and new kubectl.
    fn a_service_is_reached_by_port_forward_f118(&self) {
        for speech in Speech::BOTH {
            let target = "svc/flaskfrontend";
            let forward = Forward::start(self.mesh, speech, self.namespace, target, 5000);
            // The page, and where its tab leads to, which asks the back end.
            for (path, part) in [("/", "Home"), ("/", "/list"), ("/list", "<td>Merc</td>")] {
                let answer = self.mesh.curl(&[&format!("{}{path}", forward.url)]);
                assert_eq!(answer.status, 200, "{speech:?} {path} {answer:?}");
                assert!(answer.body.contains(part), "{speech:?} {path} {answer:?}");
            }
        }
    }

    /// F40: one request in ten, also on one connection.
    fn weights_divide_requests_of_one_connection_f40(&self) {
        self.apply(&self.tenth);
        self.rolled_out("flaskfrontend-v2");
        eventually(
            "the second version",
            Duration::from_secs(20),
            || match self.requests(50).1 {
                0 => Err("only the first version answers".to_owned()),
                _ => Ok(()),
            },
        );
        let (first, second) = self.requests(1000);
        assert_eq!(first + second, 1000);
        // Five standard deviations.
        assert!((52..=148).contains(&second), "{second} of 1000 at a tenth");
    }

    /// F06: rules bound to the gateway leave calls inside the mesh alone.
    fn calls_inside_the_mesh_are_not_weighted_f06(&self) {
        let script = "curl -s 'http://flaskfrontend:5000/home?[1-100]'";
        let printed = self.mesh.in_pod(self.namespace, true, script);
        let second = printed.matches("testing v2").count();
        assert!(
            (25..=75).contains(&second),
            "{second} of 100 inside the mesh"
        );
    }

    /// F41, F98: other weights while requests go on: none fails.
    fn weights_change_under_load_f41_f98(&self) {
        let url = format!("{}/home", self.mesh.gateway());
        let mut load = Command::new("hey");
        load.args(["-z", "6s", "-c", "10", "-host", "flask.example.com", &url]);
        let load = std::thread::scope(|scope| {
            let load = scope.spawn(move || finish(load, None));
            std::thread::sleep(Duration::from_secs(2));
            self.apply(&self.half);
            load.join().expect("hey ended")
        });
        let report = load.stdout;
        let codes = report
            .split("Status code distribution:")
            .nth(1)
            .expect("codes");
        let codes: Vec<_> = codes
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect();
        assert!(
            codes.len() == 1 && codes[0].starts_with("[200]"),
            "{report}"
        );
        let (first, second) = self.requests(1000);
        assert_eq!(first + second, 1000);
        assert!((420..=580).contains(&second), "{second} of 1000 at a half");
    }

    /// Requests on one connection; how many each version answered.
    fn requests(&self, count: usize) -> (usize, usize) {
        let mut command = Command::new("curl");
        let url = format!("{}/home?[1-{count}]", self.mesh.gateway());
        command.args(["-s", "-H", HOST, &url]);
        let pages = finish(command, None).stdout;
        (
            pages.matches("testing v1").count(),
            pages.matches("testing v2").count(),
        )
    }

    fn get(&self, arguments: &[&str], path: &str) -> Answer {
        let url = format!("{}{path}", self.mesh.gateway());
        self.mesh.curl(&[arguments, &[&url]].concat())
    }

    fn apply(&self, files: &[PathBuf]) {
        for file in files {
            let text = std::fs::read_to_string(file).expect("a manifest");
            self.mesh.apply(self.namespace, &text);
        }
    }

    fn rolled_out(&self, name: &str) {
        let deployment = format!("deployment/{name}");
        self.mesh.kubectl(&[
            "-n",
            self.namespace,
            "rollout",
            "status",
            &deployment,
            "--timeout=60s",
        ]);
    }
}
