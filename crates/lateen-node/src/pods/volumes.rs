//! A pod's volumes, as folders on the node.

mod write;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{
    ConfigMap, Container, DownwardAPIVolumeFile, KeyToPath, Pod, Secret, ServiceAccount, Volume,
    VolumeProjection,
};
use kube::api::{Api, PostParams};
use thiserror::Error;

use super::files::PodFolder;
use super::{fields, resources};
use crate::container::Bind;
use write::{Files, write_files};

/// Where programs look for the service account's token.
const TOKEN_FOLDER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Name of the volume that holds it when the pod has none of its own.
const TOKEN_VOLUME: &str = "kube-api-access-default";

/// Size of an `emptyDir` without a limit of its own: it lies in memory, so that a pod cannot fill
/// the host's disk.
const EMPTY_DIR_SIZE: u64 = 512 << 20;

/// Life of a token without a stated one, in seconds.
const TOKEN_LIFE: i64 = 3607;

/// Why a volume cannot be had; shown as the event `FailedMount`.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum VolumeError {
    /// The kind of volume has no meaning here, or would open the host to the pod.
    #[error("volume {name:?}: {kind} volumes are not supported by lateen: {instead}")]
    Kind {
        name: String,
        kind: &'static str,
        instead: &'static str,
    },
    /// A ConfigMap or Secret that is not optional is missing.
    #[error("{kind} {name:?} not found")]
    Missing { kind: &'static str, name: String },
    /// A key of it that is not optional is missing.
    #[error("references non-existent {kind} key: {key}")]
    MissingKey { kind: &'static str, key: String },
    /// A path leads out of the volume.
    #[error("path {0:?} must be relative and not contain '..'")]
    Path(String),
    /// A mount names no volume of the pod.
    #[error("the pod has no volume {0:?}")]
    Unknown(String),
    /// A downward API field cannot be exposed.
    #[error("field {0} is not supported in a volume")]
    Field(String),
    /// The API refused.
    #[error(transparent)]
    Api(#[from] kube::Error),
    /// The node's own file system refused.
    #[error("cannot write the volume: {0}")]
    Write(#[from] io::Error),
}

/// What volumes are made from.
pub(crate) struct Sources<'a> {
    pub(crate) client: &'a kube::Client,
    pub(crate) pod: &'a Pod,
    pub(crate) folder: &'a PodFolder,
    pub(crate) address: Ipv4Addr,
    pub(crate) node_address: Ipv4Addr,
    /// Certificate of the API's authority, for the default token volume.
    pub(crate) ca: &'a str,
}

impl Sources<'_> {
    /// Makes all volumes of the pod.
    ///
    /// # Errors
    /// When one of them cannot be had; those made stay.
    pub(crate) async fn set_up(&self) -> Result<(), VolumeError> {
        let spec = self.pod.spec.as_ref();
        for volume in spec
            .and_then(|spec| spec.volumes.as_deref())
            .unwrap_or_default()
        {
            if volume.empty_dir.is_some() {
                self.make_empty_dir(volume)?;
            } else {
                let files = self.files(volume).await?;
                write_files(&self.folder.volume(&volume.name), &files)?;
            }
        }
        if wants_default_token(self.pod) {
            let files = self.default_token().await?;
            write_files(&self.folder.volume(TOKEN_VOLUME), &files)?;
        }
        Ok(())
    }

    /// Writes again those volumes whose content may have changed or expires.
    ///
    /// # Errors
    /// As [`Sources::set_up`].
    pub(crate) async fn refresh(&self) -> Result<(), VolumeError> {
        let spec = self.pod.spec.as_ref();
        for volume in spec
            .and_then(|spec| spec.volumes.as_deref())
            .unwrap_or_default()
        {
            if volume.empty_dir.is_none() {
                let files = self.files(volume).await?;
                write_files(&self.folder.volume(&volume.name), &files)?;
            }
        }
        if wants_default_token(self.pod) {
            let files = self.default_token().await?;
            write_files(&self.folder.volume(TOKEN_VOLUME), &files)?;
        }
        Ok(())
    }

    fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or("default")
    }

    fn make_empty_dir(&self, volume: &Volume) -> Result<(), VolumeError> {
        let path = self.folder.volume(&volume.name);
        if path.exists() {
            return Ok(());
        }
        let limit = volume
            .empty_dir
            .as_ref()
            .and_then(|dir| dir.size_limit.as_ref());
        let size = limit
            .and_then(|limit| resources::parse(&limit.0))
            .map_or(EMPTY_DIR_SIZE, |n| n as u64);
        Ok(lateen_sys::mount::tmpfs(&path, size.max(4096), 0o1777)?)
    }

    async fn files(&self, volume: &Volume) -> Result<Files, VolumeError> {
        let mut files = Files::new();
        if let Some(map) = &volume.config_map {
            let mode = mode(map.default_mode);
            let items = map.items.as_deref();
            self.config_map(&mut files, &map.name, map.optional, items, mode)
                .await?;
        } else if let Some(secret) = &volume.secret {
            let name = secret.secret_name.as_deref().unwrap_or_default();
            let mode = mode(secret.default_mode);
            let items = secret.items.as_deref();
            self.secret(&mut files, name, secret.optional, items, mode)
                .await?;
        } else if let Some(downward) = &volume.downward_api {
            let mode = mode(downward.default_mode);
            self.downward(&mut files, downward.items.as_deref(), mode)?;
        } else if let Some(projected) = &volume.projected {
            let mode = mode(projected.default_mode);
            for source in projected.sources.iter().flatten() {
                self.projection(&mut files, source, mode).await?;
            }
        } else {
            return Err(unsupported(volume));
        }
        Ok(files)
    }

    async fn projection(
        &self,
        files: &mut Files,
        source: &VolumeProjection,
        mode: u32,
    ) -> Result<(), VolumeError> {
        if let Some(map) = &source.config_map {
            self.config_map(files, &map.name, map.optional, map.items.as_deref(), mode)
                .await?;
        }
        if let Some(secret) = &source.secret {
            let items = secret.items.as_deref();
            self.secret(files, &secret.name, secret.optional, items, mode)
                .await?;
        }
        if let Some(downward) = &source.downward_api {
            self.downward(files, downward.items.as_deref(), mode)?;
        }
        if let Some(token) = &source.service_account_token {
            let life = token.expiration_seconds.unwrap_or(TOKEN_LIFE);
            let text = self.token(token.audience.clone(), life).await?;
            add(files, &token.path, text.into_bytes(), mode)?;
        }
        Ok(())
    }

    async fn config_map(
        &self,
        files: &mut Files,
        name: &str,
        optional: Option<bool>,
        items: Option<&[KeyToPath]>,
        mode: u32,
    ) -> Result<(), VolumeError> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), self.namespace());
        let Some(map) = api.get_opt(name).await? else {
            return missing("configmap", name, optional);
        };
        let texts = map
            .data
            .unwrap_or_default()
            .into_iter()
            .map(|(k, v)| (k, v.into_bytes()));
        let bytes = map
            .binary_data
            .unwrap_or_default()
            .into_iter()
            .map(|(k, v)| (k, v.0));
        select(
            files,
            "configmap",
            texts.chain(bytes).collect(),
            items,
            optional,
            mode,
        )
    }

    async fn secret(
        &self,
        files: &mut Files,
        name: &str,
        optional: Option<bool>,
        items: Option<&[KeyToPath]>,
        mode: u32,
    ) -> Result<(), VolumeError> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), self.namespace());
        let Some(secret) = api.get_opt(name).await? else {
            return missing("secret", name, optional);
        };
        let data = secret
            .data
            .unwrap_or_default()
            .into_iter()
            .map(|(k, v)| (k, v.0))
            .collect();
        select(files, "secret", data, items, optional, mode)
    }

    fn downward(
        &self,
        files: &mut Files,
        items: Option<&[DownwardAPIVolumeFile]>,
        mode: u32,
    ) -> Result<(), VolumeError> {
        for item in items.unwrap_or_default() {
            let text = if let Some(field) = &item.field_ref {
                fields::value(self.pod, &field.field_path, self.address, self.node_address)
                    .ok_or_else(|| VolumeError::Field(field.field_path.clone()))?
            } else if let Some(resource) = &item.resource_field_ref {
                self.resource(resource)
                    .ok_or_else(|| VolumeError::Field(resource.resource.clone()))?
            } else {
                String::new()
            };
            let mode = item.mode.map_or(mode, |mode| mode as u32);
            add(files, &item.path, text.into_bytes(), mode)?;
        }
        Ok(())
    }

    fn resource(
        &self,
        selector: &k8s_openapi::api::core::v1::ResourceFieldSelector,
    ) -> Option<String> {
        let containers = &self.pod.spec.as_ref()?.containers;
        let name = selector.container_name.as_deref()?;
        let container = containers.iter().find(|container| container.name == name)?;
        let divisor = selector.divisor.as_ref().map(|divisor| divisor.0.as_str());
        resources::field(container, &selector.resource, divisor)
    }

    /// A token of the pod's service account, bound to the pod.
    async fn token(&self, audience: Option<String>, life: i64) -> Result<String, VolumeError> {
        let spec = self.pod.spec.as_ref();
        let account = spec.and_then(|spec| spec.service_account_name.as_deref());
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), self.namespace());
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: audience.map(|audience| vec![audience]),
                expiration_seconds: Some(life),
                bound_object_ref: Some(
                    k8s_openapi::api::authentication::v1::BoundObjectReference {
                        api_version: Some("v1".into()),
                        kind: Some("Pod".into()),
                        name: self.pod.metadata.name.clone(),
                        uid: self.pod.metadata.uid.clone(),
                    },
                ),
            }),
            ..TokenRequest::default()
        };
        let name = account.filter(|name| !name.is_empty()).unwrap_or("default");
        let answer = api
            .create_token_request(name, &PostParams::default(), &request)
            .await?;
        Ok(answer
            .status
            .and_then(|status| status.token)
            .unwrap_or_default())
    }

    async fn default_token(&self) -> Result<Files, VolumeError> {
        let mut files = Files::new();
        let token = self.token(None, TOKEN_LIFE).await?;
        add(&mut files, "token", token.into_bytes(), 0o644)?;
        add(&mut files, "ca.crt", self.ca.as_bytes().to_vec(), 0o644)?;
        add(
            &mut files,
            "namespace",
            self.namespace().as_bytes().to_vec(),
            0o644,
        )?;
        Ok(files)
    }
}

/// The mounts of one container.
///
/// # Errors
/// When a mount names no volume, or its `subPath` leads out of it.
pub(crate) fn binds(
    pod: &Pod,
    folder: &PodFolder,
    container: &Container,
    variables: &[(String, String)],
) -> Result<Vec<Bind>, VolumeError> {
    let volumes = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.volumes.as_deref())
        .unwrap_or_default();
    let mut binds = Vec::new();
    for mount in container.volume_mounts.iter().flatten() {
        let volume = volumes.iter().find(|volume| volume.name == mount.name);
        let volume = volume.ok_or_else(|| VolumeError::Unknown(mount.name.clone()))?;
        let mut source = folder.volume(&mount.name);
        let expanded = mount
            .sub_path_expr
            .as_ref()
            .map(|sub| super::environment::expand(sub, variables));
        if let Some(sub) = expanded.as_ref().or(mount.sub_path.as_ref()) {
            source.push(relative(sub)?);
            if volume.empty_dir.is_some() {
                fs::create_dir_all(&source)?;
            }
        }
        let writable = volume.empty_dir.is_some() && mount.read_only != Some(true);
        binds.push(Bind {
            source,
            target: (&mount.mount_path).into(),
            read_only: !writable,
        });
    }
    if wants_default_token(pod)
        && binds
            .iter()
            .all(|bind| bind.target != Path::new(TOKEN_FOLDER))
    {
        let source = folder.volume(TOKEN_VOLUME);
        binds.push(Bind {
            source,
            target: TOKEN_FOLDER.into(),
            read_only: true,
        });
    }
    Ok(binds)
}

/// Does the node have to add the service account's token? Not when admission did, or the pod
/// does not want it.
fn wants_default_token(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    if spec.automount_service_account_token == Some(false) {
        return false;
    }
    let containers = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten());
    let mut mounts = containers.flat_map(|container| container.volume_mounts.iter().flatten());
    !mounts.any(|mount| mount.mount_path.trim_end_matches('/') == TOKEN_FOLDER)
}

fn unsupported(volume: &Volume) -> VolumeError {
    let (kind, instead) = if volume.host_path.is_some() {
        (
            "hostPath",
            "pods must not reach the host's files; use emptyDir, configMap or secret",
        )
    } else if volume.persistent_volume_claim.is_some() {
        (
            "persistentVolumeClaim",
            "nothing provisions storage here; use emptyDir",
        )
    } else {
        (
            "these",
            "use emptyDir, configMap, secret, downwardAPI or projected",
        )
    };
    VolumeError::Kind {
        name: volume.name.clone(),
        kind,
        instead,
    }
}

fn missing(kind: &'static str, name: &str, optional: Option<bool>) -> Result<(), VolumeError> {
    match optional {
        Some(true) => Ok(()),
        _ => Err(VolumeError::Missing {
            kind,
            name: name.to_owned(),
        }),
    }
}

/// Adds the keys that `items` name, or all.
fn select(
    files: &mut Files,
    kind: &'static str,
    mut data: BTreeMap<String, Vec<u8>>,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    mode: u32,
) -> Result<(), VolumeError> {
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        for (key, bytes) in data {
            add(files, &key, bytes, mode)?;
        }
        return Ok(());
    };
    for item in items {
        match data.remove(&item.key) {
            Some(bytes) => {
                add(
                    files,
                    &item.path,
                    bytes,
                    item.mode.map_or(mode, |mode| mode as u32),
                )?;
            }
            None if optional == Some(true) => {}
            None => {
                return Err(VolumeError::MissingKey {
                    kind,
                    key: item.key.clone(),
                });
            }
        }
    }
    Ok(())
}

fn add(files: &mut Files, path: &str, bytes: Vec<u8>, mode: u32) -> Result<(), VolumeError> {
    relative(path)?;
    files.insert(path.to_owned(), (bytes, mode));
    Ok(())
}

fn relative(path: &str) -> Result<PathBuf, VolumeError> {
    let checked = PathBuf::from(path);
    let normal = checked
        .components()
        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if normal && !path.is_empty() {
        Ok(checked)
    } else {
        Err(VolumeError::Path(path.to_owned()))
    }
}

fn mode(given: Option<i32>) -> u32 {
    given.map_or(0o644, |mode| mode as u32 & 0o777)
}

#[cfg(test)]
mod tests;
