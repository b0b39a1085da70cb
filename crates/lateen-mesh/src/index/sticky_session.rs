//! Sticky sessions: which policy a cluster follows, and who is shown the secrets of its store.

use std::sync::Arc;

use lateen_api::StickySession;
use lateen_api::lateen::{RedisStore, TargetReference};
use lateen_xds::ResourceType;

use super::update::put;
use super::{Index, Service, of_namespace};
use crate::{Impact, Key, Proxy};

/// What secrets of stores are named after.
const SCHEME: &str = "sticky-store://";

/// The secrets that a store may need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreSecret {
    /// The password, a generic secret.
    Password,
    /// The authorities of its certificate, a validation context.
    Authorities,
}

impl StoreSecret {
    const ALL: [Self; 2] = [Self::Password, Self::Authorities];

    fn name(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Authorities => "authorities",
        }
    }

    /// What the policy says about it: the Secret, and the entry in it.
    fn of(self, store: &RedisStore) -> Option<(&str, &str)> {
        match self {
            Self::Password => store.password(),
            Self::Authorities => Some(store.tls.as_ref()?.authorities()),
        }
    }
}

/// The name on the discovery stream of a secret of a policy's store. It names the policy, not the Secret of Kubernetes,
/// so that nothing but what policies refer to can be asked for.
pub fn store_secret(policy: &Key, secret: StoreSecret) -> String {
    format!(
        "{SCHEME}{}/{}/{}",
        policy.namespace,
        policy.name,
        secret.name()
    )
}

/// The policy and the secret of a name on the discovery stream; nothing for other names.
pub fn parse_store_secret(name: &str) -> Option<(Key, StoreSecret)> {
    let mut parts = name.strip_prefix(SCHEME)?.split('/');
    let (Some(namespace), Some(policy), Some(secret), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    let known = StoreSecret::ALL.into_iter();
    let secret = known.into_iter().find(|known| known.name() == secret)?;
    Some((Key::new(namespace, policy), secret))
}

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
        of_namespace(&self.sticky_sessions, &key.namespace)
            .filter_map(|(_, session)| Some((rank(session)?, &**session)))
            .min_by(|(one, _), (other, _)| one.cmp(other))
            .map(|(_, session)| session)
    }

    /// Where a secret of a policy's store is kept: the name of the Secret in the policy's namespace, and the entry in it.
    /// Nothing for proxies that do not see any service of the policy.
    pub fn store_secret(
        &self,
        proxy: &Proxy,
        policy: &Key,
        secret: StoreSecret,
    ) -> Option<(&str, &str)> {
        let session = self.sticky_sessions.get(policy)?;
        let sees = session.spec.target_refs.iter().any(|target| {
            let service = self
                .services
                .get(&Key::new(&*policy.namespace, &*target.name));
            service.is_some_and(|service| {
                self.service_seen_from(&service.host, &proxy.namespace)
                    .is_some()
            })
        });
        let store = session.spec.store.as_ref()?.redis.as_ref();
        secret.of(store.filter(|_| sees)?)
    }

    /// Sets or removes a policy: it concerns the clusters of its targets, and the secrets of its store.
    pub(super) fn set_sticky_session(
        &mut self,
        key: Key,
        session: Option<StickySession>,
    ) -> Impact {
        let namespace = key.namespace.clone();
        let secrets = StoreSecret::ALL.map(|secret| store_secret(&key, secret));
        let session = session.map(Arc::new);
        let old = put(&mut self.sticky_sessions, key, session.clone());
        let spec = |session: &Option<Arc<StickySession>>| {
            session.as_ref().map(|session| session.spec.clone())
        };
        if spec(&old) == spec(&session) {
            return Impact::none();
        }
        let mut impact = Impact::of_named(secrets.map(|name| (ResourceType::Secret, name)));
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
