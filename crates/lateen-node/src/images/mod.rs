//! What runs when a pod names an image: an image that was loaded into the store, what the [catalogue] puts in its place,
//! or an image that is pulled.

pub(crate) mod catalogue;
mod connect;
mod oci;
mod user;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Container, Pod};
use lateen_image::{Credentials, Image, PullError, Reference, StoreError, UnpackError, UserError};
use nix::sys::signal::Signal;
use thiserror::Error;

use crate::Outside;
use catalogue::{Catalogue, CatalogueError};
use oci::Images as Oci;

/// Why an image cannot be run. The message is what `kubectl describe` shows.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum ImageError {
    /// What the catalogue says cannot be done.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    /// The image's name is none.
    #[error(transparent)]
    Name(#[from] lateen_image::ReferenceError),
    /// It could not be fetched.
    #[error("{source}; an image of this machine is loaded with `lateen image load`{}", advice.as_deref().map(|advice| format!("; {advice}")).unwrap_or_default())]
    Pull {
        /// What may be used instead.
        advice: Option<String>,
        /// Why.
        source: Box<PullError>,
    },
    /// It may not be fetched.
    #[error("Container image \"{0}\" is not present with pull policy of Never")]
    NeverPull(String),
    /// A secret with credentials cannot be used.
    #[error("the pull secret {name:?} cannot be used: {why}")]
    Secret {
        /// The secret.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its layers could not be unpacked.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// It does not say what runs, and neither does the pod.
    #[error(
        "no command specified: image {0:?} has neither entry point nor command, so the container needs one"
    )]
    NoCommand(String),
    /// Its user is not known.
    #[error(transparent)]
    User(#[from] UserError),
    /// Its layers could not be looked into.
    #[error("cannot look into image {image:?}: {source}")]
    Look {
        /// The image.
        image: String,
        /// Why.
        source: std::io::Error,
    },
}

impl ImageError {
    /// The reason for which a container waits.
    pub(crate) fn waiting(&self) -> &'static str {
        match self {
            Self::Catalogue(CatalogueError::NoCommand(_)) | Self::NoCommand(_) => {
                "CreateContainerError"
            }
            Self::Name(_) => "InvalidImageName",
            Self::NeverPull(_) => "ErrImageNeverPull",
            Self::User(_) | Self::Look { .. } | Self::Unpack(_) => "CreateContainerError",
            Self::Catalogue(_) | Self::Pull { .. } | Self::Secret { .. } | Self::Store(_) => {
                "ErrImagePull"
            }
        }
    }
}

/// What a container is to run.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Program {
    /// Program and arguments.
    pub(crate) command: Vec<String>,
    /// Variables that the image sets; the container's own come after them.
    pub(crate) environment: BTreeMap<String, String>,
    /// Keep the right to mark packets and change the pod's network?
    pub(crate) network_admin: bool,
    /// A program of the host that the container is to see although it may lie outside the folders that all containers see.
    pub(crate) shown: Option<PathBuf>,
    /// What an image brings along; nothing for programs of the host.
    pub(crate) image: Option<Unpacked>,
}

/// An image that is ready to be run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unpacked {
    /// Folders of its layers, top to bottom.
    pub(crate) layers: Vec<PathBuf>,
    /// Working folder, if it names one.
    pub(crate) folder: Option<String>,
    /// As whom it runs if the pod does not say.
    pub(crate) user: u32,
    /// The user's group.
    pub(crate) group: u32,
    /// Further groups of the user.
    pub(crate) groups: Vec<u32>,
    /// What asks it to end.
    pub(crate) stop_signal: Option<Signal>,
    /// Name and digest, as a pod's status has them.
    pub(crate) id: String,
}

/// What happens to an image, for events.
#[derive(Debug)]
pub(crate) enum News {
    /// It is there already.
    Present,
    /// It is being fetched.
    Pulling,
    /// It was fetched: how long that took, and how large it is in bytes.
    Pulled(Duration, u64),
    /// It could not be fetched again, so that the one that is there runs.
    Stale(String),
}

/// All images of a node.
#[derive(Debug)]
pub(crate) struct Images {
    catalogue: Catalogue,
    oci: Oci,
}

impl Images {
    /// Those of the catalogue and of the store; `layers` is where images are unpacked.
    ///
    /// # Errors
    /// What is wrong with the catalogue or the store.
    pub(crate) fn open(store: &Path, layers: PathBuf, outside: Outside) -> Result<Self, OpenError> {
        Ok(Self {
            catalogue: Catalogue::built_in().map_err(OpenError::Catalogue)?,
            oci: Oci::open(store, layers, outside)?,
        })
    }

    /// What the container runs. Pulls and unpacks what is not there.
    ///
    /// # Errors
    /// When the image cannot be had, or leaves nothing to run.
    pub(crate) async fn program(
        &self,
        client: &kube::Client,
        pod: &Pod,
        container: &Container,
        tell: impl Fn(News),
    ) -> Result<Program, ImageError> {
        let name = container.image.as_deref().unwrap_or_default();
        let command = container.command.as_deref().unwrap_or_default();
        let args = container.args.as_deref().unwrap_or_default();
        // Names of the catalogue need not be names of images.
        let reference = name.parse::<Reference>();
        let present = match &reference {
            Ok(reference) => self.oci.present(reference).await?,
            Err(_) => None,
        };
        if present.is_none()
            && let Some(program) = self.catalogue.program(name, command, args)?
        {
            tell(News::Present);
            return Ok(program);
        }
        let image = match (present, container.image_pull_policy.as_deref()) {
            (Some(image), Some("Never" | "IfNotPresent")) => {
                tell(News::Present);
                image
            }
            // What the catalogue knows, too, was loaded by hand to be used in its place.
            (Some(image), _) if self.catalogue.knows(name) => {
                tell(News::Present);
                image
            }
            (None, Some("Never")) => return Err(ImageError::NeverPull(name.to_owned())),
            (present, _) => {
                let reference = reference?;
                let credentials = oci::credentials(client, pod).await?;
                self.pull(&reference, present, credentials, &tell).await?
            }
        };
        let unpacked = self.oci.unpack(&image).await?;
        let command = words(&image, command, args);
        if command.is_empty() {
            return Err(ImageError::NoCommand(name.to_owned()));
        }
        let mut environment: BTreeMap<_, _> = image.config.env.iter().cloned().collect();
        environment
            .entry("HOME".into())
            .or_insert_with(|| unpacked.1.clone());
        environment
            .entry("PATH".into())
            .or_insert_with(|| PATH.into());
        Ok(Program {
            command,
            environment,
            image: Some(unpacked.0),
            ..Program::default()
        })
    }

    /// Fetches the image; when that fails, one that is there will do: a laptop need not be online to run what it has.
    async fn pull(
        &self,
        name: &Reference,
        present: Option<Image>,
        credentials: Credentials,
        tell: impl Fn(News),
    ) -> Result<Image, ImageError> {
        tell(News::Pulling);
        let begun = Instant::now();
        match self.oci.pull(name, credentials, present.is_some()).await {
            Ok(image) => {
                tell(News::Pulled(begun.elapsed(), image.size));
                Ok(image)
            }
            Err(source) => match present {
                Some(image) => {
                    tell(News::Stale(source.to_string()));
                    Ok(image)
                }
                None => Err(ImageError::Pull {
                    advice: self.catalogue.advice(&name.to_string()),
                    source: Box::new(source),
                }),
            },
        }
    }
}

/// Where an image's programs are if it does not say.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Program and arguments: a pod's `command` replaces the image's entry point and command, its `args` the image's command.
fn words(image: &Image, command: &[String], args: &[String]) -> Vec<String> {
    let config = &image.config;
    match (command, args) {
        ([], []) => [config.entrypoint.as_slice(), &config.cmd].concat(),
        ([], args) => [config.entrypoint.as_slice(), args].concat(),
        (command, args) => [command, args].concat(),
    }
}

/// Why the images of a node cannot be used at all.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The catalogue that is built in cannot be read: a mistake in this repository.
    #[error("the image catalogue is broken: {0}")]
    Catalogue(String),
    /// The store of images cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
}
