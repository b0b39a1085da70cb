//! Credentials for registries: Docker's `config.json`, and the same text in Kubernetes' secrets.
//!
//! Which of them a registry gets is decided as Kubernetes does ("Images", section "Interpretation of config.json"):
//! keys are hosts, with globs for their parts, and prefixes of paths; the longest ones are tried first.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use thiserror::Error;

use crate::{Reference, manifest::nullable};

mod helper;
mod matching;

use matching::Pattern;

/// Largest file of credentials, in bytes. Kubernetes' secrets have at most one mebibyte.
const MAX_FILE: u64 = 1 << 20;

/// Why credentials cannot be used. No message holds a secret.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CredentialsError {
    /// The file cannot be read.
    #[error("cannot read the credentials in {path:?}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The text is not what Docker writes.
    #[error("the credentials are not a Docker config.json: {0}; write them with `docker login`")]
    Syntax(String),
    /// An entry cannot be decoded.
    #[error("the credentials for {key:?} cannot be used: {why}; write them with `docker login`")]
    Entry {
        /// The registry as the file writes it.
        key: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A helper program failed.
    #[error("the credential helper {program:?} for {registry} {why}")]
    Helper {
        /// The program.
        program: String,
        /// The registry.
        registry: String,
        /// What went wrong.
        why: String,
    },
}

/// One way to prove who pulls.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Credential {
    /// A user and a password.
    Password { user: String, password: String },
    /// A token that the authentication server gives others for.
    Identity(String),
    /// A token for the registry itself.
    Registry(String),
}

/// Credentials for any number of registries.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// In the order in which they are tried.
    entries: Vec<(Pattern, Credential)>,
    /// The helper program of a registry.
    helpers: BTreeMap<String, String>,
    /// The helper program of all other registries.
    store: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    #[serde(default, deserialize_with = "nullable")]
    auths: BTreeMap<String, Auth>,
    #[serde(default, deserialize_with = "nullable")]
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Auth {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

impl Credentials {
    /// Those of Docker's configuration, `~/.docker/config.json`; none when there is no such file. Its helper programs
    /// (`credHelpers`, `credsStore`) are run when an image is pulled, with the caller's rights. The caller must not be a
    /// process that waits for all of its children, such as the first of a pid namespace.
    ///
    /// # Errors
    /// When the file cannot be read, or is not what Docker writes.
    pub fn from_docker_config(path: &Path) -> Result<Self, CredentialsError> {
        let fail = |source: io::Error| CredentialsError::Read {
            path: path.to_owned(),
            source,
        };
        let bytes = match fs::metadata(path) {
            Ok(metadata) if metadata.len() > MAX_FILE => {
                return Err(fail(io::Error::other("it is larger than a mebibyte")));
            }
            Ok(_) => fs::read(path).map_err(fail)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(fail(error)),
        };
        let config = parse(&bytes)?;
        Ok(Self {
            entries: entries(config.auths)?,
            helpers: config.cred_helpers,
            store: config.creds_store.filter(|store| !store.is_empty()),
        })
    }

    /// Those of this user's Docker: of `$DOCKER_CONFIG/config.json`, or of `~/.docker/config.json`.
    ///
    /// # Errors
    /// As [`Self::from_docker_config`].
    pub fn of_docker() -> Result<Self, CredentialsError> {
        let folder = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
        let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".docker"));
        match folder.or_else(home) {
            Some(folder) => Self::from_docker_config(&folder.join("config.json")),
            None => Ok(Self::default()),
        }
    }

    /// Those of a secret of the type `kubernetes.io/dockerconfigjson`: the bytes of its key `.dockerconfigjson`. Helper
    /// programs that it names are ignored: whoever writes a secret may not choose what runs on this machine.
    ///
    /// # Errors
    /// When the bytes are not what Docker writes.
    pub fn from_secret(bytes: &[u8]) -> Result<Self, CredentialsError> {
        Ok(Self {
            entries: entries(parse(bytes)?.auths)?,
            ..Self::default()
        })
    }

    /// Adds credentials, which are tried after those that are here and fit as well.
    pub fn extend(&mut self, more: Self) {
        self.entries.extend(more.entries);
        self.entries.sort_by(|(a, _), (b, _)| b.cmp(a));
        for (registry, program) in more.helpers {
            self.helpers.entry(registry).or_insert(program);
        }
        self.store = self.store.take().or(more.store);
    }

    /// Those to try for an image, the most specific first.
    pub(crate) async fn find(&self, name: &Reference) -> Result<Vec<Credential>, CredentialsError> {
        let helper = self.helpers.get(name.registry()).or(self.store.as_ref());
        let mut found = Vec::new();
        if let Some(helper) = helper {
            found.extend(helper::ask(helper, name.registry()).await?);
        }
        let fitting = self
            .entries
            .iter()
            .filter(|(pattern, _)| pattern.fits(name));
        found.extend(fitting.map(|(_, credential)| credential.clone()));
        if found.is_empty() {
            // The key that `docker login` writes for its own registry.
            let default = self
                .entries
                .iter()
                .filter(|(pattern, _)| pattern.is_default(name));
            found.extend(default.map(|(_, credential)| credential.clone()));
        }
        Ok(found)
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { user, .. } => write!(formatter, "Password({user}, ..)"),
            Self::Identity(_) => formatter.write_str("Identity(..)"),
            Self::Registry(_) => formatter.write_str("Registry(..)"),
        }
    }
}

fn parse(bytes: &[u8]) -> Result<Config, CredentialsError> {
    // The reason of the JSON library may quote a value, so only the place is told.
    serde_json::from_slice(bytes).map_err(|error| {
        let what = if error.is_data() {
            "unexpected value"
        } else {
            "no JSON"
        };
        let (line, column) = (error.line(), error.column());
        CredentialsError::Syntax(format!("{what} in line {line}, column {column}"))
    })
}

fn entries(auths: BTreeMap<String, Auth>) -> Result<Vec<(Pattern, Credential)>, CredentialsError> {
    let mut entries = Vec::new();
    for (key, auth) in auths {
        let credential = credential(auth).map_err(|why| CredentialsError::Entry {
            key: key.clone(),
            why,
        })?;
        // An entry without anything in it says that a helper has the credentials.
        if let Some(credential) = credential {
            entries.push((Pattern::new(&key), credential));
        }
    }
    entries.sort_by(|(a, _), (b, _)| b.cmp(a));
    Ok(entries)
}

fn credential(auth: Auth) -> Result<Option<Credential>, &'static str> {
    if !auth.registrytoken.is_empty() {
        return Ok(Some(Credential::Registry(auth.registrytoken)));
    }
    if !auth.identitytoken.is_empty() {
        return Ok(Some(Credential::Identity(auth.identitytoken)));
    }
    let (user, password) = if auth.auth.is_empty() {
        (auth.username, auth.password)
    } else {
        let decoded = STANDARD
            .decode(auth.auth.trim())
            .map_err(|_| "\"auth\" is not base64")?;
        let decoded = String::from_utf8(decoded).map_err(|_| "\"auth\" is not text")?;
        let (user, password) = decoded
            .split_once(':')
            .ok_or("\"auth\" has no colon between user and password")?;
        // Docker pads with zero bytes.
        (user.to_owned(), password.trim_matches('\0').to_owned())
    };
    Ok((!user.is_empty()).then_some(Credential::Password { user, password }))
}

#[cfg(test)]
mod tests;
