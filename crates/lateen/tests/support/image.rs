//! Images, made on the spot of programs of this machine.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use super::mesh::finish;

/// What the images' shell can call.
const PROGRAMS: [&str; 15] = [
    "sh", "cat", "id", "ls", "sleep", "touch", "chown", "stat", "env", "rm", "setpriv", "mkdir",
    "seq", "grep", "kill",
];

/// One file of a layer.
pub enum Item<'a> {
    Folder(u32),
    /// Content, mode and owner.
    File(&'a [u8], u32, u64),
    Link(&'a str),
}

/// A layer as an archive.
pub fn layer(items: &[(&str, Item<'_>)]) -> Vec<u8> {
    let mut archive = Builder::new(Vec::new());
    for (name, item) in items {
        let mut header = Header::new_ustar();
        let (kind, content, mode, owner) = match item {
            Item::Folder(mode) => (EntryType::Directory, &b""[..], *mode, 0),
            Item::File(content, mode, owner) => (EntryType::Regular, *content, *mode, *owner),
            Item::Link(_) => (EntryType::Symlink, &b""[..], 0o777, 0),
        };
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(owner);
        header.set_gid(owner);
        header.set_size(content.len() as u64);
        match item {
            Item::Link(target) => archive.append_link(&mut header, name, target),
            _ => archive.append_data(&mut header, name, content),
        }
        .expect("an entry");
    }
    archive.into_inner().expect("a layer")
}

/// A layer with a shell, some programs and their libraries, and two users.
pub fn shell_layer() -> Vec<u8> {
    let mut files = BTreeMap::new();
    for program in PROGRAMS {
        let path = which(program);
        for library in libraries(&path) {
            files.insert(library.clone(), fs::read(library).expect("a library"));
        }
        let content = fs::read(&path).expect("a program");
        files.insert(Path::new("/usr/bin").join(program), content);
    }
    let users = "root:x:0:0::/root:/bin/sh\napp:x:101:102::/home/app:/bin/sh\n";
    let groups = "root:x:0:\napp:x:102:\nextra:x:200:app\n";
    let mut items = vec![
        ("bin", Item::Link("usr/bin")),
        ("tmp", Item::Folder(0o1777)),
        ("etc/passwd", Item::File(users.as_bytes(), 0o644, 0)),
        ("etc/group", Item::File(groups.as_bytes(), 0o644, 0)),
        ("etc/gone", Item::File(b"gone", 0o644, 0)),
    ];
    for (path, content) in &files {
        let name = path.to_str().expect("a name").trim_start_matches('/');
        items.push((name, Item::File(content, 0o755, 0)));
    }
    layer(&items)
}

/// An image: its configuration, and its layers from the lowest up.
pub struct Image {
    pub config: Vec<u8>,
    pub layers: Vec<Vec<u8>>,
}

impl Image {
    /// `run` is what the OCI configuration has below `config`.
    pub fn new(run: &Value, layers: Vec<Vec<u8>>) -> Self {
        let digests: Vec<_> = layers.iter().map(|layer| digest(layer)).collect();
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let config = json!({
            "architecture": architecture, "os": "linux", "config": run,
            "rootfs": {"type": "layers", "diff_ids": digests},
        });
        Self {
            config: config.to_string().into_bytes(),
            layers,
        }
    }

    /// Writes what `docker save` writes.
    pub fn save(&self, path: &Path, name: &str) {
        let mut archive = Builder::new(File::create(path).expect("an archive"));
        let mut add = |name: &str, content: &[u8]| {
            let mut header = Header::new_ustar();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            archive
                .append_data(&mut header, name, content)
                .expect("an entry");
        };
        let names: Vec<_> = (0..self.layers.len())
            .map(|n| format!("{n}/layer.tar"))
            .collect();
        add("config.json", &self.config);
        for (name, layer) in names.iter().zip(&self.layers) {
            add(name, layer);
        }
        let manifest = json!([{"Config": "config.json", "RepoTags": [name], "Layers": names}]);
        add("manifest.json", manifest.to_string().as_bytes());
        archive.finish().expect("an archive");
    }

    /// Pushes it to a registry, as `user:password`.
    pub fn push(&self, registry: &str, user: &str, repository: &str, tag: &str) {
        let url = format!("http://{registry}/v2/{repository}");
        let blob = |content: &[u8]| {
            let digest = digest(content);
            let begun = curl(
                user,
                &["-i", "-X", "POST", &format!("{url}/blobs/uploads/")],
                b"",
            );
            let location = begun
                .lines()
                .find_map(|line| line.strip_prefix("Location: "))
                .unwrap_or_else(|| panic!("no upload: {begun}"));
            let target = format!("{}&digest={digest}", location.trim());
            let kind = "Content-Type: application/octet-stream";
            curl(
                user,
                &["-X", "PUT", "-H", kind, "--data-binary", "@-", &target],
                content,
            );
            json!({"digest": digest, "size": content.len()})
        };
        let typed = |mut descriptor: Value, kind: &str| {
            descriptor["mediaType"] = json!(format!("application/vnd.oci.image.{kind}"));
            descriptor
        };
        let layers: Vec<_> = self
            .layers
            .iter()
            .map(|it| typed(blob(it), "layer.v1.tar"))
            .collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": typed(blob(&self.config), "config.v1+json"), "layers": layers,
        });
        let kind = "Content-Type: application/vnd.oci.image.manifest.v1+json";
        let target = format!("{url}/manifests/{tag}");
        let manifest = manifest.to_string();
        curl(
            user,
            &["-X", "PUT", "-H", kind, "--data-binary", "@-", &target],
            manifest.as_bytes(),
        );
    }
}

/// The digest of content.
pub fn digest(content: &[u8]) -> String {
    let digest = Sha256::digest(content);
    let digits: Vec<_> = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{}", digits.concat())
}

/// Where a program is.
fn which(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(program));
    let found = found.filter(|path| path.is_file());
    // A shell's own command of the name is no file; util-linux and coreutils have both.
    found
        .min_by_key(|path| path.as_os_str().len())
        .unwrap_or_else(|| panic!("no {program}"))
}

/// The libraries that a program is linked with, and its loader.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let mut command = Command::new("ldd");
    command.arg(program);
    let listed = finish(command, None).stdout;
    let words = listed
        .split_whitespace()
        .filter(|word| word.starts_with('/'));
    words.map(PathBuf::from).collect()
}

fn curl(user: &str, arguments: &[&str], content: &[u8]) -> String {
    use std::io::Write;
    let mut child = Command::new("curl")
        .args(["-s", "--fail-with-body", "--max-time", "20", "-u", user])
        .args(arguments)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("curl");
    child
        .stdin
        .take()
        .expect("input")
        .write_all(content)
        .expect("sent");
    let done = child.wait_with_output().expect("an end");
    let answer = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "curl {arguments:?}: {answer}");
    answer
}
