//! Images from registries (OCI distribution-spec, "Pull"; Docker's registry API, version 2).
//!
//! * Content is verified by digest and size before it gets a name in the store, whoever sent it.
//! * Passwords and tokens go to the registry and to the authentication server that it names, and to nobody that they
//!   redirect to.
//! * TLS is the rule. Plain HTTP is for this machine and for registries that the user lists; nothing falls back to it.
//! * A transfer that breaks off goes on where it was.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt, TryStreamExt, stream};
use rustls_pki_types::CertificateDer;
use tokio::{sync::watch, task::spawn_blocking, time::sleep};

use crate::{
    ConfigError, ContentStore, Credentials, Descriptor, Digest, Image, ImageConfig, Platform,
    Reference, StoreError,
    manifest::{MAX_CONFIG, refuse},
};

mod blob;
mod challenge;
mod client;
mod connect;
mod error;
mod manifest;
mod session;
mod url;

use client::Client;
pub use connect::{Connect, Connecting, Connection, Direct};
pub use error::PullError;
use session::Session;

/// Blobs that are fetched at a time, as Docker does by default.
const PARALLEL: usize = 3;
/// The longest pause between attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(20);

/// How to pull.
#[derive(Debug, Clone)]
pub struct PullOptions {
    /// The platform to choose where there are several. Default: this machine's.
    pub platform: Platform,
    /// Where connections come from. Default: [`Direct`].
    pub connect: Arc<dyn Connect>,
    /// Who pulls. Default: nobody.
    pub credentials: Credentials,
    /// Registries without TLS, each as `host` or `host:port`, beside those of this machine. Default: none.
    pub insecure: BTreeSet<String>,
    /// Certificate authorities to trust beside the system's. Default: none.
    pub authorities: Vec<CertificateDer<'static>>,
    /// Bytes that an image may have as it is sent. Default: 16 GiB.
    pub image_bytes: u64,
    /// How often one manifest or blob is asked for before a broken transfer is an error. Default: 5.
    pub attempts: u32,
    /// The pause before the second attempt; it doubles from then on. Default: 500 ms.
    pub pause: Duration,
    /// How long a connection, an answer, or the next part of one may take. Default: 60 s. A pull as a whole has no
    /// limit of time: drop it to end it.
    pub patience: Duration,
    /// Is told how far the pull is. Default: nobody.
    pub progress: Option<watch::Sender<Progress>>,
}

/// How far a pull is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Bytes that are in the store.
    pub done: u64,
    /// Bytes of the image; 0 until its manifest is known.
    pub total: u64,
}

impl Default for PullOptions {
    fn default() -> Self {
        Self {
            platform: Platform::host(),
            connect: Arc::new(Direct),
            credentials: Credentials::default(),
            insecure: BTreeSet::new(),
            authorities: Vec::new(),
            image_bytes: 16 << 30,
            attempts: 5,
            pause: Duration::from_millis(500),
            patience: Duration::from_secs(60),
            progress: None,
        }
    }
}

impl PullOptions {
    fn report(&self, bytes: i64) {
        if let Some(progress) = &self.progress {
            progress.send_modify(|progress| {
                progress.done = progress.done.saturating_add_signed(bytes);
            });
        }
    }
}

/// Pulls an image and gives it its name in the store. A name with a tag is looked up in the registry even when the store
/// has it; content that the store has is not fetched again. Needs a tokio runtime with timers and I/O.
///
/// # Errors
/// When the registry does not have the image for this platform, wants credentials, or sends something else than it
/// announced; when the connection stays broken; when the store cannot be written.
pub async fn pull(
    store: &ContentStore,
    name: &Reference,
    options: &PullOptions,
) -> Result<Image, PullError> {
    let holder = store.clone();
    let _hold = blocking(move || holder.hold()).await?;
    let client = Client::new(
        Arc::clone(&options.connect),
        options.insecure.clone(),
        options.authorities.clone(),
        options.patience,
    );
    let credentials = options.credentials.find(name).await?;
    let session = Session::new(&client, name, credentials)?;
    let (digest, bytes, manifest) = manifest::find(&session, name, options).await?;
    let blobs = blobs(name, &manifest.config, &manifest.layers, options)?;
    // The configuration first: it may tell that nothing else is of use.
    blob::fetch(&session, store, &manifest.config, options).await?;
    check_config(store, name, &manifest.config.digest, options).await?;
    let transfers = blobs
        .values()
        .map(|blob| blob::fetch(&session, store, blob, options));
    stream::iter(transfers.collect::<Vec<_>>())
        .buffer_unordered(PARALLEL)
        .try_collect::<()>()
        .await?;
    let (store, name) = (store.clone(), name.clone());
    Ok(blocking(move || {
        store.put(&bytes)?;
        store.name(&name, digest)
    })
    .await?)
}

/// The layers to fetch, each once, when the image is not too large.
fn blobs<'a>(
    name: &Reference,
    config: &Descriptor,
    layers: &'a [Descriptor],
    options: &PullOptions,
) -> Result<BTreeMap<Digest, &'a Descriptor>, PullError> {
    let check = |what: &'static str, bytes: u64, limit: u64| {
        if bytes <= limit {
            return Ok(());
        }
        Err(PullError::TooLarge {
            name: name.to_string(),
            what,
            bytes,
            limit,
        })
    };
    let blobs: BTreeMap<Digest, &Descriptor> =
        layers.iter().map(|layer| (layer.digest, layer)).collect();
    let sizes = blobs.values().map(|blob| blob.size);
    let total = sizes.fold(config.size, u64::saturating_add);
    check("its configuration", config.size, MAX_CONFIG)?;
    check("the image", total, options.image_bytes)?;
    if let Some(progress) = &options.progress {
        progress.send_modify(|progress| *progress = Progress { done: 0, total });
    }
    Ok(blobs)
}

/// Refuses a configuration that cannot be read or is made for another platform.
async fn check_config(
    store: &ContentStore,
    name: &Reference,
    digest: &Digest,
    options: &PullOptions,
) -> Result<(), PullError> {
    let (reader, config) = (store.clone(), *digest);
    let bytes = blocking(move || reader.read(&config, MAX_CONFIG)).await?;
    let fail = |source: ConfigError| PullError::Config {
        name: name.to_string(),
        source,
    };
    let config = ImageConfig::parse(&bytes.unwrap_or_default()).map_err(fail)?;
    if options.platform.suits(&config.platform).is_none() {
        return Err(PullError::Manifest {
            name: name.to_string(),
            source: refuse(&options.platform, [&config.platform].into_iter()),
        });
    }
    Ok(())
}

/// Waits before the next attempt: longer each time, and as long as the registry asks for.
async fn pause(options: &PullOptions, attempt: u32, error: &PullError) {
    let doubled = options.pause.saturating_mul(1 << (attempt - 1).min(16));
    let asked = error.retry_after().unwrap_or_default();
    let pause = doubled.max(asked).min(LONGEST_PAUSE);
    tracing::debug!(%error, ?pause, attempt, "another attempt follows");
    sleep(pause).await;
}

/// Runs something that waits for the disk where waiting is allowed.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match spawn_blocking(work).await {
        Ok(done) => done,
        // The runtime ends, or the work panicked: then so does this.
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => Err(StoreError::Interrupted(error.to_string())),
        },
    }
}
