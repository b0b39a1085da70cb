//! What the node tells `lateen container` to do.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The order given to one `lateen container` process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Spec {
    /// Build the root file system and run the container's program as its pid 1.
    Container {
        root: RootSpec,
        program: ProgramSpec,
    },
    /// Run another program inside a container that runs already.
    Exec { program: ProgramSpec },
}

/// The file system that a container sees.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RootSpec {
    /// An empty folder of the host where the new root is put together (in the container's own
    /// mount namespace only).
    pub(crate) staging: PathBuf,
    /// The program `lateen` on the host.
    pub(crate) executable: PathBuf,
    /// What lies below everything else.
    pub(crate) base: Base,
    /// Files and folders of the host to show, besides what the base holds.
    pub(crate) binds: Vec<Bind>,
    /// The pod's host name.
    pub(crate) hostname: String,
    /// May the program write outside its volumes and `/tmp`?
    pub(crate) read_only: bool,
    /// Most bytes that the in-memory folders may hold, each.
    pub(crate) memory_limit: u64,
    /// Names for `/etc/passwd` and `/etc/group` besides the usual ones: the id that the program
    /// runs as.
    pub(crate) user: Option<u32>,
}

/// Where the programs of a container come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Base {
    /// Programs and libraries of the host, read-only, in a root in memory.
    Host,
    /// An image.
    Image {
        /// Folders of its layers, top to bottom.
        layers: Vec<PathBuf>,
        /// Where changes go: an empty folder.
        writable: PathBuf,
        /// A folder that is made if the image does not have it.
        folder: Option<PathBuf>,
    },
}

/// A file or folder of the host that appears in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bind {
    pub(crate) source: PathBuf,
    /// Absolute path inside the container.
    pub(crate) target: PathBuf,
    pub(crate) read_only: bool,
}

/// The program and the rights that it gets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProgramSpec {
    /// Program and arguments; the program is looked up in the `PATH` of `environment`.
    pub(crate) command: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
    /// Working folder; `/` by default.
    pub(crate) folder: Option<String>,
    /// User id, where several exist.
    pub(crate) user: Option<u32>,
    /// Group id, where several exist.
    pub(crate) group: Option<u32>,
    /// Further groups, where several exist.
    pub(crate) groups: Vec<u32>,
    /// The capabilities that it has, by the names that they have in manifests.
    pub(crate) capabilities: Vec<String>,
    /// May a program of the host stand in for one that is called by the path that it has in an image?
    pub(crate) stand_in: bool,
    /// Open a terminal in the container, make it the controlling one and its standard streams, and send the other side
    /// over [`TERMINAL`](super::TERMINAL)?
    pub(crate) terminal: bool,
}
