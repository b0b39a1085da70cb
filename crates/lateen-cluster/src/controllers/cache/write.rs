//! Writes through a cache: each takes its answer in.

use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::NamespaceResourceScope;
use kube::{Api, Resource};

use super::{Cache, Kind};
use crate::controllers::error::Error;
use crate::controllers::meta::ObjectKey;

impl<K: Kind + Resource<Scope = NamespaceResourceScope>> Cache<K> {
    fn api(&self, namespace: &str) -> Api<K> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Reads the object from the server, past the cache.
    pub(in crate::controllers) async fn get_live(
        &self,
        key: &ObjectKey,
    ) -> Result<Option<K>, Error> {
        let answer = self.api(&key.namespace).get_opt(&key.name).await;
        answer.map_err(|source| Error::Read {
            kind: K::kind(&()).into_owned(),
            key: key.clone(),
            source: Box::new(source),
        })
    }

    /// Creates the object in the namespace that its metadata names.
    pub(in crate::controllers) async fn create(&self, object: &K) -> Result<K, Error> {
        let key = ObjectKey::of(object.meta());
        let api = self.api(&key.namespace);
        let answer = api.create(&PostParams::default(), object).await;
        let created = answer.map_err(|source| Error::Create {
            kind: K::kind(&()).into_owned(),
            key,
            source: Box::new(source),
        })?;
        self.put(created.clone(), false);
        Ok(created)
    }

    /// Replaces the object; fails with a conflict when it has changed since it was read.
    pub(in crate::controllers) async fn replace(&self, object: &K) -> Result<K, Error> {
        let key = ObjectKey::of(object.meta());
        let api = self.api(&key.namespace);
        let answer = api.replace(&key.name, &PostParams::default(), object).await;
        self.changed(key, answer)
    }

    /// Replaces the object's status; fails with a conflict when the object has changed since it was read.
    pub(in crate::controllers) async fn replace_status(&self, object: &K) -> Result<K, Error> {
        let key = ObjectKey::of(object.meta());
        let api = self.api(&key.namespace);
        let answer = api
            .replace_subresource("status", &key.name, &PostParams::default(), object)
            .await;
        self.changed(key, answer)
    }

    /// Changes the object by a JSON merge patch.
    pub(in crate::controllers) async fn merge(
        &self,
        key: &ObjectKey,
        patch: &serde_json::Value,
    ) -> Result<K, Error> {
        let api = self.api(&key.namespace);
        let answer = api
            .patch(&key.name, &PatchParams::default(), &Patch::Merge(patch))
            .await;
        self.changed(key.clone(), answer)
    }

    /// Changes the object's status, and annotations, by a JSON merge patch.
    pub(in crate::controllers) async fn merge_status(
        &self,
        key: &ObjectKey,
        patch: &serde_json::Value,
    ) -> Result<K, Error> {
        let api = self.api(&key.namespace);
        let answer = api
            .patch_status(&key.name, &PatchParams::default(), &Patch::Merge(patch))
            .await;
        self.changed(key.clone(), answer)
    }

    /// Deletes the object in the background, if it still is the same one. An object that is gone already is no error.
    pub(in crate::controllers) async fn delete(&self, object: &K) -> Result<(), Error> {
        let key = ObjectKey::of(object.meta());
        let parameters = DeleteParams::background().preconditions(Preconditions {
            uid: object.meta().uid.clone(),
            resource_version: None,
        });
        match self
            .api(&key.namespace)
            .delete(&key.name, &parameters)
            .await
        {
            Ok(answer) => {
                if let Some(last) = answer.left() {
                    self.put(last, false);
                }
                self.mark_deleting(&key, object.meta().uid.as_deref());
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.code == 404 => {
                self.mark_deleting(&key, object.meta().uid.as_deref());
                Ok(())
            }
            Err(source) => Err(Error::Delete {
                kind: K::kind(&()).into_owned(),
                key,
                source: Box::new(source),
            }),
        }
    }

    fn changed(&self, key: ObjectKey, answer: kube::Result<K>) -> Result<K, Error> {
        let object = answer.map_err(|source| Error::Change {
            kind: K::kind(&()).into_owned(),
            key,
            source: Box::new(source),
        })?;
        self.put(object.clone(), false);
        Ok(object)
    }
}
