use std::{fs, os::unix::fs::symlink};

use super::*;

fn root() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("etc")).unwrap();
    let passwd = "root:x:0:0:root:/root:/bin/sh\n# odd\napp:x:1000:1001::/home/app:/bin/sh\n12:x:77:78::/:/\nbad:x:x:1::/:\n";
    let group = "root:x:0:\napp:x:1001:\nweb:x:33:app,other\naudio:x:29:app\n";
    fs::write(root.path().join("etc/passwd"), passwd).unwrap();
    fs::write(root.path().join("etc/group"), group).unwrap();
    root
}

/// `Ok` is `uid:gid:groups:home`, `Err` a part of the message.
fn check(root: &Path, text: Option<&str>, expected: Result<&str, &str>) {
    let found = User::resolve(text, root).map(|user| {
        let groups: Vec<String> = user.groups.iter().map(u32::to_string).collect();
        format!(
            "{}:{}:{}:{}",
            user.uid,
            user.gid,
            groups.join(","),
            user.home
        )
    });
    match (found, expected) {
        (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{text:?}"),
        (Err(error), Err(part)) if error.to_string().contains(part) => {}
        (found, expected) => panic!("{text:?}: {found:?} instead of {expected:?}"),
    }
}

#[test]
fn users_are_resolved_by_the_images_files() {
    let root = root();
    for (text, expected) in [
        (None, Ok("0:0::/root")),
        (Some(""), Ok("0:0::/root")),
        (Some("app"), Ok("1000:1001:29,33:/home/app")),
        (Some("1000"), Ok("1000:1001:29,33:/home/app")),
        (Some("app:web"), Ok("1000:33::/home/app")),
        (Some("app:5"), Ok("1000:5::/home/app")),
        (Some("app:"), Ok("1000:1001:29,33:/home/app")),
        (Some(":web"), Ok("0:33::/root")),
        (Some("4242"), Ok("4242:0::/")),
        (Some("4242:4343"), Ok("4242:4343::/")),
        (Some("12"), Ok("77:78::/")),
        (Some("nobody"), Err("no user \"nobody\" in /etc/passwd")),
        (Some("app:nobody"), Err("no group \"nobody\" in /etc/group")),
        (Some("bad"), Err("is no user")),
        (Some("4294967295"), Err("is no user")),
        (Some("99999999999"), Err("is no user")),
        (Some("a:b:c"), Err("is no user")),
    ] {
        check(root.path(), text, expected);
    }
}

#[test]
fn links_of_an_image_do_not_lead_out_of_it() {
    let root = root();
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("passwd");
    fs::write(&secret, "spy:x:5:5::/:/\n").unwrap();
    let passwd = root.path().join("etc/passwd");
    for target in [
        secret.to_str().unwrap().to_owned(),
        format!("../../../../../../../..{}", secret.display()),
    ] {
        fs::remove_file(&passwd).unwrap();
        symlink(&target, &passwd).unwrap();
        check(root.path(), Some("spy"), Err("no user \"spy\""));
    }
    fs::remove_file(&passwd).unwrap();
    symlink("/etc/group", &passwd).unwrap();
    check(root.path(), Some("web"), Ok("33:0::/"));

    fs::remove_file(&passwd).unwrap();
    nix::unistd::mkfifo(&passwd, Mode::S_IRWXU).unwrap();
    check(root.path(), Some("app"), Err("no regular file"));
    let empty = tempfile::tempdir().unwrap();
    check(empty.path(), Some("7"), Ok("7:0::/"));
}
