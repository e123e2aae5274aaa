//! Revision numbers and the annotations that a deployment and its replica sets carry.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use kube::ResourceExt;

/// Label on pods and replica sets that tells templates apart.
pub(super) const HASH: &str = "pod-template-hash";
/// Annotation with the number of a revision.
pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MAXIMUM: &str = "deployment.kubernetes.io/max-replicas";
/// Annotations that are not copied from a deployment to its sets.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    "deprecated.deployment.rollback.to",
    REVISION,
    HISTORY,
    DESIRED,
    MAXIMUM,
];

/// The revision of a replica set; 0 if it has none.
pub(super) fn revision(set: &ReplicaSet) -> i64 {
    set.annotations().get(REVISION).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// The number that follows all revisions of `old`.
pub(super) fn next(old: &[Arc<ReplicaSet>]) -> i64 {
    old.iter().map(|set| revision(set)).max().unwrap_or(0) + 1
}

/// How many pods the whole deployment was allowed when the set was last scaled.
pub(super) fn allowed_before(set: &ReplicaSet) -> Option<i32> {
    set.annotations().get(MAXIMUM).and_then(|text| text.parse().ok())
}

/// How many replicas the deployment wanted when the set was last scaled.
pub(super) fn wanted_before(set: &ReplicaSet) -> Option<i32> {
    set.annotations().get(DESIRED).and_then(|text| text.parse().ok())
}

/// Notes on a set what the deployment wants now.
pub(super) fn note_scale(annotations: &mut BTreeMap<String, String>, wanted: i32, allowed: i32) {
    annotations.insert(DESIRED.to_owned(), wanted.to_string());
    annotations.insert(MAXIMUM.to_owned(), allowed.to_string());
}

/// Gives a set its deployment's annotations and a revision number, which only ever grows.
pub(super) fn annotate(annotations: &mut BTreeMap<String, String>, deployment: &Deployment, number: i64) {
    for (name, value) in deployment.annotations() {
        if !NOT_COPIED.contains(&name.as_str()) {
            annotations.insert(name.clone(), value.clone());
        }
    }
    let before = annotations.get(REVISION).cloned();
    let old: i64 = before.as_deref().and_then(|text| text.parse().ok()).unwrap_or(0);
    if old < number {
        annotations.insert(REVISION.to_owned(), number.to_string());
        if let Some(before) = before {
            let history = annotations.entry(HISTORY.to_owned()).or_default();
            if !history.is_empty() {
                history.push(',');
            }
            history.push_str(&before);
        }
    }
}

/// Whether two templates differ in nothing but the hash label.
pub(super) fn same_template(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    let bare = |template: &PodTemplateSpec| {
        let mut template = template.clone();
        let meta = template.metadata.get_or_insert_default();
        let labels = meta.labels.get_or_insert_default();
        labels.remove(HASH);
        template
    };
    bare(a) == bare(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_returning_revision_gets_a_new_number_and_keeps_its_history() {
        let deployment = Deployment::default();
        let mut annotations = BTreeMap::new();
        annotate(&mut annotations, &deployment, 1);
        assert_eq!(annotations[REVISION], "1");
        annotate(&mut annotations, &deployment, 3);
        annotate(&mut annotations, &deployment, 5);
        assert_eq!(annotations[REVISION], "5");
        assert_eq!(annotations[HISTORY], "1,3");
        annotate(&mut annotations, &deployment, 4);
        assert_eq!(annotations[REVISION], "5", "never goes back");
    }

    #[test]
    fn the_hash_label_does_not_make_a_template_new() {
        let mut a = PodTemplateSpec::default();
        a.metadata.get_or_insert_default().labels = Some([("app".to_owned(), "x".to_owned())].into());
        let mut b = a.clone();
        b.metadata.get_or_insert_default().labels.get_or_insert_default().insert(HASH.into(), "abc".into());
        assert!(same_template(&a, &b));
        b.metadata.get_or_insert_default().labels.get_or_insert_default().insert("app".into(), "y".into());
        assert!(!same_template(&a, &b));
    }
}
