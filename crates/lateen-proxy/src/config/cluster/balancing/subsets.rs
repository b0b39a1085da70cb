//! Subsets of a cluster.

use std::collections::BTreeSet;

use lateen_route::balance::subset::{Fallback, Selector, SubsetSettings, labels_of};
use lateen_route::{Invalid, Within, refuse_rest};
use lateen_xds::pb::envoy::config::cluster::v3::cluster::LbSubsetConfig;
use lateen_xds::pb::envoy::config::cluster::v3::cluster::lb_subset_config::{
    LbSubsetFallbackPolicy, LbSubsetSelector, lb_subset_selector::LbSubsetSelectorFallbackPolicy,
};

/// Compiles the settings; nothing when they select nothing.
pub(super) fn compile(mut config: LbSubsetConfig) -> Result<Option<SubsetSettings>, Invalid> {
    let fallback = std::mem::take(&mut config.fallback_policy);
    let fallback = match LbSubsetFallbackPolicy::try_from(fallback) {
        Ok(LbSubsetFallbackPolicy::NoFallback) => Fallback::None,
        Ok(LbSubsetFallbackPolicy::AnyEndpoint) => Fallback::Any,
        Ok(LbSubsetFallbackPolicy::DefaultSubset) => Fallback::Default,
        Err(_) => return Err(Invalid::new("fallback_policy", "is not a known policy")),
    };
    let default = config.default_subset.take();
    let mut settings = SubsetSettings {
        fallback,
        default: default.as_ref().map(labels_of).unwrap_or_default(),
        selectors: Vec::new(),
        locality_weight_aware: std::mem::take(&mut config.locality_weight_aware),
    };
    for (index, item) in std::mem::take(&mut config.subset_selectors)
        .into_iter()
        .enumerate()
    {
        let selector = selector(item).within_item("subset_selectors", index)?;
        settings.selectors.push(selector);
    }
    refuse_rest(&config)?;
    Ok((!settings.selectors.is_empty()).then_some(settings))
}

fn selector(mut item: LbSubsetSelector) -> Result<Selector, Invalid> {
    let keys: BTreeSet<String> = std::mem::take(&mut item.keys).into_iter().collect();
    let fallback_keys: BTreeSet<String> = std::mem::take(&mut item.fallback_keys_subset)
        .into_iter()
        .collect();
    let policy = std::mem::take(&mut item.fallback_policy);
    let fallback = match LbSubsetSelectorFallbackPolicy::try_from(policy) {
        Ok(LbSubsetSelectorFallbackPolicy::NotDefined) => None,
        Ok(LbSubsetSelectorFallbackPolicy::NoFallback) => Some(Fallback::None),
        Ok(LbSubsetSelectorFallbackPolicy::AnyEndpoint) => Some(Fallback::Any),
        Ok(LbSubsetSelectorFallbackPolicy::DefaultSubset) => Some(Fallback::Default),
        Ok(LbSubsetSelectorFallbackPolicy::KeysSubset) => Some(Fallback::Keys),
        Err(_) => return Err(Invalid::new("fallback_policy", "is not a known policy")),
    };
    // Each fallback must have fewer keys, or it would never end.
    let fewer = fallback_keys.is_subset(&keys) && fallback_keys.len() < keys.len();
    if (fallback == Some(Fallback::Keys)) != (fewer && !fallback_keys.is_empty()) {
        return Err(Invalid::new(
            "fallback_keys_subset",
            "must be some, but not all, of the keys, and only for KEYS_SUBSET",
        ));
    }
    refuse_rest(&item)?;
    Ok(Selector {
        keys,
        fallback,
        fallback_keys,
    })
}
