//! Volumes without an API: what is written, and what is refused.

use super::*;

#[test]
fn a_new_version_replaces_all_files_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let volume = folder.path().join("v");
    let mut files = Files::new();
    add(&mut files, "a.conf", b"1".to_vec(), 0o644).unwrap();
    add(&mut files, "sub/b", b"2".to_vec(), 0o600).unwrap();
    write_files(&volume, &files).unwrap();
    assert_eq!(fs::read_to_string(volume.join("a.conf")).unwrap(), "1");
    assert_eq!(fs::read_to_string(volume.join("sub/b")).unwrap(), "2");
    let version = fs::read_link(volume.join("..data")).unwrap();

    write_files(&volume, &files).unwrap();
    assert_eq!(
        fs::read_link(volume.join("..data")).unwrap(),
        version,
        "unchanged"
    );

    add(&mut files, "a.conf", b"3".to_vec(), 0o644).unwrap();
    write_files(&volume, &files).unwrap();
    assert_eq!(fs::read_to_string(volume.join("a.conf")).unwrap(), "3");
    assert!(!volume.join(version).exists());
}

#[test]
fn paths_cannot_leave_the_volume() {
    for path in ["../x", "/etc/passwd", "a/../../b", ""] {
        assert!(
            matches!(relative(path), Err(VolumeError::Path(_))),
            "{path}"
        );
    }
    assert_eq!(relative("a/b").unwrap(), PathBuf::from("a/b"));
}

#[test]
fn host_paths_are_refused_with_a_reason() {
    let volume: Volume =
        serde_json::from_value(serde_json::json!({"name": "h", "hostPath": {"path": "/"}}))
            .unwrap();
    assert!(
        unsupported(&volume)
            .to_string()
            .contains("hostPath volumes are not supported")
    );
}
