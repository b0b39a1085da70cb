use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// A self-signed authority and its key.
fn pair(name: &str) -> (String, String) {
    let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

#[test]
fn a_bad_secret_leaves_the_good_one_and_a_removed_one_leaves_nothing() {
    let secrets = Secrets::default();
    let slot = secrets.slot(Origin::Local, "default", None);
    let told = Arc::new(AtomicUsize::new(0));
    let count = told.clone();
    secrets.observe(move || {
        count.fetch_add(1, Ordering::SeqCst);
    });
    assert!(!slot.is_settled(), "nothing has come yet");
    assert_eq!(secrets.wanted(), BTreeSet::from(["default".to_owned()]));

    let (one, two) = (pair("one"), pair("two"));
    secrets.put_certificate("default", &one.0, &one.1).unwrap();
    let first = slot.certificate().unwrap();
    assert!(slot.is_settled() && first.is_for("one"));
    for (chain, key) in [
        (&one.0, &two.1),
        (&"x".to_owned(), &one.1),
        (&one.0, &one.0),
    ] {
        let error = secrets.put_certificate("default", chain, key).unwrap_err();
        assert_eq!(error.name, "default");
    }
    assert!(Arc::ptr_eq(&slot.certificate().unwrap(), &first));

    let version = slot.version();
    secrets.put_certificate("default", &two.0, &two.1).unwrap();
    assert!(slot.certificate().unwrap().is_for("two") && slot.version() > version);
    assert!(slot.validation().is_none(), "a certificate is no authority");

    secrets.remove("default");
    assert!(slot.load().is_none() && slot.is_settled());
    assert_eq!(told.load(Ordering::SeqCst), 3, "two changes and a removal");
}

#[test]
fn names_are_wanted_as_long_as_a_context_holds_them() {
    let secrets = Secrets::default();
    let (one, _) = pair("one");
    secrets.put_trust("ROOTCA", &one).unwrap();
    let slots = [
        secrets.slot(Origin::Discovery, "kubernetes://a", None),
        secrets.slot(Origin::Local, "ROOTCA", None),
    ];
    let discovered = || secrets.names(Origin::Discovery).len();
    assert_eq!((discovered(), secrets.wanted().len()), (1, 1));
    drop(slots);
    secrets.forget_unused();
    assert_eq!((discovered(), secrets.wanted().len()), (0, 0));
    let again = secrets.slot(Origin::Local, "ROOTCA", None);
    assert!(again.validation().is_some(), "what the agent put is kept");
}

#[test]
fn waiting_ends_when_its_time_is_over() {
    let secrets = Secrets::default();
    let forever = secrets.slot(Origin::Discovery, "forever", None);
    let short = secrets.slot(Origin::Discovery, "short", Some(Duration::from_millis(1)));
    let deadline = Instant::now() + Duration::from_secs(10);
    while !short.is_settled() {
        assert!(Instant::now() < deadline, "the wait did not end");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(!forever.is_settled());
}

#[test]
fn files_are_read_and_read_again_when_they_change() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let put = |(chain, key): (String, String)| {
        std::fs::write(path("chain"), chain).unwrap();
        std::fs::write(path("key"), key).unwrap();
    };
    put(pair("one"));
    let secrets = Secrets::default();
    let name = format!("file-cert:{}~{}", path("chain"), path("key"));
    let slot = secrets.slot(Origin::Local, &name, None);
    assert!(slot.certificate().unwrap().is_for("one"), "read at once");
    put(pair("another"));
    let deadline = Instant::now() + Duration::from_secs(10);
    while !slot.certificate().unwrap().is_for("another") {
        assert!(Instant::now() < deadline, "the change was not seen");
        std::thread::sleep(Duration::from_millis(5));
    }
    let absent = secrets.slot(Origin::Local, "file-root:/nowhere", None);
    assert!(absent.load().is_none() && !absent.is_settled());
}
