//! Which requests reach which backend.

use std::collections::{BTreeMap, BTreeSet};

use super::super::eventually;
use super::{SECONDS, Session};

impl Session<'_> {
    /// F10: a header value chooses the service.
    pub(super) fn header_chooses_the_backend_f10_f01(&self) {
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

    /// F13: what no rule matches gets 404 from the proxy, and no application sees it.
    pub(super) fn unmatched_requests_get_404_from_the_proxy_f13(&self) {
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

    /// F16, F20, F25: rules without a path match any; short and full host names; service ports without a name.
    pub(super) fn method_and_path_do_not_matter_f16_f20_f25(&self) {
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

    /// F30: a user stays on one replica, with 2, 3 and 5 replicas.
    pub(super) fn users_stick_to_replicas_f30(&self) {
        // They would undo what is scaled by hand; `apply` makes them again later.
        self.kubectl(&["delete", "horizontalpodautoscaler", "--all"]);
        // Many rounds tell most where nothing changes between them; the other sizes need only show that users stay.
        for (replicas, rounds) in [(2, 3), (3, 20), (5, 3), (self.scenario.replicas, 1)] {
            self.scale("backend-2", replicas);
            let mut pods_of: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
            for _ in 0..rounds {
                for user in 0..50 {
                    let answer = self.hit("backend-2", Some(&format!("user-{user}")));
                    assert_eq!(answer.status, 200, "{answer:?}");
                    pods_of
                        .entry(user)
                        .or_default()
                        .insert(answer.field("podIp"));
                }
            }
            let moved: Vec<_> = pods_of.iter().filter(|(_, pods)| pods.len() > 1).collect();
            assert!(moved.is_empty(), "{replicas} replicas: moved {moved:?}");
            let all: BTreeSet<&String> = pods_of.values().flatten().collect();
            assert!(all.len() >= 2, "{replicas} replicas: only {all:?} answered");
        }
    }

    /// Scales a backend and waits until the gateway knows its pods, and only those.
    pub(super) fn scale(&self, backend: &str, replicas: usize) {
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

    /// F12, F15: path and method matches; the first rule that matches wins.
    pub(super) fn uri_match_and_first_match_f12_f15(&self) {
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

    /// F06, F21: weights and subsets at the gateway do not touch traffic inside the mesh.
    pub(super) fn subsets_and_gateway_binding_f21_f06(&self) {
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
}
