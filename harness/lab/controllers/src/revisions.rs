//! Controller revisions: the history of templates of stateful sets and daemon sets.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kube::ResourceExt;
use kube::api::{DeleteParams, ObjectMeta};
use serde_json::{Value, json};

use crate::Error;
use crate::cache::Key;
use crate::hash::short_hash;
use crate::objects::{Kind, Objects};
use crate::owners::{claim_all, controller_of, managed_by};

/// Label on pods with the name of their revision.
pub(crate) const REVISION_LABEL: &str = "controller-revision-hash";
/// Label on revisions with their hash.
const HASH_LABEL: &str = "controller.kubernetes.io/hash";
/// The API's default, for servers that do not fill it in.
const HISTORY_LIMIT: i32 = 10;

/// The revisions of one owner, oldest first, and the one of its present template.
pub(crate) struct History {
    pub(crate) all: Vec<Arc<ControllerRevision>>,
    pub(crate) update: Arc<ControllerRevision>,
}

/// What an owner tells about its template.
pub(crate) struct Template<'a> {
    pub(crate) selector: &'a LabelSelector,
    pub(crate) template: &'a PodTemplateSpec,
    pub(crate) collisions: i32,
}

/// Finds or makes the revision of the owner's present template. `Ok(None)`: its name is taken by another template, so
/// the caller counts a collision and tries again.
pub(crate) async fn sync<O: Kind>(
    owner: &O,
    template: Template<'_>,
    owners: &Objects<O>,
    revisions: &Objects<ControllerRevision>,
) -> Result<Option<History>, Error> {
    let mut all = claim_all(owner, template.selector, revisions, owners, |_| true).await?;
    all.sort_by_key(|revision| (revision.revision, revision.metadata.creation_timestamp.clone()));
    let key = Key::of(owner);
    let data = data(template.template).map_err(|source| Error::Encode { object: key.to_string(), source })?;
    let next = all.last().map_or(1, |last| last.revision + 1);
    let equal = all.iter().rposition(|revision| revision.data.as_ref().is_some_and(|known| known.0 == data));
    if let Some(index) = equal {
        let mut update = Arc::clone(&all[index]);
        if index + 1 < all.len() {
            // A return to an older template makes it the newest.
            let patch = json!({ "revision": next, "metadata": { "resourceVersion": update.resource_version() } });
            update = revisions.merge(&Key::of(update.as_ref()), patch).await?;
            all.remove(index);
            all.push(Arc::clone(&update));
        }
        return Ok(Some(History { all, update }));
    }
    let hash =
        short_hash(&data, template.collisions).map_err(|source| Error::Encode { object: key.to_string(), source })?;
    let mut labels = template.template.metadata.as_ref().and_then(|meta| meta.labels.clone()).unwrap_or_default();
    labels.insert(HASH_LABEL.to_owned(), hash.clone());
    let revision = ControllerRevision {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", key.name)),
            namespace: Some(key.namespace.clone()),
            labels: Some(labels),
            owner_references: Some(vec![managed_by(owner)]),
            ..ObjectMeta::default()
        },
        data: Some(RawExtension(data)),
        revision: next,
    };
    match revisions.create(&key.namespace, &revision).await {
        Ok(update) => {
            all.push(Arc::clone(&update));
            Ok(Some(History { all, update }))
        }
        Err(error) if error.is_conflict() => {
            let taken = revisions.fetch(&Key::of(&revision)).await?;
            let same = taken.is_some_and(|taken| {
                taken.data == revision.data
                    && controller_of(&taken).map(|owner| &owner.uid) == owner.meta().uid.as_ref()
            });
            // One of ours that the watch has not told yet: come back; else count a collision.
            if same { Err(error) } else { Ok(None) }
        }
        Err(error) => Err(error),
    }
}

/// Deletes the oldest revisions beyond the limit that nobody uses.
pub(crate) async fn forget(
    history: &History,
    in_use: &HashSet<String>,
    limit: Option<i32>,
    revisions: &Objects<ControllerRevision>,
) -> Result<(), Error> {
    let limit = usize::try_from(limit.unwrap_or(HISTORY_LIMIT)).unwrap_or(0);
    let unused: Vec<_> = history
        .all
        .iter()
        .filter(|revision| !in_use.contains(&revision.name_any()) && revision.uid() != history.update.uid())
        .collect();
    for revision in unused.iter().take(unused.len().saturating_sub(limit)) {
        revisions.delete(revision.as_ref(), DeleteParams::background()).await?;
    }
    Ok(())
}

/// The template that a revision holds.
pub(crate) fn template(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.as_ref()?.0.pointer("/spec/template")?.clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}

/// The strategic merge patch that sets a template, the form in which `kubectl rollout undo` wants it.
fn data(template: &PodTemplateSpec) -> Result<Value, serde_json::Error> {
    let mut template = serde_json::to_value(template)?;
    template["$patch"] = json!("replace");
    Ok(json!({ "spec": { "template": template } }))
}

/// The hash in a pod's revision label equals a revision's name or, for daemon sets, its hash.
pub(crate) fn hash(revision: &ControllerRevision) -> String {
    revision.labels().get(HASH_LABEL).cloned().unwrap_or_default()
}

/// A pod's revision label.
pub(crate) fn label(labels: &BTreeMap<String, String>) -> &str {
    labels.get(REVISION_LABEL).map_or("", String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_survives_its_revision() {
        let mut original = PodTemplateSpec::default();
        original.metadata.get_or_insert_default().labels = Some([("app".to_owned(), "x".to_owned())].into());
        original.spec.get_or_insert_default().host_network = Some(true);
        let revision =
            ControllerRevision { data: Some(RawExtension(data(&original).unwrap())), ..ControllerRevision::default() };
        assert_eq!(template(&revision), Some(original));
    }
}
