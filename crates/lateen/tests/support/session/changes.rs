//! What happens when the configuration changes.

use std::process::Command;

use super::super::eventually;
use super::super::mesh::finish;
use super::{SECONDS, Session};

impl Session<'_> {
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

    pub(super) fn config_changes_lose_no_request_f98(&self) {
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
}
