//! OCI images: their names, a folder that keeps them, and the ways in and out of it.
//!
//! * [`Reference`] is the name of an image, completed as Docker does.
//! * [`ContentStore`] is a folder of content and names, which several processes share.
//! * [`load()`] fills it from the archives of `docker save` and from OCI layouts.
//! * [`pull()`] fills it from registries, over connections that the caller may make, with [`Credentials`] of Docker's
//!   configuration or of Kubernetes' secrets.
//! * [`unpack()`] makes folders of an image's layers, for overlayfs to stack without privileges.
//! * [`Image`] and [`ImageConfig`] tell what runs and how; [`User::resolve`] finds out as whom.
//!
//! Everything from outside is checked before it is used: content by its digest, archives entry by entry, and
//! all of it by size. Nothing here knows of pods.
//!
//! ```no_run
//! # use std::path::Path;
//! # use lateen_image::{ContentStore, Limits, PullOptions, Reference, User, pull, unpack};
//! # async fn example(folder: &Path, merged: &Path) -> Result<(), Box<dyn std::error::Error>> {
//! let store = ContentStore::open(folder.join("images"))?;
//! let name: Reference = "nginx".parse()?;
//! let image = match store.resolve(&name)? {
//!     Some(image) => image,
//!     None => pull(&store, &name, &PullOptions::default()).await?,
//! };
//! let lower = unpack(&store, &image, &folder.join("layers"), &Limits::default())?;
//! // Mount overlayfs on `merged` with `userxattr` and these lower directories, top to bottom. Then:
//! let user = User::resolve(image.config.user.as_deref(), merged)?;
//! # Ok(())
//! # }
//! ```

mod config;
mod credentials;
mod digest;
#[cfg(test)]
mod fuzz;
mod image;
mod load;
mod manifest;
mod platform;
mod pull;
pub mod reference;
mod store;
mod unpack;
mod user;

pub use config::{ConfigError, ExposedPort, ImageConfig};
pub use credentials::{Credentials, CredentialsError};
pub use digest::{Digest, DigestError};
pub use image::{Image, IncompleteError, Layer};
pub use load::{LoadError, LoadOptions, load};
pub use manifest::{Descriptor, ManifestError};
pub use platform::Platform;
pub use pull::{Connect, Connecting, Connection, Direct, Progress, PullError, PullOptions, pull};
pub use reference::{Reference, ReferenceError};
pub use store::{ContentStore, Entry, Removed, StoreError};
pub use unpack::{Limits, UnpackError, prune_layers, unpack};
pub use user::{User, UserError};
