//! Changes of headers.

use std::collections::BTreeMap;

use lateen_api::networking::http_route::HeaderOperations;
use lateen_xds::pb::envoy::config::core::v3::{
    HeaderValueOption, header_value_option::HeaderAppendAction,
};

use super::build::header;

/// Changes of headers in Envoy's terms.
#[derive(Default)]
pub(super) struct Operations {
    pub(super) add: Vec<HeaderValueOption>,
    pub(super) remove: Vec<String>,
    /// A new authority, which is no header for Envoy.
    pub(super) authority: Option<String>,
}

impl Operations {
    /// Adds changes that come after these; an authority that is set stays.
    pub(super) fn extend(&mut self, later: Self) {
        self.add.extend(later.add);
        self.remove.extend(later.remove);
        self.authority = self.authority.take().or(later.authority);
    }
}

/// Reads the changes in one direction. Pseudo headers are never changed; the authority has a field of its own.
pub(super) fn operations(settings: Option<&HeaderOperations>) -> Operations {
    let Some(settings) = settings else {
        return Operations::default();
    };
    let is_authority =
        |name: &str| name.eq_ignore_ascii_case("host") || name.eq_ignore_ascii_case(":authority");
    let protected = |name: &str| name.starts_with(':') || is_authority(name);
    let with = |entries: &BTreeMap<String, String>, action| -> Vec<HeaderValueOption> {
        let changed = entries.iter().filter(|(name, _)| !protected(name));
        changed
            .map(|(name, value)| header(name, value, action))
            .collect()
    };
    let mut add = with(&settings.set, HeaderAppendAction::OverwriteIfExistsOrAdd);
    add.extend(with(&settings.add, HeaderAppendAction::AppendIfExistsOrAdd));
    let authority = |entries: &BTreeMap<String, String>| {
        entries
            .iter()
            .find(|(name, _)| is_authority(name))
            .map(|(_, value)| value.clone())
    };
    Operations {
        add,
        remove: settings
            .remove
            .iter()
            .filter(|name| !protected(name))
            .cloned()
            .collect(),
        authority: authority(&settings.set).or_else(|| authority(&settings.add)),
    }
}
