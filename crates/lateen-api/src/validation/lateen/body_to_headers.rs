//! Checks of `BodyToHeaders`.

use crate::lateen::{BodyField, BodyToHeadersSpec};
use crate::validation::{Problems, names};

/// Most fields of one policy.
const MOST_FIELDS: usize = 32;

/// Most names of a pointer.
const MOST_NAMES: usize = 32;

/// Longest body that may be looked at.
const MOST_BYTES: u64 = 16 << 20;

/// Fields that frame the message, name its target or concern one connection (RFC 9110 section 7.6.1). Taking them from
/// a body would let a client smuggle requests.
const FRAMING: [&str; 12] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Fields that say how the body is to be read: proxy and backend would read different things.
const REPRESENTATION: [&str; 3] = ["content-encoding", "content-range", "content-type"];

/// Fields that proxies set and trust, and the beginnings of others: who the client is, what the mesh is told to do, and
/// the trace.
const TRUSTED: [&str; 3] = ["forwarded", "via", "x-request-id"];
const TRUSTED_BEGINNINGS: [&str; 3] = ["x-b3-", "x-envoy-", "x-forwarded-"];

/// Checks a policy that copies fields of bodies.
pub fn body_to_headers(spec: &BodyToHeadersSpec, problems: &mut Problems) {
    let selects = spec
        .selector
        .as_ref()
        .is_some_and(|selector| !selector.match_labels.is_empty());
    if selects != spec.target_refs.is_empty() {
        problems.add_to(
            "targetRefs",
            "name the Gateways that this is for, or select workloads with selector.matchLabels; not both",
        );
    }
    super::target_references(
        &spec.target_refs,
        "kind Gateway of group networking.istio.io",
        |reference| reference.is_gateway() && reference.section_name.is_none(),
        problems,
    );
    problems.demand(
        (1..=MOST_FIELDS).contains(&spec.fields.len()),
        "fields",
        format!("1 to {MOST_FIELDS} fields are needed"),
    );
    problems.each("fields", &spec.fields, |problems, one| {
        field(one, &spec.fields, problems);
    });
    problems.each("contentTypes", &spec.content_types, |problems, media_type| {
        if !is_readable(media_type) {
            problems.add(format!(
                "{media_type:?} cannot be read: use application/json, a type that ends in +json, or application/x-www-form-urlencoded"
            ));
        }
    });
    if let Some(most) = spec.max_bytes {
        problems.demand(
            (1..=MOST_BYTES).contains(&most.0),
            "maxBytes",
            "must be 1 to 16Mi",
        );
    }
}

fn field(field: &BodyField, all: &[BodyField], problems: &mut Problems) {
    problems.demand(
        is_pointer(&field.pointer),
        "pointer",
        format!(
            "{:?} is not a JSON pointer: it begins with a slash, and ~ is written ~0, / inside of a name ~1",
            field.pointer
        ),
    );
    problems.demand(
        field.pointer.matches('/').count() <= MOST_NAMES,
        "pointer",
        format!("has more than {MOST_NAMES} names"),
    );
    problems.demand(
        names::is_header(&field.header, false),
        "header",
        format!("{:?} is not a name of a header", field.header),
    );
    let name = plain_spelling(&field.header);
    if let Some(reason) = reserved(&name) {
        problems.add_to(
            "header",
            format!("{:?} must not be taken from a body: {reason}", field.header),
        );
    }
    let same = all
        .iter()
        .filter(|other| plain_spelling(&other.header) == name);
    problems.demand(same.count() == 1, "header", "is set by two fields");
}

/// The name as applications see it that know neither the case nor how words are joined: of `Content_Length` and
/// `content-length` they make the same variable.
fn plain_spelling(name: &str) -> String {
    let plain = |c: char| match c {
        c if c.is_ascii_alphanumeric() || c == ':' => c.to_ascii_lowercase(),
        _ => '-',
    };
    name.chars().map(plain).collect()
}

/// Why a header must not be taken from a body, given its plain spelling. Proxies refuse the same ones (`lateen-route`,
/// `body_fields::reserved`, whose test compares both).
fn reserved(name: &str) -> Option<&'static str> {
    let begins = |start: &&str| name.starts_with(*start);
    if FRAMING.contains(&name) || name.starts_with(':') {
        Some("it frames the message or concerns one connection")
    } else if REPRESENTATION.contains(&name) {
        Some("it says how the body is to be read")
    } else if TRUSTED.contains(&name) || TRUSTED_BEGINNINGS.iter().any(begins) {
        Some("proxies set and trust it")
    } else {
        None
    }
}

/// Whether a text is a JSON pointer (RFC 6901) to something inside of the document.
fn is_pointer(text: &str) -> bool {
    let mut rest = text.strip_prefix('/');
    while let Some(tail) = rest.and_then(|text| text.split_once('~')) {
        if !tail.1.starts_with(['0', '1']) {
            return false;
        }
        rest = Some(&tail.1[1..]);
    }
    rest.is_some()
}

/// Whether bodies of a media type can be read.
fn is_readable(media_type: &str) -> bool {
    let lower = media_type.to_ascii_lowercase();
    let Some((_, subtype)) = lower.split_once('/') else {
        return false;
    };
    let text = |c: char| c.is_ascii_alphanumeric() || "+-._/".contains(c);
    lower.chars().all(text)
        && (lower == "application/json"
            || lower == "application/x-www-form-urlencoded"
            || subtype.ends_with("+json"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::validation::validate;

    fn check(change: Value, expected: &[&str]) {
        let mut spec = json!({
            "targetRefs": [{"group": "networking.istio.io", "kind": "Gateway", "name": "backend-gateway"}],
            "fields": [{"pointer": "/target", "header": "target"}, {"pointer": "/username", "header": "x-user"}],
            "contentTypes": ["application/json"],
            "maxBytes": "64Ki",
            "overwrite": true,
            "onUnreadable": "Pass",
        });
        for (name, value) in change.as_object().into_iter().flatten() {
            spec[name] = value.clone();
        }
        let found = validate(&json!({
            "apiVersion": "lateen.dev/v1alpha1", "kind": "BodyToHeaders", "metadata": {"name": "a"}, "spec": spec,
        }));
        let paths: Vec<String> = found
            .unwrap_or_default()
            .into_iter()
            .map(|problem| problem.path)
            .collect();
        assert_eq!(paths, expected, "{change}");
    }

    #[test]
    fn names_what_is_wrong_with_a_policy() {
        check(json!({}), &[]);
        let selector = json!({"matchLabels": {"app": "a"}});
        check(json!({"targetRefs": [], "selector": selector}), &[]);
        check(json!({"selector": selector}), &["spec.targetRefs"]);
        check(json!({"targetRefs": []}), &["spec.targetRefs"]);
        let service = json!({"kind": "Service", "name": "a"});
        check(
            json!({"targetRefs": [service]}),
            &["spec.targetRefs[0].kind"],
        );
        check(json!({"fields": []}), &["spec.fields"]);
        check(json!({"maxBytes": 0}), &["spec.maxBytes"]);
        check(json!({"maxBytes": "17Mi"}), &["spec.maxBytes"]);
        check(
            json!({"contentTypes": ["application/problem+json", "application/x-www-form-urlencoded"]}),
            &[],
        );
        check(
            json!({"contentTypes": ["text/plain"]}),
            &["spec.contentTypes[0]"],
        );
    }

    #[test]
    fn names_what_is_wrong_with_a_field() {
        let field = |pointer: &str, header: &str, expected: &[&str]| {
            check(
                json!({"fields": [{"pointer": pointer, "header": header}]}),
                expected,
            );
        };
        field("/a/0/b~1c~0d", "x-a", &[]);
        field("", "x-a", &["spec.fields[0].pointer"]);
        field("a", "x-a", &["spec.fields[0].pointer"]);
        field("/a~2", "x-a", &["spec.fields[0].pointer"]);
        field("/a~", "x-a", &["spec.fields[0].pointer"]);
        field("/~~01", "x-a", &["spec.fields[0].pointer"]);
        field(&"/a".repeat(32), "x-a", &[]);
        field(&"/a".repeat(33), "x-a", &["spec.fields[0].pointer"]);
        for reserved in [
            "Host",
            "content-length",
            "x-forwarded-for",
            "x-envoy-retry-on",
            "Content_Length",
            "transfer_encoding",
            "X_Forwarded_Client-Cert",
            "Content-Type",
            "",
        ] {
            field("/a", reserved, &["spec.fields[0].header"]);
        }
        // It is no name, and reserved.
        field("/a", ":path", &["spec.fields[0].header"; 2]);
        let twice = json!([{"pointer": "/a", "header": "x-a"}, {"pointer": "/b", "header": "X-A"}]);
        check(
            json!({"fields": twice}),
            &["spec.fields[0].header", "spec.fields[1].header"],
        );
        // The second would take the place of the first.
        let twins = json!([{"pointer": "/a", "header": "x-a"}, {"pointer": "/b", "header": "X_A"}]);
        check(
            json!({"fields": twins}),
            &["spec.fields[0].header", "spec.fields[1].header"],
        );
    }
}
