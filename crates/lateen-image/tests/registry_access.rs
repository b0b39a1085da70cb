//! Who may pull, where secrets go, and which addresses are refused.

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
    sync::Arc,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use common::{
    Item, Packing, image,
    registry::{Auth, Registry, Table},
    store, tar,
};
use lateen_image::{Credentials, PullOptions, pull};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{ServerConfig, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio_rustls::TlsAcceptor;

/// Credentials for the registries, each `key` with `user:password` or an identity token.
fn credentials(auths: &[(&str, &str)]) -> Credentials {
    let mut object = serde_json::Map::new();
    for (key, secret) in auths {
        let auth = match secret.strip_prefix("identity ") {
            Some(token) => json!({"identitytoken": token}),
            None => json!({"auth": STANDARD.encode(secret)}),
        };
        object.insert((*key).to_owned(), auth);
    }
    let config = json!({"auths": Value::Object(object)});
    Credentials::from_secret(config.to_string().as_bytes()).unwrap()
}

fn options(auths: &[(&str, &str)]) -> PullOptions {
    PullOptions {
        credentials: credentials(auths),
        pause: Duration::from_millis(1),
        ..PullOptions::default()
    }
}

async fn with_image(registry: Registry, auth: Auth) -> Registry {
    let layers = ["a", "b", "c", "d"].map(|text| (tar(&[Item::file("f", text)]), Packing::Gzip));
    registry.push("team/x", "latest", &image(&layers));
    registry.state.lock().unwrap().auth = auth;
    registry
}

/// `Err` are parts of the message.
async fn check(name: &str, options: &PullOptions, expected: Result<(), &[&str]>) {
    let (_folder, store) = store();
    match (
        pull(&store, &name.parse().unwrap(), options).await,
        expected,
    ) {
        (Ok(image), Ok(())) => assert_eq!(image.layers.len(), 4),
        (Err(error), Err(parts)) => {
            let shown = format!("{error} {error:?}");
            for part in parts {
                assert!(shown.contains(part), "{shown} lacks {part:?}");
            }
            for secret in ["secret", "identity", &STANDARD.encode("me:secret")] {
                assert!(!shown.contains(secret), "{shown} shows {secret}");
            }
        }
        (found, expected) => panic!("{name}: {found:?} instead of {expected:?}"),
    }
}

#[tokio::test]
async fn registries_get_the_proof_that_they_ask_for() {
    let basic = Auth::Basic("me:secret");
    let token = Auth::Bearer("me:secret", usize::MAX);
    let short = Auth::Bearer("me:secret", 2);
    let public = Auth::Bearer("", usize::MAX);
    let denied: &[&str] = &[
        "does not let team/x be pulled",
        "docker login",
        "1 tried): who are you?",
    ];
    let unknown: &[&str] = &["there are none for it", "docker login"];
    let right = "me:secret";
    for (auth, auths, expected) in [
        (basic.clone(), vec![("127.0.0.1:*", right)], Err(unknown)),
        (basic.clone(), vec![("HOST", right)], Ok(())),
        (basic.clone(), vec![("http://HOST/v2/", right)], Ok(())),
        (
            basic.clone(),
            vec![("HOST/team", right), ("HOST", "me:wrong")],
            Ok(()),
        ),
        (
            basic.clone(),
            vec![("HOST/team", "me:wrong"), ("HOST", right)],
            Ok(()),
        ),
        (basic.clone(), vec![("HOST", "me:wrong")], Err(denied)),
        (basic.clone(), vec![("HOST/other", right)], Err(unknown)),
        (basic, vec![("HOST", "identity identity")], Err(denied)),
        (token.clone(), vec![("HOST", right)], Ok(())),
        (token.clone(), vec![("HOST", "identity identity")], Ok(())),
        (
            token.clone(),
            vec![("HOST/team", "me:wrong"), ("HOST", right)],
            Ok(()),
        ),
        (token.clone(), vec![("HOST", "me:wrong")], Err(denied)),
        (token, vec![], Err(unknown)),
        // A token that ends before the pull does.
        (short, vec![("HOST", right)], Ok(())),
        (public, vec![], Ok(())),
    ] {
        let registry = with_image(Registry::start().await, auth.clone()).await;
        let host = registry.address.to_string();
        let auths: Vec<(String, &str)> = auths
            .iter()
            .map(|(key, secret)| (key.replace("HOST", &host), *secret))
            .collect();
        let auths: Vec<(&str, &str)> = auths.iter().map(|(k, s)| (k.as_str(), *s)).collect();
        println!("{auth:?} {auths:?}");
        check(&registry.name("team/x"), &options(&auths), expected).await;
        let tokens = |line: &&String| line.contains("/token");
        for line in registry.requests().iter().filter(tokens) {
            let query = "/token?x=1&scope=repository%3Ateam%2Fx%3Apull&service=test ";
            assert!(
                line.contains(query) || line.starts_with("POST /token?x=1 "),
                "{line}"
            );
        }
    }
}

#[tokio::test]
async fn secrets_do_not_follow_redirects_to_other_hosts() {
    let storage = with_image(Registry::start().await, Auth::Everybody).await;
    let registry = with_image(Registry::start().await, Auth::Basic("me:secret")).await;
    let host = registry.address.to_string();
    let options = options(&[(&host, "me:secret")]);
    registry.state.lock().unwrap().redirect = Some(format!("http://{}", storage.address));
    check(&registry.name("team/x"), &options, Ok(())).await;
    let requests = storage.requests();
    assert_eq!(requests.len(), 5);
    for line in requests {
        assert!(line.contains(" 200 - "), "{line}");
    }
    // A refusal of the storage is not answered with secrets either.
    storage.state.lock().unwrap().auth = Auth::Basic("me:secret");
    check(
        &registry.name("team/x"),
        &options,
        Err(&["401", ": who are you?"]),
    )
    .await;
    assert!(
        storage
            .requests()
            .iter()
            .all(|line| line.contains(" 401 - "))
    );

    for (target, parts) in [
        (
            format!("http://{host}"),
            ["more than 5 redirects", "refused"],
        ),
        (
            "http://other.test".to_owned(),
            ["list the host as insecure", "http://other.test"],
        ),
        (
            "ftp://other.test".to_owned(),
            ["neither http nor https", "refused"],
        ),
        (
            format!("http://me:word@{host}"),
            ["a user in it", "refused"],
        ),
    ] {
        registry.state.lock().unwrap().redirect = Some(target);
        check(&registry.name("team/x"), &options, Err(&parts)).await;
    }
}

/// An authority, and a TLS server with its certificate for this name.
fn tls(name: &str) -> (CertificateDer<'static>, TlsAcceptor) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    (authority.der().clone(), TlsAcceptor::from(Arc::new(config)))
}

#[tokio::test]
async fn connections_come_from_the_caller_and_are_secure() {
    let (authority, acceptor) = tls("registry.test");
    let registry = with_image(Registry::serve(Some(acceptor)).await, Auth::Everybody).await;
    let plain = with_image(Registry::start().await, Auth::Everybody).await;
    let mut hosts = BTreeMap::new();
    for name in ["registry.test:443", "other.test:443"] {
        hosts.insert(name.to_owned(), registry.address);
    }
    hosts.insert("plain.test:5000".to_owned(), plain.address);
    hosts.insert("registry-1.docker.io:443".to_owned(), registry.address);
    let table = Arc::new(Table {
        hosts,
        ..Table::default()
    });
    let trusting = PullOptions {
        connect: table.clone(),
        authorities: vec![authority],
        attempts: 1,
        ..options(&[])
    };
    let asked = || std::mem::take(&mut *table.asked.lock().unwrap());
    check("registry.test/team/x", &trusting, Ok(())).await;
    assert_eq!(asked(), ["registry.test:443"; 6]);
    // The certificate is for another name, by another authority, or there is no TLS.
    let parts: &[&str] = &["secure connection to other.test:443"];
    check("other.test/team/x", &trusting, Err(parts)).await;
    let (other, _) = tls("registry.test");
    let distrusting = PullOptions {
        authorities: vec![other],
        ..trusting.clone()
    };
    check(
        "registry.test/team/x",
        &distrusting,
        Err(&["secure connection", "certificate"]),
    )
    .await;
    let parts: &[&str] = &[
        "secure connection to plain.test:5000",
        "list it as insecure",
    ];
    check("plain.test:5000/team/x", &trusting, Err(parts)).await;
    check(
        "gone.test/team/x",
        &trusting,
        Err(&["cannot connect to gone.test:443", "no route"]),
    )
    .await;
    asked();
    check("team/x", &trusting, Err(&["registry-1.docker.io"])).await;
    assert_eq!(asked(), ["registry-1.docker.io:443"]);
    for listed in ["plain.test:5000", "plain.test"] {
        let listing = PullOptions {
            insecure: BTreeSet::from([listed.to_owned()]),
            ..trusting.clone()
        };
        check("plain.test:5000/team/x", &listing, Ok(())).await;
    }
    // From a secure registry nothing leads to an insecure place: content, passwords.
    registry.state.lock().unwrap().redirect = Some(format!("http://{}", plain.address));
    check("registry.test/team/x", &trusting, Err(&["is not secure"])).await;
    registry.state.lock().unwrap().auth = Auth::Realm(format!("http://{}/token", plain.address));
    check(
        "registry.test/team/x",
        &trusting,
        Err(&["authentication server", "is not secure"]),
    )
    .await;
}

/// Runs in a process of its own, which the next test starts with the helpers on its path.
#[tokio::test]
#[ignore = "is started by helper_programs_give_credentials"]
async fn with_a_helper() {
    let folder = std::env::var_os("LATEEN_TEST_HELPERS").unwrap();
    let config = Path::new(&folder).join("config.json");
    let registry = with_image(Registry::start().await, Auth::Basic("me:secret")).await;
    for (helper, expected) in [
        ("good", Ok(())),
        ("none", Err(["there are none for it", "127.0.0.1"])),
        (
            "broken",
            Err(["docker-credential-broken", "failed: locked"]),
        ),
        (
            "odd",
            Err(["docker-credential-odd", "something else than credentials"]),
        ),
    ] {
        fs::write(&config, json!({"credsStore": helper}).to_string()).unwrap();
        let options = PullOptions {
            credentials: Credentials::from_docker_config(&config).unwrap(),
            ..PullOptions::default()
        };
        let expected = match &expected {
            Ok(()) => Ok(()),
            Err(parts) => Err(parts.as_slice()),
        };
        check(&registry.name("team/x"), &options, expected).await;
    }
    let asked = fs::read_to_string(Path::new(&folder).join("asked")).unwrap();
    assert_eq!(asked, registry.address.to_string());
}

#[test]
fn helper_programs_give_credentials() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, script: &str| {
        let path = folder.path().join(format!("docker-credential-{name}"));
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    let asked = folder.path().join("asked");
    let good = r#"echo '{"ServerURL":"x","Username":"me","Secret":"secret"}'"#;
    write(
        "good",
        &format!("[ $1 = get ]; cat > {}; {good}", asked.display()),
    );
    write(
        "none",
        "echo credentials not found in native keychain; exit 1",
    );
    write("broken", "echo locked; exit 1");
    write("odd", "echo secret");
    let path = format!("{}:/usr/bin:/bin", folder.path().display());
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "with_a_helper"])
        .env("PATH", path)
        .env("LATEEN_TEST_HELPERS", folder.path())
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && shown.contains("1 passed"),
        "{shown}"
    );
}
