//! How the API server serves a kind: its plural, and whether it is namespaced.

use std::collections::HashMap;
use std::sync::Mutex;

use kube::Client;
use kube::core::{ApiResource, GroupVersionKind};
use kube::discovery::{Scope, pinned_kind};

use crate::error::Error;

/// What is known of kinds, asked once each.
#[derive(Debug, Default)]
pub(crate) struct Kinds {
    known: Mutex<HashMap<(String, String), Served>>,
}

/// A served kind.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    pub(crate) resource: ApiResource,
    pub(crate) namespaced: bool,
}

impl Kinds {
    /// How this kind is served.
    ///
    /// # Errors
    /// It is not, or the API server cannot be asked.
    pub(crate) async fn find(&self, client: &Client, api_version: &str, kind: &str) -> Result<Served, Error> {
        let key = (api_version.to_owned(), kind.to_owned());
        if let Some(served) = self.lock().get(&key) {
            return Ok(served.clone());
        }
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let gvk = GroupVersionKind::gvk(group, version, kind);
        let (resource, capabilities) = pinned_kind(client, &gvk).await.map_err(|error| match error {
            kube::Error::Discovery(_) => Error::UnknownKind { api_version: api_version.into(), kind: kind.into() },
            kube::Error::Api(status) if status.code == 404 => {
                Error::UnknownKind { api_version: api_version.into(), kind: kind.into() }
            }
            other => Error::api(format!("ask how {kind} of {api_version} is served"), other),
        })?;
        let served = Served { resource, namespaced: capabilities.scope == Scope::Namespaced };
        self.lock().insert(key, served.clone());
        Ok(served)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(String, String), Served>> {
        self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
