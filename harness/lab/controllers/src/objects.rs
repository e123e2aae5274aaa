//! Reading and writing the objects of one kind: requests go to the API server, answers into the shared cache.

use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Namespace, Node, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy};
use kube::core::PartialObjectMeta;
use kube::{Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::Error;
use crate::cache::{Cache, Key};
use crate::patch::difference;

/// Name of the field manager of everything the controllers write.
pub(crate) const MANAGER: &str = "udn-lab-controllers";

/// A kind that controllers read or write, and whether it lives in namespaces.
pub(crate) trait Kind:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize + Send + Sync + 'static
{
    /// The API of one namespace (ignored for cluster-scoped kinds).
    fn api(client: &Client, namespace: &str) -> Api<Self>;
}

macro_rules! namespaced {
    ($($kind:ty),+ $(,)?) => {$(
        impl Kind for $kind {
            fn api(client: &Client, namespace: &str) -> Api<Self> {
                Api::namespaced(client.clone(), namespace)
            }
        }
    )+};
}

macro_rules! cluster_scoped {
    ($($kind:ty),+ $(,)?) => {$(
        impl Kind for $kind {
            fn api(client: &Client, _: &str) -> Api<Self> {
                Api::all(client.clone())
            }
        }
    )+};
}

namespaced!(
    ConfigMap,
    ControllerRevision,
    DaemonSet,
    Deployment,
    EndpointSlice,
    Endpoints,
    Job,
    Lease,
    PartialObjectMeta<ConfigMap>,
    PartialObjectMeta<ServiceAccount>,
    Pod,
    ReplicaSet,
    Service,
    ServiceAccount,
    StatefulSet,
);
cluster_scoped!(Namespace, Node);

/// The objects of one kind.
pub(crate) struct Objects<K> {
    pub(crate) cache: Cache<K>,
    client: Client,
}

impl<K> Clone for Objects<K> {
    fn clone(&self) -> Self {
        Self { cache: self.cache.clone(), client: self.client.clone() }
    }
}

impl<K: Kind> Objects<K> {
    pub(crate) fn new(client: &Client) -> Self {
        Self { cache: Cache::new(), client: client.clone() }
    }

    /// The object as cached.
    pub(crate) fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.cache.get(key)
    }

    /// The object as the API server has it now.
    pub(crate) async fn fetch(&self, key: &Key) -> Result<Option<K>, Error> {
        K::api(&self.client, &key.namespace).get_opt(&key.name).await.map_err(|source| failed::<K>("get", key, source))
    }

    /// Creates an object in a namespace.
    pub(crate) async fn create(&self, namespace: &str, object: &K) -> Result<Arc<K>, Error> {
        let parameters = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        match K::api(&self.client, namespace).create(&parameters, object).await {
            Ok(created) => Ok(self.cache.put(created)),
            Err(source) => {
                let name = object.meta().name.clone().or_else(|| object.meta().generate_name.clone());
                Err(failed::<K>("create", &Key::new(namespace, &name.unwrap_or_default()), source))
            }
        }
    }

    /// Deletes this very object (not a successor of the same name). One that is gone already is no error.
    pub(crate) async fn delete(&self, object: &K, mut parameters: DeleteParams) -> Result<(), Error> {
        let key = Key::of(object);
        let uid = object.meta().uid.clone();
        parameters.preconditions = Some(Preconditions { uid: uid.clone(), resource_version: None });
        let answer = K::api(&self.client, &key.namespace).delete(&key.name, &parameters).await;
        // A server answers with the object while something holds it, with a bare status once it is gone.
        match answer.map(|answer| answer.left()) {
            Ok(Some(deleting)) => {
                if deleting.meta().deletion_timestamp.is_some() && deleting.meta().uid == uid {
                    self.cache.put(deleting);
                }
                Ok(())
            }
            Ok(None) => {
                if object.finalizers().is_empty()
                    && parameters.propagation_policy != Some(PropagationPolicy::Foreground)
                {
                    self.cache.remove(&key, uid.as_deref());
                }
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.code == 404 => {
                self.cache.remove(&key, uid.as_deref());
                Ok(())
            }
            Err(source) => Err(failed::<K>("delete", &key, source)),
        }
    }

    /// Merges a patch into an object.
    pub(crate) async fn merge(&self, key: &Key, patch: Value) -> Result<Arc<K>, Error> {
        let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let answer = K::api(&self.client, &key.namespace).patch(&key.name, &parameters, &Patch::Merge(patch)).await;
        self.patched(key, answer)
    }

    /// Changes `old` into `new` if nobody changed it meanwhile; does nothing if they are equal.
    pub(crate) async fn update(&self, old: &K, new: &K) -> Result<Option<Arc<K>>, Error> {
        let key = Key::of(old);
        let Some(mut patch) = difference(&encode(old, &key)?, &encode(new, &key)?) else { return Ok(None) };
        patch["metadata"]["resourceVersion"] = json!(old.meta().resource_version);
        self.merge(&key, patch).await.map(Some)
    }

    /// Writes what differs between two statuses; does nothing if they are equal.
    pub(crate) async fn update_status<S: Serialize>(
        &self,
        object: &K,
        old: Option<&S>,
        new: &S,
    ) -> Result<Option<Arc<K>>, Error> {
        let key = Key::of(object);
        let old = match old {
            Some(old) => encode(old, &key)?,
            None => json!({}),
        };
        let Some(patch) = difference(&old, &encode(new, &key)?) else { return Ok(None) };
        let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let patch = Patch::Merge(json!({ "status": patch }));
        let api = K::api(&self.client, &key.namespace);
        let answer = api.patch_subresource("status", &key.name, &parameters, &patch).await;
        self.patched(&key, answer).map(Some)
    }

    fn patched(&self, key: &Key, answer: Result<K, kube::Error>) -> Result<Arc<K>, Error> {
        match answer {
            Ok(object) => Ok(self.cache.put(object)),
            Err(source) => Err(failed::<K>("patch", key, source)),
        }
    }
}

fn encode<T: Serialize>(object: &T, key: &Key) -> Result<Value, Error> {
    serde_json::to_value(object).map_err(|source| Error::Encode { object: key.to_string(), source })
}

/// A failed request on an object of kind `K`.
pub(crate) fn failed<K: Resource<DynamicType = ()>>(attempt: &'static str, key: &Key, source: kube::Error) -> Error {
    Error::Request { attempt, kind: K::kind(&()).into_owned(), object: key.to_string(), source: Box::new(source) }
}
