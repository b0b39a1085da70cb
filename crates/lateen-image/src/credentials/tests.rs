use serde_json::json;

use super::*;

fn found(credentials: &Credentials, name: &str) -> Result<String, CredentialsError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let found = runtime.block_on(credentials.find(&name.parse().unwrap()))?;
    let text = |credential: &Credential| match credential {
        Credential::Password { user, password } => format!("{user}:{password}"),
        Credential::Identity(token) => format!("identity {token}"),
        Credential::Registry(token) => format!("registry {token}"),
    };
    Ok(found.iter().map(text).collect::<Vec<_>>().join(" "))
}

#[test]
fn the_most_specific_credentials_come_first() {
    let auth = |text: &str| json!({"auth": STANDARD.encode(text)});
    let config = json!({"auths": {
        "https://index.docker.io/v1/": auth("hub:a:b"),
        "a.b": auth("host:1\0\0"),
        "a.b/team": auth("team:2"),
        "*.b": auth("glob:3"),
        "c.d": {"username": "plain", "password": "4"},
        "e.f": {"auth": STANDARD.encode("x:y"), "identitytoken": "id"},
        "g.h": {"registrytoken": "reg"},
        "i.j": {},
    }, "credsStore": "never", "credHelpers": {"a.b": "never"}});
    let credentials = Credentials::from_secret(config.to_string().as_bytes()).unwrap();
    for (name, expected) in [
        ("nginx", "hub:a:b"),
        ("a.b/x", "host:1 glob:3"),
        ("a.b/team/x", "team:2 host:1 glob:3"),
        ("z.b/x", "glob:3"),
        ("c.d/x", "plain:4"),
        ("e.f/x", "identity id"),
        ("g.h/x", "registry reg"),
        ("i.j/x", ""),
        ("k.l/x", ""),
    ] {
        assert_eq!(found(&credentials, name).unwrap(), expected, "{name}");
    }
    let mut more =
        Credentials::from_secret(br#"{"auths":{"a.b":{"username":"u","password":"p"}}}"#).unwrap();
    more.extend(credentials);
    assert_eq!(found(&more, "a.b/x").unwrap(), "u:p host:1 glob:3");
    let shown = format!("{more:?}");
    assert!(!shown.contains("a:b") && !shown.contains("id\""), "{shown}");
}

#[test]
fn bad_credentials_are_refused_without_showing_them() {
    for (config, part) in [
        ("{", "no JSON in line 1"),
        (r#"{"auths": {"a.b": {"auth": 5}}}"#, "unexpected value"),
        (
            r#"{"auths": {"a.b": {"auth": "c2VjcmV0"}}}"#,
            "has no colon",
        ),
        (
            r#"{"auths": {"a.b": {"auth": "!!secret"}}}"#,
            "is not base64",
        ),
        (r#"{"auths": {"a.b": {"auth": "/w=="}}}"#, "is not text"),
    ] {
        let error = Credentials::from_secret(config.as_bytes())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(part) && !error.contains("secret"),
            "{config}: {error}"
        );
        assert!(error.contains("docker login"), "{error}");
    }
}

#[test]
fn helpers_of_dockers_configuration_are_asked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    assert_eq!(
        found(&Credentials::from_docker_config(&path).unwrap(), "a.b/x").unwrap(),
        ""
    );
    let config = json!({
        "auths": {"a.b": {"username": "file", "password": "1"}},
        "credHelpers": {"c.d": "../../evil", "e.f": "lateen-test-that-is-not-there"},
    });
    fs::write(&path, config.to_string()).unwrap();
    let credentials = Credentials::from_docker_config(&path).unwrap();
    assert_eq!(found(&credentials, "a.b/x").unwrap(), "file:1");
    for (name, part) in [("c.d/x", "name that is none"), ("e.f/x", "cannot be run")] {
        let error = found(&credentials, name).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}
