//! Which kinds the API server has, kept up to date: asked again whenever a custom resource definition changes.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Client;
use kube::api::Api;
use kube::core::PartialObjectMeta;
use kube::discovery::{ApiCapabilities, ApiResource, Discovery, Scope, verbs};
use kube::runtime::watcher;
use tokio::sync::{Notify, watch};

use crate::Error;
use crate::cache::Cache;

/// Kinds that come without a definition (aggregated APIs) are noticed at the latest after this.
const ASK_AGAIN: Duration = Duration::from_secs(300);
/// A burst of changes of definitions is answered once.
const BURST: Duration = Duration::from_millis(10);
/// First pause after a failure; doubles up to 100 times that.
const PAUSE: Duration = Duration::from_millis(20);

/// One kind of object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KindInfo {
    pub(crate) resource: ApiResource,
    pub(crate) namespaced: bool,
    pub(crate) watchable: bool,
    pub(crate) deletable: bool,
    /// All of a namespace can be deleted with one request.
    pub(crate) collection: bool,
}

/// Group and plural name of a kind.
pub(crate) type KindId = (String, String);

/// All kinds that can be listed, by group and plural name.
pub(crate) type Kinds = BTreeMap<KindId, KindInfo>;

/// Asks the API server for its kinds.
pub(crate) async fn discover(client: &Client) -> Result<Kinds, Error> {
    let discovery = match Discovery::new(client.clone()).run_aggregated().await {
        Ok(discovery) if discovery.has_group("") => discovery,
        // Servers before 1.26, or small ones, answer the plain way only, which reads as an empty list.
        _ => Discovery::new(client.clone())
            .run()
            .await
            .map_err(|source| Error::Discovery { source: Box::new(source) })?,
    };
    // Not the group's preferred version alone: kinds of one group may have versions of their own.
    let all = discovery.groups().flat_map(|group| group.resources_by_stability());
    Ok(all.filter_map(|(resource, capabilities)| info(resource, &capabilities)).collect())
}

fn info(resource: ApiResource, capabilities: &ApiCapabilities) -> Option<(KindId, KindInfo)> {
    let id = (resource.group.clone(), resource.plural.clone());
    let info = KindInfo {
        namespaced: capabilities.scope == Scope::Namespaced,
        watchable: capabilities.supports_operation(verbs::WATCH),
        deletable: capabilities.supports_operation(verbs::DELETE),
        collection: capabilities.supports_operation(verbs::DELETE_COLLECTION),
        resource,
    };
    capabilities.supports_operation(verbs::LIST).then_some((id, info))
}

/// Keeps the kinds in `sender` up to date, for ever.
pub(crate) async fn follow(client: Client, sender: watch::Sender<Kinds>) {
    let definitions: Cache<PartialObjectMeta<CustomResourceDefinition>> = Cache::new();
    let changed = std::sync::Arc::new(Notify::new());
    let tell = std::sync::Arc::clone(&changed);
    definitions.on_change(move |_| tell.notify_one());
    let watching = definitions.watch(Api::all(client.clone()), watcher::Config::default());
    let asking = async {
        let mut pause = PAUSE;
        loop {
            match discover(&client).await {
                Ok(kinds) => {
                    pause = PAUSE;
                    sender.send_if_modified(|known| {
                        let new = *known != kinds;
                        if new {
                            *known = kinds;
                        }
                        new
                    });
                    let _ = tokio::time::timeout(ASK_AGAIN, changed.notified()).await;
                    tokio::time::sleep(BURST).await;
                }
                Err(error) => {
                    tracing::debug!(%error, "discovery failed");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE * 100);
                }
            }
        }
    };
    tokio::join!(watching, asking);
}
