//! Changes of configuration, one after the other.

use lateen_xds::ResourceType;

use crate::mesh::Mesh;

/// What is changed next.
#[derive(Default)]
pub(crate) struct Changes {
    pub(crate) made: usize,
    /// Steps of a change of authorities that are done.
    rotated: usize,
}

impl Changes {
    /// Changes one thing.
    pub(crate) fn one(&mut self, mesh: &mut Mesh) {
        let variety = self.made / 8;
        match self.made % 8 {
            // Every set but the empty one.
            0 => mesh.endpoints(variety % 7 + 1),
            1 => mesh.routes(variety),
            2 => mesh.listeners(variety),
            3 => mesh.workload(),
            4 => self.rotate(mesh),
            5 => {
                mesh.web(variety);
                mesh.endpoints(7);
            }
            6 => {
                mesh.tcp(variety);
                let secure = mesh.secure_cluster();
                mesh.proxy.accept(ResourceType::Cluster, &[secure]);
            }
            _ => mesh.passing(),
        }
        self.made += 1;
    }

    /// A step from one authority of clients and servers to the other: both are trusted before anybody changes over.
    fn rotate(&mut self, mesh: &mut Mesh) {
        let to = (self.rotated / 3 + 1) % 2;
        match self.rotated % 3 {
            0 => mesh.trust(&[0, 1]),
            1 => {
                mesh.clients(to);
                mesh.server(to);
            }
            _ => mesh.trust(&[to]),
        }
        self.rotated += 1;
    }
}
