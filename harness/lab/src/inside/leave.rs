//! Takes what the lab has put into an API server that was there before away from it again.

use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, Service};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use udn_lab_sys::ground::NODES;
use udn_lab_sys::site::LAB_LABEL;

use crate::control::Left;

/// How long what was deleted may take to go.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(200);

struct Leaving {
    client: Client,
    left: Left,
}

/// Removes the lab's own objects: what runs on its nodes, its namespaces, its kinds if nobody has objects of them, its nodes.
pub(super) async fn leave(client: Client) -> Left {
    let mut leaving = Leaving { client: client.clone(), left: Left::default() };
    leaving.remove(Api::<APIService>::all(client.clone())).await;
    let system = "kube-system";
    leaving.remove(Api::<Deployment>::namespaced(client.clone(), system)).await;
    leaving.remove(Api::<Service>::namespaced(client.clone(), system)).await;
    leaving.remove(Api::<ConfigMap>::namespaced(client.clone(), system)).await;
    leaving.remove(Api::<Namespace>::all(client.clone())).await;
    leaving.gone(Api::<Namespace>::all(client.clone())).await;
    leaving.remove(Api::<ValidatingAdmissionPolicyBinding>::all(client.clone())).await;
    leaving.remove(Api::<ValidatingAdmissionPolicy>::all(client.clone())).await;
    leaving.kinds().await;
    leaving.pods().await;
    leaving.remove(Api::<Node>::all(client.clone())).await;
    for node in NODES {
        // Only now: a node agent that finds none makes one.
        leaving.delete(&Api::<Lease>::namespaced(client.clone(), "kube-node-lease"), node).await;
    }
    leaving.left
}

fn ours() -> ListParams {
    ListParams::default().labels(LAB_LABEL)
}

/// The first names, and how many more.
fn some(objects: &[DynamicObject]) -> String {
    const SHOWN: usize = 3;
    let name = |object: &DynamicObject| match object.namespace() {
        Some(namespace) => format!("{namespace}/{}", object.name_any()),
        None => object.name_any(),
    };
    let names = objects.iter().take(SHOWN).map(name).collect::<Vec<_>>().join(", ");
    match objects.len().saturating_sub(SHOWN) {
        0 => names,
        more => format!("{names} and {more} more"),
    }
}

impl Leaving {
    async fn list<K>(&mut self, api: &Api<K>, params: &ListParams) -> Vec<K>
    where
        K: Clone + DeserializeOwned + Debug + Resource,
    {
        match api.list(params).await {
            Ok(list) => list.items,
            // A kind that is not served has no objects.
            Err(kube::Error::Api(status)) if status.code == 404 => Vec::new(),
            Err(error) => {
                self.left.failed.push(format!("cannot list what is at {}: {error}", api.resource_url()));
                Vec::new()
            }
        }
    }

    async fn delete<K>(&mut self, api: &Api<K>, name: &str)
    where
        K: Clone + DeserializeOwned + Debug + Resource,
    {
        match api.delete(name, &DeleteParams::background()).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => self.left.failed.push(format!("cannot delete {}/{name}: {error}", api.resource_url())),
        }
    }

    /// Deletes what has the lab's label.
    async fn remove<K>(&mut self, api: Api<K>)
    where
        K: Clone + DeserializeOwned + Debug + Resource,
    {
        for object in self.list(&api, &ours()).await {
            self.delete(&api, &object.name_any()).await;
        }
    }

    /// Waits until nothing has the lab's label.
    async fn gone<K>(&mut self, api: Api<K>)
    where
        K: Clone + DeserializeOwned + Debug + Resource,
    {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let there: Vec<String> = self.list(&api, &ours()).await.iter().map(ResourceExt::name_any).collect();
            if there.is_empty() {
                return;
            }
            if tokio::time::Instant::now() > deadline {
                let seconds = PATIENCE.as_secs();
                let what = there.join(", ");
                return self
                    .left
                    .failed
                    .push(format!("{what} of {} did not end within {seconds} s", api.resource_url()));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Kinds that the lab has brought, where nobody uses them.
    async fn kinds(&mut self) {
        let kinds = Api::<CustomResourceDefinition>::all(self.client.clone());
        for kind in self.list(&kinds, &ours()).await {
            let resource = ApiResource {
                group: kind.spec.group.clone(),
                version: kind
                    .spec
                    .versions
                    .iter()
                    .find(|one| one.served)
                    .map(|one| one.name.clone())
                    .unwrap_or_default(),
                api_version: String::new(),
                kind: kind.spec.names.kind.clone(),
                plural: kind.spec.names.plural.clone(),
            };
            let resource = ApiResource { api_version: format!("{}/{}", resource.group, resource.version), ..resource };
            let objects = Api::<DynamicObject>::all_with(self.client.clone(), &resource);
            let there = self.list(&objects, &ListParams::default()).await;
            if there.is_empty() {
                self.delete(&kinds, &kind.name_any()).await;
            } else {
                self.left.kept.push(format!("kind {}: there is {}", kind.name_any(), some(&there)));
            }
        }
    }

    /// Pods of others that nobody runs any more.
    async fn pods(&mut self) {
        let pods = Api::<Pod>::all(self.client.clone());
        for node in NODES {
            let here = ListParams::default().fields(&format!("spec.nodeName={node}"));
            for pod in self.list(&pods, &here).await {
                let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
                self.left.kept.push(format!("pod {namespace}/{name}: it was on {node}, which is gone"));
            }
        }
    }
}
