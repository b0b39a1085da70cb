//! What happens when the configuration changes.

use std::process::Command;

use super::super::eventually;
use super::super::mesh::finish;
use super::{SECONDS, Session};

impl Session<'_> {
    /// F01: a Gateway opens a port; without it nothing listens, with it and no route the answer is 404.
    pub(super) fn gateway_without_and_with_routes_f01(&self) {
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

    /// F98: configuration changes under load, new subsets among them, fail no request.
    pub(super) fn config_changes_lose_no_request_f98(&self) {
        self.mesh.apply(
            self.scenario.namespace,
            "apiVersion: v1\nkind: Service\nmetadata: {name: changing}\nspec: {selector: {app: backend-1}, ports: [{name: http, port: 8080, targetPort: 8080}]}\n",
        );
        self.mesh
            .apply(self.scenario.namespace, &self.new_subset_and_its_route(0));
        eventually("the changing route", SECONDS(10), || {
            let answer = self.hit("changing", None);
            if answer.status == 200 {
                Ok(())
            } else {
                Err(format!("{answer:?}"))
            }
        });
        let mut changes = 0;
        let loads = std::thread::scope(|scope| {
            let loads = ["backend-1", "changing"].map(|target| {
                let load = self.load(target);
                scope.spawn(move || finish(load, None))
            });
            while loads.iter().any(|load| !load.is_finished()) {
                changes += 1;
                self.mesh.apply(
                    self.scenario.namespace,
                    &self.new_subset_and_its_route(changes),
                );
            }
            loads.map(|load| load.join().expect("the load"))
        });
        self.kubectl(&[
            "delete",
            "virtualservice/changing",
            "destinationrule/changing",
            "service/changing",
        ]);
        assert!(changes >= 3, "only {changes} changes");
        for done in loads {
            let codes: Vec<&str> = done
                .stdout
                .lines()
                .filter(|line| line.trim_start().starts_with('['))
                .collect();
            assert!(
                codes.len() == 1
                    && codes[0].contains("[200]")
                    && !done.stdout.contains("Error distribution"),
                "{changes} changes: {}{}",
                done.stdout,
                self.failures()
            );
        }
    }

    /// What the gateway logged of requests that failed: the flags say why.
    fn failures(&self) -> String {
        let gateway = ["-n", "istio-system", "logs", "deploy/istio-ingressgateway"];
        let log = self
            .mesh
            .kubectl_with(&[&gateway[..], &["--tail=-1"]].concat(), None);
        let failed = log.stdout.lines().filter(|line| line.contains("\" 503 "));
        failed.take(5).collect::<Vec<_>>().join("\n")
    }

    /// Twelve seconds of requests for a target.
    fn load(&self, target: &str) -> Command {
        let mut load = Command::new("hey");
        load.args(["-z", "12s", "-c", "8", "-m", "POST"])
            .args(["-H", &format!("target: {target}")])
            .args(["-T", "application/json", "-d", "{}"])
            .arg(format!("{}/hit_backend", self.mesh.gateway()));
        load
    }

    /// A subset that did not exist, and routes to it, to be applied at once. The subset before stays: it is in use until
    /// the route, which `kubectl` applies after the rule, has changed.
    fn new_subset_and_its_route(&self, change: usize) -> String {
        let before = change.saturating_sub(1);
        let other = change % 3 + 1;
        let subsets = (before..=change)
            .map(|subset| format!("{{name: c{subset}, labels: {{app: backend-1}}}}"))
            .collect::<Vec<_>>()
            .join(", ");
        let routes = format!(
            "
  - match: [{{headers: {{target: {{exact: changing}}}}}}]
    route: [{{destination: {{host: changing, subset: c{change}}}}}]
  - match: [{{uri: {{exact: /change-{change}}}}}]
    route: [{{destination: {{host: backend-{other}}}}}]
"
        );
        format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: changing}}\nspec: {{host: changing, subsets: [{subsets}]}}\n---\n{}",
            self.virtual_service("changing", &routes)
        )
    }
}
