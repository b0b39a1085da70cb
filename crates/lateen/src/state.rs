//! The state folder of a mesh: where its files are, who holds it, and what is known about the running mesh.
//!
//! A mesh is named by its state folder. The folder's lock is held by the running `lateen up` (the outer process), so
//! whether a mesh runs is never guessed from a process id.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

/// The folder of one mesh, readable by its owner alone.
#[derive(Debug, Clone)]
pub(crate) struct StateDir {
    root: PathBuf,
}

/// What `lateen status` tells of a running mesh; written by `up`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct MeshInfo {
    /// Process id of the outer process, which `down` asks to stop.
    pub(crate) pid: i32,
    /// Address of the Kubernetes API.
    pub(crate) api: String,
    /// Path of a kubeconfig for it.
    pub(crate) kubeconfig: PathBuf,
    /// Where tools reach the control plane's discovery service: `unix:PATH`.
    pub(crate) xds: String,
    /// `rootless` or `root`, and which user ids pods can use.
    pub(crate) mode: String,
}

/// Why the state folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    /// The folder cannot be made.
    #[error("cannot make the state folder {path}: {source}")]
    Create {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file cannot be read or written.
    #[error("cannot access {path}: {source}")]
    Access {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another `up` holds the folder.
    #[error("a mesh is already running from {path}")]
    Running {
        /// The folder.
        path: PathBuf,
    },
    /// A file holds something else than expected.
    #[error("{path} is damaged: {why}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

impl StateDir {
    /// The folder at `path`, or the default one: `$XDG_STATE_HOME/lateen`, `~/.local/state/lateen`.
    pub(crate) fn new(path: Option<PathBuf>) -> Self {
        let root = path.unwrap_or_else(|| {
            let base = std::env::var_os("XDG_STATE_HOME")
                .map(PathBuf::from)
                .or_else(|| {
                    std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"))
                });
            base.unwrap_or_else(|| PathBuf::from("/var/lib"))
                .join("lateen")
        });
        // The processes of a mesh do not share one working folder.
        Self {
            root: std::path::absolute(&root).unwrap_or(root),
        }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.root.join("kubeconfig")
    }

    /// Store, certificates and tokens of the API server.
    pub(crate) fn cluster(&self) -> PathBuf {
        self.root.join("cluster")
    }

    /// Logs and volumes of pods.
    pub(crate) fn node(&self) -> PathBuf {
        self.root.join("node")
    }

    /// The discovery socket for tools.
    pub(crate) fn xds_socket(&self) -> PathBuf {
        self.root.join("xds.sock")
    }

    /// The node's kubelet endpoint.
    pub(crate) fn kubelet_socket(&self) -> PathBuf {
        self.root.join("kubelet.sock")
    }

    /// What a detached `up` prints.
    pub(crate) fn log(&self) -> PathBuf {
        self.root.join("lateen.log")
    }

    /// What a new inside process is to do, until it has read it.
    pub(crate) fn task(&self) -> PathBuf {
        self.root.join("task.json")
    }

    fn lock_file(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// Has a mesh been started from here?
    pub(crate) fn exists(&self) -> bool {
        self.lock_file().exists()
    }

    /// Everything that a mesh puts here, the lock last.
    pub(crate) fn content(&self) -> [PathBuf; 9] {
        [
            self.cluster(),
            self.node(),
            self.log(),
            self.task(),
            self.info(),
            self.xds_socket(),
            self.kubelet_socket(),
            self.kubeconfig(),
            self.lock_file(),
        ]
    }

    /// Makes the folder, for its owner alone.
    pub(crate) fn create(&self) -> Result<(), StateError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.root)
            .map_err(|source| StateError::Create {
                path: self.root.clone(),
                source,
            })
    }

    /// Takes the folder for the life of the returned lock.
    pub(crate) fn lock(&self) -> Result<Flock<File>, StateError> {
        let path = self.lock_file();
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(|source| StateError::Access {
                path: path.clone(),
                source,
            })?;
        Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
            nix::errno::Errno::EWOULDBLOCK => StateError::Running {
                path: self.root.clone(),
            },
            error => StateError::Access {
                path,
                source: error.into(),
            },
        })
    }

    /// Whether a mesh runs from this folder.
    pub(crate) fn is_running(&self) -> bool {
        self.exists() && matches!(self.lock(), Err(StateError::Running { .. }))
    }

    /// What the running mesh wrote about itself; `None` when nothing runs.
    pub(crate) fn running(&self) -> Result<Option<MeshInfo>, StateError> {
        if !self.is_running() {
            return Ok(None);
        }
        let path = self.info();
        match fs::read(&path) {
            Ok(text) => {
                serde_json::from_slice(&text)
                    .map(Some)
                    .map_err(|error| StateError::Damaged {
                        path,
                        why: error.to_string(),
                    })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StateError::Access { path, source }),
        }
    }

    /// Writes what is known about the running mesh.
    pub(crate) fn announce(&self, info: &MeshInfo) -> Result<(), StateError> {
        let text = serde_json::to_vec_pretty(info).map_err(|error| StateError::Damaged {
            path: self.info(),
            why: error.to_string(),
        })?;
        write_private(&self.info(), &text)
    }

    /// Removes what only a running mesh has.
    pub(crate) fn withdraw(&self) {
        for path in [
            self.info(),
            self.xds_socket(),
            self.kubelet_socket(),
            self.kubeconfig(),
        ] {
            // Gone already is as good.
            let _ = fs::remove_file(path);
        }
    }

    fn info(&self) -> PathBuf {
        self.root.join("mesh.json")
    }
}

/// Writes a file that only its owner can read, in one step.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> Result<(), StateError> {
    let access = |source| StateError::Access {
        path: path.to_owned(),
        source,
    };
    let temporary = path.with_extension("new");
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(access)?;
    file.write_all(content).map_err(access)?;
    fs::rename(&temporary, path).map_err(access)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_folder_is_held_by_one_mesh_at_a_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let state = StateDir::new(Some(folder.path().join("mesh")));
        assert!(!state.is_running());
        state.create().expect("created");
        let held = state.lock().expect("free");
        assert!(matches!(state.lock(), Err(StateError::Running { .. })));
        assert!(state.is_running());
        drop(held);
        assert!(!state.is_running());
        assert!(state.running().expect("readable").is_none());
    }

    #[test]
    fn what_is_written_is_private() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("kubeconfig");
        write_private(&path, b"secret").expect("written");
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
