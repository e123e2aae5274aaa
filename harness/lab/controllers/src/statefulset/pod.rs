//! Pods of a stateful set: a name, a host name and volumes that outlive each of them.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume,
};
use kube::ResourceExt;
use kube::api::ObjectMeta;

use crate::owners::managed_by;
use crate::pods;
use crate::revisions::REVISION_LABEL;

const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// The ordinal in a pod's name, if the pod is named after the set.
pub(super) fn ordinal(set: &str, pod: &str) -> Option<i32> {
    let digits = pod.strip_prefix(set)?.strip_prefix('-')?;
    let canonical = digits == "0" || !digits.starts_with('0');
    (canonical && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// The pod of an ordinal.
pub(super) fn new_pod(set: &StatefulSet, template: &PodTemplateSpec, revision: &str, ordinal: i32) -> Pod {
    let name = format!("{}-{ordinal}", set.name_any());
    let mut pod = pods::from_template(template, &set.namespace().unwrap_or_default(), managed_by(set));
    pod.metadata.name = Some(name.clone());
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(POD_NAME.to_owned(), name.clone());
    labels.insert(POD_INDEX.to_owned(), ordinal.to_string());
    labels.insert(REVISION_LABEL.to_owned(), revision.to_owned());
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(name);
    spec.subdomain = set.spec.as_ref().and_then(|spec| spec.service_name.clone()).filter(|name| !name.is_empty());
    for claim in claims(set, ordinal) {
        let volume = claim.template.name_any();
        let volumes = spec.volumes.get_or_insert_default();
        volumes.retain(|existing| existing.name != volume);
        volumes.push(Volume {
            name: volume,
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim.name.clone(),
                read_only: Some(false),
            }),
            ..Volume::default()
        });
    }
    pod
}

/// A volume claim of one ordinal.
pub(super) struct Claim<'a> {
    pub(super) name: String,
    template: &'a PersistentVolumeClaim,
}

impl Claim<'_> {
    /// The claim as it is to be created. It stays when the pod goes.
    pub(super) fn object(&self, set: &StatefulSet) -> PersistentVolumeClaim {
        let selector = set.spec.as_ref().and_then(|spec| spec.selector.match_labels.clone()).unwrap_or_default();
        let mut labels = self.template.metadata.labels.clone().unwrap_or_default();
        labels.extend(selector);
        PersistentVolumeClaim {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                namespace: set.namespace(),
                labels: Some(labels),
                annotations: self.template.metadata.annotations.clone(),
                ..ObjectMeta::default()
            },
            spec: self.template.spec.clone(),
            status: None,
        }
    }
}

/// The volume claims of an ordinal.
pub(super) fn claims(set: &StatefulSet, ordinal: i32) -> Vec<Claim<'_>> {
    let templates = set.spec.as_ref().and_then(|spec| spec.volume_claim_templates.as_ref());
    templates
        .into_iter()
        .flatten()
        .map(|template| Claim { name: format!("{}-{}-{ordinal}", template.name_any(), set.name_any()), template })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::apps::v1::StatefulSetSpec;

    #[test]
    fn only_exact_names_are_members() {
        assert_eq!(ordinal("web", "web-0"), Some(0));
        assert_eq!(ordinal("web", "web-12"), Some(12));
        for stranger in ["web", "web-", "web-01", "web-x", "web-1-0", "webb-0", "web--1"] {
            assert_eq!(ordinal("web", stranger), None, "{stranger}");
        }
    }

    #[test]
    fn a_pod_knows_its_name_and_service() {
        let mut set = StatefulSet {
            spec: Some(StatefulSetSpec { service_name: Some("svc".into()), ..StatefulSetSpec::default() }),
            ..StatefulSet::default()
        };
        set.metadata.name = Some("web".into());
        let pod = new_pod(&set, &PodTemplateSpec::default(), "web-abc", 3);
        assert_eq!(pod.metadata.name.as_deref(), Some("web-3"));
        assert_eq!(pod.labels()["statefulset.kubernetes.io/pod-name"], "web-3");
        assert_eq!(pod.labels()["apps.kubernetes.io/pod-index"], "3");
        assert_eq!(pod.labels()["controller-revision-hash"], "web-abc");
        let spec = pod.spec.unwrap();
        assert_eq!((spec.hostname.as_deref(), spec.subdomain.as_deref()), (Some("web-3"), Some("svc")));
    }
}
