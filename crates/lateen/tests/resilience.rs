//! What the lab says about failures and defaults without a step of its own: subsets without pods, long answers, retries,
//! outliers, injection by hand, request ids, node ports. As an ordinary user.

mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use support::account::Account;
use support::eventually;
use support::mesh::Mesh;

const STORE: &str = "bookinfo";
const HTTPBIN: &str = "httpbin";

/// A server that takes sixteen seconds: longer than what older versions of Istio waited by default.
const SLOW: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: slow}
spec:
  selector: {app: slow}
  ports: [{name: http, port: 8080}]
---
apiVersion: v1
kind: Pod
metadata: {name: slow, labels: {app: slow}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: slow
    image: host
    command:
    - perl
    - -MIO::Socket::INET
    - -e
    - |
      my $server = IO::Socket::INET->new(LocalPort => 8080, Listen => 5, ReuseAddr => 1) or die;
      while (my $client = $server->accept) {
        while (my $line = <$client>) { last if $line =~ /^\r?\n$/ }
        sleep 16;
        print $client "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nlate\n";
        close $client;
      }
    readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
"#;

/// A Gateway beside that of the store, and a route for a header.
const SECOND_GATEWAY: &str = r#"
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: second}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: second}
spec:
  hosts: ["*"]
  gateways: [second]
  http:
  - match: [{headers: {target: {exact: httpbin}}}]
    route: [{destination: {host: httpbin, port: {number: 8000}}}]
"#;

/// Only mutual TLS is accepted.
const STRICT: &str = r#"
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default}
spec: {mtls: {mode: STRICT}}
"#;

struct Lab {
    mesh: Mesh,
}

impl Lab {
    fn start() -> Self {
        let sample = |name: &str| -> PathBuf {
            Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("../../samples")
                .join(name)
        };
        let files = [
            sample("bookinfo/bookinfo.yaml"),
            sample("bookinfo/gateway.yaml"),
            sample("httpbin/httpbin.yaml"),
        ];
        let files: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
        Self {
            mesh: Mesh::up(Account::ordinary(), &files),
        }
    }

    /// What a client inside the mesh prints.
    fn call(&self, script: &str) -> String {
        let place = ["-n", HTTPBIN, "exec", "deploy/sleep", "-c", "sleep", "--"];
        self.mesh
            .kubectl(&[&place[..], &["sh", "-c", script]].concat())
    }

    /// Status code that a client inside the mesh gets.
    fn code(&self, url: &str) -> String {
        self.call(&format!("curl -s -o /dev/null -w '%{{http_code}}' {url}"))
    }

    #[track_caller]
    fn becomes(&self, url: &str, code: &str) {
        eventually(&format!("{code} of {url}"), Duration::from_secs(20), || {
            let found = self.code(url);
            if found == code { Ok(()) } else { Err(found) }
        });
    }

    fn page(&self) -> u16 {
        let url = format!("{}/productpage", self.mesh.gateway());
        self.mesh.curl(&[&url]).status
    }

    fn log(&self, namespace: &str, workload: &str) -> String {
        let arguments = ["-n", namespace, "logs", workload, "-c", "istio-proxy"];
        self.mesh.kubectl(&arguments)
    }

    /// F07: a VirtualService without gateways does not touch what comes in at the gateway.
    fn rules_of_a_service_do_not_touch_the_gateways_f07(&self) {
        self.mesh.apply(
            STORE,
            &to_subset("productpage", "none", &[("none", "nothing")]),
        );
        self.becomes("http://productpage.bookinfo:9080/productpage", "503");
        assert_eq!(self.page(), 200, "the gateway has rules of its own");
        self.forget("productpage");
        self.becomes("http://productpage.bookinfo:9080/productpage", "200");
    }

    /// F22: subsets without pods are legal; traffic to them, and to subsets that no rule names, gets 503.
    fn subsets_without_pods_are_legal_and_answer_503_f22(&self) {
        let url = "http://ratings.bookinfo:9080/ratings/0";
        self.becomes(url, "200");
        self.mesh
            .apply(STORE, &to_subset("ratings", "old", &[("old", "v0")]));
        self.becomes(url, "503");
        // A subset that no rule names has no cluster at all.
        self.mesh
            .apply(STORE, &to_subset("ratings", "unknown", &[("old", "v0")]));
        self.becomes(url, "503");
        self.forget("ratings");
        self.becomes(url, "200");
    }

    /// F61: there is no timeout by default: an answer after 16 seconds arrives.
    fn long_answers_are_waited_for_f61(&self) {
        self.mesh.apply(HTTPBIN, SLOW);
        let wait = [
            "-n",
            HTTPBIN,
            "wait",
            "--for=condition=Ready",
            "pod/slow",
            "--timeout=60s",
        ];
        self.mesh.kubectl(&wait);
        let said = self.call("curl -s -m 40 -w ' %{http_code} %{time_total}' http://slow:8080/");
        let (body, rest) = said.split_once('\n').expect("a body");
        let (code, time) = rest.trim().split_once(' ').expect("code and time");
        assert_eq!((body, code), ("late", "200"), "{said}");
        assert!(time.parse::<f64>().expect("seconds") >= 16.0, "{said}");
    }

    /// F62: a pod that dies under load costs at most the request that it was answering; the default retries hide
    /// the rest.
    fn a_pod_that_dies_costs_at_most_what_it_was_answering_f62(&self) {
        let load = "for i in $(seq 300); do curl -s -o /dev/null -w '%{http_code}\\n' http://httpbin:8000/get; done | sort | uniq -c";
        std::thread::scope(|scope| {
            let client = scope.spawn(|| self.call(load));
            std::thread::sleep(Duration::from_secs(1));
            self.mesh.kubectl(&[
                "-n",
                HTTPBIN,
                "delete",
                "pod",
                "-l",
                "version=v2",
                "--force",
                "--grace-period=0",
                "--wait=false",
            ]);
            let codes = client.join().expect("the client ran");
            // Whoever calls one after the other has at most one request there when it dies, and that is not sent twice.
            let count = |code: &str| {
                let line = codes.lines().find(|line| line.ends_with(code));
                let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
                number.unwrap_or(0_usize)
            };
            let (good, lost) = (count(" 200"), count(" 503"));
            assert!(
                good + lost == 300 && lost <= 1,
                "the default retries hide the rest: {codes}"
            );
        });
    }

    /// F71: one bad answer ejects an endpoint; with nobody left 503 `no healthy upstream`.
    fn outliers_are_ejected_f71(&self) {
        let both = [
            "-n",
            HTTPBIN,
            "rollout",
            "status",
            "deploy/httpbin-v2",
            "--timeout=60s",
        ];
        self.mesh.kubectl(&both);
        self.mesh.apply(
            HTTPBIN,
            r#"{"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": {"name": "httpbin"},
                "spec": {"host": "httpbin", "trafficPolicy": {"outlierDetection": {"consecutive5xxErrors": 1,
                    "interval": "1s", "baseEjectionTime": "3m", "maxEjectionPercent": 100}}}}"#,
        );
        // One bad answer of each, and nobody is left.
        eventually("both are ejected", Duration::from_secs(20), || {
            let said = self.call("curl -s -w ' %{http_code}' http://httpbin:8000/status/500");
            if said.contains("no healthy upstream 503") {
                Ok(())
            } else {
                Err(said)
            }
        });
        assert_eq!(self.code("http://httpbin:8000/get"), "503");
        self.mesh
            .kubectl(&["-n", HTTPBIN, "delete", "destinationrule", "httpbin"]);
        self.becomes("http://httpbin:8000/get", "200");
    }

    /// F91: `lateen inject` adds one sidecar, which a labelled namespace leaves the only one.
    fn a_sidecar_can_be_injected_by_hand_f91(&self) {
        let pod = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "by-hand", "labels": {"app": "by-hand"}},
            "spec": {"terminationGracePeriodSeconds": 0,
                     "containers": [{"name": "app", "image": "host", "command": ["sleep", "infinity"]}]}}"#;
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("pod.yaml");
        std::fs::write(&file, pod).expect("written");
        let mut inject = std::process::Command::new(env!("CARGO_BIN_EXE_lateen"));
        inject.args(["inject", "-f"]).arg(&file);
        let injected = support::mesh::finish(inject, None);
        assert_eq!(injected.code, 0, "{injected:?}");
        self.mesh.kubectl(&["create", "namespace", "plain"]);
        // A labelled namespace does not add a second one.
        for namespace in ["plain", HTTPBIN] {
            self.mesh.apply(namespace, &injected.stdout);
            eventually("2/2", Duration::from_secs(30), || {
                let list = ["-n", namespace, "get", "pod", "by-hand", "--no-headers"];
                let line = self.mesh.kubectl(&list);
                if line.contains("2/2") {
                    Ok(())
                } else {
                    Err(line)
                }
            });
        }
    }

    /// F95: one request id from the gateway through the applications to the last service.
    fn one_request_id_leads_through_the_store_f95(&self) {
        let ids = |log: &str| -> BTreeSet<String> {
            let words = log.split(['"', ' ']);
            let is_id = |word: &&str| word.len() == 36 && word.matches('-').count() == 4;
            words.filter(is_id).map(str::to_owned).collect()
        };
        eventually(
            "an id from the gateway to ratings",
            Duration::from_secs(30),
            || {
                assert_eq!(self.page(), 200);
                let gateway = ids(&self.log("istio-system", "deploy/istio-ingressgateway"));
                let page = ids(&self.log(STORE, "deploy/productpage-v1"));
                let ratings = ids(&self.log(STORE, "deploy/ratings-v1"));
                if gateway.intersection(&page).any(|id| ratings.contains(id)) {
                    Ok(())
                } else {
                    Err(format!("{gateway:?} {page:?} {ratings:?}"))
                }
            },
        );
    }

    /// F119: a Service that becomes a NodePort is served on the node's address.
    fn a_service_can_become_a_node_port_f119(&self) {
        let ports = r#"{"spec": {"type": "NodePort", "ports": [{"port": 9080, "name": "http", "nodePort": 30306}]}}"#;
        self.mesh
            .kubectl(&["-n", STORE, "patch", "service", "productpage", "-p", ports]);
        let shown = self
            .mesh
            .kubectl(&["-n", STORE, "get", "service", "productpage"]);
        assert!(shown.contains("9080:30306/TCP"), "{shown}");
        let path = "jsonpath={.items[0].status.addresses[?(@.type==\"ExternalIP\")].address}";
        let node = self.mesh.kubectl(&["get", "nodes", "-o", path]);
        let url = format!("http://{node}:30306/productpage");
        eventually(
            "the page at the node's port",
            Duration::from_secs(10),
            || {
                let answer = self.mesh.curl(&[&url]);
                if answer.status == 200 {
                    Ok(())
                } else {
                    Err(format!("{answer:?}"))
                }
            },
        );
    }

    /// F08: several Gateways share a port and every host; their routes are looked through together.
    fn gateways_share_a_port_and_every_host_f08(&self) {
        self.mesh.apply(HTTPBIN, SECOND_GATEWAY);
        let url = format!("{}/status/418", self.mesh.gateway());
        let teapot = |arguments: &[&str]| self.mesh.curl(&[arguments, &[&url]].concat()).status;
        eventually(
            "the second gateway",
            Duration::from_secs(20),
            || match teapot(&["-H", "target: httpbin"]) {
                418 => Ok(()),
                other => Err(other.to_string()),
            },
        );
        assert_eq!((self.page(), teapot(&[])), (200, 404));
        let both = ["delete", "gateway/second", "virtualservice/second"];
        self.mesh.kubectl(&[&["-n", HTTPBIN][..], &both].concat());
        assert_eq!(self.page(), 200);
    }

    /// F96: mutual TLS is on by itself: where nothing else is accepted, calls go on, with and without a DestinationRule, and
    /// those without a sidecar are refused.
    fn mutual_tls_needs_no_rule_f96(&self) {
        let url = "http://httpbin:8000/get";
        let outside = format!("curl -s -o /dev/null -w '%{{http_code}}' {url}");
        assert_eq!(self.mesh.in_pod(HTTPBIN, false, &outside).trim(), "200");
        self.mesh.apply(HTTPBIN, STRICT);
        eventually(
            "plain text is refused",
            Duration::from_secs(20),
            || match self.mesh.in_pod(HTTPBIN, false, &outside).trim() {
                "000" => Ok(()),
                other => Err(other.to_owned()),
            },
        );
        assert_eq!(self.code(url), "200", "without a rule");
        self.mesh.apply(
            HTTPBIN,
            r#"{"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": {"name": "httpbin"},
                "spec": {"host": "httpbin", "subsets": [{"name": "v1", "labels": {"version": "v1"}}]}}"#,
        );
        assert_eq!(self.code(url), "200", "with a rule");
        let both = [
            "delete",
            "destinationrule/httpbin",
            "peerauthentication/default",
        ];
        self.mesh.kubectl(&[&["-n", HTTPBIN][..], &both].concat());
    }

    fn forget(&self, service: &str) {
        for kind in ["virtualservice", "destinationrule"] {
            self.mesh.kubectl(&["-n", STORE, "delete", kind, service]);
        }
    }
}

/// Rules that send all of a service's traffic to a subset, and its subsets by their versions.
fn to_subset(service: &str, subset: &str, subsets: &[(&str, &str)]) -> String {
    let subsets: Vec<_> = subsets
        .iter()
        .map(|(name, version)| serde_json::json!({"name": name, "labels": {"version": version}}))
        .collect();
    let object = |kind: &str, spec: serde_json::Value| {
        serde_json::json!({
            "apiVersion": "networking.istio.io/v1", "kind": kind, "metadata": {"name": service}, "spec": spec,
        })
    };
    let destination = serde_json::json!({"host": service, "subset": subset});
    let rules = [
        object(
            "DestinationRule",
            serde_json::json!({"host": service, "subsets": subsets}),
        ),
        object(
            "VirtualService",
            serde_json::json!({"hosts": [service], "http": [{"route": [{"destination": destination}]}]}),
        ),
    ];
    serde_json::json!({"apiVersion": "v1", "kind": "List", "items": rules}).to_string()
}

#[test]
fn failures_and_defaults_are_as_the_lab_says() {
    let lab = Lab::start();
    lab.rules_of_a_service_do_not_touch_the_gateways_f07();
    lab.subsets_without_pods_are_legal_and_answer_503_f22();
    lab.gateways_share_a_port_and_every_host_f08();
    lab.mutual_tls_needs_no_rule_f96();
    lab.one_request_id_leads_through_the_store_f95();
    lab.a_service_can_become_a_node_port_f119();
    lab.a_sidecar_can_be_injected_by_hand_f91();
    lab.a_pod_that_dies_costs_at_most_what_it_was_answering_f62();
    lab.outliers_are_ejected_f71();
    lab.long_answers_are_waited_for_f61();
    lab.mesh.down();
}
