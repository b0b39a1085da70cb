//! As whom an image runs: looked up in its own files, which nothing shows as a whole before it runs.

use std::io;
use std::path::{Path, PathBuf};

use lateen_image::{User, UserError};
use lateen_sys::mount;
use lateen_sys::namespace::{self, CloneFlags};

/// The user of an image with these layers, top to bottom. Blocks.
///
/// The layers are stacked at `place`, an empty folder, in a mount namespace of a thread that ends with this call.
///
/// # Errors
/// When the layers cannot be stacked (outer) or the user is not known (inner).
pub(super) fn find(
    user: Option<&str>,
    layers: &[PathBuf],
    place: &Path,
) -> io::Result<Result<User, UserError>> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("image-user".into())
            .spawn_scoped(scope, || {
                namespace::leave(CloneFlags::CLONE_NEWNS)?;
                mount::make_private()?;
                let root = match layers {
                    // One layer is no stack.
                    [only] => only.as_path(),
                    layers => {
                        mount::overlay(place, layers, None)?;
                        place
                    }
                };
                Ok(User::resolve(user, root))
            })?;
        thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
    })
}
