use super::*;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// `Ok` is the complete name, `Err` a part of the message.
fn check(text: &str, expected: Result<&str, &str>) {
    match (text.parse::<Reference>(), expected) {
        (Ok(name), Ok(complete)) => {
            assert_eq!(name.to_string(), complete, "{text}");
            assert_eq!(complete.parse(), Ok(name), "{text} is not stable");
        }
        (Err(error), Err(part)) => {
            let shown = error.to_string();
            assert!(shown.contains(part), "{text}: {shown}");
            assert!(
                shown.contains(&format!("{:?}", error.text)),
                "{shown} does not name the text"
            );
        }
        (found, expected) => panic!("{text}: {found:?} instead of {expected:?}"),
    }
}

#[test]
fn names_are_completed_as_docker_does() {
    for (text, complete) in [
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:1.29-alpine", "docker.io/library/nginx:1.29-alpine"),
        ("bitnami/nginx", "docker.io/bitnami/nginx:latest"),
        ("docker.io/nginx", "docker.io/library/nginx:latest"),
        ("index.docker.io/nginx", "docker.io/library/nginx:latest"),
        ("library/nginx", "docker.io/library/nginx:latest"),
        ("localhost/x", "localhost/x:latest"),
        ("localhost:5000/x", "localhost:5000/x:latest"),
        ("localhost:5000/x:v1", "localhost:5000/x:v1"),
        ("127.0.0.1:5000/a/b/c", "127.0.0.1:5000/a/b/c:latest"),
        ("[::1]:5000/x", "[::1]:5000/x:latest"),
        ("[::1]/x", "[::1]/x:latest"),
        (
            "gcr.io/istio-release/pilot:1.27",
            "gcr.io/istio-release/pilot:1.27",
        ),
        ("Registry/x", "Registry/x:latest"),
        ("a.b/x__y--z.w", "a.b/x__y--z.w:latest"),
        ("localhost:5000", "docker.io/library/localhost:5000"),
    ] {
        check(text, Ok(complete));
    }
    let pinned = format!("docker.io/library/nginx@{DIGEST}");
    check(&format!("nginx@{DIGEST}"), Ok(&pinned));
    let both = format!("docker.io/library/nginx:1@{DIGEST}");
    check(&format!("nginx:1@{DIGEST}"), Ok(&both));
    let longest = format!("a.b/{}:{}", "x".repeat(251), "t".repeat(128));
    check(&longest, Ok(&longest));
}

#[test]
fn what_is_no_name_is_refused_with_the_text() {
    for (text, part) in [
        ("", "empty"),
        ("nginx:", "tag after the colon is empty"),
        ("nginx:-1", "not start with"),
        ("nginx:a b", "must be letters"),
        ("Nginx", "lower case"),
        ("a//b", "empty"),
        ("/x", "empty"),
        ("a.b/", "empty"),
        ("-x", "words of"),
        ("x_", "words of"),
        ("x___y", "words of"),
        ("x..y", "words of"),
        ("x/../y", "words of"),
        ("ümlaut", "words of"),
        ("a.b:0/x", "port"),
        ("a.b:65536/x", "port"),
        ("a.b:+1/x", "port"),
        ("a.b:/x", "port"),
        ("-a.b/x", "host of a registry"),
        ("a..b/x", "host of a registry"),
        ("[::1/x", "closing bracket"),
        ("[host.name]/x", "IPv6"),
        ("[::1]5000/x", "follows"),
        ("nginx@sha256:12", "not a digest"),
        ("nginx@md5:12", "not a digest"),
        (&DIGEST[7..], "id of an image"),
        ("https://a.b/x", "port"),
    ] {
        check(text, Err(part));
    }
    check(&format!("a.b/{}", "x".repeat(252)), Err("longer than 255"));
    check(&format!("x:{}", "t".repeat(129)), Err("longer than 128"));
}
