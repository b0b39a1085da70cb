//! Header changes of routes, virtual hosts and weighted clusters.

use http::{HeaderMap, HeaderName, HeaderValue};
use lateen_xds::pb::envoy::config::core::v3::HeaderValueOption;
use lateen_xds::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;

use crate::constraint::header_value;
use crate::format::{Template, Values};
use crate::{Invalid, Within, refuse_rest};

/// Changes of request and response headers at one level of the configuration.
#[derive(Debug, Default)]
pub struct Mutations {
    /// Changes of the request before it is forwarded.
    pub request: HeaderMutations,
    /// Changes of the response before it is sent.
    pub response: HeaderMutations,
}

/// Headers to remove, then headers to add.
#[derive(Debug, Default)]
pub struct HeaderMutations {
    remove: Vec<HeaderName>,
    add: Vec<Addition>,
}

/// A header to add.
#[derive(Debug)]
pub(crate) struct Addition {
    pub(crate) name: HeaderName,
    pub(crate) value: Template,
    pub(crate) action: HeaderAppendAction,
    /// Values without a character are added, too.
    pub(crate) keep_empty: bool,
}

impl HeaderMutations {
    /// Compiles the protobuf form. `add` and `remove` are the field names for error paths.
    pub fn compile(
        add: (&str, Vec<HeaderValueOption>),
        remove: (&str, Vec<String>),
    ) -> Result<Self, Invalid> {
        let mut mutations = Self::default();
        for (index, name) in remove.1.into_iter().enumerate() {
            mutations
                .remove
                .push(removable_name(&name).within_item(remove.0, index)?);
        }
        for (index, option) in add.1.into_iter().enumerate() {
            mutations
                .add
                .push(compile_addition(option).within_item(add.0, index)?);
        }
        Ok(mutations)
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.add.is_empty()
    }

    /// Removes what is to be removed. It comes before the values are computed, which may refer to these headers.
    pub fn remove(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
    }

    /// Adds what is to be added.
    ///
    /// As in Envoy, what each addition does is decided by the headers before all of them, and replacements come first.
    pub fn add(&self, headers: &mut HeaderMap, values: &dyn Values) {
        let (mut replacing, mut appending) = (Vec::new(), Vec::new());
        for addition in &self.add {
            let mut text = String::new();
            addition.value.write(values, "", &mut text);
            if text.is_empty() && !addition.keep_empty {
                continue;
            }
            let name = &addition.name;
            let Ok(value) = HeaderValue::from_str(&text) else {
                continue;
            };
            let exists = headers.contains_key(name);
            match addition.action {
                HeaderAppendAction::AddIfAbsent if exists => {}
                HeaderAppendAction::OverwriteIfExists if !exists => {}
                HeaderAppendAction::AppendIfExistsOrAdd | HeaderAppendAction::AddIfAbsent => {
                    appending.push((name, value));
                }
                HeaderAppendAction::OverwriteIfExists
                | HeaderAppendAction::OverwriteIfExistsOrAdd => replacing.push((name, value)),
            }
        }
        for (name, value) in replacing {
            headers.insert(name, value);
        }
        for (name, value) in appending {
            headers.append(name, value);
        }
    }
}

/// Envoy forbids removing pseudo headers and the host.
pub(crate) fn removable_name(name: &str) -> Result<HeaderName, Invalid> {
    if name.starts_with(':') || name.eq_ignore_ascii_case("host") {
        return Err(Invalid::new("", format!("`{name}` cannot be removed")));
    }
    parse_name(name)
}

pub(crate) fn compile_addition(mut option: HeaderValueOption) -> Result<Addition, Invalid> {
    let mut header = option
        .header
        .take()
        .ok_or_else(|| Invalid::new("header", "is required"))?;
    let keep_empty = std::mem::take(&mut option.keep_empty_value);
    // The deprecated boolean says the same as the enumeration: false replaces, true appends.
    let action = match option.append.take() {
        Some(append) if !append.value => HeaderAppendAction::OverwriteIfExistsOrAdd,
        _ => HeaderAppendAction::try_from(std::mem::take(&mut option.append_action))
            .map_err(|_| Invalid::new("append_action", "is not a known action"))?,
    };
    refuse_rest(&option)?;
    let key = std::mem::take(&mut header.key);
    let value = std::mem::take(&mut header.value);
    refuse_rest(&header).within("header")?;
    // Envoy leaves pseudo headers and the host to the rewrites of the route.
    if key.starts_with(':') || key.eq_ignore_ascii_case("host") {
        return Err(Invalid::new(
            "header.key",
            format!("`{key}` cannot be changed this way"),
        ));
    }
    let name = parse_name(&key).within("header.key")?;
    header_value("header.value", &value)?;
    let value = Template::parse(&value).within("header.value")?;
    Ok(Addition {
        name,
        value,
        action,
        keep_empty,
    })
}

fn parse_name(name: &str) -> Result<HeaderName, Invalid> {
    HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| Invalid::new("", format!("`{name}` is not a valid header name")))
}
