//! `/config_dump`: every resource as it was received, in Envoy's JSON.

use std::time::SystemTime;

use http::StatusCode;
use lateen_xds::json::{self, FieldNames};
use lateen_xds::{Resource, ResourceType};
use regex::Regex;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Control;
use super::query::Query;
use super::reply::pretty;
use crate::config::store::dump::DumpEntry;

/// Lists of the sections, which may be empty.
const RESOURCES: [&str; 12] = [
    "static_clusters",
    "dynamic_active_clusters",
    "dynamic_warming_clusters",
    "static_listeners",
    "dynamic_listeners",
    "static_route_configs",
    "dynamic_route_configs",
    "static_endpoint_configs",
    "dynamic_endpoint_configs",
    "static_secrets",
    "dynamic_active_secrets",
    "dynamic_warming_secrets",
];

/// Leaves only the fields on these paths, and what says the type.
fn keep(value: &mut Value, paths: &[Vec<&str>]) {
    match value {
        Value::Object(fields) => fields.retain(|key, inner| {
            let rest: Vec<Vec<&str>> = paths
                .iter()
                .filter(|path| path.first() == Some(&key.as_str()))
                .map(|path| path[1..].to_vec())
                .collect();
            if rest.iter().all(|path| !path.is_empty()) && !rest.is_empty() {
                keep(inner, &rest);
            }
            key == "@type" || !rest.is_empty()
        }),
        Value::Array(items) => items.iter_mut().for_each(|item| keep(item, paths)),
        _ => {}
    }
}

/// The dump, or why the query is wrong.
pub(super) fn config_dump(
    control: &Control,
    query: &Query<'_>,
) -> Result<String, (StatusCode, String)> {
    let names = match query.decoded("name_regex") {
        None => None,
        Some(pattern) => {
            let anchored = format!("^(?:{pattern})$");
            Some(Regex::new(&anchored).map_err(|error| {
                (
                    StatusCode::BAD_REQUEST,
                    format!("Error while parsing name_regex from {pattern}: {error}\n"),
                )
            })?)
        }
    };
    let wanted = |name: &str| names.as_ref().is_none_or(|names| names.is_match(name));
    let mut sections = vec![bootstrap(control), clusters(control, &wanted)];
    if query.has("include_eds") {
        sections.push(endpoints(control, &wanted));
    }
    sections.push(listeners(control, &wanted));
    let scoped = "type.googleapis.com/envoy.admin.v3.ScopedRoutesConfigDump";
    sections.push(json!({ "@type": scoped }));
    sections.push(routes(control, &wanted));
    sections.push(super::secrets::dump(&control.shared, &wanted));
    if let Some(resource) = query.get("resource") {
        let known = |section: &&Value| section.get(resource).is_some();
        sections = match sections
            .iter()
            .find(known)
            .map(|section| &section[resource])
        {
            Some(Value::Array(items)) => items.clone(),
            Some(_) => {
                return Err((
                    StatusCode::BAD_REQUEST,
                    format!(
                        "{resource} is not a repeated field. Use ?mask= to get only this field"
                    ),
                ));
            }
            None if RESOURCES.contains(&resource) => Vec::new(),
            None => {
                let text = format!("{resource} not found in config dump");
                return Err((StatusCode::NOT_FOUND, text));
            }
        };
    }
    if let Some(mask) = query.decoded("mask") {
        let paths: Vec<Vec<&str>> = mask
            .split(',')
            .map(|path| path.split('.').collect())
            .collect();
        for section in &mut sections {
            keep(section, &paths);
        }
    }
    Ok(pretty(&json!({ "configs": sections })))
}

fn bootstrap(control: &Control) -> Value {
    let node = json::from_message(&*control.node, FieldNames::Proto).unwrap_or_default();
    json!({
        "@type": "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump",
        "bootstrap": { "node": node },
        "last_updated": timestamp(control.shared.started_at),
    })
}

fn clusters(control: &Control, wanted: &dyn Fn(&str) -> bool) -> Value {
    let mut section = section(control, ResourceType::Cluster, "ClustersConfigDump");
    let (mut active, mut warming) = (Vec::new(), Vec::new());
    each(control, ResourceType::Cluster, wanted, |_, entry| {
        let mut item = Map::new();
        if let Some((resource, at)) = &entry.accepted {
            item = state("cluster", resource, *at);
        }
        if let Some(error) = error(entry) {
            item.insert("error_state".to_owned(), error);
        }
        if entry.warming {
            &mut warming
        } else {
            &mut active
        }
        .push(Value::Object(item));
    });
    section.insert("dynamic_active_clusters".to_owned(), active.into());
    if !warming.is_empty() {
        section.insert("dynamic_warming_clusters".to_owned(), warming.into());
    }
    Value::Object(section)
}

fn listeners(control: &Control, wanted: &dyn Fn(&str) -> bool) -> Value {
    let mut section = section(control, ResourceType::Listener, "ListenersConfigDump");
    let mut all = Vec::new();
    each(control, ResourceType::Listener, wanted, |name, entry| {
        let mut item = Map::new();
        item.insert("name".to_owned(), json!(name));
        if let Some((resource, at)) = &entry.accepted {
            let key = if entry.warming {
                "warming_state"
            } else {
                "active_state"
            };
            item.insert(
                key.to_owned(),
                Value::Object(state("listener", resource, *at)),
            );
        }
        if let Some(error) = error(entry) {
            item.insert("error_state".to_owned(), error);
        }
        all.push(Value::Object(item));
    });
    section.insert("dynamic_listeners".to_owned(), all.into());
    Value::Object(section)
}

fn routes(control: &Control, wanted: &dyn Fn(&str) -> bool) -> Value {
    let mut all = Vec::new();
    each(control, ResourceType::Route, wanted, |_, entry| {
        if let Some((resource, at)) = &entry.accepted {
            all.push(Value::Object(state("route_config", resource, *at)));
        }
    });
    let mut inline = Vec::new();
    each(control, ResourceType::Listener, &|_| true, |_, entry| {
        if let Some((resource, at)) = &entry.accepted {
            inline_routes(&body(resource), wanted, *at, &mut inline);
        }
    });
    json!({
        "@type": "type.googleapis.com/envoy.admin.v3.RoutesConfigDump",
        "static_route_configs": inline,
        "dynamic_route_configs": all,
    })
}

/// Finds the route configurations that are given in a listener itself.
fn inline_routes(
    value: &Value,
    wanted: &dyn Fn(&str) -> bool,
    at: SystemTime,
    found: &mut Vec<Value>,
) {
    match value {
        Value::Object(fields) => {
            for (key, inner) in fields {
                let name = inner
                    .get("name")
                    .and_then(Value::as_str)
                    .unwrap_or_default();
                if key == "route_config" && wanted(name) {
                    let mut routes = inner.clone();
                    routes["@type"] = json!(ResourceType::Route.type_url());
                    found.push(json!({ "route_config": routes, "last_updated": timestamp(at) }));
                } else {
                    inline_routes(inner, wanted, at, found);
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                inline_routes(item, wanted, at, found);
            }
        }
        _ => {}
    }
}

fn endpoints(control: &Control, wanted: &dyn Fn(&str) -> bool) -> Value {
    let mut all = Vec::new();
    each(control, ResourceType::Endpoint, wanted, |_, entry| {
        if let Some((resource, at)) = &entry.accepted {
            all.push(Value::Object(state("endpoint_config", resource, *at)));
        }
    });
    json!({
        "@type": "type.googleapis.com/envoy.admin.v3.EndpointsConfigDump",
        "dynamic_endpoint_configs": all,
    })
}

fn section(control: &Control, kind: ResourceType, message: &str) -> Map<String, Value> {
    let mut section = Map::new();
    let url = format!("type.googleapis.com/envoy.admin.v3.{message}");
    section.insert("@type".to_owned(), json!(url));
    if let Some(version) = control.shared.dump.lock().versions.get(&kind) {
        section.insert("version_info".to_owned(), json!(version));
    }
    section
}

fn each(
    control: &Control,
    kind: ResourceType,
    wanted: &dyn Fn(&str) -> bool,
    mut visit: impl FnMut(&str, &DumpEntry),
) {
    let dump = control.shared.dump.lock();
    for (name, entry) in dump.kinds.get(&kind).into_iter().flatten() {
        if wanted(name) {
            visit(name, entry);
        }
    }
}

fn state(key: &str, resource: &Resource, at: SystemTime) -> Map<String, Value> {
    let mut state = Map::new();
    state.insert("version_info".to_owned(), json!(resource.version));
    state.insert(key.to_owned(), body(resource));
    state.insert("last_updated".to_owned(), json!(timestamp(at)));
    state
}

fn error(entry: &DumpEntry) -> Option<Value> {
    let (resource, reason, at) = entry.rejected.as_ref()?;
    Some(json!({
        "failed_configuration": body(resource),
        "last_update_attempt": timestamp(*at),
        "details": reason,
        "version_info": resource.version,
    }))
}

fn body(resource: &Resource) -> Value {
    json::from_any(&resource.body, FieldNames::Proto).unwrap_or_else(
        |error| json!({ "@type": resource.body.type_url, "error": error.to_string() }),
    )
}

pub(super) fn timestamp(at: SystemTime) -> String {
    OffsetDateTime::from(at)
        .format(&Rfc3339)
        .unwrap_or_default()
}
