//! Endpoints and EndpointSlices.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::{Value, json};

use super::{Check, immutable, invalid, one_of, port, text};
use crate::builtin::read::{int, list, text as text_at};
use crate::field::{FieldError, FieldErrorKind};

const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;
const MAX_PORTS: usize = 20_000;

/// Endpoints.
pub(in crate::builtin) fn endpoints(check: &Check<'_>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (index, subset) in list(check.object, "/subsets").iter().enumerate() {
        let path = format!("subsets[{index}]");
        let ready = list(subset, "/addresses");
        let not_ready = list(subset, "/notReadyAddresses");
        if ready.is_empty() && not_ready.is_empty() {
            errors.push(FieldError::required(
                path.clone(),
                "must specify `addresses` or `notReadyAddresses`",
            ));
        }
        for (name, addresses) in [("addresses", ready), ("notReadyAddresses", not_ready)] {
            for (index, address) in addresses.iter().enumerate() {
                endpoint_address(&mut errors, address, &format!("{path}.{name}[{index}]"));
            }
        }
        let ports = list(subset, "/ports");
        for (index, port) in ports.iter().enumerate() {
            endpoint_port(
                &mut errors,
                port,
                ports.len() > 1,
                &format!("{path}.ports[{index}]"),
            );
        }
    }
    errors
}

fn endpoint_address(errors: &mut Vec<FieldError>, address: &Value, path: &str) {
    let ip = text_at(address, "/ip");
    let path_of_ip = format!("{path}.ip");
    match ip.parse::<IpAddr>() {
        Ok(parsed) => usable(errors, parsed, ip, &path_of_ip),
        Err(_) => errors.push(not_an_ip(&path_of_ip, ip)),
    }
    let hostname = text_at(address, "/hostname");
    if !hostname.is_empty() {
        invalid(
            errors,
            &format!("{path}.hostname"),
            hostname,
            text::dns_label(hostname),
        );
    }
}

fn endpoint_port(errors: &mut Vec<FieldError>, port: &Value, name_required: bool, path: &str) {
    let name = text_at(port, "/name");
    if !name.is_empty() {
        invalid(errors, &format!("{path}.name"), name, text::dns_label(name));
    } else if name_required {
        errors.push(FieldError::required(format!("{path}.name"), ""));
    }
    port::number(errors, int(port, "/port"), format!("{path}.port"));
    port::protocol(errors, port, path);
}

/// An EndpointSlice.
pub(in crate::builtin) fn endpoint_slice(check: &Check<'_>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let slice = check.object;
    let type_ = text_at(slice, "/addressType");
    one_of(
        &mut errors,
        type_,
        &["FQDN", "IPv4", "IPv6"],
        "addressType".to_owned(),
    );
    slice_ports(&mut errors, list(slice, "/ports"));
    let endpoints = list(slice, "/endpoints");
    if endpoints.len() > MAX_ENDPOINTS {
        errors.push(too_many("endpoints", endpoints.len(), MAX_ENDPOINTS));
    } else {
        for (index, endpoint) in endpoints.iter().enumerate() {
            slice_endpoint(&mut errors, endpoint, type_, &format!("endpoints[{index}]"));
        }
    }
    if let Some(old) = check.old {
        immutable(
            &mut errors,
            &slice["addressType"],
            &old["addressType"],
            "addressType",
        );
    }
    errors
}

fn slice_ports(errors: &mut Vec<FieldError>, ports: &[Value]) {
    if ports.len() > MAX_PORTS {
        errors.push(too_many("ports", ports.len(), MAX_PORTS));
        return;
    }
    let mut names = std::collections::BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let path = format!("ports[{index}]");
        let name = text_at(port, "/name");
        if !name.is_empty() {
            invalid(errors, &format!("{path}.name"), name, text::dns_label(name));
        }
        if !names.insert(name) {
            errors.push(FieldError::duplicate(format!("{path}.name"), json!(name)));
        }
        port::protocol(errors, port, &path);
        port::app_protocol(errors, port, &path);
    }
}

fn slice_endpoint(errors: &mut Vec<FieldError>, endpoint: &Value, type_: &str, path: &str) {
    let addresses = list(endpoint, "/addresses");
    let all = format!("{path}.addresses");
    if addresses.is_empty() {
        errors.push(FieldError::required(
            all.clone(),
            "must contain at least 1 address",
        ));
    } else if addresses.len() > MAX_ADDRESSES {
        errors.push(too_many(&all, addresses.len(), MAX_ADDRESSES));
    }
    for (index, address) in addresses.iter().enumerate() {
        let address = address.as_str().unwrap_or_default();
        let path = format!("{all}[{index}]");
        match (type_, address.parse::<IpAddr>()) {
            ("IPv4" | "IPv6", Err(_)) => errors.push(not_an_ip(&path, address)),
            ("IPv4" | "IPv6", Ok(ip)) => {
                if ip.is_ipv4() != (type_ == "IPv4") {
                    let fault = format!("must be an {type_} address");
                    errors.push(FieldError::invalid(all.clone(), json!(address), fault));
                }
                usable(errors, ip, address, &path);
            }
            ("FQDN", _) => invalid(errors, &path, address, text::dns_subdomain(address)),
            _ => {}
        }
    }
    if let Some(hostname) = endpoint["hostname"].as_str() {
        invalid(
            errors,
            &format!("{path}.hostname"),
            hostname,
            text::dns_label(hostname),
        );
    }
}

/// Addresses that no endpoint can have.
fn usable(errors: &mut Vec<FieldError>, ip: IpAddr, shown: &str, path: &str) {
    let fault = if ip.is_unspecified() {
        format!("may not be unspecified ({shown})")
    } else if ip.is_loopback() {
        "may not be in the loopback range (127.0.0.0/8, ::1/128)".to_owned()
    } else if is_link_local(ip) {
        "may not be in the link-local range (169.254.0.0/16, fe80::/10)".to_owned()
    } else if is_link_local_multicast(ip) {
        "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)".to_owned()
    } else {
        return;
    };
    errors.push(FieldError::invalid(path, json!(shown), fault));
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => Ipv6Addr::is_unicast_link_local(&ip),
    }
}

fn is_link_local_multicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => Ipv4Addr::octets(&ip)[..3] == [224, 0, 0],
        IpAddr::V6(ip) => ip.segments()[0] == 0xff02,
    }
}

fn not_an_ip(path: &str, shown: &str) -> FieldError {
    FieldError::invalid(
        path,
        json!(shown),
        "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
    )
}

fn too_many(path: &str, count: usize, most: usize) -> FieldError {
    FieldError {
        field: path.to_owned(),
        kind: FieldErrorKind::TooMany,
        value: json!(count),
        detail: format!("must have at most {most} items"),
    }
}
