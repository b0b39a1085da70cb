//! Who owns whom. Pure: objects come and go, and the graph tells which ones have to be looked at.

use std::collections::{BTreeSet, HashMap};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use crate::controllers::meta::ObjectKey;

/// Finalizer of an object that goes only after its dependents.
pub(super) const FOREGROUND: &str = "foregroundDeletion";
/// Finalizer of an object whose dependents stay, without an owner.
pub(super) const ORPHAN: &str = "orphan";

/// An object, as far as ownership is concerned.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) uid: String,
    pub(super) group: String,
    pub(super) kind: String,
    pub(super) key: ObjectKey,
    pub(super) owners: Vec<OwnerReference>,
    /// Deletion has begun.
    pub(super) deleting: bool,
    /// It has the finalizer [`FOREGROUND`].
    pub(super) foreground: bool,
    /// It has the finalizer [`ORPHAN`].
    pub(super) orphan: bool,
}

impl Node {
    /// Whether it waits for its dependents to go.
    pub(super) fn waits_for_dependents(&self) -> bool {
        self.deleting && self.foreground
    }

    /// Whether the reference means this object, and not just one with its uid.
    fn is_meant_by(&self, owner: &OwnerReference, dependent: &Self) -> bool {
        self.kind == owner.kind
            && self.key.name == owner.name
            && self.group == group_of(&owner.api_version)
            && (self.key.namespace.is_empty() || self.key.namespace == dependent.key.namespace)
    }
}

/// The group of an `apiVersion`.
pub(super) fn group_of(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

/// What has to be done about an object, by its uid.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Work {
    /// See whether it still has an owner, or whether its dependents are gone.
    Check(String),
    /// Free its dependents.
    Orphan(String),
}

/// All objects that own something or are owned.
#[derive(Debug, Default)]
pub(super) struct Graph {
    nodes: HashMap<String, Node>,
    /// Uids of objects by the uid of an owner, whether that exists or not.
    dependents: HashMap<String, BTreeSet<String>>,
}

impl Graph {
    pub(super) fn get(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    /// The objects that have a reference to `uid`.
    pub(super) fn dependents(&self, uid: &str) -> impl Iterator<Item = &Node> {
        let uids = self.dependents.get(uid).into_iter().flatten();
        uids.filter_map(|uid| self.nodes.get(uid))
    }

    /// The dependents that keep an object that waits for them.
    pub(super) fn blockers(&self, uid: &str) -> impl Iterator<Item = &Node> {
        self.dependents(uid).filter(move |node| {
            node.owners
                .iter()
                .any(|owner| owner.uid == uid && owner.block_owner_deletion == Some(true))
        })
    }

    /// The owner that a reference of `dependent` names, if it is known.
    pub(super) fn owner(&self, owner: &OwnerReference, dependent: &Node) -> Option<&Node> {
        let node = self.nodes.get(&owner.uid)?;
        node.is_meant_by(owner, dependent).then_some(node)
    }

    /// Takes in an object that is new or has changed.
    pub(super) fn apply(&mut self, node: Node) -> Vec<Work> {
        let mut work = Vec::new();
        let uid = node.uid.clone();
        let old = self.nodes.remove(&uid);
        let old_owners = old.as_ref().map_or(&[][..], |old| &old.owners);
        for owner in old_owners {
            let now = node.owners.iter().find(|now| now.uid == owner.uid);
            if now.is_none() {
                self.unlink(&owner.uid, &uid);
            }
            let blocks = |owner: &OwnerReference| owner.block_owner_deletion == Some(true);
            if blocks(owner) && !now.is_some_and(blocks) {
                work.extend(self.if_waiting(&owner.uid));
            }
        }
        for owner in &node.owners {
            let dependents = self.dependents.entry(owner.uid.clone()).or_default();
            dependents.insert(uid.clone());
        }
        let owners_changed = node.owners != old_owners;
        let doubtful = |owner: &OwnerReference| {
            self.owner(owner, &node)
                .is_none_or(Node::waits_for_dependents)
        };
        if owners_changed && node.owners.iter().any(doubtful) {
            work.push(Work::Check(uid.clone()));
        }
        let was_waiting = old.as_ref().is_some_and(Node::waits_for_dependents);
        if node.waits_for_dependents() && !was_waiting {
            work.push(Work::Check(uid.clone()));
            work.extend(
                self.dependents(&uid)
                    .map(|node| Work::Check(node.uid.clone())),
            );
        }
        let was_orphaning = old.is_some_and(|old| old.deleting && old.orphan);
        if node.deleting && node.orphan && !was_orphaning {
            work.push(Work::Orphan(uid.clone()));
        }
        self.nodes.insert(uid, node);
        work.sort();
        work.dedup();
        work
    }

    /// Takes note that an object is gone.
    pub(super) fn remove(&mut self, uid: &str) -> Vec<Work> {
        let Some(node) = self.nodes.remove(uid) else {
            return Vec::new();
        };
        let mut work = Vec::new();
        for owner in &node.owners {
            self.unlink(&owner.uid, uid);
            work.extend(self.if_waiting(&owner.uid));
        }
        work.extend(
            self.dependents(uid)
                .map(|node| Work::Check(node.uid.clone())),
        );
        work.sort();
        work.dedup();
        work
    }

    fn unlink(&mut self, owner: &str, dependent: &str) {
        if let Some(dependents) = self.dependents.get_mut(owner) {
            dependents.remove(dependent);
            if dependents.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }

    fn if_waiting(&self, uid: &str) -> Option<Work> {
        let waits = self.nodes.get(uid).is_some_and(Node::waits_for_dependents);
        waits.then(|| Work::Check(uid.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(uid: &str, owners: &[&str]) -> Node {
        let owners = owners
            .iter()
            .map(|owner| {
                // `a!` is an owner whose deletion waits for the dependent.
                let uid = owner.trim_end_matches('!');
                OwnerReference {
                    api_version: "v1".to_owned(),
                    kind: "Thing".to_owned(),
                    name: uid.to_owned(),
                    uid: uid.to_owned(),
                    controller: None,
                    block_owner_deletion: owner.ends_with('!').then_some(true),
                }
            })
            .collect();
        Node {
            uid: uid.to_owned(),
            group: String::new(),
            kind: "Thing".to_owned(),
            key: ObjectKey::new("n", uid),
            owners,
            deleting: false,
            foreground: false,
            orphan: false,
        }
    }

    fn check(uid: &str) -> Work {
        Work::Check(uid.to_owned())
    }

    #[test]
    fn dependents_of_what_is_gone_are_looked_at() {
        let mut graph = Graph::default();
        assert_eq!(graph.apply(node("a", &[])), []);
        assert_eq!(graph.apply(node("b", &["a"])), []);
        assert_eq!(graph.apply(node("c", &["a", "b"])), []);
        assert_eq!(graph.remove("a"), [check("b"), check("c")]);
        assert_eq!(graph.remove("a"), []);
    }

    #[test]
    fn an_object_whose_owner_is_not_known_is_looked_at() {
        let mut graph = Graph::default();
        assert_eq!(graph.apply(node("b", &["a"])), [check("b")]);
        assert_eq!(graph.apply(node("b", &["a"])), [], "only once");
        graph.apply(node("a", &[]));
        let mut wrong = node("c", &["a"]);
        wrong.owners[0].name = "other".to_owned();
        assert_eq!(graph.apply(wrong), [check("c")], "same uid, other name");
        let mut elsewhere = node("d", &["a"]);
        elsewhere.key.namespace = "m".to_owned();
        assert_eq!(graph.apply(elsewhere), [check("d")], "other namespace");
    }

    #[test]
    fn a_foreground_deletion_goes_from_the_owner_to_its_dependents_and_back() {
        let mut graph = Graph::default();
        graph.apply(node("a", &[]));
        graph.apply(node("b", &["a!"]));
        graph.apply(node("c", &["a"]));
        let mut deleted = node("a", &[]);
        (deleted.deleting, deleted.foreground) = (true, true);
        assert_eq!(
            graph.apply(deleted.clone()),
            [check("a"), check("b"), check("c")]
        );
        assert_eq!(graph.apply(deleted), []);
        let blockers = |graph: &Graph| {
            graph
                .blockers("a")
                .map(|node| node.uid.clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(blockers(&graph), ["b"]);
        assert_eq!(
            graph.apply(node("b", &["a"])),
            [check("a"), check("b")],
            "no longer blocks"
        );
        assert!(blockers(&graph).is_empty());
        assert_eq!(graph.remove("b"), [check("a")]);
        assert_eq!(
            graph.apply(node("d", &["a"])),
            [check("d")],
            "made too late"
        );
    }

    #[test]
    fn orphaning_is_begun_once() {
        let mut graph = Graph::default();
        graph.apply(node("a", &[]));
        graph.apply(node("b", &["a"]));
        let mut deleted = node("a", &[]);
        (deleted.deleting, deleted.orphan) = (true, true);
        assert_eq!(graph.apply(deleted.clone()), [Work::Orphan("a".to_owned())]);
        assert_eq!(graph.apply(deleted), []);
        graph.apply(node("b", &[]));
        assert_eq!(graph.remove("a"), []);
    }
}
