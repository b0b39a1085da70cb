//! Headers that must not be taken from a body.

/// What a name is reserved for.
const FRAMING: &str = "it frames the message or concerns one connection";
const REPRESENTATION: &str = "it says how the body is to be read";
const TRUSTED: &str = "proxies set and trust it";

/// Reserved names. Fields of one connection are those of RFC 9110 section 7.6.1, and `host` names the target.
const NAMES: [(&str, &str); 18] = [
    ("connection", FRAMING),
    ("content-length", FRAMING),
    ("expect", FRAMING),
    ("host", FRAMING),
    ("http2-settings", FRAMING),
    ("keep-alive", FRAMING),
    ("proxy-authorization", FRAMING),
    ("proxy-connection", FRAMING),
    ("te", FRAMING),
    ("trailer", FRAMING),
    ("transfer-encoding", FRAMING),
    ("upgrade", FRAMING),
    ("content-encoding", REPRESENTATION),
    ("content-range", REPRESENTATION),
    ("content-type", REPRESENTATION),
    ("forwarded", TRUSTED),
    ("via", TRUSTED),
    ("x-request-id", TRUSTED),
];

/// Beginnings of reserved names: who the client is, what the mesh is told to do, and the trace.
const BEGINNINGS: [&str; 3] = ["x-b3-", "x-envoy-", "x-forwarded-"];

/// Why a body must not give a header of this name; nothing when it may. The case does not matter, and neither does how
/// words are joined: an application that reads `content_length` as `content-length` would be deceived by either.
///
/// The control plane refuses the same names in its resources (`lateen-api`, checks of `BodyToHeaders`). A proxy
/// decides again, as its configuration may come from others.
pub fn reserved(name: &str) -> Option<&'static str> {
    let joined = |c: char| match c {
        c if c.is_ascii_alphanumeric() || c == ':' => c.to_ascii_lowercase(),
        _ => '-',
    };
    let name: String = name.chars().map(joined).collect();
    if BEGINNINGS.iter().any(|start| name.starts_with(start)) {
        return Some(TRUSTED);
    }
    if name.starts_with(':') {
        return Some(FRAMING);
    }
    let found = NAMES.iter().find(|(reserved, _)| *reserved == name);
    found.map(|(_, reason)| *reason)
}

#[cfg(test)]
mod tests {
    use lateen_api::validation::validate;
    use serde_json::json;

    use super::*;

    /// Paths and reasons that the control plane has against a field with this header.
    fn of_control_plane(header: &str) -> Vec<(String, String)> {
        let object = json!({
            "apiVersion": "lateen.dev/v1alpha1", "kind": "BodyToHeaders", "metadata": {"name": "a"}, "spec": {
                "selector": {"matchLabels": {"app": "a"}}, "fields": [{"pointer": "/a", "header": header}],
            },
        });
        let problems = validate(&object).expect("the kind is known");
        problems
            .into_iter()
            .map(|problem| (problem.path, problem.message))
            .collect()
    }

    fn check(header: &str, expected: Option<&str>) {
        assert_eq!(reserved(header), expected, "{header}");
        let said = of_control_plane(header);
        match expected {
            None => assert_eq!(said, [], "{header}"),
            Some(reason) => assert!(
                said.iter()
                    .any(|(path, text)| path == "spec.fields[0].header" && text.contains(reason)),
                "{header}: {said:?}"
            ),
        }
    }

    #[test]
    fn control_plane_and_proxy_refuse_the_same_headers_in_every_spelling() {
        let beginnings = BEGINNINGS
            .iter()
            .map(|start| (format!("{start}any"), TRUSTED));
        let names = NAMES
            .iter()
            .map(|(name, reason)| ((*name).to_owned(), *reason));
        for (name, reason) in names.chain(beginnings) {
            check(&name, Some(reason));
            check(&name.to_ascii_uppercase(), Some(reason));
            check(&name.replace('-', "_"), Some(reason));
            check(&name.replacen('-', "_", 1).to_uppercase(), Some(reason));
            check(&name.replace('-', "."), Some(reason));
        }
        check(":path", Some(FRAMING));
        check(":Authority", Some(FRAMING));
    }

    #[test]
    fn other_headers_are_free() {
        for name in [
            "target",
            "x-user",
            "X_User",
            "authorization",
            "cookie",
            "content-id",
            "x-host",
            "hosts",
            "x-envoy",
            "tea",
        ] {
            check(name, None);
        }
    }
}
