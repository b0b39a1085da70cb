//! The session that scenario 000/001 describes, row by row (`docs/scenarios.md` says what the rows are).
//!
//! It runs on the project's own sample and, where they are at hand, on the scenario's original manifests: the same
//! claims must hold on both.

mod bodies;
mod changes;
mod platform;
mod routing;

use std::path::PathBuf;
use std::time::Duration;

use crate::rows;

use super::mesh::{Answer, Mesh};

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
        rows!(self;
            gateway_address_is_discoverable_f05,
            header_chooses_the_backend_f10_f01,
            unmatched_requests_get_404_from_the_proxy_f13,
            method_and_path_do_not_matter_f16_f20_f25,
            users_stick_to_replicas_f30,
            pods_have_the_expected_containers_f90,
            programs_run_in_containers,
            addresses_work_from_everywhere_f92_f93,
            headers_on_the_path_f94,
            tables_yaml_and_jsonpath_f111_f112_f113,
            apply_says_what_it_did_f110,
            uri_match_and_first_match_f12_f15,
            subsets_and_gateway_binding_f21_f06,
            gateway_without_and_with_routes_f01,
            bodies_choose_backend_and_replica_f11,
            config_changes_lose_no_request_f98,
        );
    }

    fn ns<'b>(&'b self, arguments: &[&'b str]) -> Vec<&'b str> {
        [&["-n", self.scenario.namespace], arguments].concat()
    }

    pub(super) fn kubectl(&self, arguments: &[&str]) -> String {
        self.mesh.kubectl(&self.ns(arguments))
    }

    pub(super) fn hit(&self, target: &str, user: Option<&str>) -> Answer {
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

    fn virtual_service(&self, name: &str, http: &str) -> String {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}}}\nspec:\n  hosts: ['*']\n  gateways: [{}]\n  http:{http}",
            self.scenario.gateway
        )
    }
}
