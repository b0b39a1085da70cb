//! Routing by fields of the body, which the scenario's text promises and its manifests do not do.

use super::super::eventually;
use super::super::mesh::Answer;
use super::{SECONDS, Session};

impl Session<'_> {
    /// The scenario's own rules look at headers; a policy fills these from bodies.
    ///
    /// F11: a field of the body chooses the service, and the user's name in it the replica.
    pub(super) fn bodies_choose_backend_and_replica_f11(&self) {
        let post = |headers: &[&str], body: &str| {
            let url = format!("{}/hit_backend", self.mesh.gateway());
            let json = "content-type: application/json";
            let mut arguments = vec!["-X", "POST", "-H", json, "-d", body];
            for header in headers {
                arguments.extend(["-H", header]);
            }
            arguments.push(&url);
            self.mesh.curl(&arguments)
        };
        let by_body = r#"{"username": "ann", "target": "backend-2"}"#;
        assert_eq!(
            post(&[], by_body).status,
            404,
            "nothing looks at bodies yet"
        );
        let policy = format!(
            "apiVersion: lateen.dev/v1alpha1\nkind: BodyToHeaders\nmetadata: {{name: by-body}}\nspec:\n  targetRefs: [{{group: networking.istio.io, kind: Gateway, name: {}}}]\n  fields: [{{pointer: /target, header: target}}, {{pointer: /username, header: x-user}}]\n  contentTypes: [application/json]\n  maxBytes: 1Ki\n",
            self.scenario.gateway
        );
        self.mesh.apply(self.scenario.namespace, &policy);
        eventually("bodies are looked at", SECONDS(20), || {
            let answer = post(&[], by_body);
            match answer.status {
                200 => Ok(()),
                _ => Err(format!("{answer:?}")),
            }
        });
        let service = |answer: &Answer| answer.field("service_name");
        let header = "target: backend-3";
        assert_eq!(
            service(&post(&[header], by_body)),
            "backend-2",
            "the body wins"
        );
        assert_eq!(
            service(&post(&[header], "{}")),
            "backend-3",
            "what it lacks is left"
        );
        let long = format!(
            r#"{{"target": "backend-2", "more": "{}"}}"#,
            "x".repeat(2000)
        );
        assert_eq!(
            service(&post(&[header], &long)),
            "backend-3",
            "what is long passes"
        );
        // Users of one name stay together, those of many do not.
        let replica = |user: usize| {
            let body = format!(r#"{{"username": "user-{user}", "target": "backend-1"}}"#);
            post(&[], &body).field("pod_id")
        };
        let first: Vec<String> = (0..20).map(replica).collect();
        let again: Vec<String> = (0..20).map(replica).collect();
        assert_eq!(first, again, "users stay on their replicas");
        assert!(first.iter().any(|pod| *pod != first[0]), "{first:?}");
        self.kubectl(&["delete", "bodytoheaders", "by-body"]);
        eventually("bodies are left alone", SECONDS(20), || {
            let answer = post(&[], by_body);
            match answer.status {
                404 => Ok(()),
                _ => Err(format!("{answer:?}")),
            }
        });
    }
}
