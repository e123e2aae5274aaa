//! The garbage collector: deletes what its owners left behind, and lets owners wait for their dependents or let go of
//! them, by the finalizers `foregroundDeletion` and `orphan`.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, ObjectMeta, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::core::PartialObjectMeta;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::Error;
use crate::cache::Key;
use crate::error::status_code;
use crate::inventory::{Inventory, Item, Seen};
use crate::kinds::{KindId, KindInfo, Kinds};
use crate::queue::{Queue, drive};

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";
/// When to look again at an owner that no watch shows (its kind may be too new for that): its end would wake nobody.
const UNWATCHED: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub(crate) struct Garbage {
    pub(crate) client: Client,
    pub(crate) inventory: Inventory,
    pub(crate) kinds: watch::Receiver<Kinds>,
}

/// What to do with an object because of its owners.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Keep,
    /// Some owners are gone or only wait for it, others want it: drop these references.
    Unlink(Vec<String>),
    /// Nobody wants it.
    Delete,
    /// Its owner waits for it, and others wait for the object: delete it after them.
    DeleteForeground,
}

/// How an owner stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Present,
    Gone,
    /// Being deleted in the foreground: waits for its blocking dependents.
    Waiting,
}

fn judge(owners: &[(&OwnerReference, Owner)], has_waiting_dependents: bool) -> Verdict {
    if owners.is_empty() {
        return Verdict::Keep;
    }
    let of = |state: Owner| owners.iter().filter(move |(_, owner)| *owner == state);
    let leaving = || of(Owner::Gone).chain(of(Owner::Waiting)).map(|(reference, _)| reference.uid.clone());
    if of(Owner::Present).next().is_some() {
        let leaving: Vec<String> = leaving().collect();
        return if leaving.is_empty() { Verdict::Keep } else { Verdict::Unlink(leaving) };
    }
    if of(Owner::Waiting).next().is_some() && has_waiting_dependents {
        return Verdict::DeleteForeground;
    }
    Verdict::Delete
}

impl Garbage {
    pub(crate) async fn run(self) {
        let queue = Queue::new();
        let (inventory, wake) = (self.inventory.clone(), queue.clone());
        self.inventory.listen(move |seen| match seen {
            Seen::Set(item) => {
                if !item.owners.is_empty() || item.deleting {
                    wake.add(item.uid.clone());
                }
                if item.deleting && item.has_finalizer(FOREGROUND) {
                    for dependent in inventory.dependents(&item.uid) {
                        wake.add(dependent.uid.clone());
                    }
                }
                // A dependent that no longer blocks may free its owner.
                for owner in &item.owners {
                    if inventory.get(&owner.uid).is_some_and(|owner| owner.deleting) {
                        wake.add(owner.uid.clone());
                    }
                }
            }
            Seen::Gone(item) => {
                for dependent in inventory.dependents(&item.uid) {
                    wake.add(dependent.uid.clone());
                }
                for owner in &item.owners {
                    wake.add(owner.uid.clone());
                }
            }
        });
        drive("garbage", queue, 16, move |uid| self.clone().reconcile(uid)).await;
    }

    async fn reconcile(self, uid: String) -> Result<Option<Duration>, Error> {
        let Some(item) = self.inventory.get(&uid) else { return Ok(None) };
        // Its kind is reported before kinds are known, at the start.
        let Some(kind) = self.kind(&item.kind) else { return Ok(Some(UNWATCHED)) };
        if item.deleting {
            if item.has_finalizer(ORPHAN) {
                return self.orphan(&kind, &item).await;
            }
            if item.has_finalizer(FOREGROUND) {
                return self.wait_for_dependents(&kind, &item).await;
            }
            return Ok(None);
        }
        if !kind.deletable {
            return Ok(None);
        }
        let mut owners = Vec::new();
        let mut again = None;
        for reference in &item.owners {
            let owner = match self.watched(&item, reference) {
                Some(owner) => owner,
                None => {
                    again = Some(UNWATCHED);
                    match self.ask(&item, reference).await? {
                        Some(owner) => owner,
                        None => return Ok(again),
                    }
                }
            };
            owners.push((reference, owner));
        }
        let waiting = || self.inventory.dependents(&uid).iter().any(|d| blocks(d, &uid));
        match judge(&owners, waiting()) {
            Verdict::Keep => return Ok(again),
            Verdict::Unlink(leaving) => {
                self.patch(&kind, &item, |now| without_owners(now, &leaving)).await?;
            }
            Verdict::DeleteForeground => self.delete(&kind, &item, PropagationPolicy::Foreground).await?,
            Verdict::Delete => {
                let policy = if item.has_finalizer(ORPHAN) {
                    PropagationPolicy::Orphan
                } else if item.has_finalizer(FOREGROUND) {
                    PropagationPolicy::Foreground
                } else {
                    PropagationPolicy::Background
                };
                self.delete(&kind, &item, policy).await?;
            }
        }
        Ok(None)
    }

    fn kind(&self, id: &KindId) -> Option<KindInfo> {
        self.kinds.borrow().get(id).cloned()
    }

    /// How an owner stands; `None` if no watch has shown it (yet).
    fn watched(&self, item: &Item, reference: &OwnerReference) -> Option<Owner> {
        let owner = self.inventory.get(&reference.uid)?;
        // A reference across namespaces points at nobody.
        let reachable = owner.key.namespace.is_empty() || owner.key.namespace == item.key.namespace;
        let waits = owner.deleting && owner.has_finalizer(FOREGROUND);
        Some(match (reachable, waits) {
            (false, _) => Owner::Gone,
            (true, true) => Owner::Waiting,
            (true, false) => Owner::Present,
        })
    }

    /// How an owner stands, by the API server; `None` if its kind is unknown.
    async fn ask(&self, item: &Item, reference: &OwnerReference) -> Result<Option<Owner>, Error> {
        let group = reference.api_version.split_once('/').map_or("", |(group, _)| group);
        let kind = self
            .kinds
            .borrow()
            .values()
            .find(|info| info.resource.group == group && info.resource.kind == reference.kind)
            .cloned();
        let Some(kind) = kind else { return Ok(None) };
        let namespace = if kind.namespaced { item.key.namespace.as_str() } else { "" };
        if kind.namespaced && namespace.is_empty() {
            return Ok(Some(Owner::Gone));
        }
        let key = Key::new(namespace, &reference.name);
        let found = self.api(&kind, namespace).get_metadata_opt(&reference.name).await;
        match found.map_err(|error| failed("get", &kind, &key, error))? {
            Some(owner) if owner.metadata.uid.as_ref() == Some(&reference.uid) => {
                let finalizers = owner.metadata.finalizers.as_deref().unwrap_or_default();
                let waits = owner.metadata.deletion_timestamp.is_some() && finalizers.iter().any(|f| f == FOREGROUND);
                Ok(Some(if waits { Owner::Waiting } else { Owner::Present }))
            }
            _ => Ok(Some(Owner::Gone)),
        }
    }

    /// An object that is deleted in the foreground goes once no dependent blocks it.
    async fn wait_for_dependents(&self, kind: &KindInfo, item: &Item) -> Result<Option<Duration>, Error> {
        let dependents = self.inventory.dependents(&item.uid);
        if !dependents.iter().any(|dependent| blocks(dependent, &item.uid)) {
            self.remove_finalizer(kind, item, FOREGROUND).await?;
        }
        Ok(None)
    }

    /// The dependents forget their owner, then the owner may go.
    async fn orphan(&self, kind: &KindInfo, item: &Item) -> Result<Option<Duration>, Error> {
        for dependent in self.inventory.dependents(&item.uid) {
            let Some(kind) = self.kind(&dependent.kind) else { return Ok(Some(UNWATCHED)) };
            let leaving = [item.uid.clone()];
            self.patch(&kind, &dependent, |now| without_owners(now, &leaving)).await?;
        }
        self.remove_finalizer(kind, item, ORPHAN).await?;
        Ok(None)
    }

    async fn remove_finalizer(&self, kind: &KindInfo, item: &Item, name: &str) -> Result<(), Error> {
        self.patch(kind, item, |now| {
            let kept: Vec<_> = now.finalizers.iter().flatten().filter(|finalizer| *finalizer != name).collect();
            json!({ "finalizers": kept })
        })
        .await
    }

    /// Patches metadata of the object as it is now, if it still is the same object. Being gone is fine.
    async fn patch(&self, kind: &KindInfo, item: &Item, change: impl Fn(&ObjectMeta) -> Value) -> Result<(), Error> {
        let api = self.api(kind, &item.key.namespace);
        let now = api.get_metadata_opt(&item.key.name).await.map_err(|e| failed("get", kind, &item.key, e))?;
        let Some(now) = now.filter(|now| now.metadata.uid.as_ref() == Some(&item.uid)) else { return Ok(()) };
        let mut metadata = change(&now.metadata);
        metadata["resourceVersion"] = json!(now.metadata.resource_version);
        let patch = Patch::Merge(json!({ "metadata": metadata }));
        match api.patch_metadata(&item.key.name, &PatchParams::default(), &patch).await {
            Err(error) if status_code(&error) != Some(404) => Err(failed("patch", kind, &item.key, error)),
            _ => Ok(()),
        }
    }

    async fn delete(&self, kind: &KindInfo, item: &Item, policy: PropagationPolicy) -> Result<(), Error> {
        let parameters = DeleteParams {
            propagation_policy: Some(policy),
            preconditions: Some(Preconditions { uid: Some(item.uid.clone()), resource_version: None }),
            ..DeleteParams::default()
        };
        tracing::debug!(kind = kind.resource.plural, object = %item.key, "deleting what its owner left behind");
        let api: Api<PartialObjectMeta<DynamicObject>> = self.metadata_api(kind, &item.key.namespace);
        match api.delete(&item.key.name, &parameters).await {
            // 409: the name belongs to another object now.
            Err(error) if !matches!(status_code(&error), Some(404 | 409)) => {
                Err(failed("delete", kind, &item.key, error))
            }
            _ => Ok(()),
        }
    }

    fn api(&self, kind: &KindInfo, namespace: &str) -> Api<DynamicObject> {
        match kind.namespaced {
            true => Api::namespaced_with(self.client.clone(), namespace, &kind.resource),
            false => Api::all_with(self.client.clone(), &kind.resource),
        }
    }

    fn metadata_api(&self, kind: &KindInfo, namespace: &str) -> Api<PartialObjectMeta<DynamicObject>> {
        match kind.namespaced {
            true => Api::namespaced_with(self.client.clone(), namespace, &kind.resource),
            false => Api::all_with(self.client.clone(), &kind.resource),
        }
    }
}

/// The owner references of an object less those to some uids.
fn without_owners(now: &ObjectMeta, leaving: &[String]) -> Value {
    let kept: Vec<_> = now.owner_references.iter().flatten().filter(|owner| !leaving.contains(&owner.uid)).collect();
    json!({ "ownerReferences": kept })
}

/// Whether a dependent holds up the foreground deletion of this owner.
fn blocks(dependent: &Arc<Item>, owner: &str) -> bool {
    dependent.owners.iter().any(|reference| reference.uid == owner && reference.block_owner_deletion == Some(true))
}

/// A failed request on an object of any kind.
pub(crate) fn failed(attempt: &'static str, kind: &KindInfo, key: &Key, source: kube::Error) -> Error {
    Error::Request { attempt, kind: kind.resource.kind.clone(), object: key.to_string(), source: Box::new(source) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(uid: &str) -> OwnerReference {
        OwnerReference { uid: uid.into(), ..OwnerReference::default() }
    }

    #[test]
    fn what_nobody_wants_is_deleted_and_what_somebody_wants_is_kept() {
        let (a, b) = (reference("a"), reference("b"));
        assert_eq!(judge(&[], false), Verdict::Keep);
        assert_eq!(judge(&[(&a, Owner::Present)], false), Verdict::Keep);
        assert_eq!(judge(&[(&a, Owner::Gone)], false), Verdict::Delete);
        assert_eq!(judge(&[(&a, Owner::Gone), (&b, Owner::Gone)], false), Verdict::Delete);
        assert_eq!(judge(&[(&a, Owner::Gone), (&b, Owner::Present)], false), Verdict::Unlink(vec!["a".into()]));
        assert_eq!(judge(&[(&a, Owner::Waiting), (&b, Owner::Present)], true), Verdict::Unlink(vec!["a".into()]));
        assert_eq!(judge(&[(&a, Owner::Waiting)], false), Verdict::Delete);
        assert_eq!(judge(&[(&a, Owner::Waiting)], true), Verdict::DeleteForeground);
    }
}
