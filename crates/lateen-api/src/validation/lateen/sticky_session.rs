//! Checks of `StickySession`.

use crate::lateen::{RedisStore, SessionKey, SessionStore, StickySessionSpec, TargetReference};
use crate::validation::{Problems, names};

/// Longest idle timeout in seconds: 30 days.
const LONGEST_IDLE: i64 = 30 * 24 * 60 * 60;

/// Most sessions of one memory store.
const MOST_ENTRIES: u32 = 1 << 24;

/// Checks a sticky session.
pub fn sticky_session(spec: &StickySessionSpec, problems: &mut Problems) {
    problems.demand(
        !spec.target_refs.is_empty(),
        "targetRefs",
        "name the Service that the session is for",
    );
    super::target_references(
        &spec.target_refs,
        "kind Service of the core group",
        TargetReference::is_service,
        problems,
    );
    problems.field("key", |problems| key(&spec.key, problems));
    let whole_range = 1_000_000_000..=LONGEST_IDLE * 1_000_000_000;
    problems.demand(
        whole_range.contains(&spec.idle_timeout.as_nanos()),
        "idleTimeout",
        "must be 1s to 720h",
    );
    if let Some(chosen) = &spec.store {
        problems.field("store", |problems| store(chosen, problems));
    }
}

fn key(key: &SessionKey, problems: &mut Problems) {
    let set = [
        key.header.is_some(),
        key.cookie.is_some(),
        key.query.is_some(),
        key.source_ip.is_some(),
    ];
    if set.iter().filter(|is_set| **is_set).count() != 1 {
        return problems.add("exactly one of header, cookie, query and sourceIp must be set");
    }
    for (name, value) in [("header", &key.header), ("cookie", &key.cookie)] {
        if let Some(value) = value {
            problems.demand(
                names::is_header(value, false),
                name,
                format!("{value:?} is not a name of a {name}"),
            );
        }
    }
    if let Some(query) = &key.query {
        problems.demand(!query.is_empty(), "query", "must not be empty");
    }
    if let Some(source) = key.source_ip {
        problems.demand(source, "sourceIp", "can only be true");
    }
}

fn store(store: &SessionStore, problems: &mut Problems) {
    if store.memory.is_some() == store.redis.is_some() {
        return problems.add("exactly one of memory and redis must be set");
    }
    if let Some(most) = store.memory.as_ref().and_then(|memory| memory.max_entries) {
        problems.field("memory", |problems| {
            problems.demand(
                (1..=MOST_ENTRIES).contains(&most),
                "maxEntries",
                format!("must be 1 to {MOST_ENTRIES}"),
            );
        });
    }
    if let Some(server) = &store.redis {
        problems.field("redis", |problems| redis(server, problems));
    }
}

fn redis(server: &RedisStore, problems: &mut Problems) {
    problems.demand(
        server.address().is_some(),
        "url",
        format!(
            "{:?} is not redis://HOST[:PORT][/DATABASE]; a password belongs into passwordSecretRef",
            server.url
        ),
    );
    if let Some(secret) = &server.password_secret_ref {
        problems.field("passwordSecretRef", |problems| {
            problems.demand(!secret.name.is_empty(), "name", "is required");
        });
    }
    if let Some(tls) = &server.tls {
        problems.field("tls", |problems| {
            if let Some(name) = &tls.server_name {
                problems.demand(
                    names::is_host(name) || names::is_address(name),
                    "serverName",
                    format!("{name:?} is not a host name"),
                );
            }
            problems.field("caSecretRef", |problems| {
                problems.demand(!tls.ca_secret_ref.name.is_empty(), "name", "is required");
            });
        });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::validation::validate;

    fn check(change: Value, expected: &[&str]) {
        let mut spec = json!({
            "targetRefs": [{"group": "", "kind": "Service", "name": "backend-1"}],
            "key": {"header": "x-user"},
            "idleTimeout": "60s",
            "store": {"memory": {}},
        });
        for (name, value) in change.as_object().into_iter().flatten() {
            spec[name] = value.clone();
        }
        let found = validate(&json!({
            "apiVersion": "lateen.dev/v1alpha1", "kind": "StickySession", "metadata": {"name": "a"}, "spec": spec,
        }));
        let paths: Vec<String> = found
            .unwrap_or_default()
            .into_iter()
            .map(|problem| problem.path)
            .collect();
        assert_eq!(paths, expected, "{change}");
    }

    #[test]
    fn names_what_is_wrong_with_a_session() {
        check(json!({}), &[]);
        check(json!({"store": null}), &[]);
        check(json!({"targetRefs": []}), &["spec.targetRefs"]);
        let service = json!({"kind": "Service", "name": "a", "sectionName": "v1"});
        check(json!({"targetRefs": [service]}), &[]);
        check(
            json!({"targetRefs": [service, service]}),
            &["spec.targetRefs[0].name", "spec.targetRefs[1].name"],
        );
        check(
            json!({"targetRefs": [{"kind": "Pod", "name": "a"}]}),
            &["spec.targetRefs[0].kind"],
        );
        check(json!({"key": {}}), &["spec.key"]);
        check(
            json!({"key": {"header": "a", "cookie": "b"}}),
            &["spec.key"],
        );
        check(json!({"key": {"header": "a b"}}), &["spec.key.header"]);
        check(json!({"key": {"cookie": "id"}}), &[]);
        check(json!({"key": {"query": "user"}}), &[]);
        check(json!({"key": {"sourceIp": true}}), &[]);
        check(json!({"key": {"sourceIp": false}}), &["spec.key.sourceIp"]);
        check(json!({"idleTimeout": "10ms"}), &["spec.idleTimeout"]);
        check(json!({"idleTimeout": "721h"}), &["spec.idleTimeout"]);
        check(json!({"store": {}}), &["spec.store"]);
        check(
            json!({"store": {"memory": {"maxEntries": 0}}}),
            &["spec.store.memory.maxEntries"],
        );
    }

    #[test]
    fn reads_the_address_of_a_redis_server() {
        let server = |url: &str, expected: &[&str]| {
            check(json!({"store": {"redis": {"url": url}}}), expected);
        };
        server("redis://redis", &[]);
        server("redis://redis.sessions.svc:6380/3", &[]);
        server("redis://[::1]:6379", &[]);
        let wrong = &["spec.store.redis.url"];
        server("", wrong);
        server("redis://", wrong);
        server("http://redis", wrong);
        server("redis://user:secret@redis", wrong);
        server("redis://redis:0", wrong);
        server("redis://redis:99999", wrong);
        server("redis://redis/x", wrong);
    }
}
