//! Sticky sessions: which policy a cluster follows.

use std::sync::Arc;

use lateen_api::StickySession;
use lateen_api::lateen::TargetReference;

use super::{Index, Service};
use crate::{Impact, Key};

impl Index {
    /// The policy for a port of a service, or of a subset of it. One for the subset comes before one for the service,
    /// an older one before a younger.
    pub(crate) fn sticky_session(&self, service: &Service, subset: &str) -> Option<&StickySession> {
        // Service entries have names of their own, which policies do not refer to.
        self.services
            .get(&service.key())
            .filter(|known| known.host == service.host)?;
        let key = service.key();
        let rank = |session: &StickySession| {
            let targets = session.spec.target_refs.iter();
            let fitting = targets.filter(|target| target.is_service() && target.name == key.name);
            let of_subset = fitting
                .filter_map(|target| match target.section_name.as_deref() {
                    Some(section) => (section == subset).then_some(true),
                    None => Some(false),
                })
                .max()?;
            Some((!of_subset, session.created(), session.name().to_owned()))
        };
        self.sticky_sessions
            .range(Key::new(&*key.namespace, "")..)
            .take_while(|(other, _)| other.namespace == key.namespace)
            .filter_map(|(_, session)| Some((rank(session)?, &**session)))
            .min_by(|(one, _), (other, _)| one.cmp(other))
            .map(|(_, session)| session)
    }

    /// Sets or removes a policy: it concerns the clusters of its targets.
    pub(super) fn set_sticky_session(
        &mut self,
        key: Key,
        session: Option<StickySession>,
    ) -> Impact {
        let namespace = key.namespace.clone();
        let session = session.map(Arc::new);
        let old = match &session {
            Some(session) => self.sticky_sessions.insert(key, Arc::clone(session)),
            None => self.sticky_sessions.remove(&key),
        };
        let spec = |session: &Option<Arc<StickySession>>| {
            session.as_ref().map(|session| session.spec.clone())
        };
        if spec(&old) == spec(&session) {
            return Impact::none();
        }
        let mut impact = Impact::none();
        for session in [old, session].into_iter().flatten() {
            for target in &session.spec.target_refs {
                impact.merge(self.clusters_of_target(&namespace, target));
            }
        }
        impact
    }

    fn clusters_of_target(&self, namespace: &str, target: &TargetReference) -> Impact {
        let service = self.services.get(&Key::new(namespace, &*target.name));
        match service.filter(|_| target.is_service()) {
            Some(service) => self.clusters_of(&service.host),
            None => Impact::none(),
        }
    }
}
