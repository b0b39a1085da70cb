//! The objects of the mesh, indexed for translation.

use crate::{Change, Impact, MeshConfig};

/// The objects of the mesh.
#[derive(Debug, Clone, Default)]
pub struct Index {
    mesh: MeshConfig,
}

impl Index {
    /// An empty mesh.
    pub fn new(mesh: MeshConfig) -> Self {
        Self { mesh }
    }

    /// Settings of the mesh.
    pub fn mesh(&self) -> &MeshConfig {
        &self.mesh
    }

    /// Takes a change over and says whom it may concern. Costs work in proportion to the change.
    pub fn apply(&mut self, change: Change) -> Impact {
        let _ = change;
        Impact::none()
    }
}
