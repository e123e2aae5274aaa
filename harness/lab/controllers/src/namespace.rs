//! Namespaces that are going away: empties them, tells what still holds them, and lets them go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, PostParams};
use kube::core::PartialObjectMeta;
use kube::{Client, ResourceExt};

use crate::Error;
use crate::cache::Key;
use crate::error::status_code;
use crate::garbage::failed;
use crate::inventory::{Inventory, Seen};
use crate::kinds::{KindInfo, discover};
use crate::objects::{Objects, failed as request_failed};
use crate::owners::wake_self;
use crate::queue::{Queue, drive};

/// Kinds asked about at a time.
const IN_FLIGHT: usize = 8;
/// If something is left, changes of it wake us; this is for kinds that cannot be watched.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub(crate) struct Namespaces {
    pub(crate) client: Client,
    pub(crate) namespaces: Objects<Namespace>,
    pub(crate) inventory: Inventory,
}

/// What is left of one kind.
struct Rest {
    kind: KindInfo,
    objects: usize,
    finalizers: BTreeMap<String, usize>,
}

impl Namespaces {
    pub(crate) async fn run(self) {
        let queue = Queue::new();
        wake_self(&self.namespaces, &queue);
        let (namespaces, wake) = (self.namespaces.clone(), queue.clone());
        self.inventory.listen(move |seen| {
            let item = match seen {
                Seen::Set(item) | Seen::Gone(item) => item,
            };
            let key = Key::new("", &item.key.namespace);
            if namespaces.get(&key).is_some_and(|namespace| is_terminating(&namespace)) {
                wake.add(key);
            }
        });
        self.namespaces.cache.synced().await;
        drive("namespace", queue, 4, move |key| self.clone().reconcile(key)).await;
    }

    async fn reconcile(self, key: Key) -> Result<Option<Duration>, Error> {
        let Some(namespace) = self.namespaces.get(&key) else { return Ok(None) };
        if !is_terminating(&namespace) {
            return Ok(None);
        }
        // Everything that we know of is being deleted already and not gone: only its end brings news.
        let known = self.inventory.in_namespace(&key.name);
        if !known.is_empty() && known.iter().all(|item| item.deleting) && was_emptied(&namespace) {
            return Ok(Some(LOOK_AGAIN));
        }
        let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_deref()).unwrap_or_default();
        if !finalizers.iter().any(|finalizer| finalizer == "kubernetes") {
            return Ok(None);
        }
        let kinds = match discover(&self.client).await {
            Ok(kinds) => kinds,
            Err(error) => {
                self.tell(&namespace, &[condition(true, &DISCOVERY, &error.to_string())]).await?;
                return Err(error);
            }
        };
        let work = kinds.into_values().filter(|kind| kind.namespaced && kind.deletable).map(|kind| {
            let (this, name) = (self.clone(), key.name.clone());
            async move { this.empty(kind, &name).await }
        });
        let results: Vec<_> = futures::stream::iter(work).buffer_unordered(IN_FLIGHT).collect().await;
        let mut rest = Vec::new();
        let mut failures = Vec::new();
        for result in results {
            match result {
                Ok(left) => rest.extend(left),
                Err(error) => failures.push(error),
            }
        }
        if rest.is_empty() && failures.is_empty() {
            return self.finalize(&namespace).await.map(|()| None);
        }
        self.tell(&namespace, &conditions(&rest, &failures)).await?;
        match failures.into_iter().next() {
            Some(error) => Err(error),
            None => Ok(Some(LOOK_AGAIN)),
        }
    }

    /// Deletes all objects of a kind in the namespace, and says what is left.
    async fn empty(&self, kind: KindInfo, namespace: &str) -> Result<Option<Rest>, Error> {
        let key = Key::new(namespace, "*");
        let api: Api<PartialObjectMeta<DynamicObject>> =
            Api::namespaced_with(self.client.clone(), namespace, &kind.resource);
        let Some(items) = self.list(&api, &kind, &key).await? else { return Ok(None) };
        if items.is_empty() {
            return Ok(None);
        }
        let waiting = items.iter().filter(|item| item.metadata.deletion_timestamp.is_none());
        let background = DeleteParams::background();
        if kind.collection && waiting.clone().next().is_some() {
            // Metadata only in the answer: it may list everything that was deleted.
            let deleted = api.delete_collection(&background, &ListParams::default()).await;
            deleted.map_err(|error| failed("delete", &kind, &key, error))?;
        } else {
            for item in waiting {
                match api.delete(&item.name_any(), &background).await {
                    Err(error) if status_code(&error) != Some(404) => {
                        return Err(failed("delete", &kind, &Key::new(namespace, &item.name_any()), error));
                    }
                    _ => {}
                }
            }
        }
        let Some(items) = self.list(&api, &kind, &key).await? else { return Ok(None) };
        if items.is_empty() {
            return Ok(None);
        }
        let mut finalizers = BTreeMap::new();
        for finalizer in items.iter().flat_map(|item| item.finalizers()) {
            *finalizers.entry(finalizer.clone()).or_insert(0) += 1;
        }
        Ok(Some(Rest { kind, objects: items.len(), finalizers }))
    }

    /// The objects of a kind, or nothing if the kind vanished meanwhile or cannot be listed.
    async fn list(
        &self,
        api: &Api<PartialObjectMeta<DynamicObject>>,
        kind: &KindInfo,
        key: &Key,
    ) -> Result<Option<Vec<PartialObjectMeta<DynamicObject>>>, Error> {
        match api.list(&ListParams::default()).await {
            Ok(list) => Ok(Some(list.items)),
            Err(error) if matches!(status_code(&error), Some(404 | 405)) => Ok(None),
            Err(error) => Err(failed("list", kind, key, error)),
        }
    }

    async fn finalize(&self, namespace: &Namespace) -> Result<(), Error> {
        let mut last = namespace.clone();
        let spec = last.spec.get_or_insert_default();
        spec.finalizers.get_or_insert_default().retain(|finalizer| finalizer != "kubernetes");
        let name = namespace.name_any();
        let key = Key::new("", &name);
        let api: Api<Namespace> = Api::all(self.client.clone());
        match api.replace_subresource("finalize", &name, &PostParams::default(), &last).await {
            Ok(_) => Ok(()),
            Err(error) if status_code(&error) == Some(404) => {
                self.namespaces.cache.remove(&key, namespace.metadata.uid.as_deref());
                Ok(())
            }
            Err(error) => Err(request_failed::<Namespace>("finalize", &key, error)),
        }
    }

    /// Writes conditions, keeping the times of those that did not change.
    async fn tell(&self, namespace: &Arc<Namespace>, new: &[NamespaceCondition]) -> Result<(), Error> {
        let mut status = namespace.status.clone().unwrap_or_default();
        let conditions = status.conditions.get_or_insert_default();
        for condition in new {
            match conditions.iter_mut().find(|old| old.type_ == condition.type_) {
                Some(old) => {
                    let since = (old.status == condition.status).then(|| old.last_transition_time.clone()).flatten();
                    *old = condition.clone();
                    if since.is_some() {
                        old.last_transition_time = since;
                    }
                }
                None => conditions.push(condition.clone()),
            }
        }
        match self.namespaces.update_status(namespace.as_ref(), namespace.status.as_ref(), &status).await {
            Err(error) if error.is_not_found() => Ok(()),
            other => other.map(drop),
        }
    }
}

fn is_terminating(namespace: &Namespace) -> bool {
    namespace.metadata.deletion_timestamp.is_some()
}

/// Whether everything was deleted in an earlier round already.
fn was_emptied(namespace: &Namespace) -> bool {
    let conditions = namespace.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == CONTENT.0 && condition.status == "False")
}

/// Condition type, reason and message if all is well, reason if not.
type Words = (&'static str, &'static str, &'static str, &'static str);
const DISCOVERY: Words = (
    "NamespaceDeletionDiscoveryFailure",
    "ResourcesDiscovered",
    "All resources successfully discovered",
    "DiscoveryFailed",
);
const CONTENT: Words = (
    "NamespaceDeletionContentFailure",
    "ContentDeleted",
    "All content successfully deleted, may be waiting on finalization",
    "ContentDeletionFailed",
);
const REMAINING: Words =
    ("NamespaceContentRemaining", "ContentRemoved", "All content successfully removed", "SomeResourcesRemain");
const FINALIZERS: Words = (
    "NamespaceFinalizersRemaining",
    "ContentHasNoFinalizers",
    "All content-preserving finalizers finished",
    "SomeFinalizersRemain",
);

fn condition(bad: bool, words: &Words, message: &str) -> NamespaceCondition {
    NamespaceCondition {
        type_: words.0.to_owned(),
        status: if bad { "True" } else { "False" }.to_owned(),
        reason: Some(if bad { words.3 } else { words.1 }.to_owned()),
        message: Some(if bad { message } else { words.2 }.to_owned()),
        last_transition_time: Some(Time(Timestamp::now())),
    }
}

fn conditions(rest: &[Rest], failures: &[Error]) -> Vec<NamespaceCondition> {
    let remaining: BTreeSet<String> = rest
        .iter()
        .map(|rest| {
            let resource = &rest.kind.resource;
            let group = if resource.group.is_empty() { String::new() } else { format!(".{}", resource.group) };
            format!("{}{group} has {} resource instances", resource.plural, rest.objects)
        })
        .collect();
    let mut held: BTreeMap<&str, usize> = BTreeMap::new();
    for (finalizer, count) in rest.iter().flat_map(|rest| &rest.finalizers) {
        *held.entry(finalizer).or_insert(0) += count;
    }
    let join = |parts: Vec<String>| parts.join(", ");
    let remain = format!("Some resources are remaining: {}", join(remaining.into_iter().collect()));
    let held_by: Vec<String> =
        held.iter().map(|(name, count)| format!("{name} in {count} resource instances")).collect();
    let holding = format!("Some content in the namespace has finalizers remaining: {}", join(held_by));
    let failed = format!(
        "Failed to delete all resource types, {} remaining: {}",
        failures.len(),
        join(failures.iter().map(ToString::to_string).collect())
    );
    vec![
        condition(false, &DISCOVERY, ""),
        condition(!failures.is_empty(), &CONTENT, &failed),
        condition(!rest.is_empty(), &REMAINING, &remain),
        condition(!held.is_empty(), &FINALIZERS, &holding),
    ]
}
