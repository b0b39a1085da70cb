//! What can stand in the way of entering, and how to allow it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::libc;
use thiserror::Error;

/// Why the mesh's namespaces could not be entered. Each message names what is missing and the
/// command that changes it; nothing has been started when one is returned.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EnterError {
    /// The `nft` program was not found.
    #[error(
        "the program nft was not found; lateen uses it for service addresses and redirection; \
         install it with: {install}"
    )]
    NftMissing {
        /// The command for this system's package manager.
        install: &'static str,
    },
    /// A setting of the system forbids user namespaces to this user.
    #[error(
        "this system does not let this user make user namespaces: {setting} is {value}; \
         allow it with: {remedy}"
    )]
    Forbidden {
        /// Name of the kernel setting.
        setting: &'static str,
        /// Its present value.
        value: String,
        /// The command that allows it.
        remedy: String,
    },
    /// The kernel refused and no known setting explains it: usually a container's seccomp filter.
    #[error(
        "the kernel refused the step `{step}`: {source}; inside a container, start it with user \
         namespaces allowed (docker: --security-opt seccomp=unconfined --security-opt \
         apparmor=unconfined)"
    )]
    Refused {
        /// What was tried.
        step: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The user and group ids of the new namespace could not be set.
    #[error("cannot map user ids into the new user namespace: {source}")]
    IdentityMap {
        /// What the kernel said.
        source: io::Error,
    },
    /// The program could not be started again.
    #[error("cannot run {program}: {source}")]
    Run {
        /// Path of the program.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The child ended or said something unexpected before all namespaces were there.
    #[error("the inner process did not start: {source}")]
    Conversation {
        /// What went wrong.
        source: io::Error,
    },
}

/// Finds a program in `PATH` and, as ordinary users often lack them there, the `sbin` folders.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin", "/bin"];
    std::env::split_paths(&path)
        .chain(usual.into_iter().map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
}

/// Checks what can be known before anything is started.
pub(super) fn check_requirements() -> Result<(), EnterError> {
    if find_program("nft").is_none() {
        return Err(EnterError::NftMissing {
            install: install_command(),
        });
    }
    match explain_refusal(Path::new("/proc/sys")) {
        // A limit of zero refuses root as well; the other two settings spare it.
        Some(
            error @ EnterError::Forbidden {
                setting: "user.max_user_namespaces",
                ..
            },
        ) => Err(error),
        Some(error) if !nix::unistd::geteuid().is_root() => Err(error),
        _ => Ok(()),
    }
}

/// Turns a failed step into the error that helps most.
pub(super) fn explain(step: String, errno: i32) -> EnterError {
    let source = io::Error::from_raw_os_error(errno);
    let refusal = [libc::EPERM, libc::EACCES, libc::ENOSPC].contains(&errno);
    match explain_refusal(Path::new("/proc/sys")) {
        Some(forbidden) if refusal => forbidden,
        _ => EnterError::Refused { step, source },
    }
}

/// Looks for a setting below `sysctl` (`/proc/sys`) that forbids user namespaces.
fn explain_refusal(sysctl: &Path) -> Option<EnterError> {
    // Setting, the value that forbids, and the value that allows.
    const SETTINGS: [(&str, &str, &str); 3] = [
        ("user.max_user_namespaces", "0", "15000"),
        ("kernel.unprivileged_userns_clone", "0", "1"),
        ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
    ];
    SETTINGS.into_iter().find_map(|(setting, forbids, allows)| {
        let value = fs::read_to_string(sysctl.join(setting.replace('.', "/"))).ok()?;
        (value.trim() == forbids).then(|| EnterError::Forbidden {
            setting,
            value: value.trim().to_owned(),
            remedy: format!("sudo sysctl -w {setting}={allows}"),
        })
    })
}

fn install_command() -> &'static str {
    if find_program("apt-get").is_some() {
        "sudo apt-get install nftables"
    } else if find_program("dnf").is_some() {
        "sudo dnf install nftables"
    } else if find_program("pacman").is_some() {
        "sudo pacman -S nftables"
    } else if find_program("apk").is_some() {
        "sudo apk add nftables"
    } else {
        "the package nftables of this system"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(setting: &str, value: &str, expected: Option<&str>) {
        let sysctl = tempfile::tempdir().unwrap();
        let file = sysctl.path().join(setting.replace('.', "/"));
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, format!("{value}\n")).unwrap();
        let message = explain_refusal(sysctl.path()).map(|error| error.to_string());
        match expected {
            Some(remedy) => assert!(message.unwrap().ends_with(remedy)),
            None => assert_eq!(message, None),
        }
    }

    #[test]
    fn a_forbidding_setting_is_named_with_the_command_that_allows_it() {
        let apparmor = "kernel.apparmor_restrict_unprivileged_userns";
        check(
            apparmor,
            "1",
            Some("sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"),
        );
        check(apparmor, "0", None);
        let debian = "kernel.unprivileged_userns_clone";
        check(
            debian,
            "0",
            Some("sudo sysctl -w kernel.unprivileged_userns_clone=1"),
        );
        check(debian, "1", None);
        let limit = "user.max_user_namespaces";
        check(
            limit,
            "0",
            Some("sudo sysctl -w user.max_user_namespaces=15000"),
        );
        check(limit, "96365", None);
    }
}
