//! What becomes of Lateen's own policies: whether each is in effect, and which of its targets are not there.
//!
//! The conditions follow the Gateway API's policy attachment (GEP-713): `Accepted` says whether the policy has any
//! effect, `ResolvedRefs` whether everything that it refers to exists.

use lateen_api::StickySession;
use lateen_api::lateen::{RedisStore, TargetReference};

use super::{Index, Service};
use crate::{Key, ObjectKind};

/// One condition of a status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Type, for example `Accepted`.
    pub kind: &'static str,
    /// Whether it holds.
    pub holds: bool,
    /// One word for programs.
    pub reason: &'static str,
    /// What people want to know.
    pub message: String,
}

/// What becomes of a policy.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicyStatus {
    /// Kind of the policy.
    pub kind: ObjectKind,
    /// Its name.
    pub key: Key,
    /// Generation of the specification that was judged.
    pub generation: i64,
    /// What is to be said.
    pub conditions: Vec<Condition>,
    /// The server that a sticky session's sessions are shared in.
    pub store: Option<RedisStore>,
    /// The status that the object has.
    pub current: Option<serde_json::Value>,
}

/// What becomes of one target of a policy.
enum Target {
    /// The policy is in effect for it.
    Followed(String),
    /// Another policy comes first.
    Shadowed(String),
    /// It is not there.
    Missing(String),
}

impl Index {
    /// The status of every policy of Lateen's own kinds, in the order of kind, namespace and name.
    pub fn policy_statuses(&self) -> impl Iterator<Item = PolicyStatus> {
        let sessions = self.sticky_sessions.iter().map(|(key, session)| {
            let targets = session.spec.target_refs.iter();
            let targets = targets.map(|target| self.session_target(key, session, target));
            PolicyStatus {
                store: session
                    .spec
                    .store
                    .as_ref()
                    .and_then(|store| store.redis.clone()),
                ..status(ObjectKind::StickySession, key, session, targets)
            }
        });
        let bodies = self.body_to_headers.iter().map(|(key, policy)| {
            let targets = policy.spec.target_refs.iter();
            let targets = targets.map(|target| self.body_target(key, target));
            // Workloads come and go; a policy for those that match is in effect even before the first.
            let selected = policy.spec.selector.iter().map(|selector| {
                let labels = selector.match_labels.iter();
                let labels: Vec<_> = labels
                    .map(|(key, value)| format!("{key}={value}"))
                    .collect();
                Target::Followed(format!("workloads with {}", labels.join(",")))
            });
            status(
                ObjectKind::BodyToHeaders,
                key,
                policy,
                targets.chain(selected),
            )
        });
        sessions.chain(bodies)
    }

    fn session_target(
        &self,
        key: &Key,
        session: &StickySession,
        target: &TargetReference,
    ) -> Target {
        let name = &target.name;
        let Some(service) = self.services.get(&Key::new(&*key.namespace, &**name)) else {
            return Target::Missing(format!("there is no Service {name}"));
        };
        let subset = target.section_name.as_deref().unwrap_or_default();
        if !subset.is_empty() && !self.has_subset(service, subset) {
            return Target::Missing(format!(
                "no DestinationRule gives Service {name} a subset {subset}"
            ));
        }
        let subject = match subset {
            "" => format!("Service {name}"),
            subset => format!("subset {subset} of Service {name}"),
        };
        match self.sticky_session(service, subset) {
            Some(first) if first.name() != session.name() => Target::Shadowed(format!(
                "{subject} follows the older StickySession {}",
                first.name()
            )),
            _ => Target::Followed(subject),
        }
    }

    fn body_target(&self, key: &Key, target: &TargetReference) -> Target {
        let name = &target.name;
        match self.gateways.get(&Key::new(&*key.namespace, &**name)) {
            Some(_) => Target::Followed(format!("Gateway {name}")),
            None => Target::Missing(format!("there is no Gateway {name}")),
        }
    }

    /// Whether a destination rule of the service's namespace, or of the mesh's, names a subset of the service.
    fn has_subset(&self, service: &Service, subset: &str) -> bool {
        let namespaces = [&*service.namespace, self.mesh.root_namespace.as_str()];
        let rules = namespaces
            .iter()
            .flat_map(|namespace| self.rules_for(namespace, &service.host));
        let mut subsets = rules.flat_map(|rule| &rule.spec.subsets);
        subsets.any(|known| known.name == subset)
    }
}

/// Sums the targets of a policy up.
fn status<S: lateen_api::Kind>(
    kind: ObjectKind,
    key: &Key,
    policy: &lateen_api::Object<S>,
    targets: impl Iterator<Item = Target>,
) -> PolicyStatus {
    let (mut followed, mut shadowed, mut missing) = (Vec::new(), Vec::new(), Vec::new());
    for target in targets {
        match target {
            Target::Followed(text) => followed.push(text),
            Target::Shadowed(text) => shadowed.push(text),
            Target::Missing(text) => missing.push(text),
        }
    }
    let (holds, reason) = match (followed.is_empty(), shadowed.is_empty()) {
        (false, true) => (true, "Accepted"),
        (false, false) => (true, "PartiallyConflicted"),
        (true, false) => (false, "Conflicted"),
        (true, true) => (false, "TargetNotFound"),
    };
    let effect = match followed.as_slice() {
        [] => "not in effect".to_owned(),
        followed => format!("in effect for {}", followed.join(", ")),
    };
    let accepted = Condition {
        kind: "Accepted",
        holds,
        reason,
        message: [&[effect][..], &shadowed[..]].concat().join("; "),
    };
    let resolved = Condition {
        kind: "ResolvedRefs",
        holds: missing.is_empty(),
        reason: if missing.is_empty() {
            "ResolvedRefs"
        } else {
            "TargetNotFound"
        },
        message: match missing.as_slice() {
            [] => "all targets exist".to_owned(),
            missing => missing.join("; "),
        },
    };
    PolicyStatus {
        kind,
        key: key.clone(),
        generation: policy.metadata.generation.unwrap_or_default(),
        conditions: vec![accepted, resolved],
        store: None,
        current: policy.status.clone(),
    }
}
