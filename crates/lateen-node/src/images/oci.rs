//! OCI images: found in the store, pulled, unpacked.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{LocalObjectReference, Pod, Secret, ServiceAccount};
use kube::Api;
use lateen_image::{
    ContentStore, Credentials, Image, Limits, PullError, PullOptions, Reference, StoreError,
    prune_layers, unpack,
};
use nix::sys::signal::Signal;
use parking_lot::Mutex;
use tokio::task::spawn_blocking;

use super::connect::FromOutside;
use super::{ImageError, OpenError, Unpacked, user};
use crate::Outside;

/// How often, and how long, a registry is tried for an image that is there: only to see whether there is a newer one.
const REFRESH: (u32, Duration) = (1, Duration::from_secs(5));

/// The key of a pull secret.
const SECRET_KEY: &str = ".dockerconfigjson";

/// The store of images, and the folder of their layers.
#[derive(Debug)]
pub(super) struct Images {
    store: ContentStore,
    layers: PathBuf,
    outside: Outside,
    /// One pull or unpacking of an image at a time: the second finds what the first one made.
    busy: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl Images {
    pub(super) fn open(store: &Path, layers: PathBuf, outside: Outside) -> Result<Self, OpenError> {
        let store = ContentStore::open(store)?;
        forget_layers(&store, &layers);
        Ok(Self {
            store,
            layers,
            outside,
            busy: Mutex::default(),
        })
    }

    /// The image, if it is in the store.
    pub(super) async fn present(&self, name: &Reference) -> Result<Option<Image>, StoreError> {
        let (store, name) = (self.store.clone(), name.clone());
        blocking(move || store.resolve(&name)).await
    }

    /// Fetches the image; `refresh` says that it is there already.
    pub(super) async fn pull(
        &self,
        name: &Reference,
        credentials: Credentials,
        refresh: bool,
    ) -> Result<Image, PullError> {
        let mut options = PullOptions {
            connect: Arc::new(FromOutside(self.outside.clone())),
            credentials,
            ..PullOptions::default()
        };
        if refresh {
            (options.attempts, options.patience) = REFRESH;
        }
        let busy = self.busy(name);
        let _turn = busy.lock().await;
        lateen_image::pull(&self.store, name, &options).await
    }

    /// Unpacks what is not unpacked; what runs, and the home of its user.
    pub(super) async fn unpack(&self, image: &Image) -> Result<(Unpacked, String), ImageError> {
        let busy = self.busy(&image.name);
        let _turn = busy.lock().await;
        let (store, image, folder) = (self.store.clone(), image.clone(), self.layers.clone());
        blocking(move || {
            let layers = unpack(&store, &image, &folder, &Limits::default())?;
            let look = |source| ImageError::Look {
                image: image.name.to_string(),
                source,
            };
            let place = folder.join(".user");
            std::fs::create_dir_all(&place).map_err(look)?;
            let user = user::find(image.config.user.as_deref(), &layers, &place);
            let user = user.map_err(look)??;
            let stop = image.config.stop_signal.as_deref().and_then(signal);
            let unpacked = Unpacked {
                layers,
                folder: image.config.working_dir.clone(),
                user: user.uid,
                group: user.gid,
                groups: user.groups,
                stop_signal: stop,
                id: format!(
                    "{}/{}@{}",
                    image.name.registry(),
                    image.name.repository(),
                    image.digest
                ),
            };
            Ok((unpacked, user.home))
        })
        .await
    }

    fn busy(&self, name: &Reference) -> Arc<tokio::sync::Mutex<()>> {
        let mut busy = self.busy.lock();
        busy.retain(|_, turn| Arc::strong_count(turn) > 1);
        busy.entry(name.to_string()).or_default().clone()
    }
}

/// Credentials for a pod's images: of its pull secrets, of its service account's, and of the user's Docker.
///
/// # Errors
/// When a secret is there and cannot be used.
pub(super) async fn credentials(
    client: &kube::Client,
    pod: &Pod,
) -> Result<Credentials, ImageError> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let spec = pod.spec.as_ref();
    let mut names: Vec<LocalObjectReference> = Vec::new();
    names.extend(
        spec.and_then(|spec| spec.image_pull_secrets.clone())
            .unwrap_or_default(),
    );
    let account = spec.and_then(|spec| spec.service_account_name.as_deref());
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    // An account that is not there has no secrets.
    if let Ok(Some(account)) = accounts.get_opt(account.unwrap_or("default")).await {
        names.extend(account.image_pull_secrets.unwrap_or_default());
    }
    let mut all = Credentials::default();
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    for LocalObjectReference { name } in names {
        let failed = |why: String| ImageError::Secret {
            name: name.clone(),
            why,
        };
        // As in Kubernetes, a secret that is not there is none; the registry will say what it wants.
        let Ok(Some(secret)) = secrets.get_opt(&name).await else {
            continue;
        };
        let data = secret.data.unwrap_or_default();
        let bytes = data.get(SECRET_KEY);
        let bytes = bytes.ok_or_else(|| failed(format!("it has no key {SECRET_KEY}")))?;
        all.extend(Credentials::from_secret(&bytes.0).map_err(|error| failed(error.to_string()))?);
    }
    match Credentials::of_docker() {
        Ok(own) => all.extend(own),
        Err(error) => tracing::warn!(%error, "Docker's configuration is not used"),
    }
    Ok(all)
}

/// A signal by name, with or without `SIG`, or by number.
fn signal(text: &str) -> Option<Signal> {
    let number = text.parse::<i32>().ok();
    let named = || text.parse().or_else(|_| format!("SIG{text}").parse()).ok();
    number.map_or_else(named, |number| Signal::try_from(number).ok())
}

/// Removes the layers of images that are gone. Nothing runs yet.
fn forget_layers(store: &ContentStore, layers: &Path) {
    let images = store.list().unwrap_or_default();
    let kept: BTreeSet<_> = images
        .iter()
        .filter_map(|entry| store.resolve(&entry.name).ok().flatten())
        .flat_map(|image| image.layers.into_iter().map(|layer| layer.diff_id))
        .collect();
    if let Err(error) = prune_layers(layers, &kept) {
        tracing::warn!(%error, "cannot remove old layers of images");
    }
}

/// Runs something that waits for the disk where waiting is allowed.
async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: Send + 'static,
{
    match spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, expected) in [
            ("SIGQUIT", Some(Signal::SIGQUIT)),
            ("QUIT", Some(Signal::SIGQUIT)),
            ("3", Some(Signal::SIGQUIT)),
            ("999", None),
            ("", None),
        ] {
            assert_eq!(signal(text), expected, "{text:?}");
        }
    }
}
