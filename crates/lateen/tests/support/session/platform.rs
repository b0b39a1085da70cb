//! What a user of Kubernetes sees: addresses, containers, headers, tables.

use super::super::eventually;
use super::{SECONDS, Session};

impl Session<'_> {
    /// F05: the gateway's address and ports are found by the usual jsonpath queries; node ports work from the host.
    pub(super) fn gateway_address_is_discoverable_f05(&self) {
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

    pub(super) fn programs_run_in_containers(&self) {
        let check = |command: &[&str], input: Option<&str>, code: i32, stdout: &str| {
            let place = ["-n", "istio-system", "exec", "-i"];
            let target = ["deploy/istio-ingressgateway", "--"];
            let all = [&place[..], &target[..], command].concat();
            let done = self.mesh.kubectl_with(&all, input);
            assert_eq!(
                (done.code, done.stdout.as_str()),
                (code, stdout),
                "{done:?}"
            );
        };
        check(&["sh", "-c", "true"], None, 0, "");
        check(
            &["sh", "-c", "echo out; echo err >&2; exit 3"],
            None,
            3,
            "out\n",
        );
        check(&["cat"], Some("some\nlines\n"), 0, "some\nlines\n");
        // As Istio's users ask a proxy.
        check(
            &["pilot-agent", "request", "GET", "ready"],
            None,
            0,
            "LIVE\n\n",
        );
    }

    /// F90: a labelled namespace injects sidecars into new pods and leaves old ones alone.
    pub(super) fn pods_have_the_expected_containers_f90(&self) {
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

    /// F92, F93: pod addresses, service addresses and DNS names, from pods with and without a sidecar.
    pub(super) fn addresses_work_from_everywhere_f92_f93(&self) {
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

    /// F94: headers that the mesh adds on the way and to answers.
    pub(super) fn headers_on_the_path_f94(&self) {
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

    /// F111, F112, F113: tables, YAML and jsonpath.
    pub(super) fn tables_yaml_and_jsonpath_f111_f112_f113(&self) {
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

    /// F110: apply of multi-document files says created, configured, unchanged.
    pub(super) fn apply_says_what_it_did_f110(&self) {
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
