//! Rules that other virtual services continue: a root's rule is replaced by the rules of its delegate, where both agree.

use std::{collections::BTreeMap, sync::Arc};

use lateen_api::{
    VirtualService,
    common::StringMatch,
    networking::{
        http_route::{HttpMatch, HttpRoute},
        virtual_service::Destination,
    },
};

use super::{declarations::exported, host::resolve_host};
use crate::Key;

/// The virtual services that refer to delegates, with the delegates' rules in place.
pub(super) fn merged(
    all: &BTreeMap<Key, Arc<VirtualService>>,
    domain: &str,
) -> BTreeMap<Key, Arc<VirtualService>> {
    let is_root = |rules: &VirtualService| {
        !rules.spec.hosts.is_empty() && rules.spec.http.iter().any(|rule| rule.delegate.is_some())
    };
    let roots = all.iter().filter(|(_, rules)| is_root(rules));
    roots
        .map(|(key, root)| (key.clone(), Arc::new(with_delegates(root, all, domain))))
        .collect()
}

fn with_delegates(
    root: &VirtualService,
    all: &BTreeMap<Key, Arc<VirtualService>>,
    domain: &str,
) -> VirtualService {
    let mut merged = root.clone();
    merged.spec.http = root
        .spec
        .http
        .iter()
        .flat_map(|rule| match &rule.delegate {
            None => vec![rule.clone()],
            Some(delegate) => {
                let namespace = match delegate.namespace.as_str() {
                    "" => root.namespace(),
                    namespace => namespace,
                };
                let found = all.get(&Key::new(namespace, &*delegate.name));
                // One that is missing, has hosts of its own or is not exported takes its rule along.
                let usable = found.filter(|found| {
                    found.spec.hosts.is_empty()
                        && exported(&found.spec.export_to, namespace, root.namespace())
                });
                usable.map_or_else(Vec::new, |found| continued(rule, found, domain))
            }
        })
        .collect();
    merged
}

/// The rules of a delegate under the conditions of the rule that refers to it. A rule that contradicts it is dropped.
fn continued(root: &HttpRoute, delegate: &VirtualService, domain: &str) -> Vec<HttpRoute> {
    let rules = delegate.spec.http.iter();
    rules
        .filter_map(|rule| {
            let mut rule = rule.clone();
            rule.r#match = conditions(&root.r#match, &rule.r#match)?;
            resolve(&mut rule, delegate.namespace(), domain);
            inherit(&mut rule, root);
            Some(rule)
        })
        .collect()
}

/// Short names are of the delegate's namespace.
fn resolve(rule: &mut HttpRoute, namespace: &str, domain: &str) {
    let full = |destination: &mut Destination| {
        destination.host = resolve_host(&destination.host, namespace, domain);
    };
    rule.route
        .iter_mut()
        .for_each(|one| full(&mut one.destination));
    rule.mirror.iter_mut().for_each(full);
    let mirrors = rule.mirrors.iter_mut();
    mirrors.for_each(|one| full(&mut one.destination));
}

fn inherit(rule: &mut HttpRoute, root: &HttpRoute) {
    rule.name = joined(&root.name, &rule.name);
    fn or<T: Clone>(own: &mut Option<T>, inherited: &Option<T>) {
        if own.is_none() {
            own.clone_from(inherited);
        }
    }
    or(&mut rule.rewrite, &root.rewrite);
    or(&mut rule.direct_response, &root.direct_response);
    or(&mut rule.timeout, &root.timeout);
    or(&mut rule.retries, &root.retries);
    or(&mut rule.fault, &root.fault);
    or(&mut rule.mirror, &root.mirror);
    or(&mut rule.mirror_percent, &root.mirror_percent);
    or(&mut rule.mirror_percentage, &root.mirror_percentage);
    or(&mut rule.cors_policy, &root.cors_policy);
    or(&mut rule.headers, &root.headers);
    if rule.mirrors.is_empty() {
        rule.mirrors.clone_from(&root.mirrors);
    }
}

fn joined(root: &str, own: &str) -> String {
    match (root, own) {
        ("", name) | (name, "") => name.to_owned(),
        (root, own) => format!("{root}-{own}"),
    }
}

/// Each condition of the delegate under each of the root that it does not contradict; `None` when one of the
/// delegate's contradicts all of the root's.
fn conditions(root: &[HttpMatch], own: &[HttpMatch]) -> Option<Vec<HttpMatch>> {
    if root.is_empty() {
        return Some(own.to_vec());
    }
    if own.is_empty() {
        return Some(root.to_vec());
    }
    let mut merged = Vec::new();
    for own in own {
        let before = merged.len();
        let agreeing = root.iter().filter(|root| !contradict(root, own));
        merged.extend(agreeing.map(|root| both(root, own)));
        if merged.len() == before {
            return None;
        }
    }
    Some(merged)
}

fn both(root: &HttpMatch, own: &HttpMatch) -> HttpMatch {
    let mut merged = own.clone();
    merged.name = joined(&root.name, &own.name);
    let texts = [
        (&mut merged.uri, &root.uri),
        (&mut merged.scheme, &root.scheme),
        (&mut merged.method, &root.method),
        (&mut merged.authority, &root.authority),
    ];
    for (own, root) in texts {
        if own.is_none() {
            own.clone_from(root);
        }
    }
    let maps = [
        (&mut merged.headers, &root.headers),
        (&mut merged.without_headers, &root.without_headers),
        (&mut merged.query_params, &root.query_params),
    ];
    for (own, root) in maps {
        for (name, wanted) in root {
            own.entry(name.clone()).or_insert_with(|| wanted.clone());
        }
    }
    for (name, value) in &root.source_labels {
        let labels = &mut merged.source_labels;
        labels.entry(name.clone()).or_insert_with(|| value.clone());
    }
    if merged.port == 0 {
        merged.port = root.port;
    }
    if merged.gateways.is_empty() {
        merged.gateways.clone_from(&root.gateways);
    }
    for (own, root) in [
        (&mut merged.source_namespace, &root.source_namespace),
        (&mut merged.stat_prefix, &root.stat_prefix),
    ] {
        if own.is_empty() {
            own.clone_from(root);
        }
    }
    merged
}

/// Whether what the delegate wants is not within what the root lets through.
fn contradict(root: &HttpMatch, own: &HttpMatch) -> bool {
    let texts = [
        (&root.uri, &own.uri),
        (&root.scheme, &own.scheme),
        (&root.method, &own.method),
        (&root.authority, &own.authority),
    ];
    let maps = [
        (&root.headers, &own.headers),
        (&root.without_headers, &own.without_headers),
        (&root.query_params, &own.query_params),
    ];
    texts
        .into_iter()
        .any(|(root, own)| texts_contradict(root.as_ref(), own.as_ref()))
        || maps.into_iter().any(|(root, own)| {
            own.iter()
                .any(|(name, own)| texts_contradict(root.get(name), Some(own)))
        })
        || root.ignore_uri_case != own.ignore_uri_case
        || (root.port > 0 && own.port > 0 && root.port != own.port)
        || (!root.source_namespace.is_empty() && root.source_namespace != own.source_namespace)
        || own.source_labels.iter().any(|(name, value)| {
            root.source_labels
                .get(name)
                .is_some_and(|wanted| wanted != value)
        })
        || (!root.gateways.is_empty()
            && own
                .gateways
                .iter()
                .any(|name| !root.gateways.contains(name)))
}

fn texts_contradict(root: Option<&StringMatch>, own: Option<&StringMatch>) -> bool {
    let (Some(root), Some(own)) = (root, own) else {
        return false;
    };
    // Whether one expression's language is within another's is not decided here.
    if root.regex.is_some() || own.regex.is_some() {
        return true;
    }
    match (&root.exact, &root.prefix, &own.exact, &own.prefix) {
        (Some(wanted), _, Some(own), _) => wanted != own,
        (None, Some(wanted), Some(own), _) | (None, Some(wanted), None, Some(own)) => {
            !own.starts_with(wanted.as_str())
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delegate_stays_within_its_root() {
        let text = |text: &str| {
            let (kind, value) = text.split_once(' ').unwrap_or(("exact", text));
            let value = Some(value.to_owned());
            match kind {
                "prefix" => StringMatch {
                    prefix: value,
                    ..StringMatch::default()
                },
                "regex" => StringMatch {
                    regex: value,
                    ..StringMatch::default()
                },
                _ => StringMatch {
                    exact: value,
                    ..StringMatch::default()
                },
            }
        };
        let check = |root: &str, own: &str, expected: bool| {
            let found = texts_contradict(Some(&text(root)), Some(&text(own)));
            assert_eq!(found, expected, "{own} under {root}");
        };
        check("prefix /a", "prefix /a/b", false);
        check("prefix /a", "exact /a/b", false);
        check("prefix /a/b", "prefix /a", true);
        check("exact /a", "exact /a", false);
        check("exact /a", "prefix /a", true);
        check("exact /a", "exact /b", true);
        check("regex .*", "exact /a", true);
    }
}
