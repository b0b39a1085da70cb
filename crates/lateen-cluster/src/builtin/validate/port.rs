//! Fields of ports, which containers, Services and endpoints have in common.

use serde_json::{Value, json};

use super::{invalid, one_of, text};
use crate::builtin::read::text as text_at;
use crate::field::FieldError;

/// Transport protocols, in the order in which faults list them.
const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

/// A port number.
pub(super) fn number(errors: &mut Vec<FieldError>, number: i64, path: String) {
    for fault in text::port_number(number) {
        errors.push(FieldError::invalid(path.clone(), json!(number), fault));
    }
}

/// A port number or the name of a port.
pub(super) fn number_or_name(errors: &mut Vec<FieldError>, port: &Value, path: &str) {
    match port {
        Value::String(name) => invalid(errors, path, name, text::port_name(name)),
        other => number(errors, other.as_i64().unwrap_or(0), path.to_owned()),
    }
}

/// The transport protocol of a port.
pub(super) fn protocol(errors: &mut Vec<FieldError>, port: &Value, path: &str) {
    let protocol = text_at(port, "/protocol");
    one_of(errors, protocol, PROTOCOLS, format!("{path}.protocol"));
}

/// The application protocol of a port, if it has one.
pub(super) fn app_protocol(errors: &mut Vec<FieldError>, port: &Value, path: &str) {
    if let Some(protocol) = port["appProtocol"].as_str() {
        let faults = text::qualified_name(protocol);
        invalid(errors, &format!("{path}.appProtocol"), protocol, faults);
    }
}
