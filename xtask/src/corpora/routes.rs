//! Routes of sidecars: which clusters each virtual host leads to.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use lateen_mesh::{Index, MeshConfig, resources};
use lateen_route::RouteTable;
use lateen_xds::{ResourceType, pb::envoy::config::route::v3::RouteConfiguration};
use prost::Message;
use serde_json::Value;

use super::{Case, Outcome, proxy::proxy_of};
use crate::manifests;

/// Runs all cases.
pub(crate) fn run(cases: &Value) -> Result<Vec<Case>> {
    cases.as_array().into_iter().flatten().map(case).collect()
}

fn case(case: &Value) -> Result<Case> {
    let text = |field: &str| case[field].as_str().unwrap_or_default();
    Ok(Case {
        group: text("variant").to_owned(),
        name: text("name").to_owned(),
        outcome: compare(case)?,
    })
}

fn compare(case: &Value) -> Result<Outcome> {
    let text = |field: &str| case[field].as_str().unwrap_or_default();
    let index = index_of(&[text("config")], MeshConfig::default())?;
    let proxy = proxy_of(&serde_json::json!({"namespace": text("proxyNamespace")}))?;
    let names = [text("routeName")].into_iter().collect();
    let found = resources(&index, &proxy, ResourceType::Route, &names);
    let mut hosts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for resource in &found {
        let configuration = RouteConfiguration::decode(resource.body.value.as_slice())?;
        for host in configuration.virtual_hosts {
            let name = host
                .name
                .rsplit_once(':')
                .map_or(host.name.as_str(), |(name, _)| name)
                .to_owned();
            let single = RouteConfiguration {
                virtual_hosts: vec![host],
                ..RouteConfiguration::default()
            };
            let table = RouteTable::compile(single).map_err(|error| anyhow::anyhow!("{error}"))?;
            hosts.insert(name, table.clusters().map(str::to_owned).collect());
        }
    }
    for (host, expected) in case["expectedVhostClusters"]
        .as_object()
        .into_iter()
        .flatten()
    {
        let found = hosts.get(host);
        let same = match expected.as_array() {
            None => found.is_none(),
            Some(clusters) => found.is_some_and(|found| {
                found.len() == clusters.len()
                    && found.iter().zip(clusters).all(|(a, b)| b == a.as_str())
            }),
        };
        if !same {
            return Ok(Outcome::Failed(format!(
                "{host} leads to {found:?}, expected {expected}"
            )));
        }
    }
    Ok(Outcome::Passed)
}

/// An index of the objects of YAML texts.
pub(crate) fn index_of(texts: &[&str], mesh: MeshConfig) -> Result<Index> {
    let mut index = Index::new(mesh);
    for text in texts {
        for mut object in manifests::documents(text)? {
            manifests::stored(&mut object, "default", 0);
            if let Some(change) = manifests::change(&object).context("case")? {
                index.apply(change);
            }
        }
    }
    Ok(index)
}
