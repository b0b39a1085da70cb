//! Pulling from a registry on loopback: names, platforms, damage, broken transfers.

mod common;

use std::{
    fs,
    time::{Duration, Instant},
};

use common::{
    Item, MANIFEST, Made, Packing, descriptor, image, image_for,
    registry::{Fault, Registry},
    store, tar,
};
use lateen_image::{ContentStore, Digest, Image, Platform, Progress, PullError, PullOptions, pull};
use serde_json::json;
use tokio::sync::watch;

fn options() -> PullOptions {
    PullOptions {
        pause: Duration::from_millis(1),
        ..PullOptions::default()
    }
}

async fn pulled(
    store: &ContentStore,
    name: &str,
    options: &PullOptions,
) -> Result<Image, PullError> {
    // Callers spawn it.
    fn sendable<T: Send>(future: T) -> T {
        future
    }
    let name = name.parse().unwrap();
    let image = sendable(pull(store, &name, options)).await;
    let partial = store.folder().join("partial");
    // A part that is being written when another one fails is deleted when it is written.
    let deadline = Instant::now() + Duration::from_secs(10);
    while fs::read_dir(&partial).unwrap().count() > 0 {
        assert!(Instant::now() < deadline, "something is left: {image:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(
        store.resolve(&name).unwrap().is_some(),
        image.is_ok(),
        "{image:?}"
    );
    image
}

/// Short only where somebody is silent: a busy machine is slow elsewhere too.
fn patience(faults: &[Fault]) -> Duration {
    let silent = faults.iter().any(|fault| matches!(fault, Fault::Silence));
    Duration::from_millis(if silent { 1500 } else { 60_000 })
}

/// The message must hold every part.
async fn check_refused(name: &str, options: &PullOptions, parts: &[&str]) {
    let (_folder, store) = store();
    let shown = pulled(&store, name, options).await.unwrap_err().to_string();
    for part in parts {
        assert!(shown.contains(part), "{shown} lacks {part:?}");
    }
}

fn made() -> Made {
    // Noise, so that the layer is larger than what is written at a time.
    let mut state = 1_u32;
    let noise = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let noise: Vec<u8> = (0..3_000_000).map(noise).collect();
    let big = tar(&[Item::File("noise".into(), noise, 0o644)]);
    let small = tar(&[Item::file("text", "text")]);
    image(&[
        (big, Packing::Gzip),
        (small.clone(), Packing::Gzip),
        (small, Packing::Gzip),
    ])
}

#[tokio::test]
async fn images_are_pulled_by_tag_and_by_digest_and_content_only_once() {
    let registry = Registry::start().await;
    let made = made();
    registry.push("team/x", "v1", &made);
    let digest = Digest::of(&made.manifest);
    let (_folder, store) = store();
    let (sender, receiver) = watch::channel(Progress::default());
    let options = PullOptions {
        progress: Some(sender),
        ..options()
    };
    let image = pulled(&store, &registry.name("team/x:v1"), &options)
        .await
        .unwrap();
    assert_eq!((image.digest, image.layers.len()), (digest, 3));
    // Manifest, configuration, and two different layers.
    assert_eq!(registry.requests().len(), 4);
    let progress = *receiver.borrow();
    assert!(
        progress.total > 3_000_000 && progress.done == progress.total,
        "{progress:?}"
    );

    for name in [
        "team/x:v1".to_owned(),
        format!("team/x@{digest}"),
        format!("team/x:any@{digest}"),
    ] {
        pulled(&store, &registry.name(&name), &options)
            .await
            .unwrap();
        let requests = registry.requests();
        assert_eq!(requests.len(), 1, "{requests:?}");
        assert_eq!(receiver.borrow().done, receiver.borrow().total);
    }
    assert_eq!(store.list().unwrap().len(), 3);

    check_refused(
        &registry.name("team/x:v2"),
        &options,
        &["no image", "team/x:v2", "the tag"],
    )
    .await;
    check_refused(
        &registry.name("other:v1"),
        &options,
        &["no image", "other:v1"],
    )
    .await;
}

#[tokio::test]
async fn the_platform_is_chosen_from_indexes_of_oci_and_docker() {
    let registry = Registry::start().await;
    let on = |architecture: &str| Platform {
        os: "linux".to_owned(),
        architecture: architecture.to_owned(),
        variant: None,
    };
    let mut entries = Vec::new();
    let mut digests = Vec::new();
    for architecture in ["amd64", "s390x"] {
        let layer = (tar(&[Item::file("text", architecture)]), Packing::Zstd);
        let made = image_for(&on(architecture), &[layer]);
        registry.push("x", architecture, &made);
        let mut entry = descriptor(MANIFEST, &made.manifest);
        entry["platform"] = serde_json::to_value(on(architecture)).unwrap();
        entries.push(entry);
        digests.push(Digest::of(&made.manifest));
    }
    let index = json!({"schemaVersion": 2, "manifests": entries}).to_string();
    registry.push_index("x", "latest", &index);
    let list = "application/vnd.docker.distribution.manifest.list.v2+json";
    let docker = json!({"schemaVersion": 2, "mediaType": list, "manifests": entries}).to_string();
    registry.push_manifest("x", "docker", list, docker.as_bytes());
    for name in [
        "x",
        "x:docker",
        &format!("x@{}", Digest::of(index.as_bytes())),
    ] {
        for (architecture, digest) in ["amd64", "s390x"].into_iter().zip(&digests) {
            let options = PullOptions {
                platform: on(architecture),
                ..options()
            };
            let (_folder, store) = store();
            let image = pulled(&store, &registry.name(name), &options)
                .await
                .unwrap();
            assert_eq!(image.digest, *digest);
        }
    }
    let options = PullOptions {
        platform: on("riscv64"),
        ..options()
    };
    let parts = ["not made for linux/riscv64", "linux/amd64, linux/s390x"];
    check_refused(&registry.name("x"), &options, &parts).await;
    // Without an index the configuration tells, before layers are fetched.
    registry.requests();
    let parts = ["not made for linux/riscv64", "only for linux/s390x"];
    check_refused(&registry.name("x:s390x"), &options, &parts).await;
    assert_eq!(registry.requests().len(), 2);
}

#[tokio::test]
async fn broken_transfers_go_on_where_they_were() {
    for (faults, ranges) in [
        (vec![Fault::Cut(1_500_000)], 1),
        (vec![Fault::Cut(1_500_000), Fault::Cut(100_000)], 2),
        (vec![Fault::Cut(1_500_000), Fault::Whole], 1),
        (vec![Fault::Cut(1_500_000), Fault::Shifted], 1),
        (vec![Fault::Cut(1_500_000), Fault::Status(416)], 1),
        (vec![Fault::Status(503), Fault::Status(429)], 0),
        (vec![Fault::Cut(0)], 0),
        (vec![Fault::Silence], 0),
    ] {
        let registry = Registry::start().await;
        let layer = made().layers[0].clone();
        let config = image(&[]).config;
        let mut config: serde_json::Value = serde_json::from_slice(&config).unwrap();
        config["rootfs"]["diff_ids"] = json!([Digest::of(b"not unpacked here").to_string()]);
        let made = common::with_config(config.to_string().into_bytes(), vec![layer]);
        registry.push("x", "latest", &made);
        let (_folder, store) = store();
        let options = PullOptions {
            patience: patience(&faults),
            ..options()
        };
        // The configuration is not what is to break.
        registry
            .state
            .lock()
            .unwrap()
            .faults
            .push_back(Fault::Whole);
        registry.state.lock().unwrap().faults.extend(faults.clone());
        pulled(&store, &registry.name("x"), &options)
            .await
            .unwrap_or_else(|error| panic!("{faults:?}: {error}"));
        let requests = registry.requests();
        let ranged = requests
            .iter()
            .filter(|line| line.contains("bytes="))
            .count();
        assert_eq!(ranged, ranges, "{faults:?}: {requests:?}");
        assert_eq!(
            requests.len(),
            3 + faults.len().min(requests.len() - 3),
            "{requests:?}"
        );
    }
}

#[tokio::test]
async fn attempts_end() {
    let registry = Registry::start().await;
    registry.push("x", "latest", &made());
    for (fault, parts) in [
        (Fault::Status(503), ["503", ": busy"]),
        (Fault::Cut(10), ["broke off", "blobs/sha256"]),
        (Fault::Silence, ["nothing came for 1.5 s", "blobs/sha256"]),
    ] {
        let options = PullOptions {
            attempts: 3,
            patience: patience(&[fault]),
            ..options()
        };
        registry.state.lock().unwrap().faults = [fault; 3].into();
        registry.requests();
        check_refused(&registry.name("x"), &options, &parts).await;
        assert_eq!(registry.requests().len(), 4);
    }
    // What the registry means is not asked for again.
    let options = PullOptions {
        attempts: 2,
        ..options()
    };
    registry.state.lock().unwrap().faults = [Fault::Status(410)].into();
    check_refused(&registry.name("x"), &options, &["410", ": busy"]).await;
    assert_eq!(registry.requests().len(), 2);
    // A port that nobody listens on.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    check_refused(
        &format!("{address}/x"),
        &options,
        &["cannot connect to 127.0.0.1"],
    )
    .await;
}

#[tokio::test]
async fn content_is_what_was_announced_or_refused() {
    let registry = Registry::start().await;
    let made = made();
    registry.push("x", "latest", &made);
    let config = Digest::of(&made.config);
    let layer = Digest::of(&made.layers[1]);
    let mut changed = made.layers[1].clone();
    changed[5] ^= 1;
    let longer = [made.layers[1].as_slice(), b"more"].concat();
    let name = registry.name("x");
    let options = options();
    for (digest, sent, parts) in [
        (
            layer,
            changed,
            [
                format!("should be {layer}"),
                "get the image again".to_owned(),
            ],
        ),
        (layer, longer, [layer.to_string(), "announced".to_owned()]),
        (
            layer,
            Vec::new(),
            ["ended after 0".to_owned(), layer.to_string()],
        ),
        (
            config,
            b"{}".to_vec(),
            ["ended after 2".to_owned(), config.to_string()],
        ),
    ] {
        registry.push_blob("x", digest, &sent);
        check_refused(&name, &options, &parts.each_ref().map(String::as_str)).await;
        registry.push("x", "latest", &made);
    }
    let limited = PullOptions {
        image_bytes: 1000,
        ..options.clone()
    };
    check_refused(&name, &limited, &["more than 1000", "raise the limit"]).await;

    let wrong = Digest::of(b"wrong");
    let path = format!("/v2/x/manifests/{wrong}");
    let content = (MANIFEST.to_owned(), made.manifest.clone());
    registry.state.lock().unwrap().content.insert(path, content);
    let pinned = registry.name(&format!("x@{wrong}"));
    check_refused(&pinned, &options, &[&format!("should be {wrong}")]).await;
    registry.push_manifest("x", "big", MANIFEST, &vec![b' '; (4 << 20) + 1]);
    check_refused(
        &registry.name("x:big"),
        &options,
        &["its manifest has", "4194304"],
    )
    .await;
    registry.push_manifest("x", "noise", MANIFEST, b"noise");
    check_refused(
        &registry.name("x:noise"),
        &options,
        &["x:noise", "cannot be read"],
    )
    .await;
    let mut huge: serde_json::Value = serde_json::from_slice(&made.manifest).unwrap();
    huge["config"]["size"] = json!(1_u64 << 40);
    registry.push_manifest("x", "huge", MANIFEST, huge.to_string().as_bytes());
    check_refused(
        &registry.name("x:huge"),
        &options,
        &["its configuration", "8388608"],
    )
    .await;
}
