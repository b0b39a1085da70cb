//! The session that scenario 000/001 describes, row by row of the feature inventory (`docs/` names the rows).
//!
//! It runs on the project's own sample and, where they are at hand, on the scenario's original manifests: the same
//! claims must hold on both.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::eventually;
use super::mesh::{Answer, Mesh, finish};

const SECONDS: fn(u64) -> Duration = Duration::from_secs;

/// What differs between the sample and the original.
pub struct Scenario {
    /// Namespace of everything.
    pub namespace: &'static str,
    /// Kind of the workloads, as `kubectl` takes it.
    pub workload: &'static str,
    /// Replicas of each backend at the start.
    pub replicas: usize,
    /// Names of the Gateway and the VirtualService.
    pub gateway: &'static str,
    pub virtual_service: &'static str,
    /// Containers of a backend pod: 2 where sidecars are injected.
    pub containers: usize,
    /// The manifests.
    pub files: Vec<PathBuf>,
}

/// A session on a running mesh.
pub struct Session<'a> {
    pub mesh: &'a Mesh,
    pub scenario: &'a Scenario,
}

impl Session<'_> {
    /// All rows, in an order in which each leaves the mesh as it found it.
    pub fn run(&self) {
        self.gateway_address_is_discoverable_f05();
        self.header_chooses_the_backend_f10_f01();
        self.unmatched_requests_get_404_from_the_proxy_f13();
        self.method_and_path_do_not_matter_f16_f20_f25();
        self.users_stick_to_replicas_f30();
        self.pods_have_the_expected_containers_f90();
        self.addresses_work_from_everywhere_f92_f93();
        self.headers_on_the_path_f94();
        self.tables_yaml_and_jsonpath_f111_f112_f113();
        self.apply_says_what_it_did_f110();
        self.uri_match_and_first_match_f12_f15();
        self.subsets_and_gateway_binding_f21_f06();
        self.gateway_without_and_with_routes_f01();
        self.config_changes_lose_no_request_f98();
    }

    fn ns<'b>(&'b self, arguments: &[&'b str]) -> Vec<&'b str> {
        [&["-n", self.scenario.namespace], arguments].concat()
    }

    fn kubectl(&self, arguments: &[&str]) -> String {
        self.mesh.kubectl(&self.ns(arguments))
    }

    fn hit(&self, target: &str, user: Option<&str>) -> Answer {
        let url = format!("{}/hit_backend", self.mesh.gateway());
        let target = format!("target: {target}");
        let user_header = user.map(|user| format!("x-user: {user}"));
        let mut arguments = vec![
            "-X",
            "POST",
            "-H",
            &target,
            "-H",
            "content-type: application/json",
        ];
        if let Some(header) = &user_header {
            arguments.extend(["-H", header]);
        }
        arguments.extend([
            "-d",
            "{\"username\":\"someone\",\"target\":\"backend-1\"}",
            &url,
        ]);
        self.mesh.curl(&arguments)
    }

    fn gateway_address_is_discoverable_f05(&self) {
        let of_gateway = |path: &str| {
            let path = format!("jsonpath={path}");
            let arguments = [
                "-n",
                "istio-system",
                "get",
                "service",
                "istio-ingressgateway",
                "-o",
                &path,
            ];
            self.mesh.kubectl(&arguments)
        };
        let address = of_gateway("{.status.loadBalancer.ingress[0].ip}");
        assert!(
            address.starts_with("127."),
            "load balancer address {address:?}"
        );
        assert_eq!(of_gateway("{.spec.ports[?(@.name==\"http2\")].port}"), "80");
        assert_eq!(
            of_gateway("{.spec.ports[?(@.name==\"tcp\")].port}"),
            "31400"
        );
        let node_port = of_gateway("{.spec.ports[?(@.name==\"http2\")].nodePort}");
        assert!((30000..=32767).contains(&node_port.parse().expect("a node port")));
        assert!(
            of_gateway("{.spec.ports[?(@.name==\"https\")].nodePort}")
                .parse::<u16>()
                .is_ok()
        );
        // The node port works from the host on the node's address.
        let node = self.mesh.kubectl(&[
            "get",
            "nodes",
            "-o",
            "jsonpath={.items[0].status.addresses[?(@.type==\"ExternalIP\")].address}",
        ]);
        let url = format!("http://{node}:{node_port}/hit_backend");
        let answer = self
            .mesh
            .curl(&["-X", "POST", "-H", "target: backend-3", "-d", "{}", &url]);
        assert_eq!(answer.field("service_name"), "backend-3", "{answer:?}");
    }

    fn header_chooses_the_backend_f10_f01(&self) {
        for backend in ["backend-1", "backend-2", "backend-3"] {
            for _ in 0..20 {
                let answer = self.hit(backend, None);
                assert_eq!(answer.status, 200, "{answer:?}");
                assert_eq!(answer.field("service_name"), backend, "{answer:?}");
                assert_eq!(answer.field("target"), backend, "{answer:?}");
                assert_eq!(answer.header("server"), Some("istio-envoy"));
            }
        }
    }

    fn unmatched_requests_get_404_from_the_proxy_f13(&self) {
        let gateway = self.mesh.gateway();
        for arguments in [
            vec![gateway.as_str()],
            vec!["-H", "target: backend-9", gateway.as_str()],
        ] {
            let answer = self.mesh.curl(&arguments);
            assert_eq!(
                (answer.status, answer.body.as_str()),
                (404, ""),
                "{answer:?}"
            );
            assert_eq!(answer.header("server"), Some("istio-envoy"), "{answer:?}");
        }
        let pods = self.kubectl(&["get", "pods", "-o", "name"]);
        for pod in pods.lines() {
            let log = self.kubectl(&["logs", pod, "--all-containers"]);
            assert!(
                !log.contains("backend-9"),
                "{pod} saw a request that no rule names: {log}"
            );
        }
    }

    fn method_and_path_do_not_matter_f16_f20_f25(&self) {
        let url = format!("{}/x", self.mesh.gateway());
        let answer = self.mesh.curl(&["-H", "target: backend-1", &url]);
        assert_eq!(answer.status, 404, "{answer:?}");
        assert!(
            answer.body.contains("backend-1"),
            "the application answers: {answer:?}"
        );
        let url = format!("{}/hit-backend", self.mesh.gateway());
        let answer = self
            .mesh
            .curl(&["-X", "POST", "-H", "target: backend-1", "-d", "{}", &url]);
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    fn users_stick_to_replicas_f30(&self) {
        for replicas in [2, 3, 5, self.scenario.replicas] {
            self.scale("backend-2", replicas);
            let mut pods_of: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
            for _ in 0..20 {
                for user in 0..50 {
                    let answer = self.hit("backend-2", Some(&format!("user-{user}")));
                    assert_eq!(answer.status, 200, "{answer:?}");
                    pods_of
                        .entry(user)
                        .or_default()
                        .insert(answer.field("podIp"));
                }
                if replicas != self.scenario.replicas && pods_of.len() == 50 && replicas != 3 {
                    // Two rounds tell for these sizes; the full twenty are for 3 and the original size.
                    if pods_of.values().all(|pods| pods.len() == 1) && replicas != 3 {
                        let again = self.hit("backend-2", Some("user-0")).field("podIp");
                        assert!(pods_of[&0].contains(&again));
                        break;
                    }
                }
            }
            let moved: Vec<_> = pods_of.iter().filter(|(_, pods)| pods.len() > 1).collect();
            assert!(moved.is_empty(), "{replicas} replicas: moved {moved:?}");
            let all: BTreeSet<&String> = pods_of.values().flatten().collect();
            assert!(all.len() >= 2, "{replicas} replicas: only {all:?} answered");
        }
    }

    /// Scales a backend and waits until the gateway knows its pods, and only those.
    fn scale(&self, backend: &str, replicas: usize) {
        let workload = format!("{}/{backend}", self.scenario.workload);
        self.kubectl(&["scale", &workload, &format!("--replicas={replicas}")]);
        let selector = format!("app={backend}");
        eventually(
            &format!("{replicas} replicas of {backend}"),
            SECONDS(60),
            || {
                let pods = self.kubectl(&["get", "pods", "-l", &selector, "--no-headers"]);
                let ready = format!("{0}/{0}", self.scenario.containers);
                let good = pods
                    .lines()
                    .filter(|line| line.contains(&ready) && line.contains("Running"));
                let (good, all) = (good.count(), pods.lines().count());
                if good == replicas && all == replicas {
                    Ok(())
                } else {
                    Err(pods)
                }
            },
        );
        let addresses: BTreeSet<String> = self
            .kubectl(&[
                "get",
                "pods",
                "-l",
                &selector,
                "-o",
                "jsonpath={.items[*].status.podIP}",
            ])
            .split_whitespace()
            .map(str::to_owned)
            .collect();
        // Requests without a user are spread at random, so they meet every pod in time.
        let mut met = BTreeSet::new();
        eventually(
            &format!("the gateway knows {addresses:?}"),
            SECONDS(30),
            || {
                let address = self.hit(backend, None).field("podIp");
                if !addresses.contains(&address) {
                    met.clear();
                }
                met.insert(address);
                if met == addresses {
                    Ok(())
                } else {
                    Err(format!("met {met:?}"))
                }
            },
        );
    }

    fn pods_have_the_expected_containers_f90(&self) {
        let expected = format!("{0}/{0}", self.scenario.containers);
        for line in self.kubectl(&["get", "pods", "--no-headers"]).lines() {
            assert!(
                line.contains(&expected) && line.contains("Running"),
                "{line}"
            );
        }
        // A namespace with the label injects, one without does not, and the label changes nothing that runs.
        self.mesh.kubectl(&["create", "namespace", "labelled"]);
        self.mesh.apply("labelled", &pod("before"));
        self.mesh
            .kubectl(&["label", "namespace", "labelled", "istio-injection=enabled"]);
        self.mesh.apply("labelled", &pod("after"));
        for (name, containers) in [("before", "1/1"), ("after", "2/2")] {
            eventually(&format!("pod {name} is {containers}"), SECONDS(30), || {
                let line =
                    self.mesh
                        .kubectl(&["-n", "labelled", "get", "pod", name, "--no-headers"]);
                if line.contains(containers) {
                    Ok(())
                } else {
                    Err(line)
                }
            });
        }
        let names = "jsonpath={.spec.containers[*].name}";
        let names = self
            .mesh
            .kubectl(&["-n", "labelled", "get", "pod", "after", "-o", names]);
        assert_eq!(names, "app istio-proxy");
        self.mesh
            .kubectl(&["delete", "namespace", "labelled", "--wait=false"]);
    }

    fn addresses_work_from_everywhere_f92_f93(&self) {
        let address = |kind: &str, path: &str| {
            let path = format!("jsonpath={path}");
            self.kubectl(&["get", kind, "-l", "app=backend-1", "-o", &path])
        };
        let pod_ip = address("pods", "{.items[0].status.podIP}");
        let cluster_ip = self.kubectl(&[
            "get",
            "service",
            "backend-1",
            "-o",
            "jsonpath={.spec.clusterIP}",
        ]);
        let name = format!("backend-1.{}.svc.cluster.local", self.scenario.namespace);
        let script = format!(
            "for host in {pod_ip} {cluster_ip} {name} backend-1; do
               curl -s -m 5 -X POST -H 'content-type: application/json' -d '{{}}' http://$host:8080/hit_backend; echo
             done
             getent hosts {name}"
        );
        for injected in [true, false] {
            let printed = self.mesh.in_pod(self.scenario.namespace, injected, &script);
            let answers: Vec<&str> = printed
                .lines()
                .filter(|line| line.starts_with('{'))
                .collect();
            assert_eq!(answers.len(), 4, "injected {injected}: {printed}");
            for answer in answers {
                assert!(
                    answer.contains("\"service_name\":\"backend-1\""),
                    "{printed}"
                );
            }
            assert!(
                printed
                    .lines()
                    .any(|line| line.starts_with(&cluster_ip) && line.contains(&name)),
                "{printed}"
            );
        }
    }

    fn headers_on_the_path_f94(&self) {
        let answer = self.hit("backend-1", Some("ann"));
        assert_eq!(answer.header("server"), Some("istio-envoy"));
        let time = answer
            .header("x-envoy-upstream-service-time")
            .expect("the upstream's time");
        assert!(time.parse::<u64>().is_ok(), "{time}");
        assert!(answer.header("date").is_some());
        // What the application is sent: by the gateway, and by a client inside the mesh.
        let url = format!("{}/headers", self.mesh.gateway());
        let answer = self.mesh.curl(&["-H", "target: backend-1", &url]);
        let sent = |name: &str| answer.field(name);
        assert_eq!(sent("x-request-id").len(), 36, "{answer:?}");
        assert_eq!(sent("x-forwarded-proto"), "http", "{answer:?}");
        assert!(!sent("x-forwarded-for").is_empty(), "{answer:?}");
        assert_traced(&answer.body, self.scenario.containers == 2);
        let script = "curl -s http://backend-1:8080/headers";
        let printed = self.mesh.in_pod(self.scenario.namespace, true, script);
        assert_traced(&printed, self.scenario.containers == 2);
    }

    fn tables_yaml_and_jsonpath_f111_f112_f113(&self) {
        let gateways = self.kubectl(&["get", "gateway"]);
        assert_eq!(columns(&gateways), ["NAME", "AGE"]);
        let services = self.kubectl(&["get", "vs"]);
        assert_eq!(columns(&services), ["NAME", "GATEWAYS", "HOSTS", "AGE"]);
        let row = format!("[\"{}\"]", self.scenario.gateway);
        assert!(
            services.contains(&row) && services.contains("[\"*\"]"),
            "{services}"
        );
        let rules = self.kubectl(&["get", "dr", "backend-1"]);
        assert_eq!(columns(&rules), ["NAME", "HOST", "AGE"]);
        assert_eq!(
            columns(&self.kubectl(&["get", "pods"])),
            ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
        );
        let wide = self.kubectl(&["get", "pods", "-o", "wide"]);
        for column in ["IP", "NODE", "NOMINATED", "READINESS"] {
            assert!(columns(&wide).contains(&column), "{wide}");
        }
        assert_eq!(
            columns(&self.kubectl(&["get", "svc"])),
            [
                "NAME",
                "TYPE",
                "CLUSTER-IP",
                "EXTERNAL-IP",
                "PORT(S)",
                "AGE"
            ]
        );
        assert_eq!(
            columns(&self.kubectl(&["get", "ep", "backend-1"])),
            ["NAME", "ENDPOINTS", "AGE"]
        );
        let nodes = self.mesh.kubectl(&["get", "nodes"]);
        assert!(
            nodes
                .lines()
                .nth(1)
                .is_some_and(|line| line.contains(" Ready ")),
            "{nodes}"
        );

        let yaml = self.kubectl(&["get", "vs", self.scenario.virtual_service, "-o", "yaml"]);
        for field in [
            "kubectl.kubernetes.io/last-applied-configuration",
            "creationTimestamp:",
            "generation: 1",
            "resourceVersion:",
            "uid:",
        ] {
            assert!(yaml.contains(field), "{field} in {yaml}");
        }
        let names = self.kubectl(&[
            "get",
            "pods",
            "-l",
            "app=backend-1",
            "-o",
            "jsonpath={.items..metadata.name}",
        ]);
        assert_eq!(
            names.split_whitespace().count(),
            self.scenario.replicas,
            "{names}"
        );
        assert!(!names.ends_with('\n'));
    }

    fn apply_says_what_it_did_f110(&self) {
        let text = "# a comment\n\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: one # at a line's end\ndata: {a: b}\n---\nkind: ConfigMap\napiVersion: v1\nmetadata: {name: two}\n---\n";
        assert_eq!(
            self.mesh.apply(self.scenario.namespace, text),
            "configmap/one created\nconfigmap/two created\n"
        );
        let changed = text.replace("{a: b}", "{a: c}");
        assert_eq!(
            self.mesh.apply(self.scenario.namespace, &changed),
            "configmap/one configured\nconfigmap/two unchanged\n"
        );
        self.kubectl(&["delete", "configmap", "one", "two"]);
        // What `up` applied is what a later apply of the same file finds unchanged.
        for file in &self.scenario.files {
            let file = file.display().to_string();
            let printed = self.kubectl(&["apply", "-f", &file]);
            for line in printed.lines() {
                assert!(
                    line.ends_with(" unchanged") || line.contains("horizontalpodautoscaler"),
                    "{line}"
                );
            }
        }
    }

    fn uri_match_and_first_match_f12_f15(&self) {
        let path = |name: &str| format!("{}{name}", self.mesh.gateway());
        self.mesh.apply(
            self.scenario.namespace,
            &self.virtual_service(
                "uris",
                "
  - match: [{uri: {exact: /exact}}, {uri: {prefix: /prefix}}, {uri: {regex: '/r[0-9]+'}}]
    route: [{destination: {host: backend-1}}]
  - match: [{method: {exact: DELETE}}]
    route: [{destination: {host: backend-2}}]
  - match: [{uri: {prefix: /exact}}]
    route: [{destination: {host: backend-3}}]
",
            ),
        );
        let answered_by = |arguments: &[&str]| -> String {
            let answer = self.mesh.curl(arguments);
            ["backend-1", "backend-2", "backend-3"]
                .into_iter()
                .find(|name| answer.body.contains(name))
                .map_or_else(|| answer.status.to_string(), str::to_owned)
        };
        eventually("the routes by path", SECONDS(10), || {
            let found = answered_by(&[&path("/exact")]);
            if found == "backend-1" {
                Ok(())
            } else {
                Err(found)
            }
        });
        for (request, expected) in [
            ("/exact", "backend-1"),
            ("/exact?u=normal", "backend-1"),
            ("/exact/", "backend-3"),
            ("/prefix", "backend-1"),
            ("/prefixX", "backend-1"),
            ("/prefix/x", "backend-1"),
            ("/r12", "backend-1"),
            ("/r12x", "404"),
            ("/other", "404"),
        ] {
            assert_eq!(answered_by(&[&path(request)]), expected, "{request}");
        }
        assert_eq!(answered_by(&["-X", "DELETE", &path("/other")]), "backend-2");
        self.kubectl(&["delete", "virtualservice", "uris"]);
    }

    fn subsets_and_gateway_binding_f21_f06(&self) {
        let mut manifests = "apiVersion: v1\nkind: Service\nmetadata: {name: shades}\nspec: {selector: {app: shades}, ports: [{name: http, port: 8080}]}\n".to_owned();
        for version in ["v1", "v2"] {
            manifests.push_str(&format!("---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: shades-{version}}}
spec:
  selector: {{matchLabels: {{app: shades, version: {version}}}}}
  template:
    metadata: {{labels: {{app: shades, version: {version}}}}}
    spec: {{containers: [{{name: app, image: 'lateen.dev/samples/backend:1', args: [shades-{version}]}}]}}
"));
        }
        manifests.push_str("---
apiVersion: networking.istio.io/v1alpha3
kind: DestinationRule
metadata: {name: shades}
spec: {host: shades, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}
---
");
        manifests.push_str(&self.virtual_service(
            "shades",
            "
  - match: [{headers: {target: {exact: shades}}}]
    route:
    - {destination: {host: shades, subset: v1}, weight: 90}
    - {destination: {host: shades, subset: v2}, weight: 10}
  - match: [{headers: {target: {exact: shades-v2}}}]
    route: [{destination: {host: shades, subset: v2}}]
",
        ));
        self.mesh.apply(self.scenario.namespace, &manifests);
        for version in ["v1", "v2"] {
            self.kubectl(&[
                "rollout",
                "status",
                &format!("deployment/shades-{version}"),
                "--timeout=60s",
            ]);
        }
        eventually("both subsets answer", SECONDS(20), || {
            let answer = self.hit("shades-v2", None);
            let first = self.hit("shades", None);
            if answer.status == 200 && first.status == 200 {
                Ok(())
            } else {
                Err(format!("{answer:?} {first:?}"))
            }
        });
        for _ in 0..20 {
            assert_eq!(
                self.hit("shades-v2", None).field("service_name"),
                "shades-v2"
            );
        }
        // 400 draws at 10 %: 40 expected, five standard deviations are 30.
        let second = (0..400)
            .filter(|_| self.hit("shades", None).field("service_name") == "shades-v2")
            .count();
        assert!((10..=70).contains(&second), "{second} of 400 reached v2");
        // A client inside the mesh is not touched by rules that are bound to the gateway.
        let script = "for i in $(seq 1 100); do curl -s -X POST -d '{}' http://shades:8080/hit_backend; echo; done";
        let printed = self.mesh.in_pod(self.scenario.namespace, true, script);
        let second = printed.matches("\"service_name\":\"shades-v2\"").count();
        assert!(
            (25..=75).contains(&second),
            "{second} of 100 reached v2: {printed}"
        );
        self.kubectl(&["delete", "virtualservice,destinationrule,service", "shades"]);
        self.kubectl(&["delete", "deployment", "shades-v1", "shades-v2"]);
    }

    fn gateway_without_and_with_routes_f01(&self) {
        let gateway = self.kubectl(&["get", "gateway", self.scenario.gateway, "-o", "json"]);
        self.kubectl(&["delete", "gateway", self.scenario.gateway]);
        eventually("nothing listens without a Gateway", SECONDS(10), || {
            let answer = self.mesh.curl(&[&self.mesh.gateway()]);
            if answer.status == 0 {
                Ok(())
            } else {
                Err(format!("{answer:?}"))
            }
        });
        self.mesh.apply(self.scenario.namespace, &gateway);
        eventually("the routes are back", SECONDS(10), || {
            let answer = self.hit("backend-1", None);
            if answer.status == 200 {
                Ok(())
            } else {
                Err(format!("{answer:?}"))
            }
        });
    }

    fn config_changes_lose_no_request_f98(&self) {
        let url = format!("{}/hit_backend", self.mesh.gateway());
        let mut load = Command::new("hey");
        load.args([
            "-z",
            "12s",
            "-c",
            "8",
            "-m",
            "POST",
            "-H",
            "target: backend-1",
            "-T",
            "application/json",
            "-d",
            "{}",
            &url,
        ]);
        let mut changes = 0;
        let done = std::thread::scope(|scope| {
            let load = scope.spawn(move || finish(load, None));
            while !load.is_finished() {
                let extra = format!(
                    "\n  - match: [{{uri: {{exact: /change-{changes}}}}}]\n    route: [{{destination: {{host: backend-{}}}}}]\n",
                    changes % 3 + 1
                );
                self.mesh.apply(
                    self.scenario.namespace,
                    &self.virtual_service("changing", &extra),
                );
                changes += 1;
            }
            load.join().expect("the load")
        });
        self.kubectl(&["delete", "virtualservice", "changing"]);
        let codes: Vec<&str> = done
            .stdout
            .lines()
            .filter(|line| line.trim_start().starts_with('['))
            .collect();
        assert!(changes >= 10, "only {changes} changes");
        assert!(
            codes.len() == 1
                && codes[0].contains("[200]")
                && !done.stdout.contains("Error distribution"),
            "{changes} changes: {}",
            done.stdout
        );
    }

    fn virtual_service(&self, name: &str, http: &str) -> String {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}}}\nspec:\n  hosts: ['*']\n  gateways: [{}]\n  http:{http}",
            self.scenario.gateway
        )
    }
}

/// A bare TCP connection, for tests below HTTP.
pub fn connect(address: &str) -> std::io::Result<TcpStream> {
    let address: SocketAddr = address.parse().map_err(std::io::Error::other)?;
    TcpStream::connect_timeout(&address, SECONDS(5))
}

fn columns(table: &str) -> Vec<&str> {
    table
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect()
}

fn pod(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 0\n  containers: [{{name: app, image: 'lateen.dev/samples/backend:1', args: [{name}]}}]\n"
    )
}

/// The B3 headers of a request that entered the mesh here: the root span's id is the low half of the trace id, and a
/// sidecar before the application makes a child span.
fn assert_traced(headers: &str, behind_sidecar: bool) {
    let headers: serde_json::Value = serde_json::from_str(headers.trim()).expect(headers);
    let of = |name: &str| headers[name].as_str().unwrap_or_default();
    let (trace, span) = (of("x-b3-traceid"), of("x-b3-spanid"));
    assert_eq!(
        (trace.len(), span.len(), of("x-b3-sampled")),
        (32, 16, "1"),
        "{headers}"
    );
    let root = if behind_sidecar {
        of("x-b3-parentspanid")
    } else {
        span
    };
    assert_eq!(&trace[16..], root, "{headers}");
}
