//! Which objects belong to which owner, and who adopts or releases whom.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, OwnerReference};
use kube::core::{Selector, SelectorExt};
use kube::{Resource, ResourceExt};
use serde_json::json;

use crate::Error;
use crate::cache::{Cache, Key};
use crate::objects::{Kind, Objects};
use crate::queue::Queue;

/// The owner that manages an object, if there is one.
pub(crate) fn controller_of<K: Resource>(object: &K) -> Option<&OwnerReference> {
    object.meta().owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// The key of an object's managing owner, if it is of kind `O`.
pub(crate) fn controller_key<O: Resource<DynamicType = ()>, K: Resource>(object: &K) -> Option<Key> {
    let owner = controller_of(object)?;
    let same_group = owner.api_version.split_once('/').map_or("", |(group, _)| group) == O::group(&());
    (owner.kind == O::kind(&()) && same_group)
        .then(|| Key::new(object.meta().namespace.as_deref().unwrap_or_default(), &owner.name))
}

/// The reference to `owner` as the one that manages an object.
pub(crate) fn managed_by<O: Resource<DynamicType = ()>>(owner: &O) -> OwnerReference {
    OwnerReference {
        api_version: O::api_version(&()).into_owned(),
        kind: O::kind(&()).into_owned(),
        name: owner.meta().name.clone().unwrap_or_default(),
        uid: owner.meta().uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// A label selector ready for matching.
pub(crate) fn compile<O: Resource<DynamicType = ()>>(owner: &O, selector: &LabelSelector) -> Result<Selector, Error> {
    Selector::try_from(selector.clone()).map_err(|error| Error::Selector {
        object: format!(
            "{} {}",
            O::kind(&()),
            Key::new(
                owner.meta().namespace.as_deref().unwrap_or_default(),
                owner.meta().name.as_deref().unwrap_or_default()
            )
        ),
        reason: error.to_string(),
    })
}

/// Whether a label selector matches; an invalid one matches nothing, an absent one nothing either.
pub(crate) fn selects(selector: Option<&LabelSelector>, labels: &BTreeMap<String, String>) -> bool {
    selector.and_then(|selector| Selector::try_from(selector.clone()).ok()).is_some_and(|s| s.matches(labels))
}

/// What is to be done with one candidate.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// It is ours.
    Ours,
    /// It has no manager and matches: make it ours.
    Adopt,
    /// It is ours but does not match any more: let go of it.
    Release,
    /// It is none of ours.
    Leave,
}

/// Decides about one candidate by the rules of `ControllerRefManager`.
pub(crate) fn claim<O: Resource, K: Resource>(owner: &O, selector: &Selector, candidate: &K) -> Claim {
    let matches = selector.matches(candidate.meta().labels.as_ref().unwrap_or(&BTreeMap::new()));
    let leaving = owner.meta().deletion_timestamp.is_some();
    match controller_of(candidate) {
        Some(manager) if Some(&manager.uid) != owner.meta().uid.as_ref() => Claim::Leave,
        Some(_) if matches || leaving => Claim::Ours,
        Some(_) => Claim::Release,
        None if !matches || leaving || candidate.meta().deletion_timestamp.is_some() => Claim::Leave,
        None => Claim::Adopt,
    }
}

/// The objects that `owner` manages, after adopting and releasing. Only what `may_join` accepts is adopted.
pub(crate) async fn claim_all<O, K>(
    owner: &O,
    selector: &LabelSelector,
    candidates: &Objects<K>,
    fresh_owner: &Objects<O>,
    may_join: impl Fn(&K) -> bool,
) -> Result<Vec<Arc<K>>, Error>
where
    O: Kind,
    K: Kind,
{
    let selector = compile(owner, selector)?;
    let mut ours = Vec::new();
    let mut may_adopt = None;
    for candidate in candidates.cache.in_namespace(owner.meta().namespace.as_deref().unwrap_or_default()) {
        match claim(owner, &selector, candidate.as_ref()) {
            Claim::Ours => ours.push(candidate),
            Claim::Leave => {}
            Claim::Adopt if !may_join(&candidate) => {}
            Claim::Adopt => {
                if may_adopt.is_none() {
                    // The cached owner may be deleted already; adopting for a dead owner would delete the orphan.
                    let now = fresh_owner.fetch(&Key::of(owner)).await?;
                    may_adopt = Some(now.is_some_and(|now| {
                        now.meta().uid == owner.meta().uid && now.meta().deletion_timestamp.is_none()
                    }));
                }
                if may_adopt == Some(true) {
                    let mut references = candidate.meta().owner_references.clone().unwrap_or_default();
                    references.push(managed_by(owner));
                    ours.push(set_owners(candidates, candidate.as_ref(), &references).await?);
                }
            }
            Claim::Release => {
                let mut references = candidate.meta().owner_references.clone().unwrap_or_default();
                references.retain(|reference| Some(&reference.uid) != owner.meta().uid.as_ref());
                match set_owners(candidates, candidate.as_ref(), &references).await {
                    Err(error) if error.is_not_found() => {}
                    other => drop(other?),
                }
            }
        }
    }
    Ok(ours)
}

async fn set_owners<K: Kind>(objects: &Objects<K>, object: &K, owners: &[OwnerReference]) -> Result<Arc<K>, Error> {
    let patch = json!({ "metadata": { "ownerReferences": owners, "resourceVersion": object.resource_version() } });
    objects.merge(&Key::of(object), patch).await
}

/// Wakes the owners of kind `O` whenever one of their objects of kind `K` changes: the manager before and after the
/// change, and for an object without manager every owner that `selector` finds could adopt it.
pub(crate) fn wake_owners<O: Kind, K: Kind>(
    owners: &Objects<O>,
    objects: &Objects<K>,
    queue: &Queue<Key>,
    selector: impl Fn(&O) -> Option<LabelSelector> + Send + Sync + 'static,
) {
    let queue = queue.clone();
    let owners: Cache<O> = owners.cache.clone();
    objects.cache.on_change(move |change| {
        let object = change.object();
        let manager = controller_key::<O, K>(object.as_ref());
        if let Some(before) = change.before().and_then(|before| controller_key::<O, K>(before.as_ref()))
            && Some(&before) != manager.as_ref()
        {
            queue.add(before);
        }
        match manager {
            Some(manager) => queue.add(manager),
            None if controller_of(object.as_ref()).is_none() => {
                for owner in owners.in_namespace(object.meta().namespace.as_deref().unwrap_or_default()) {
                    if selects(selector(&owner).as_ref(), object.labels()) {
                        queue.add(Key::of(owner.as_ref()));
                    }
                }
            }
            None => {}
        }
    });
}

/// Wakes a controller for every change of the objects it is for.
pub(crate) fn wake_self<K: Kind>(objects: &Objects<K>, queue: &Queue<Key>) {
    let queue = queue.clone();
    objects.cache.on_change(move |change| queue.add(Key::of(change.object().as_ref())));
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::apps::v1::ReplicaSet;
    use k8s_openapi::api::core::v1::Pod;

    fn set(uid: &str) -> ReplicaSet {
        let mut set = ReplicaSet::default();
        set.metadata.name = Some("set".into());
        set.metadata.uid = Some(uid.into());
        set
    }

    fn pod(app: &str, manager: Option<&ReplicaSet>) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.labels = Some([("app".to_owned(), app.to_owned())].into());
        pod.metadata.owner_references = manager.map(|manager| vec![managed_by(manager)]);
        pod
    }

    #[test]
    fn claims_follow_manager_and_labels() {
        let ours = set("1");
        let other = set("2");
        let selector: Selector = [("app".to_owned(), "a".to_owned())].into_iter().collect();
        let decide = |pod: &Pod| claim(&ours, &selector, pod);
        assert_eq!(decide(&pod("a", Some(&ours))), Claim::Ours);
        assert_eq!(decide(&pod("b", Some(&ours))), Claim::Release);
        assert_eq!(decide(&pod("a", None)), Claim::Adopt);
        assert_eq!(decide(&pod("b", None)), Claim::Leave);
        assert_eq!(decide(&pod("a", Some(&other))), Claim::Leave);
    }

    #[test]
    fn nobody_is_adopted_by_or_while_dying() {
        let mut owner = set("1");
        let selector: Selector = [("app".to_owned(), "a".to_owned())].into_iter().collect();
        let mut dying = pod("a", None);
        dying.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::now()));
        assert_eq!(claim(&owner, &selector, &dying), Claim::Leave);
        owner.metadata.deletion_timestamp = dying.metadata.deletion_timestamp.clone();
        assert_eq!(claim(&owner, &selector, &pod("a", None)), Claim::Leave);
    }
}
