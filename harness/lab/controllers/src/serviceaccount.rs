//! What every namespace has: the service account `default` and the config map with the cluster's certificate.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use kube::Client;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use kube::core::PartialObjectMeta;
use serde_json::json;

use crate::Error;
use crate::cache::{Cache, Change, Key};
use crate::error::status_code;
use crate::objects::{Kind, Objects, failed};
use crate::owners::wake_self;
use crate::queue::{Queue, drive};

const ACCOUNT: &str = "default";
const ROOT_CA: &str = "kube-root-ca.crt";

#[derive(Clone)]
pub(crate) struct ServiceAccounts {
    pub(crate) client: Client,
    pub(crate) namespaces: Objects<Namespace>,
    pub(crate) accounts: Cache<PartialObjectMeta<ServiceAccount>>,
    pub(crate) maps: Cache<PartialObjectMeta<ConfigMap>>,
    /// PEM text of the certificate.
    pub(crate) root_ca: String,
}

impl ServiceAccounts {
    pub(crate) async fn run(self) {
        let queue = Queue::new();
        wake_self(&self.namespaces, &queue);
        wake_namespace(&self.accounts, ACCOUNT, &queue);
        wake_namespace(&self.maps, ROOT_CA, &queue);
        self.namespaces.cache.synced().await;
        self.accounts.synced().await;
        self.maps.synced().await;
        // Whatever an earlier run left is brought up to date once.
        let fresh = std::sync::Arc::new(std::sync::Mutex::new(std::collections::HashSet::new()));
        drive("serviceaccount", queue, 4, move |key| {
            let first = fresh.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(key.clone());
            self.clone().reconcile(key, first)
        })
        .await;
    }

    async fn reconcile(self, key: Key, first: bool) -> Result<Option<Duration>, Error> {
        let Some(namespace) = self.namespaces.get(&key) else { return Ok(None) };
        if namespace.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        let meta = |name: &str| ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(key.name.clone()),
            ..ObjectMeta::default()
        };
        if self.accounts.get(&Key::new(&key.name, ACCOUNT)).is_none() {
            let account = ServiceAccount { metadata: meta(ACCOUNT), ..ServiceAccount::default() };
            self.create(&key.name, ACCOUNT, &account).await?;
        }
        let exists = self.maps.get(&Key::new(&key.name, ROOT_CA)).is_some();
        if !exists {
            let data = Some([("ca.crt".to_owned(), self.root_ca.clone())].into());
            let map = ConfigMap { metadata: meta(ROOT_CA), data, ..ConfigMap::default() };
            self.create(&key.name, ROOT_CA, &map).await?;
        } else if first && !self.root_ca.is_empty() {
            let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &key.name);
            let patch = Patch::Merge(json!({ "data": { "ca.crt": self.root_ca } }));
            let patched = api.patch(ROOT_CA, &PatchParams::default(), &patch).await;
            patched.map_err(|error| failed::<ConfigMap>("patch", &Key::new(&key.name, ROOT_CA), error))?;
        }
        Ok(None)
    }

    async fn create<K: Kind>(&self, namespace: &str, name: &str, object: &K) -> Result<(), Error> {
        match K::api(&self.client, namespace).create(&PostParams::default(), object).await {
            // There already, or the namespace is going or gone.
            Err(error) if !matches!(status_code(&error), Some(403 | 404 | 409)) => {
                Err(failed::<K>("create", &Key::new(namespace, name), error))
            }
            _ => Ok(()),
        }
    }
}

/// Wakes a namespace when the object of this name vanishes from it.
fn wake_namespace<K: Kind>(cache: &Cache<K>, name: &'static str, queue: &Queue<Key>) {
    let queue = queue.clone();
    cache.on_change(move |change| {
        if let Change::Gone(object) = change
            && object.meta().name.as_deref() == Some(name)
        {
            queue.add(Key::new("", object.meta().namespace.as_deref().unwrap_or_default()));
        }
    });
}
