//! Circuit breaking and mirroring, from a client inside the mesh.

use serde_json::Value;

use super::super::eventually;
use super::{Lab, SECONDS, Step};

/// Counters of the client's sidecar that the lab looks at.
const PENDING: [&str; 6] = [
    "circuit_breakers.default.rq_pending_open",
    "circuit_breakers.high.rq_pending_open",
    "upstream_rq_pending_active",
    "upstream_rq_pending_failure_eject",
    "upstream_rq_pending_overflow",
    "upstream_rq_pending_total",
];

impl Lab<'_> {
    /// F70, F72, F73: limits of connections and waiting requests; the counters match the 503s.
    pub(super) fn limits_open_the_circuit_f70_f72_f73(&self) {
        self.apply(Step::Breaker);
        eventually("the circuit opens", SECONDS(20), || {
            let (_, refused) = self.load(10, 30);
            if refused > 0 {
                Ok(())
            } else {
                Err("no request was refused".to_owned())
            }
        });
        let before = self.overflow();
        let (served, refused) = self.load(1, 20);
        assert_eq!((served, refused), (20, 0), "one caller");
        let mut all_refused = 0;
        for (callers, requests, at_least, at_most) in [(2, 20, 0, 10), (3, 30, 3, 21)] {
            let (served, refused) = self.load(callers, requests);
            let what = format!("{callers} callers: {served} served, {refused} refused");
            assert_eq!(served + refused, requests, "{what}");
            // Where every answer takes its time, callers meet each other more regularly than at full speed.
            if self.scenario.fortio {
                assert!(
                    (at_least..=at_most).contains(&refused) && served >= 9,
                    "{what}"
                );
            }
            all_refused += refused;
        }
        let (served, refused) = self.load(10, 40);
        assert!(
            refused > 0 && served > 0,
            "10 callers: {served} served, {refused} refused"
        );
        assert_eq!(self.overflow() - before, all_refused + refused);
    }

    /// F80, F105: all requests in one version's access log.
    pub(super) fn all_requests_are_logged_by_one_version_f80_f105(&self) {
        // A deployment of the original that has v1's labels, and no log.
        self.mesh.kubectl_with(
            &[
                "-n",
                self.scenario.httpbin,
                "scale",
                "deployment/httpbin",
                "--replicas=0",
            ],
            None,
        );
        self.apply(Step::HttpbinV1);
        eventually("v1 alone answers", SECONDS(30), || {
            let before = self.logged("httpbin-v1", "settling");
            self.ask(10, "settling");
            let logged = self.logged("httpbin-v1", "settling") - before;
            if logged == 10 {
                Ok(())
            } else {
                Err(format!("{logged} of 10 in v1's log"))
            }
        });
        self.ask(20, "first");
        assert_eq!(self.logged("httpbin-v1", "first"), 20);
        assert_eq!(self.logged("httpbin-v2", "first"), 0);
        let log = self.log("httpbin-v1");
        let line = log
            .lines()
            .find(|line| line.contains("first"))
            .expect("a line");
        assert!(
            line.contains("\"GET /headers?first HTTP/1.1\" 200 "),
            "{line}"
        );
        assert!(
            line.contains(" - - [") && line.contains("\"-\" \"curl/"),
            "{line}"
        );
    }

    /// F81: a copy of each request to the other version, whose answers are dropped. The copy's host has no
    /// `-shadow`, as in Istio now.
    pub(super) fn copies_reach_the_other_version_f81(&self) {
        self.apply(Step::Mirror);
        eventually("copies reach v2", SECONDS(20), || {
            self.ask(1, "settling");
            match self.logged("httpbin-v2", "settling") {
                0 => Err("nothing in v2's log".to_owned()),
                _ => Ok(()),
            }
        });
        let answers = self.ask(20, "second");
        assert_eq!(
            answers.matches("\"Host\": \"httpbin:8000\"").count(),
            20,
            "{answers}"
        );
        assert_eq!(self.logged("httpbin-v1", "second"), 20);
        // Copies are sent beside the request, so the last may be under way.
        eventually("a copy of each", SECONDS(5), || {
            match self.logged("httpbin-v2", "second") {
                20 => Ok(()),
                other => Err(format!("{other} of 20 in v2's log")),
            }
        });
    }

    /// F94: headers that the mesh adds.
    pub(super) fn headers_are_added_on_the_way_f94(&self) {
        let printed = self.sleep("curl -s -i http://httpbin:8000/headers");
        let (head, body) = printed.split_once("\r\n\r\n").expect("head and body");
        let head = head.to_lowercase();
        assert!(head.contains("server: envoy"), "{head}");
        assert!(head.contains("x-envoy-upstream-service-time: "), "{head}");
        let body: Value = serde_json::from_str(body).expect("JSON");
        let header = |name: &str| {
            body["headers"][name]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        let trace = header("X-B3-Traceid");
        assert_eq!(
            (trace.len(), header("X-B3-Spanid").len()),
            (32, 16),
            "{body}"
        );
        assert_eq!(header("X-B3-Parentspanid"), trace[16..], "{body}");
        assert_eq!(header("X-B3-Sampled"), "1", "{body}");
    }

    /// Requests of several callers at once; how many were answered with 200 and 503.
    fn load(&self, callers: usize, requests: usize) -> (usize, usize) {
        let printed = if self.scenario.fortio {
            // At full speed a request is over before the next begins, so many callers need an answer that takes time.
            let path = if callers > 3 { "delay/0.1" } else { "get" };
            let url = format!("http://httpbin:8000/{path}");
            let (callers, requests) = (callers.to_string(), requests.to_string());
            let fortio = "/usr/bin/fortio load -loglevel Warning -qps 0 -c";
            let mut words: Vec<&str> = fortio.split(' ').collect();
            words.extend([&callers, "-n", &requests, &url]);
            self.execute("deployment/fortio-deploy", "fortio", &words)
        } else {
            self.sleep(&format!(
                "curl -s -Z --parallel-immediate --parallel-max {callers} -o /dev/null -w 'Code %{{http_code}} : 1 (\\n' 'http://httpbin:8000/delay/0.1?[1-{requests}]'"
            ))
        };
        let count = |code: &str| -> usize {
            let start = format!("Code {code} : ");
            let counts = printed.lines().filter_map(|line| line.strip_prefix(&start));
            counts
                .map(|rest| {
                    rest.split(' ')
                        .next()
                        .and_then(|count| count.parse::<usize>().ok())
                        .expect("a count")
                })
                .sum()
        };
        (count("200"), count("503"))
    }

    /// How many requests the client's sidecar has refused so far.
    fn overflow(&self) -> usize {
        let client = if self.scenario.fortio {
            "deployment/fortio-deploy"
        } else {
            "deployment/sleep"
        };
        let stats = self.execute(
            client,
            "istio-proxy",
            &["curl", "-s", "localhost:15000/stats"],
        );
        let cluster = format!(
            "cluster.outbound|8000||httpbin.{}.svc.cluster.local",
            self.scenario.httpbin
        );
        let value = |name: &str| -> usize {
            let line = stats.lines().find_map(|line| {
                let rest = line.strip_prefix(&cluster)?;
                rest.trim_start_matches([';', '.'])
                    .strip_prefix(name)?
                    .strip_prefix(": ")
            });
            line.and_then(|value| value.trim().parse().ok())
                .unwrap_or_else(|| panic!("{name} in {stats}"))
        };
        let values = PENDING.map(value);
        assert_eq!(values[..4], [0; 4], "{PENDING:?}");
        values[4]
    }

    fn sleep(&self, script: &str) -> String {
        self.execute("deployment/sleep", "sleep", &["sh", "-c", script])
    }

    /// Asks for the headers some times, with a mark that the logs show.
    fn ask(&self, times: usize, mark: &str) -> String {
        self.sleep(&format!(
            "for i in $(seq {times}); do curl -s 'http://httpbin:8000/headers?{mark}'; done"
        ))
    }

    fn log(&self, deployment: &str) -> String {
        let deployment = format!("deployment/{deployment}");
        self.mesh.kubectl(&[
            "-n",
            self.scenario.httpbin,
            "logs",
            &deployment,
            "-c",
            "httpbin",
            "--tail=-1",
        ])
    }

    fn logged(&self, deployment: &str, mark: &str) -> usize {
        self.log(deployment).matches(&format!("?{mark} ")).count()
    }
}
