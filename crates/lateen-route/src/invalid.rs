//! Why a resource was refused, with the path of the offending field.

use std::fmt::{Debug, Display, Write};

/// A resource that cannot be accepted. The text goes into the NACK and into the admin interface.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct Invalid {
    /// Path of the field from the resource's root, e.g. `virtual_hosts[0].routes[2].match.grpc`.
    pub path: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Invalid {
    /// A field with a wrong value.
    pub fn new(path: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            reason: reason.into(),
        }
    }

    /// A field that this proxy does not implement.
    pub fn unsupported(path: impl Into<String>) -> Self {
        Self::new(path, "is not supported by this proxy")
    }

    /// The same error seen from the message that holds the field `segment`.
    #[must_use]
    pub fn within(mut self, segment: impl Display) -> Self {
        let inner = std::mem::take(&mut self.path);
        let _ = write!(self.path, "{segment}");
        if !inner.is_empty() {
            self.path.push('.');
            self.path.push_str(&inner);
        }
        self
    }
}

/// Prefixes the path of an error on its way up.
pub trait Within {
    /// The same result seen from the message that holds the field `segment`.
    #[must_use]
    fn within(self, segment: &str) -> Self;
    /// The same result seen from the message that holds the repeated field `segment`.
    #[must_use]
    fn within_item(self, segment: &str, index: usize) -> Self;
}

impl<T> Within for Result<T, Invalid> {
    fn within(self, segment: &str) -> Self {
        self.map_err(|error| error.within(segment))
    }

    fn within_item(self, segment: &str, index: usize) -> Self {
        self.map_err(|error| error.within(format_args!("{segment}[{index}]")))
    }
}

/// Fails when a field that the caller has not taken out of `rest` is still set.
///
/// Callers `take` every field that they implement or knowingly ignore; whatever is left would be dropped in silence,
/// so it is refused. A field that a newer protocol adds is covered without a change here.
pub fn refuse_rest<M: Default + PartialEq + Debug>(rest: &M) -> Result<(), Invalid> {
    let empty = M::default();
    if *rest == empty {
        return Ok(());
    }
    // Only now, on the way to a NACK, find out which field it was.
    let (rest, empty) = (format!("{rest:#?}"), format!("{empty:#?}"));
    let empty: Vec<_> = top_level_fields(&empty);
    for (name, text) in top_level_fields(&rest) {
        if !empty
            .iter()
            .any(|(other, default)| *other == name && *default == text)
        {
            return Err(Invalid::unsupported(name.trim_start_matches("r#")));
        }
    }
    Err(Invalid::unsupported(""))
}

/// Splits the pretty form of a struct into its direct fields.
fn top_level_fields(pretty: &str) -> Vec<(&str, &str)> {
    let mut starts = Vec::new();
    let mut offset = 0;
    for line in pretty.split_inclusive('\n') {
        let field = line
            .strip_prefix("    ")
            .and_then(|rest| rest.split_once(':'));
        if let Some((name, _)) = field
            && name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '#')
        {
            starts.push((name, offset));
        }
        offset += line.len();
    }
    let ends = starts
        .iter()
        .skip(1)
        .map(|(_, start)| *start)
        .chain([pretty.len()]);
    starts
        .iter()
        .zip(ends)
        .map(|((name, start), end)| (*name, pretty[*start..end].trim_end_matches(['}', '\n'])))
        .collect()
}

#[cfg(test)]
mod tests {
    use lateen_xds::pb::envoy::config::route::v3::{RouteConfiguration, Vhds};

    use super::*;

    #[test]
    fn names_the_field_that_was_left() {
        let rest = RouteConfiguration {
            vhds: Some(Vhds::default()),
            ..Default::default()
        };
        let error = refuse_rest(&rest).unwrap_err().within("route");
        assert_eq!(error.path, "route.vhds");
        assert_eq!(refuse_rest(&RouteConfiguration::default()), Ok(()));
    }
}
