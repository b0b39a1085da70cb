//! Which requests a webhook or a policy is about.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::selector::Selector;
use super::{Attributes, Operation};
use crate::resource::Resource;
use crate::status::{Result, Status};
use crate::store::{Key, Store};

/// API group of the configurations, which no configuration is about: nobody may lock everyone out of them.
const GROUP: &str = "admissionregistration.k8s.io";

/// A version of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) group: String,
    pub(crate) name: String,
}

impl Version {
    pub(crate) fn api_version(&self) -> String {
        match self.group.as_str() {
            "" => self.name.clone(),
            group => format!("{group}/{}", self.name),
        }
    }
}

/// Rules and selectors, parsed.
#[derive(Default)]
pub(crate) struct Matcher {
    rules: Vec<Rule>,
    excluded: Vec<Rule>,
    namespaces: Selector,
    objects: Selector,
    /// Requests in other versions of the same resource match too.
    equivalent: bool,
}

impl Matcher {
    /// Parses the members of a webhook or of `matchConstraints`; the two call their rules differently.
    pub(crate) fn parse(source: &Value) -> Self {
        let rules = |key: &str| {
            let list = source[key].as_array().into_iter().flatten();
            list.map(Rule::parse).collect::<Vec<_>>()
        };
        let mut all = rules("rules");
        all.extend(rules("resourceRules"));
        Self {
            rules: all,
            excluded: rules("excludeResourceRules"),
            namespaces: Selector::parse(&source["namespaceSelector"]),
            objects: Selector::parse(&source["objectSelector"]),
            equivalent: source["matchPolicy"] != "Exact",
        }
    }

    /// The version in which the request is to be shown; `None` when it does not match. Without rules everything
    /// matches when `all` says so.
    ///
    /// # Errors
    /// The namespace of the request does not exist.
    pub(crate) fn version(
        &self,
        store: &Store,
        attributes: &Attributes<'_>,
        object: Option<&Value>,
        all: bool,
    ) -> Result<Option<Version>> {
        if attributes.resource.group == GROUP {
            return Ok(None);
        }
        let found = if all && self.rules.is_empty() {
            Some((attributes.group, attributes.version))
        } else {
            self.find(&self.rules, attributes)
        };
        let Some((group, name)) = found else {
            return Ok(None);
        };
        if self.find(&self.excluded, attributes).is_some() {
            return Ok(None);
        }
        let labelled = |object: Option<&Value>| {
            object.is_some_and(|object| self.objects.matches(labels(object)))
        };
        if !self.objects.is_empty() && !labelled(object) && !labelled(attributes.old) {
            return Ok(None);
        }
        if !self.namespace_matches(store, attributes, object)? {
            return Ok(None);
        }
        Ok(Some(Version {
            group: group.to_owned(),
            name: name.to_owned(),
        }))
    }

    fn find<'a>(&self, rules: &[Rule], attributes: &Attributes<'a>) -> Option<(&'a str, &'a str)> {
        let (group, version) = (attributes.group, attributes.version);
        if rules
            .iter()
            .any(|rule| rule.matches(attributes, group, version))
        {
            return Some((group, version));
        }
        if !self.equivalent {
            return None;
        }
        // An earlier rule counts more than a better version.
        let resource: &'a Arc<Resource> = attributes.resource;
        rules.iter().find_map(|rule| {
            let mut versions = resource.versions.iter();
            let found =
                versions.find(|other| rule.matches(attributes, &other.group, &other.name))?;
            Some((found.group.as_str(), found.name.as_str()))
        })
    }

    fn namespace_matches(
        &self,
        store: &Store,
        attributes: &Attributes<'_>,
        object: Option<&Value>,
    ) -> Result<bool> {
        let of_namespace = is_namespace(attributes);
        if self.namespaces.is_empty() || (attributes.namespace.is_empty() && !of_namespace) {
            return Ok(true);
        }
        // The labels that a namespace is about to have.
        if of_namespace
            && attributes.subresource.is_empty()
            && matches!(attributes.operation, Operation::Create | Operation::Update)
        {
            return Ok(object.is_some_and(|namespace| self.namespaces.matches(labels(namespace))));
        }
        let name = if of_namespace {
            attributes.name
        } else {
            attributes.namespace
        };
        let namespace = namespace(store, name)?;
        Ok(self.namespaces.matches(labels(&namespace)))
    }
}

/// The namespace called `name`.
///
/// # Errors
/// There is none.
pub(crate) fn namespace(store: &Store, name: &str) -> Result<Arc<Value>> {
    let key = Key {
        resource: "namespaces".into(),
        namespace: String::new(),
        name: name.to_owned(),
    };
    store
        .get(&key)
        .ok_or_else(|| Status::not_found("", "namespaces", name))
}

/// Whether the request is about a namespace itself.
pub(crate) fn is_namespace(attributes: &Attributes<'_>) -> bool {
    attributes.resource.group.is_empty() && attributes.resource.plural == "namespaces"
}

/// The labels of an object.
pub(crate) fn labels(object: &Value) -> Option<&Map<String, Value>> {
    object["metadata"]["labels"].as_object()
}

/// One entry of `rules`.
struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    resources: Vec<String>,
    /// Names of objects; empty for all.
    names: Vec<String>,
    scope: String,
}

impl Rule {
    fn parse(source: &Value) -> Self {
        let texts = |key: &str| {
            let list = source[key].as_array().into_iter().flatten();
            list.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        Self {
            operations: texts("operations"),
            groups: texts("apiGroups"),
            versions: texts("apiVersions"),
            resources: texts("resources"),
            names: texts("resourceNames"),
            scope: source["scope"].as_str().unwrap_or("*").to_owned(),
        }
    }

    fn matches(&self, attributes: &Attributes<'_>, group: &str, version: &str) -> bool {
        let any =
            |list: &[String], wanted: &str| list.iter().any(|one| one == "*" || one == wanted);
        let in_namespace = !attributes.namespace.is_empty() && !is_namespace(attributes);
        let scope = match self.scope.as_str() {
            "Namespaced" => in_namespace,
            "Cluster" => !in_namespace,
            _ => true,
        };
        scope
            && any(&self.operations, attributes.operation.name())
            && any(&self.groups, group)
            && any(&self.versions, version)
            && (self.names.is_empty() || self.names.iter().any(|name| name == attributes.name))
            && self.resources.iter().any(|resource| {
                let (plural, subresource) = resource.split_once('/').unwrap_or((resource, ""));
                (plural == "*" || plural == attributes.resource.plural)
                    && (subresource == "*" || subresource == attributes.subresource)
            })
    }
}
