//! Docker's credential helpers: programs that keep credentials elsewhere
//! (`github.com/docker/docker-credential-helpers`, "Development").

use std::{process::Stdio, time::Duration};

use serde::Deserialize;
use tokio::{io::AsyncWriteExt, process::Command, time::timeout};

use super::{Credential, CredentialsError};

/// How long a helper may take: it may ask its user.
const PATIENCE: Duration = Duration::from_secs(60);
/// What helpers print when they have nothing for a registry.
const NOTHING: &str = "credentials not found";
/// The user for which helpers give a token instead of a password.
const TOKEN_USER: &str = "<token>";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// Asks a helper for a registry's credentials; `None` when it has none.
pub(super) async fn ask(
    helper: &str,
    registry: &str,
) -> Result<Option<Credential>, CredentialsError> {
    let program = format!("docker-credential-{helper}");
    let fail = |why: &str| CredentialsError::Helper {
        program: program.clone(),
        registry: registry.to_owned(),
        why: why.to_owned(),
    };
    let word = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if helper.is_empty() || !helper.bytes().all(word) {
        return Err(fail(
            "has a name that is none; it must be letters, digits, '-', '_' and '.'",
        ));
    }
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| {
            fail(&format!(
                "cannot be run: {error}; install it, or log in again"
            ))
        })?;
    let server = match registry {
        "docker.io" => "https://index.docker.io/v1/",
        other => other,
    };
    if let Some(mut input) = child.stdin.take() {
        // A helper that does not read says more by its exit.
        let _ = input.write_all(server.as_bytes()).await;
    }
    let output = timeout(PATIENCE, child.wait_with_output())
        .await
        .map_err(|_| fail("took more than a minute"))?
        .map_err(|error| fail(&format!("failed: {error}")))?;
    if !output.status.success() {
        // The output of a failed helper is a message for people.
        let message = String::from_utf8_lossy(&output.stdout);
        if message.contains(NOTHING) {
            return Ok(None);
        }
        let message: String = message.trim().chars().take(200).collect();
        return Err(fail(&format!("failed: {message}; log in again")));
    }
    // The reason may quote the secret.
    let answer: Answer = serde_json::from_slice(&output.stdout)
        .map_err(|_| fail("answered something else than credentials"))?;
    Ok(Some(match answer.username.as_str() {
        TOKEN_USER => Credential::Identity(answer.secret),
        _ => Credential::Password {
            user: answer.username,
            password: answer.secret,
        },
    }))
}
