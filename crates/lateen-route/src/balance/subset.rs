//! Subsets: parts of a cluster by the metadata of its endpoints, chosen by what a route asks for. Envoy's
//! `Cluster.LbSubsetConfig`.

use std::collections::{BTreeMap, BTreeSet};

use lateen_xds::pb::envoy::config::core::v3::Metadata;
use lateen_xds::pb::google::protobuf::{Struct, Value, value::Kind};

use super::{Balancer, Member, Pick, Settings, State};

/// Keys with values. Values are compared as text in a canonical form.
pub type Labels = BTreeMap<String, String>;

/// The labels of an endpoint or of what a route asks for: the metadata under `envoy.lb`.
pub fn labels(metadata: Option<&Metadata>) -> Labels {
    let fields = metadata.and_then(|metadata| metadata.filter_metadata.get("envoy.lb"));
    fields.map(labels_of).unwrap_or_default()
}

/// Labels out of a struct.
pub fn labels_of(fields: &Struct) -> Labels {
    let fields = fields.fields.iter();
    fields
        .map(|(key, value)| (key.clone(), canonical(value)))
        .collect()
}

/// A value as text that tells all values apart.
fn canonical(value: &Value) -> String {
    match &value.kind {
        Some(Kind::StringValue(text)) => format!("\"{text}\""),
        Some(Kind::NumberValue(number)) => number.to_string(),
        Some(Kind::BoolValue(value)) => value.to_string(),
        Some(Kind::ListValue(list)) => {
            let values: Vec<String> = list.values.iter().map(canonical).collect();
            format!("[{}]", values.join(","))
        }
        Some(Kind::StructValue(fields)) => format!("{:?}", labels_of(fields)),
        Some(Kind::NullValue(_)) | None => "null".to_owned(),
    }
}

/// How endpoints are grouped.
#[derive(Debug, Clone, Default)]
pub struct SubsetSettings {
    /// What happens to requests that ask for no subset that there is.
    pub fallback: Fallback,
    /// The subset for [`Fallback::Default`].
    pub default: Labels,
    /// Sets of keys by which subsets are made.
    pub selectors: Vec<Selector>,
    /// Localities keep their weights within subsets.
    pub locality_weight_aware: bool,
}

/// Keys by which subsets are made.
#[derive(Debug, Clone, Default)]
pub struct Selector {
    /// Endpoints with the same values of all these keys are one subset.
    pub keys: BTreeSet<String>,
    /// What happens to requests that name these keys and values that nobody has; nothing: as the cluster says.
    pub fallback: Option<Fallback>,
    /// The keys that are kept for [`Fallback::Keys`].
    pub fallback_keys: BTreeSet<String>,
}

/// What happens to a request whose subset does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fallback {
    /// It fails.
    #[default]
    None,
    /// Any endpoint takes it.
    Any,
    /// The default subset takes it.
    Default,
    /// It is looked up again by some of its keys.
    Keys,
}

/// Balancers for all subsets of a cluster.
#[derive(Debug)]
pub struct Subsets {
    settings: SubsetSettings,
    any: Part,
    default: Option<Part>,
    parts: BTreeMap<Labels, Part>,
}

/// A balancer over some of the members.
#[derive(Debug)]
struct Part {
    balancer: Balancer,
    members: Vec<usize>,
    /// Position of its state.
    number: usize,
}

/// States of the balancers of all subsets. One per worker.
#[derive(Debug, Default)]
pub struct SubsetState(Vec<State>);

impl Subsets {
    /// Builds the balancers. `labels` belong to the members in the same order.
    pub fn build(
        subsets: SubsetSettings,
        settings: &Settings,
        members: &[Member],
        labels: &[Labels],
    ) -> Self {
        let mut within = settings.clone();
        if !subsets.locality_weight_aware {
            within.locality_weights = None;
        }
        let mut number = 0;
        let mut part = |settings: &Settings, chosen: Vec<usize>| {
            let some: Vec<Member> = chosen.iter().map(|index| members[*index].clone()).collect();
            number += 1;
            Part {
                balancer: Balancer::build(settings, &some),
                members: chosen,
                number: number - 1,
            }
        };
        let any = part(settings, (0..members.len()).collect());
        let has = |wanted: &Labels, index: &usize| {
            let own = &labels[*index];
            wanted
                .iter()
                .all(|(key, value)| own.get(key) == Some(value))
        };
        let chosen: Vec<usize> = (0..members.len())
            .filter(|index| has(&subsets.default, index))
            .collect();
        let default = (!chosen.is_empty()).then(|| part(&within, chosen));
        let mut groups: BTreeMap<Labels, Vec<usize>> = BTreeMap::new();
        for selector in &subsets.selectors {
            let mut of_selector: BTreeMap<Labels, Vec<usize>> = BTreeMap::new();
            for (index, own) in labels.iter().enumerate() {
                let values: Labels = selector
                    .keys
                    .iter()
                    .filter_map(|key| Some((key.clone(), own.get(key)?.clone())))
                    .collect();
                if values.len() == selector.keys.len() {
                    of_selector.entry(values).or_default().push(index);
                }
            }
            groups.extend(of_selector);
        }
        let parts = groups
            .into_iter()
            .map(|(values, chosen)| (values, part(&within, chosen)))
            .collect();
        Self {
            settings: subsets,
            any,
            default,
            parts,
        }
    }

    /// Chooses an endpoint of the subset that is asked for, or as the fallback says.
    pub fn pick(
        &self,
        state: &mut SubsetState,
        wanted: &Labels,
        pick: &mut Pick<'_>,
    ) -> Option<usize> {
        let part = self.part(wanted)?;
        if state.0.len() <= part.number {
            state.0.resize_with(part.number + 1, State::default);
        }
        let (load, age) = (pick.load, pick.age);
        let load = |index: usize| load(part.members[index]);
        let within =
            |index: usize| age.map_or_else(Default::default, |age| age(part.members[index]));
        let mut inner = Pick {
            hash: pick.hash,
            random: &mut *pick.random,
            load: &load,
            age: age.is_some().then_some(&within),
            attempt: pick.attempt,
            previous: pick.previous,
        };
        let chosen = part.balancer.pick(&mut state.0[part.number], &mut inner)?;
        Some(part.members[chosen])
    }

    fn part(&self, wanted: &Labels) -> Option<&Part> {
        if !wanted.is_empty()
            && let Some(part) = self.parts.get(wanted)
        {
            return Some(part);
        }
        let selector = self.settings.selectors.iter().find(|selector| {
            selector.keys.len() == wanted.len() && selector.keys.iter().eq(wanted.keys())
        });
        let of_selector = selector.and_then(|selector| selector.fallback);
        match of_selector.unwrap_or(self.settings.fallback) {
            Fallback::None => None,
            Fallback::Any => Some(&self.any),
            Fallback::Default => self.default.as_ref(),
            Fallback::Keys => {
                // Fewer keys each time: the configuration asks for a true subset of the keys.
                let kept = &selector?.fallback_keys;
                let fewer = wanted.iter().filter(|(key, _)| kept.contains(*key));
                let fewer = fewer.map(|(key, value)| (key.clone(), value.clone()));
                self.part(&fewer.collect())
            }
        }
    }
}
