//! Preference of endpoints by place: shares, and priorities for failover.

use std::collections::BTreeMap;

use lateen_api::networking::traffic_policy::{
    LocalityDistribute, LocalityFailover, LocalityLbSetting,
};
use lateen_xds::pb::envoy::config::{
    cluster::v3::cluster::common_lb_config::{LocalityConfigSpecifier, LocalityWeightedLbConfig},
    endpoint::v3::LocalityLbEndpoints,
};

use super::{build::number, policy::Policy};
use crate::{
    Index, Proxy,
    index::{Endpoint, Locality},
};

/// Labels that stand for places.
const REGION: &str = "topology.kubernetes.io/region";
const ZONE: &str = "topology.kubernetes.io/zone";
const SUB_ZONE: &str = "topology.istio.io/subzone";
const NETWORK: &str = "topology.istio.io/network";

/// How the endpoints of a cluster are preferred, for one client.
pub(super) struct Preference<'a> {
    /// Nothing when places do not count.
    setting: Option<&'a LocalityLbSetting>,
    enabled: bool,
    /// Without it a proxy never learns that a place failed.
    outliers: bool,
    place: Locality,
    labels: &'a BTreeMap<String, String>,
}

impl<'a> Preference<'a> {
    /// What a policy says. Without a word of it places count for failover, where outliers are detected.
    pub(super) fn of(index: &'a Index, proxy: &'a Proxy, policy: &Policy<'a>) -> Self {
        let balancer = policy.load_balancer;
        let setting = balancer.and_then(|balancer| balancer.locality_lb_setting.as_ref());
        Self {
            setting,
            enabled: setting.is_none_or(|setting| setting.enabled != Some(false)),
            outliers: policy.outlier_detection.is_some(),
            place: index.locality_of(proxy),
            labels: &proxy.labels,
        }
    }

    /// Whether the shares of places count, instead of those of their endpoints.
    pub(super) fn weighted(&self) -> Option<LocalityConfigSpecifier> {
        let setting = self.setting.filter(|_| self.enabled)?;
        let ordered = !setting.failover.is_empty() || !setting.failover_priority.is_empty();
        let weighted = !setting.distribute.is_empty() || (self.outliers && ordered);
        weighted.then(|| {
            LocalityConfigSpecifier::LocalityWeightedLbConfig(LocalityWeightedLbConfig::default())
        })
    }

    /// The rank of an endpoint by its labels; all have the first one where labels do not order them.
    pub(super) fn rank(&self, endpoint: &Endpoint) -> u32 {
        let setting = self
            .setting
            .filter(|setting| self.enabled && self.outliers && setting.distribute.is_empty());
        let order = setting.map_or(&[][..], |setting| &setting.failover_priority);
        if self.labels.is_empty() {
            return 0;
        }
        let count = u32::try_from(order.len()).unwrap_or(u32::MAX);
        let of_place = |place: &Locality, label: &str| match label {
            REGION => Some(place.region.clone()),
            ZONE => Some(place.zone.clone()),
            SUB_ZONE => Some(place.sub_zone.clone()),
            // There is one network.
            NETWORK => Some(String::new()),
            _ => None,
        };
        let value = |place: &Locality, labels: &BTreeMap<String, String>, label: &str| {
            of_place(place, label).or_else(|| labels.get(label).cloned())
        };
        for (position, wanted) in (0..count).zip(order) {
            let (label, own) = match wanted.split_once('=') {
                Some((label, own)) => (label, Some(own.to_owned())),
                None => (wanted.as_str(), value(&self.place, self.labels, wanted)),
            };
            if own.unwrap_or_default()
                != value(&endpoint.locality, &endpoint.labels, label).unwrap_or_default()
            {
                return count - position;
            }
        }
        0
    }

    /// Gives groups of endpoints of one place and rank their shares and priorities.
    pub(super) fn apply(&self, groups: &mut [LocalityLbEndpoints]) {
        if !self.enabled {
            return;
        }
        let (distribute, failover, ranked) = match self.setting {
            Some(setting) => (
                setting.distribute.as_slice(),
                setting.failover.as_slice(),
                !setting.failover_priority.is_empty(),
            ),
            None => (&[][..], &[][..], false),
        };
        if !distribute.is_empty() {
            share(&self.place, groups, distribute);
        } else if self.outliers {
            if !ranked || !failover.is_empty() {
                for group in groups.iter_mut() {
                    let distance = distance(&self.place, group, failover);
                    group.priority = group.priority * 5 + distance;
                }
            }
            without_gaps(groups);
        }
    }
}

/// Gives places the shares that the first entry for the client's place says; places that it does not name get nothing.
fn share(own: &Locality, groups: &mut [LocalityLbEndpoints], distribute: &[LocalityDistribute]) {
    let Some(shares) = distribute.iter().find(|shares| covers(&shares.from, own)) else {
        return;
    };
    let mut given = vec![false; groups.len()];
    for (place, share) in &shares.to {
        let weight = |group: &LocalityLbEndpoints| {
            group
                .load_balancing_weight
                .map_or(1, |weight| u64::from(weight.value))
        };
        let meant: Vec<usize> = (0..groups.len())
            .filter(|index| !given[*index] && covers(place, &place_of(&groups[*index])))
            .collect();
        let total: u64 = meant.iter().map(|index| weight(&groups[*index])).sum();
        for index in meant {
            given[index] = true;
            // Several places of one pattern share by the number of their endpoints, rounded up.
            let part = (weight(&groups[index]) * u64::from(*share)).div_ceil(total.max(1));
            groups[index].load_balancing_weight = number(u32::try_from(part).unwrap_or(u32::MAX));
        }
    }
    for (group, given) in groups.iter_mut().zip(given) {
        if !given {
            group.lb_endpoints.clear();
        }
    }
}

/// Whether `region/zone/subzone`, with `*` or nothing for any, has a place.
fn covers(pattern: &str, place: &Locality) -> bool {
    let pattern = Locality::parse(pattern);
    let any = |part: &str| part == "*" || part.is_empty();
    (pattern.region == "*" || pattern.region == place.region)
        && (any(&pattern.zone) || pattern.zone == place.zone)
        && (any(&pattern.sub_zone) || pattern.sub_zone == place.sub_zone)
}

fn place_of(group: &LocalityLbEndpoints) -> Locality {
    group
        .locality
        .as_ref()
        .map_or_else(Locality::default, |place| Locality {
            region: place.region.clone(),
            zone: place.zone.clone(),
            sub_zone: place.sub_zone.clone(),
        })
}

/// How far a place is: 0 the same, 1 of the same zone, 2 of the same region, 3 of another one, 4 of one that is not to
/// take over.
fn distance(own: &Locality, group: &LocalityLbEndpoints, failover: &[LocalityFailover]) -> u32 {
    let other = place_of(group);
    if own.region != other.region {
        let rule = failover.iter().find(|rule| rule.from == own.region);
        return match rule {
            Some(rule) if rule.to != other.region => 4,
            _ => 3,
        };
    }
    match (own.zone == other.zone, own.sub_zone == other.sub_zone) {
        (true, true) => 0,
        (true, false) => 1,
        (false, _) => 2,
    }
}

/// Priorities count from 0 without gaps.
fn without_gaps(groups: &mut [LocalityLbEndpoints]) {
    let used: std::collections::BTreeSet<u32> = groups.iter().map(|group| group.priority).collect();
    let dense: BTreeMap<u32, u32> = used.into_iter().zip(0..).collect();
    for group in groups {
        group.priority = dense.get(&group.priority).copied().unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use lateen_xds::pb::envoy::config::{core::v3::Locality as Message, endpoint::v3::LbEndpoint};

    use super::*;

    fn group(place: &str) -> LocalityLbEndpoints {
        let place = Locality::parse(place);
        LocalityLbEndpoints {
            locality: Some(Message {
                region: place.region,
                zone: place.zone,
                sub_zone: place.sub_zone,
            }),
            lb_endpoints: vec![LbEndpoint::default()],
            load_balancing_weight: number(1),
            ..LocalityLbEndpoints::default()
        }
    }

    fn preference(setting: Option<&LocalityLbSetting>) -> Preference<'_> {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        Preference {
            setting,
            enabled: true,
            outliers: true,
            place: Locality::parse("r1/z1/s1"),
            labels: &NONE,
        }
    }

    #[test]
    fn nearer_places_come_first() {
        let failover = LocalityLbSetting {
            failover: vec![LocalityFailover {
                from: "r1".into(),
                to: "r3".into(),
            }],
            ..LocalityLbSetting::default()
        };
        let check = |setting: Option<&LocalityLbSetting>, places: &[&str], expected: &[u32]| {
            let mut groups: Vec<_> = places.iter().map(|place| group(place)).collect();
            preference(setting).apply(&mut groups);
            let found: Vec<u32> = groups.iter().map(|group| group.priority).collect();
            assert_eq!(found, expected, "{places:?}");
        };
        check(
            None,
            &["r2/z/s", "r1/z1/s1", "r1/z1/s2", "r1/z2/s"],
            &[3, 0, 1, 2],
        );
        check(None, &["r2/z/s", "r1/z2/s"], &[1, 0]);
        check(
            Some(&failover),
            &["r2/z/s", "r3/z/s", "r1/z1/s1"],
            &[2, 1, 0],
        );
    }

    #[test]
    fn shares_are_divided_among_the_places_of_a_pattern() {
        let setting = LocalityLbSetting {
            distribute: vec![LocalityDistribute {
                from: "r1/*".into(),
                to: [("r1/*".into(), 80), ("r2/z1".into(), 20)].into(),
            }],
            ..LocalityLbSetting::default()
        };
        let mut groups: Vec<_> = ["r1/z1/s1", "r1/z2/s", "r2/z1/s", "r3/z/s"]
            .map(group)
            .into();
        preference(Some(&setting)).apply(&mut groups);
        let weights: Vec<u32> = groups
            .iter()
            .filter(|group| !group.lb_endpoints.is_empty())
            .filter_map(|group| group.load_balancing_weight.map(|weight| weight.value))
            .collect();
        assert_eq!(weights, [40, 40, 20]);
    }
}
