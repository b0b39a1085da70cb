//! OCI images: loaded from archives, pulled from a registry, run as they say, also as an ordinary user.

mod support;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use support::account::Account;
use support::eventually;
use support::image::{Image, Item, layer, shell_layer};
use support::mesh::Mesh;

const SOON: Duration = Duration::from_secs(30);

/// An image of two layers with a user, a folder, variables and a signal of its own.
fn application() -> Image {
    let upper = layer(&[
        ("etc/.wh.gone", Item::File(b"", 0o644, 0)),
        ("home/app", Item::Folder(0o755)),
        (
            "home/app/greeting",
            Item::File(b"from the image\n", 0o644, 101),
        ),
    ]);
    let script = "trap 'echo asked; exit 0' USR1; echo up; while true; do sleep 0.1; done";
    let run = json!({
        "Env": ["PATH=/bin", "GREETING=hi"], "Entrypoint": ["/bin/sh", "-c"], "Cmd": [script],
        "WorkingDir": "/home/app", "User": "app", "StopSignal": "SIGUSR1",
    });
    Image::new(&run, vec![shell_layer(), upper])
}

/// Loads images into the store of the mesh's user.
fn load(mesh: &Mesh, folder: &Path, image: &Image, name: &str) {
    let path = folder.join("image.tar");
    image.save(&path, name);
    fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).expect("opened");
    let done = mesh.image(&["load", path.to_str().expect("a name")]);
    assert_eq!((done.code, done.stdout.trim()), (0, name), "{done:?}");
}

fn folder() -> TempDir {
    let folder = tempfile::Builder::new()
        .prefix("lateen-test-")
        .tempdir()
        .expect("a folder");
    fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).expect("opened");
    folder
}

fn pod(name: &str, container: Value) -> String {
    let mut container = container;
    container["name"] = json!("main");
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"restartPolicy": "Never", "containers": [container]},
    })
    .to_string()
}

/// Runs a pod to its end; what it printed.
fn printed(mesh: &Mesh, name: &str, container: Value) -> String {
    mesh.apply("default", &pod(name, container));
    let phase = "jsonpath={.status.phase}";
    eventually(&format!("pod {name} ends"), SOON, || {
        let phase = mesh.kubectl(&["get", "pod", name, "-o", phase]);
        match phase.as_str() {
            "Succeeded" => Ok(()),
            _ => Err(mesh.kubectl(&["get", "pod", name, "-o", "yaml"])),
        }
    });
    let text = mesh.kubectl(&["logs", name]);
    mesh.kubectl(&["delete", "pod", name]);
    text
}

fn images_run_as_they_say(mesh: &Mesh, several_users: bool) {
    let folder = folder();
    let name = "example.com/team/app:1";
    load(mesh, folder.path(), &application(), name);
    let script = |script: &str| json!({"image": name, "args": [script]});

    let text = printed(
        mesh,
        "look",
        script("id -u; id -g; pwd; echo $GREETING $HOME; cat greeting; ls /etc"),
    );
    let user = if several_users {
        "101\n102\n"
    } else {
        "0\n0\n"
    };
    let expected = format!(
        "{user}/home/app\nhi /home/app\nfrom the image\ngroup\nhostname\nhosts\npasswd\nresolv.conf\n"
    );
    assert_eq!(text, expected);
    // Changes are the container's own.
    let command = json!(["/bin/sh", "-c", "echo mine > /tmp/x; cat /tmp/x; ls /tmp"]);
    for name in ["first", "second"] {
        let container = json!({"image": "example.com/team/app:1", "command": command});
        assert_eq!(printed(mesh, name, container), "mine\nx\n");
    }
    let root = json!({
        "image": name, "securityContext": {"runAsUser": 0},
        "args": ["ls /work /root /home/app /.lateen 2>/dev/null; touch /made; stat -c %u /made; chown 33 /made 2>/dev/null && stat -c %u /made; true"],
    });
    let given = if several_users { "33\n" } else { "" };
    let expected = format!("/home/app:\ngreeting\n0\n{given}");
    assert_eq!(printed(mesh, "root", root), expected);
    let read_only = json!({
        "image": name, "securityContext": {"readOnlyRootFilesystem": true, "runAsUser": 0},
        "args": ["touch /made 2>/dev/null || echo refused"],
    });
    assert_eq!(printed(mesh, "read-only", read_only), "refused\n");

    // One that stays: commands run in it, its status tells what runs, and it is asked to end in its own way.
    mesh.apply("default", &pod("stays", json!({"image": name})));
    mesh.kubectl(&[
        "wait",
        "--for=condition=Ready",
        "pod/stays",
        "--timeout=30s",
    ]);
    let done = mesh.kubectl(&[
        "exec",
        "stays",
        "--",
        "sh",
        "-c",
        "id -u; pwd; echo $GREETING",
    ]);
    let user = if several_users { "101" } else { "0" };
    assert_eq!(done, format!("{user}\n/home/app\nhi\n"));
    let id = "jsonpath={.status.containerStatuses[0].imageID}";
    let id = mesh.kubectl(&["get", "pod", "stays", "-o", id]);
    assert!(id.starts_with("example.com/team/app@sha256:"), "{id}");
    let events = mesh.kubectl(&["describe", "pod", "stays"]);
    assert!(events.contains("already present on machine"), "{events}");
    let follow = std::thread::scope(|scope| {
        let follow = scope.spawn(|| mesh.kubectl(&["logs", "-f", "stays"]));
        eventually("the first line", SOON, || {
            match mesh.kubectl(&["logs", "stays"]) {
                text if text.contains("up") => Ok(()),
                text => Err(text),
            }
        });
        mesh.kubectl(&["delete", "pod", "stays"]);
        follow.join().expect("followed")
    });
    assert_eq!(follow, "up\nasked\n");
    let left = mesh.state().join("node/writable");
    let left = fs::read_dir(left).map(Iterator::count).unwrap_or(0);
    assert_eq!(left, 0, "what containers changed goes with them");

    // One that was loaded comes before what stands in for its name, also where that could not run.
    let run = json!({"Cmd": ["/bin/sh", "-c", "echo loaded"]});
    let stand_in = Image::new(&run, vec![shell_layer()]);
    let whole_name = "docker.io/library/host:latest";
    load(mesh, folder.path(), &stand_in, whole_name);
    let text = printed(mesh, "stand-in", json!({"image": "host"}));
    assert_eq!(text, "loaded\n");
    assert_eq!(mesh.image(&["rm", whole_name]).code, 0);

    // A sidecar beside it.
    mesh.kubectl(&["create", "namespace", "meshed"]);
    mesh.kubectl(&["label", "namespace", "meshed", "istio-injection=enabled"]);
    mesh.apply("meshed", &pod("meshed", json!({"image": name})));
    mesh.kubectl(&[
        "-n",
        "meshed",
        "wait",
        "--for=condition=Ready",
        "pod/meshed",
        "--timeout=30s",
    ]);

    let listed = mesh.image(&["ls"]).stdout;
    assert!(listed.contains(name), "{listed}");
    assert_eq!(mesh.image(&["rm", name]).code, 0);
    let listed: Value =
        serde_json::from_str(&mesh.image(&["ls", "-o", "json"]).stdout).expect("JSON");
    assert_eq!(listed, json!([]));
    assert_eq!(mesh.image(&["rm", name]).code, 1);
}

fn hostile_images_reach_nothing(mesh: &Mesh) {
    let folder = folder();
    let victim = folder.path().join("victim");
    fs::create_dir(&victim).expect("a folder");
    fs::set_permissions(&victim, PermissionsExt::from_mode(0o777)).expect("opened");
    let victim = victim.to_str().expect("a name");
    let links = layer(&[
        ("etc", Item::Link(victim)),
        ("proc", Item::Link(victim)),
        ("dev", Item::Link(victim)),
        ("work", Item::Link(victim)),
        ("bin/true", Item::File(b"no program", 0o755, 0)),
    ]);
    let run = json!({"Cmd": ["/bin/true"], "WorkingDir": "/work/made"});
    load(
        mesh,
        folder.path(),
        &Image::new(&run, vec![links]),
        "example.com/links:1",
    );
    mesh.apply(
        "default",
        &pod("links", json!({"image": "example.com/links:1"})),
    );
    eventually("it fails", SOON, || {
        let pod = mesh.kubectl(&["get", "pod", "links", "-o", "yaml"]);
        if pod.contains("phase: Failed") {
            Ok(())
        } else {
            Err(pod)
        }
    });
    let found: Vec<_> = fs::read_dir(victim).expect("a folder").flatten().collect();
    assert!(found.is_empty(), "written outside: {found:?}");

    let mut tampered = application();
    tampered.layers[1] = layer(&[("other", Item::File(b"x", 0o644, 0))]);
    let path = folder.path().join("tampered.tar");
    tampered.save(&path, "example.com/tampered:1");
    fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).expect("opened");
    let done = mesh.image(&["load", path.to_str().expect("a name")]);
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.stderr.contains("damaged"), "{done:?}");
    mesh.kubectl(&["delete", "pod", "links"]);
}

/// Where the system grants no range of user ids, everybody is the one user.
fn has_several_users(mesh: &Mesh) -> bool {
    let mode = mesh.status["mode"].as_str().expect("a mode");
    !mode.contains("alone")
}

/// Whose files the containers left does not matter: a purge leaves nothing but what is not the mesh's.
fn a_purge_leaves_nothing_of_the_mesh(mesh: &Mesh) {
    let foreign = mesh.state().join("foreign");
    fs::write(&foreign, "").expect("written");
    let done = mesh.lateen(&["down", "--purge"]);
    assert_eq!(done.code, 0, "{done:?}");
    let left = fs::read_dir(mesh.state()).expect("the folder");
    let left: Vec<_> = left.map(|entry| entry.expect("an entry").path()).collect();
    assert_eq!(left, [foreign]);
}

#[test]
fn loaded_images_run_in_the_mesh_of_an_ordinary_user() {
    let mesh = Mesh::up(Account::ordinary(), &[]);
    let several = has_several_users(&mesh);
    images_run_as_they_say(&mesh, several);
    hostile_images_reach_nothing(&mesh);
    mesh.down();
    a_purge_leaves_nothing_of_the_mesh(&mesh);
}

#[test]
fn loaded_images_run_in_the_mesh_of_a_user_who_is_alone() {
    let mesh = Mesh::up(Account::alone(), &[]);
    assert!(!has_several_users(&mesh), "{}", mesh.status);
    images_run_as_they_say(&mesh, false);
    a_purge_leaves_nothing_of_the_mesh(&mesh);
}

#[test]
fn loaded_images_run_in_the_mesh_of_root() {
    let mesh = Mesh::up(Account::root(), &[]);
    let several = has_several_users(&mesh);
    images_run_as_they_say(&mesh, several);
    mesh.down();
}

/// Debian's registry on loopback, with one user; it ends with the value.
struct Registry {
    child: Child,
    address: String,
    _folder: TempDir,
}

/// `user` with the password `secret`.
const PASSWORDS: &str = "user:$2b$05$CFpXnqyThkIgBqeCVbGJ/.AYJernhwVieOQKXfk4uBeMurNW1aL1W\n";

impl Registry {
    fn start() -> Self {
        let folder = folder();
        let free = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = free.local_addr().expect("an address").to_string();
        drop(free);
        let passwords = folder.path().join("passwords");
        fs::write(&passwords, PASSWORDS).expect("written");
        let config = json!({
            "version": "0.1", "log": {"level": "error"},
            "storage": {"filesystem": {"rootdirectory": folder.path().join("data")}},
            "http": {"addr": address},
            "auth": {"htpasswd": {"realm": "test", "path": passwords}},
        });
        let file = folder.path().join("config.yml");
        fs::write(&file, config.to_string()).expect("written");
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry");
        eventually("the registry", SOON, || {
            std::net::TcpStream::connect(&address)
                .map(drop)
                .map_err(|error| error.to_string())
        });
        Self {
            child,
            address,
            _folder: folder,
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn images_are_pulled_from_a_registry_that_asks_who_pulls() {
    let registry = Registry::start();
    application().push(&registry.address, "user:secret", "team/app", "1");
    let mesh = Mesh::up(Account::ordinary(), &[]);
    let name = format!("{}/team/app:1", registry.address);
    let container =
        |policy: &str| json!({"image": name, "imagePullPolicy": policy, "args": ["cat greeting"]});
    let waiting = |pod: &str, reason: &str| {
        let path = "jsonpath={.status.containerStatuses[0].state.waiting.reason}";
        eventually(&format!("{pod} waits"), SOON, || {
            match mesh.kubectl(&["get", "pod", pod, "-o", path]) {
                found if found == reason => Ok(()),
                found => Err(found),
            }
        });
        mesh.kubectl(&["describe", "pod", pod])
    };
    mesh.apply("default", &pod("never", container("Never")));
    waiting("never", "ErrImageNeverPull");
    mesh.apply("default", &pod("nobody", container("IfNotPresent")));
    let events = waiting("nobody", "ImagePullBackOff");
    assert!(events.contains("Failed to pull image"), "{events}");
    mesh.kubectl(&["delete", "pod", "never", "nobody", "--now"]);

    mesh.kubectl(&[
        "create",
        "secret",
        "docker-registry",
        "registry",
        &format!("--docker-server={}", registry.address),
        "--docker-username=user",
        "--docker-password=secret",
    ]);
    let secrets = r#"{"imagePullSecrets": [{"name": "registry"}]}"#;
    mesh.kubectl(&["patch", "serviceaccount", "default", "-p", secrets]);
    let text = printed(&mesh, "somebody", container("IfNotPresent"));
    assert_eq!(text, "from the image\n");
    assert!(mesh.image(&["ls"]).stdout.contains(&name));

    // What is here runs, although the registry is gone.
    drop(registry);
    let text = printed(&mesh, "alone", container("Always"));
    assert_eq!(text, "from the image\n");
    mesh.down();
}
