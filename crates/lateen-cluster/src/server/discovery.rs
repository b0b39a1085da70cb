//! Discovery documents, the version and health.

use std::sync::Arc;

use http::header::ACCEPT;
use http::request::Parts;
use http::{Method, Response};
use serde_json::{Map, Value, json};

use super::Api;
use super::body::Body;
use super::respond::{json_response, with_type};
use super::target::join;
use crate::registry::Table;
use crate::resource::{Resource, Version};

/// The Kubernetes version whose behaviour the server follows.
pub(super) const VERSION: (&str, &str, &str) = ("1", "36", "v1.36.0");

/// What anybody may ask, without saying who they are.
pub(super) fn public(path: &str) -> Option<Response<Body>> {
    match path {
        "/healthz" | "/livez" | "/readyz" => {
            Some(with_type(200, "text/plain; charset=utf-8", "ok"))
        }
        "/version" | "/version/" => {
            let (major, minor, git) = VERSION;
            Some(json_response(
                200,
                &json!({
                    "major": major,
                    "minor": minor,
                    "gitVersion": git,
                    "gitCommit": "",
                    "gitTreeState": "clean",
                    "buildDate": "2026-01-01T00:00:00Z",
                    "goVersion": "none",
                    "compiler": "rustc",
                    "platform": format!("linux/{}", architecture()),
                }),
            ))
        }
        _ => None,
    }
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Discovery for users; `None` for paths that are something else.
pub(super) fn answer(api: &Arc<Api>, table: &Table, parts: &Parts) -> Option<Response<Body>> {
    if parts.method != Method::GET && parts.method != Method::HEAD {
        return None;
    }
    let path: Vec<&str> = parts
        .uri
        .path()
        .split('/')
        .filter(|part| !part.is_empty())
        .collect();
    let aggregated = aggregated_version(parts);
    let document = match path.as_slice() {
        [] => {
            json!({"paths": ["/api", "/api/v1", "/apis", "/healthz", "/livez", "/openapi/v3", "/readyz", "/version"]})
        }
        ["api"] | ["apis"] => {
            let core = path == ["api"];
            if let Some(version) = aggregated {
                let media = match version {
                    "v2" => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
                    _ => {
                        "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"
                    }
                };
                let text = group_discovery_list(table, core, version).to_string();
                return Some(with_type(200, media, text));
            }
            if core {
                legacy_core()
            } else {
                legacy_groups(table)
            }
        }
        ["openapi", "v2"] => return Some(super::openapi::version_2(&parts.headers)),
        ["openapi", "v3"] => return Some(api.documents.index(table)),
        ["openapi", "v3", "api", version] => return api.documents.document(table, "", version),
        ["openapi", "v3", "apis", group, version] => {
            return api.documents.document(table, group, version);
        }
        [".well-known", "openid-configuration"] => json!({
            "issuer": crate::tokens::ISSUER,
            "jwks_uri": format!("{}/openid/v1/jwks", crate::tokens::ISSUER),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        }),
        ["openid", "v1", "jwks"] => api.tokens.key_set(),
        ["api", version] => legacy_resources(table, "", version)?,
        ["apis", group] => legacy_group(table, group)?,
        ["apis", group, version] => legacy_resources(table, group, version)?,
        _ => return None,
    };
    Some(json_response(200, &document))
}

/// The version of aggregated discovery that the client prefers, if it wants it.
fn aggregated_version(parts: &Parts) -> Option<&'static str> {
    let accept = parts.headers.get(ACCEPT)?.to_str().ok()?;
    accept.split(',').find_map(|entry| {
        if !entry.contains("as=APIGroupDiscoveryList") {
            return None;
        }
        if entry.contains("v=v2beta1") {
            Some("v2beta1")
        } else if entry.contains("v=v2") {
            Some("v2")
        } else {
            None
        }
    })
}

/// Groups in order of first appearance, each with its versions, best first.
pub(super) fn groups(table: &Table) -> Vec<(String, Vec<String>)> {
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for version in table.rows().iter().flat_map(|row| &row.versions) {
        let index = match groups.iter().position(|(name, _)| *name == version.group) {
            Some(index) => index,
            None => {
                groups.push((version.group.clone(), Vec::new()));
                groups.len() - 1
            }
        };
        if !groups[index].1.contains(&version.name) {
            groups[index].1.push(version.name.clone());
        }
    }
    for (_, versions) in &mut groups {
        versions.sort_by_key(|name| std::cmp::Reverse(rank(name)));
    }
    groups
}

/// Order of versions: stable before beta before alpha, then the higher number (`version.CompareKubeAwareVersionStrings`).
fn rank(version: &str) -> (u8, u32, u32) {
    let numbers = version.trim_start_matches('v');
    let digits = |text: &str| text.parse().unwrap_or(0);
    if let Some((major, minor)) = numbers.split_once("beta") {
        (2, digits(major), digits(minor))
    } else if let Some((major, minor)) = numbers.split_once("alpha") {
        (1, digits(major), digits(minor))
    } else {
        (3, digits(numbers), 0)
    }
}

/// Rows that are served in a group's version.
pub(super) fn served<'t>(
    table: &'t Table,
    group: &'t str,
    version: &'t str,
) -> impl Iterator<Item = (&'t Arc<Resource>, &'t Version)> {
    table.rows().iter().filter_map(move |row| {
        let served = row
            .versions
            .iter()
            .find(|served| served.group == group && served.name == version)?;
        Some((row, served))
    })
}

/// Subresources of a row: name, group/version/kind of what they carry, verbs.
fn subresources(row: &Resource) -> Vec<(&'static str, [&'static str; 3], Vec<&'static str>)> {
    const OWN: [&str; 3] = ["", "", ""];
    let mut found = Vec::new();
    let rw = || vec!["get", "patch", "update"];
    if row.group.is_empty() {
        match row.plural.as_str() {
            "namespaces" => found.push(("finalize", OWN, vec!["update"])),
            "pods" => {
                found.push((
                    "attach",
                    ["", "v1", "PodAttachOptions"],
                    vec!["create", "get"],
                ));
                found.push(("binding", ["", "v1", "Binding"], vec!["create"]));
                found.push(("eviction", ["policy", "v1", "Eviction"], vec!["create"]));
                found.push(("exec", ["", "v1", "PodExecOptions"], vec!["create", "get"]));
                found.push(("log", OWN, vec!["get"]));
                found.push((
                    "portforward",
                    ["", "v1", "PodPortForwardOptions"],
                    vec!["create", "get"],
                ));
            }
            "serviceaccounts" => found.push((
                "token",
                ["authentication.k8s.io", "v1", "TokenRequest"],
                vec!["create"],
            )),
            _ => {}
        }
    }
    if row.scale.is_some() {
        found.push(("scale", ["autoscaling", "v1", "Scale"], rw()));
    }
    if row.status_subresource {
        found.push(("status", OWN, rw()));
    }
    found
}

fn group_discovery_list(table: &Table, core: bool, discovery: &str) -> Value {
    let items: Vec<Value> = groups(table)
        .into_iter()
        .filter(|(name, _)| name.is_empty() == core)
        .map(|(name, versions)| {
            let versions: Vec<Value> = versions
                .iter()
                .map(|version| {
                    let resources: Vec<Value> = served(table, &name, version)
                        .map(|(row, _)| discovered(row, &name, version))
                        .collect();
                    json!({"version": version, "resources": resources, "freshness": "Current"})
                })
                .collect();
            let metadata = if core {
                json!({})
            } else {
                json!({"name": name})
            };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{discovery}"),
        "metadata": {},
        "items": items,
    })
}

fn discovered(row: &Resource, group: &str, version: &str) -> Value {
    let kind = |[g, v, k]: [&str; 3]| {
        if k.is_empty() {
            json!({"group": group, "version": version, "kind": row.kind})
        } else {
            json!({"group": g, "version": v, "kind": k})
        }
    };
    let subresources: Vec<Value> = subresources(row)
        .into_iter()
        .map(|(name, carries, verbs)| {
            json!({"subresource": name, "responseKind": kind(carries), "verbs": verbs})
        })
        .collect();
    let mut resource = json!({
        "resource": row.plural,
        "responseKind": kind(["", "", ""]),
        "scope": if row.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": row.singular,
        "verbs": row.verbs,
    });
    add_short_forms(&mut resource, row, group);
    if !subresources.is_empty() {
        resource["subresources"] = json!(subresources);
    }
    resource
}

/// Short names and categories belong to the present group only: kubectl would warn of them under an old one.
fn add_short_forms(entry: &mut Value, row: &Resource, group: &str) {
    if row.group != group {
        return;
    }
    for (field, list) in [
        ("shortNames", &row.short_names),
        ("categories", &row.categories),
    ] {
        if !list.is_empty() {
            entry[field] = json!(list);
        }
    }
}

fn legacy_core() -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [],
    })
}

fn legacy_groups(table: &Table) -> Value {
    let groups: Vec<Value> = groups(table)
        .into_iter()
        .filter(|(name, _)| !name.is_empty())
        .map(|(name, versions)| Value::Object(group_fields(&name, &versions)))
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

fn legacy_group(table: &Table, group: &str) -> Option<Value> {
    let (name, versions) = groups(table).into_iter().find(|(name, _)| name == group)?;
    let mut document = Map::new();
    document.insert("kind".to_owned(), json!("APIGroup"));
    document.insert("apiVersion".to_owned(), json!("v1"));
    document.extend(group_fields(&name, &versions));
    Some(Value::Object(document))
}

fn group_fields(name: &str, versions: &[String]) -> Map<String, Value> {
    let entry = |version: &String| json!({"groupVersion": join(name, version), "version": version});
    let mut fields = Map::new();
    fields.insert("name".to_owned(), json!(name));
    fields.insert(
        "versions".to_owned(),
        versions.iter().map(entry).collect::<Vec<_>>().into(),
    );
    fields.insert(
        "preferredVersion".to_owned(),
        versions.first().map_or(Value::Null, entry),
    );
    fields
}

fn legacy_resources(table: &Table, group: &str, version: &str) -> Option<Value> {
    let mut resources = Vec::new();
    for (row, _) in served(table, group, version) {
        let mut entry = json!({
            "name": row.plural,
            "singularName": row.singular,
            "namespaced": row.namespaced,
            "kind": row.kind,
            "verbs": row.verbs,
        });
        add_short_forms(&mut entry, row, group);
        resources.push(entry);
        for (name, [g, v, k], verbs) in subresources(row) {
            let mut entry = json!({
                "name": format!("{}/{name}", row.plural),
                "singularName": "",
                "namespaced": row.namespaced,
                "kind": if k.is_empty() { row.kind.as_str() } else { k },
                "verbs": verbs,
            });
            if !v.is_empty() {
                entry["group"] = json!(g);
                entry["version"] = json!(v);
            }
            resources.push(entry);
        }
    }
    (!resources.is_empty()).then(|| {
        json!({
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": join(group, version),
            "resources": resources,
        })
    })
}
