//! Which peers may be spoken to.

use crate::spiffe::SpiffeId;

/// One entry of an [`AllowList`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdMatch {
    /// This id alone.
    Exact(SpiffeId),
    /// Every id whose text starts with this one, as Istio's `spiffe://TRUST-DOMAIN/`. The text is compared byte by
    /// byte: without a slash at the end, `spiffe://a` matches `spiffe://a.evil/x` too.
    Prefix(String),
}

/// The peers that are accepted. An empty list accepts nobody.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AllowList(Vec<IdMatch>);

impl AllowList {
    /// A list of these entries.
    pub fn new(entries: impl IntoIterator<Item = IdMatch>) -> Self {
        Self(entries.into_iter().collect())
    }

    /// The ids that Istio's server side accepts: any workload of these trust domains.
    pub fn trust_domains<'a>(
        domains: impl IntoIterator<Item = &'a crate::spiffe::TrustDomain>,
    ) -> Self {
        Self::new(
            domains
                .into_iter()
                .map(|domain| IdMatch::Prefix(format!("spiffe://{domain}/"))),
        )
    }

    /// Whether a peer with this id is accepted.
    pub fn accepts(&self, id: &SpiffeId) -> bool {
        let text = id.to_string();
        self.0.iter().any(|entry| match entry {
            IdMatch::Exact(exact) => exact == id,
            // An empty prefix comes from a mistake in a configuration, never from a wish to trust everyone.
            IdMatch::Prefix(prefix) => !prefix.is_empty() && text.starts_with(prefix.as_str()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{AllowList, IdMatch};

    #[test]
    fn entries_match_whole_ids_or_their_start() {
        let exact = |text: &str| IdMatch::Exact(text.parse().unwrap());
        let prefix = |text: &str| IdMatch::Prefix(text.to_owned());
        for (entries, id, accepted) in [
            (vec![], "spiffe://d/a", false),
            (vec![prefix("")], "spiffe://d/a", false),
            (vec![exact("spiffe://d/a")], "spiffe://d/a", true),
            (vec![exact("spiffe://d/a")], "spiffe://d/a/b", false),
            (vec![exact("spiffe://d/a")], "spiffe://e/a", false),
            (vec![prefix("spiffe://d/")], "spiffe://d/a", true),
            (vec![prefix("spiffe://d/")], "spiffe://d", false),
            (vec![prefix("spiffe://d/")], "spiffe://d.evil/a", false),
            (
                vec![prefix("spiffe://e/"), exact("spiffe://d/a")],
                "spiffe://d/a",
                true,
            ),
        ] {
            let list = AllowList::new(entries.clone());
            assert_eq!(
                list.accepts(&id.parse().unwrap()),
                accepted,
                "{entries:?} {id}"
            );
        }
    }
}
