//! Small constructors for protobuf messages.

use std::collections::HashMap;

use lateen_api::Duration as ApiDuration;
use lateen_xds::pb::{
    envoy::{
        config::{
            accesslog::v3 as accesslog,
            core::v3::{
                Address, AggregatedConfigSource, ApiVersion, ConfigSource, HeaderValue,
                HeaderValueOption, Metadata, SocketAddress, TransportSocket,
                address::Address as AddressKind, config_source::ConfigSourceSpecifier,
                header_value_option::HeaderAppendAction, socket_address::PortSpecifier,
                transport_socket,
            },
        },
        r#type::v3::{FractionalPercent, fractional_percent::DenominatorType},
    },
    google::protobuf::{
        Any, BoolValue, Duration, Struct, UInt32Value, UInt64Value, Value, value::Kind as ValueKind,
    },
};
use prost::{Message, Name};

/// Value that switches a circuit breaker off.
pub(super) const UNLIMITED: u32 = u32::MAX;

/// A message with its type URL.
pub(super) fn any<M: Message + Name>(message: &M) -> Any {
    Any {
        type_url: M::type_url(),
        value: message.encode_to_vec(),
    }
}

/// A set or unset flag that is always sent.
pub(super) fn flag(value: bool) -> Option<BoolValue> {
    Some(BoolValue { value })
}

/// A number that is always sent.
pub(super) fn number(value: u32) -> Option<UInt32Value> {
    Some(UInt32Value { value })
}

/// A large number that is always sent.
pub(super) fn large_number(value: u64) -> Option<UInt64Value> {
    Some(UInt64Value { value })
}

/// Whole seconds.
pub(super) fn seconds(seconds: i64) -> Option<Duration> {
    Some(Duration { seconds, nanos: 0 })
}

/// A duration of the API.
pub(super) fn duration(duration: ApiDuration) -> Option<Duration> {
    Some(Duration {
        seconds: duration.seconds(),
        nanos: duration.subsecond_nanos(),
    })
}

/// A positive number of the API, where 0 and less mean unset.
pub(super) fn positive(value: Option<i32>) -> Option<u32> {
    value
        .and_then(|value| u32::try_from(value).ok())
        .filter(|value| *value > 0)
}

/// An address and port.
pub(super) fn address(address: &str, port: u32) -> Option<Address> {
    Some(Address {
        address: Some(AddressKind::SocketAddress(SocketAddress {
            address: address.to_owned(),
            port_specifier: Some(PortSpecifier::PortValue(port)),
            ..SocketAddress::default()
        })),
    })
}

/// "From the aggregated stream, and wait for it."
pub(super) fn from_ads() -> Option<ConfigSource> {
    Some(ConfigSource {
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        initial_fetch_timeout: seconds(0),
        resource_api_version: ApiVersion::V3.into(),
        ..ConfigSource::default()
    })
}

/// A transport socket.
pub(super) fn transport_socket<M: Message + Name>(name: &str, message: &M) -> TransportSocket {
    TransportSocket {
        name: name.to_owned(),
        config_type: Some(transport_socket::ConfigType::TypedConfig(any(message))),
    }
}

/// An access log.
pub(super) fn access_log<M: Message + Name>(name: &str, message: &M) -> accesslog::AccessLog {
    accesslog::AccessLog {
        name: name.to_owned(),
        filter: None,
        config_type: Some(accesslog::access_log::ConfigType::TypedConfig(any(message))),
    }
}

/// A text value of dynamic metadata.
pub(super) fn text(value: impl Into<String>) -> Value {
    Value {
        kind: Some(ValueKind::StringValue(value.into())),
    }
}

/// A flag of dynamic metadata.
pub(super) fn boolean(value: bool) -> Value {
    Value {
        kind: Some(ValueKind::BoolValue(value)),
    }
}

/// A structure of dynamic metadata.
pub(super) fn fields<K: Into<String>>(entries: impl IntoIterator<Item = (K, Value)>) -> Struct {
    Struct {
        fields: ordered(entries.into_iter().map(|(key, value)| (key.into(), value))),
    }
}

/// Metadata under one key.
pub(super) fn metadata(key: &str, entries: Struct) -> Option<Metadata> {
    Some(Metadata {
        filter_metadata: ordered([(key.to_owned(), entries)]),
        ..Metadata::default()
    })
}

/// Metadata that names the object which a resource comes from.
pub(super) fn config_metadata(kind: &str, namespace: &str, name: &str) -> String {
    format!("/apis/networking.istio.io/v1/namespaces/{namespace}/{kind}/{name}")
}

/// A share of requests, with Istio's resolution of a ten-thousandth percent.
pub(super) fn per_million(percent: f64) -> FractionalPercent {
    // Out-of-range values are refused by validation; the cast saturates.
    let numerator = (percent * 10_000.0).round() as u32;
    FractionalPercent {
        numerator,
        denominator: DenominatorType::Million.into(),
    }
}

/// A share of requests in whole percent.
pub(super) fn per_hundred(percent: u32) -> FractionalPercent {
    FractionalPercent {
        numerator: percent,
        denominator: DenominatorType::Hundred.into(),
    }
}

/// Header to set or add.
pub(super) fn header(name: &str, value: &str, action: HeaderAppendAction) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue {
            key: name.to_owned(),
            value: value.to_owned(),
            ..HeaderValue::default()
        }),
        append_action: action.into(),
        ..HeaderValueOption::default()
    }
}

/// A map that is encoded in the order of its keys.
///
/// The encoder writes maps in their iteration order, which differs from map to map, while equal content must give equal
/// bytes. The maps of xDS resources have one to three entries, so a map that happens to iterate in order is found after
/// a few tries; copies keep the order.
pub(super) fn ordered<V: Clone>(
    entries: impl IntoIterator<Item = (String, V)>,
) -> HashMap<String, V> {
    let sorted: std::collections::BTreeMap<String, V> = entries.into_iter().collect();
    loop {
        let map: HashMap<String, V> = sorted
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        if map.keys().eq(sorted.keys()) {
            return map;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_maps_iterate_in_order() {
        let map = ordered(["c", "a", "b"].map(|key| (key.to_owned(), key.len())));
        assert_eq!(map.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
        let copy = map.clone();
        drop(map);
        assert_eq!(copy.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
    }
}
