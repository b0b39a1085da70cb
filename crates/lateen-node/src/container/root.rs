//! The root file system of a container: an image's layers below a folder for changes, or read-only binds of the host's
//! programs in an in-memory root.
//!
//! An image is not trusted: its links are followed as the container would see them, by [`inside`], whatever is put there.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};

use lateen_sys::mount;
use nix::unistd::sethostname;

use super::spec::{Base, RootSpec};

/// Folders of programs and libraries that a container shares with the host.
const PROGRAMS: [&str; 9] = [
    "usr",
    "bin",
    "sbin",
    "lib",
    "lib32",
    "lib64",
    "libx32",
    "nix/store",
    "gnu/store",
];

/// What programs need of the host's `/etc`: no host names, users, or secrets.
const SETTINGS: [&str; 13] = [
    "alternatives",
    "ca-certificates",
    "ca-certificates.conf",
    "crypto-policies",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "mime.types",
    "pki/tls",
    "protocols",
    "services",
    "ssl/certs",
];

/// Parts of `/proc` that speak of, or change, the whole machine: shown read-only.
const PROC_READ_ONLY: [&str; 5] = ["sys", "sysrq-trigger", "irq", "bus", "fs"];

/// Parts of `/proc` that are hidden.
const PROC_HIDDEN: [&str; 5] = ["kcore", "keys", "timer_list", "acpi", "scsi"];

const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Builds the root in this process's own mount namespace and moves into it.
pub(super) fn build(spec: &RootSpec) -> io::Result<()> {
    step("separate the mounts", mount::make_private())?;
    let root = spec.staging.as_path();
    match &spec.base {
        Base::Host => {
            step(
                "mount the root",
                mount::tmpfs(root, spec.memory_limit, 0o755),
            )?;
            show_programs(spec, root)?;
            step("write /etc", write_settings(spec, &root.join("etc")))?;
            for (folder, mode) in [
                ("tmp", 0o1777),
                ("run", 0o755),
                ("root", 0o700),
                ("var/tmp", 0o1777),
            ] {
                let mounted = mount::tmpfs(&root.join(folder), spec.memory_limit, mode);
                step("mount a temporary folder", mounted)?;
            }
        }
        Base::Image {
            layers,
            writable,
            folder,
        } => {
            stack(spec, layers, writable)?;
            let name = inside(root, Path::new("/etc/hostname"))?;
            let written = write_file(&name, &format!("{}\n", spec.hostname));
            step("write /etc/hostname", written)?;
            if let Some(folder) = folder {
                let made = fs::create_dir_all(inside(root, folder)?);
                step(&format!("make {}", folder.display()), made)?;
            }
        }
    }
    mount_proc(&inside(root, Path::new("/proc"))?)?;
    make_devices(&inside(root, Path::new("/dev"))?, spec.memory_limit)?;
    // Shorter paths first, so that a volume inside another one is not covered by it.
    let mut binds: Vec<_> = spec.binds.iter().collect();
    binds.sort_by_key(|bind| bind.target.components().count());
    for bind in binds {
        let target = inside(root, &bind.target)?;
        let name = format!("mount {}", bind.target.display());
        step(&name, mount::bind(&bind.source, &target, bind.read_only))?;
    }
    step(
        "set the host name",
        sethostname(&spec.hostname).map_err(io::Error::from),
    )?;
    step("change the root", mount::change_root(root))?;
    if spec.read_only {
        step(
            "make the root read-only",
            mount::set_read_only_alone(Path::new("/")),
        )?;
    }
    Ok(())
}

/// Stacks an image's layers, with changes on the disk; in memory where the disk's file system cannot take them (because it
/// is such a stack itself).
fn stack(spec: &RootSpec, layers: &[PathBuf], writable: &Path) -> io::Result<()> {
    let root = spec.staging.as_path();
    let stacked = match mount::overlay(root, layers, Some(writable)) {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            let in_memory = mount::tmpfs(writable, spec.memory_limit, 0o755);
            in_memory.and_then(|()| mount::overlay(root, layers, Some(writable)))
        }
        stacked => stacked,
    };
    step("stack the image's layers", stacked)
}

fn write_file(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, text)
}

fn show_programs(spec: &RootSpec, root: &Path) -> io::Result<()> {
    for name in PROGRAMS {
        let source = Path::new("/").join(name);
        match fs::symlink_metadata(&source) {
            Ok(found) if found.is_symlink() => {
                let link = fs::read_link(&source)?;
                step("link a folder of programs", symlink(link, root.join(name)))?;
            }
            Ok(_) => {
                let shown = mount::bind(&source, &root.join(name), true);
                step(&format!("show {}", source.display()), shown)?;
            }
            Err(_) => {}
        }
    }
    let program = inside(root, Path::new(super::EXECUTABLE))?;
    let name = format!("show {}", spec.executable.display());
    step(&name, mount::bind(&spec.executable, &program, true))?;
    // Under the name that Istio's users call in a sidecar: `pilot-agent request GET stats`.
    let agent = program.with_file_name("pilot-agent");
    step("link pilot-agent", symlink("lateen", agent))
}

fn write_settings(spec: &RootSpec, etc: &Path) -> io::Result<()> {
    fs::create_dir_all(etc)?;
    for name in SETTINGS {
        let source = Path::new("/etc").join(name);
        // Follows links: a link may lead to where the container cannot see.
        let Ok(source) = fs::canonicalize(source) else {
            continue;
        };
        mount::bind(&source, &etc.join(name), true)?;
    }
    let mut users = String::from(
        "root:x:0:0:root:/root:/bin/sh\n\
         istio-proxy:x:1337:1337::/:/bin/false\n\
         nobody:x:65534:65534:nobody:/:/bin/false\n",
    );
    let mut groups = String::from("root:x:0:\nistio-proxy:x:1337:\nnogroup:x:65534:\n");
    if let Some(user) = spec.user.filter(|user| ![0, 1337, 65534].contains(user)) {
        users.push_str(&format!("app:x:{user}:{user}::/:/bin/sh\n"));
        groups.push_str(&format!("app:x:{user}:\n"));
    }
    fs::write(etc.join("passwd"), users)?;
    fs::write(etc.join("group"), groups)?;
    fs::write(etc.join("hostname"), format!("{}\n", spec.hostname))?;
    fs::write(
        etc.join("nsswitch.conf"),
        "passwd: files\ngroup: files\nhosts: files dns\n",
    )
}

fn mount_proc(proc: &Path) -> io::Result<()> {
    step("mount /proc", mount::proc(proc))?;
    for name in PROC_READ_ONLY {
        let path = proc.join(name);
        if path.exists() {
            step("protect a part of /proc", mount::bind(&path, &path, true))?;
        }
    }
    for name in PROC_HIDDEN {
        let path = proc.join(name);
        match fs::metadata(&path) {
            Ok(found) if found.is_dir() => step("hide a part of /proc", mount::tmpfs(&path, 0, 0))?,
            Ok(_) => {
                let hidden = mount::bind(Path::new("/dev/null"), &path, false);
                step("hide a part of /proc", hidden)?;
            }
            Err(_) => {}
        }
    }
    Ok(())
}

fn make_devices(dev: &Path, limit: u64) -> io::Result<()> {
    step("mount /dev", mount::tmpfs(dev, 1 << 20, 0o755))?;
    for name in DEVICES {
        let source = Path::new("/dev").join(name);
        step(
            "show a device",
            mount::bind(&source, &dev.join(name), false),
        )?;
    }
    step("mount /dev/pts", mount::devpts(&dev.join("pts")))?;
    step(
        "mount /dev/shm",
        mount::tmpfs(&dev.join("shm"), limit, 0o1777),
    )?;
    for (link, target) in [
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        step("link a device", symlink(target, dev.join(link)))?;
    }
    Ok(())
}

/// Where a path of the container lies below its root. Links on the way are followed as the
/// container would see them, so that none leads out of the root.
fn inside(root: &Path, target: &Path) -> io::Result<PathBuf> {
    let mut path = root.to_owned();
    for component in target.components() {
        match component {
            Component::Normal(name) => path.push(name),
            Component::RootDir | Component::CurDir => continue,
            Component::ParentDir | Component::Prefix(_) => {
                return Err(io::Error::other(format!(
                    "{} leads upwards",
                    target.display()
                )));
            }
        }
        for _ in 0..8 {
            let Ok(link) = fs::read_link(&path) else {
                break;
            };
            path.pop();
            let relative = link.strip_prefix("/").ok();
            path = match relative {
                Some(relative) => inside(root, relative)?,
                None => inside(root, &path.strip_prefix(root).unwrap_or(&path).join(&link))?,
            };
        }
    }
    Ok(path)
}

/// Adds to an error what was being done.
fn step<T>(what: &str, result: io::Result<T>) -> io::Result<T> {
    result.map_err(|error| io::Error::new(error.kind(), format!("cannot {what}: {error}")))
}
