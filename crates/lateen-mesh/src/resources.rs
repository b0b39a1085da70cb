//! Translation of what one proxy needs to know.

use lateen_xds::{Names, Resource, ResourceType};

use crate::{Index, Proxy, translate::translate};

/// The resources of a type that a proxy needs, of those that are named, sorted by name. What is named but not there
/// does not exist (any more). Equal content has an equal version, whatever the rest of the mesh looks like.
pub fn resources(index: &Index, proxy: &Proxy, kind: ResourceType, names: &Names) -> Vec<Resource> {
    let mut resources = translate(index, proxy, kind, names);
    resources.sort_by(|a, b| a.name.cmp(&b.name));
    resources
}
