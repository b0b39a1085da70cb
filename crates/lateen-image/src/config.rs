//! The configuration of an image (OCI image-spec, config.md): what runs, how, and from which layers.

use std::collections::BTreeMap;

use serde::Deserialize;
use thiserror::Error;

use crate::{Digest, Platform, manifest::nullable};

/// Bytes that are no configuration of an image.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the image's configuration cannot be read: {0}")]
pub struct ConfigError(pub String);

/// A port that the image says it listens on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExposedPort {
    /// The number, from 1.
    pub port: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
}

/// How a container of the image runs unless the pod says otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImageConfig {
    /// What the programs are made for.
    pub platform: Platform,
    /// When the image was made, as RFC 3339 text.
    pub created: Option<String>,
    /// The program and its first arguments; a pod's `command` replaces it, and `cmd` too.
    pub entrypoint: Vec<String>,
    /// Further arguments; a pod's `args` replace them.
    pub cmd: Vec<String>,
    /// Variables, in order; names may repeat, the last one wins.
    pub env: Vec<(String, String)>,
    /// The folder to start in; `None` is `/`.
    pub working_dir: Option<String>,
    /// User and group in any form that [`crate::User::resolve`] takes; `None` is root.
    pub user: Option<String>,
    /// Ports, by number.
    pub exposed_ports: Vec<ExposedPort>,
    /// Folders that are meant to hold data.
    pub volumes: Vec<String>,
    /// The signal that ends the program, such as `SIGQUIT` or `3`; `None` is `SIGTERM`.
    pub stop_signal: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// The digests of the layers' uncompressed archives, lowest layer first.
    pub diff_ids: Vec<Digest>,
}

#[derive(Deserialize)]
struct Document {
    #[serde(flatten)]
    platform: Platform,
    created: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    config: Run,
    rootfs: RootFs,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Run {
    user: Option<String>,
    exposed_ports: Option<BTreeMap<String, serde_json::Value>>,
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    volumes: Option<BTreeMap<String, serde_json::Value>>,
    working_dir: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    stop_signal: Option<String>,
}

#[derive(Deserialize)]
struct RootFs {
    #[serde(default, deserialize_with = "nullable")]
    diff_ids: Vec<Digest>,
}

impl Run {
    /// Refuses zero bytes, which no argument, variable or path can hold.
    fn check(&self) -> Result<(), ConfigError> {
        let lists = [&self.env, &self.entrypoint, &self.cmd];
        let texts = [&self.user, &self.working_dir, &self.stop_signal];
        let lists = lists.into_iter().flatten().flatten();
        match lists
            .chain(texts.into_iter().flatten())
            .find(|text| text.contains('\0'))
        {
            Some(text) => Err(ConfigError(format!("{text:?} has a zero byte"))),
            None => Ok(()),
        }
    }
}

impl ImageConfig {
    /// Reads a configuration of OCI or Docker.
    ///
    /// # Errors
    /// When it is not JSON or lacks a field that every image has.
    pub fn parse(bytes: &[u8]) -> Result<Self, ConfigError> {
        let document: Document =
            serde_json::from_slice(bytes).map_err(|error| ConfigError(error.to_string()))?;
        let run = document.config;
        run.check()?;
        let some = |text: Option<String>| text.filter(|text| !text.is_empty());
        let variable = |text: String| match text.split_once('=') {
            Some((name, value)) => (name.to_owned(), value.to_owned()),
            None => (text, String::new()),
        };
        let mut exposed_ports: Vec<ExposedPort> = run
            .exposed_ports
            .unwrap_or_default()
            .keys()
            .filter_map(|text| exposed(text))
            .collect();
        exposed_ports.sort_by_key(|exposed| exposed.port);
        Ok(Self {
            platform: document.platform,
            created: some(document.created),
            entrypoint: run.entrypoint.unwrap_or_default(),
            cmd: run.cmd.unwrap_or_default(),
            env: run.env.into_iter().flatten().map(variable).collect(),
            working_dir: some(run.working_dir),
            user: some(run.user),
            exposed_ports,
            volumes: run.volumes.unwrap_or_default().into_keys().collect(),
            stop_signal: some(run.stop_signal),
            labels: run.labels.unwrap_or_default(),
            diff_ids: document.rootfs.diff_ids,
        })
    }
}

/// `8080`, `8080/tcp`. What is no port is left out: it is a remark, nothing depends on it.
fn exposed(text: &str) -> Option<ExposedPort> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    Some(ExposedPort {
        port: port.parse().ok().filter(|port| *port != 0)?,
        protocol: protocol.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_read_and_null_is_absent() {
        let full = serde_json::json!({
            "architecture": "amd64", "os": "linux", "created": "2026-01-02T03:04:05Z",
            "config": {
                "User": "app:app", "ExposedPorts": {"8080/tcp": {}, "53/udp": {}, "no": {}},
                "Env": ["PATH=/bin", "EMPTY=", "BARE", "A=b=c"], "Entrypoint": ["/run"], "Cmd": ["--x"],
                "Volumes": {"/data": {}}, "WorkingDir": "/srv", "Labels": {"a": "b"}, "StopSignal": "SIGQUIT",
            },
            "rootfs": {"type": "layers", "diff_ids": [Digest::of(b"x").to_string()]},
        });
        let config = ImageConfig::parse(full.to_string().as_bytes()).unwrap();
        assert_eq!(config.platform.to_string(), "linux/amd64");
        assert_eq!(
            (config.entrypoint, config.cmd),
            (vec!["/run".into()], vec!["--x".into()])
        );
        let env: Vec<String> = config.env.iter().map(|(n, v)| format!("{n}={v}")).collect();
        assert_eq!(env, ["PATH=/bin", "EMPTY=", "BARE=", "A=b=c"]);
        let ports: Vec<String> = config
            .exposed_ports
            .iter()
            .map(|p| format!("{}/{}", p.port, p.protocol))
            .collect();
        assert_eq!(ports, ["53/udp", "8080/tcp"]);
        assert_eq!(config.user.as_deref(), Some("app:app"));
        assert_eq!(config.working_dir.as_deref(), Some("/srv"));
        assert_eq!(config.stop_signal.as_deref(), Some("SIGQUIT"));
        assert_eq!(config.diff_ids, [Digest::of(b"x")]);

        let bare = r#"{"architecture":"amd64","os":"linux","config":{"Cmd":null,"Labels":null,"User":""},"rootfs":{"type":"layers","diff_ids":null}}"#;
        let config = ImageConfig::parse(bare.as_bytes()).unwrap();
        assert_eq!(
            (config.cmd.len(), config.user, config.diff_ids.len()),
            (0, None, 0)
        );
        assert!(ImageConfig::parse(b"{}").is_err());
        let zero = bare.replace(r#""Cmd":null"#, r#""Cmd":["a\u0000b"]"#);
        let error = ImageConfig::parse(zero.as_bytes()).unwrap_err();
        assert!(error.to_string().contains("zero byte"), "{error}");
    }
}
