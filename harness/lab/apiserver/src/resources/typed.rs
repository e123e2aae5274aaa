//! The built-in kinds' fields, taken from the types of `k8s-openapi`: an object is read into its type and written
//! again, and what did not survive is unknown.

use k8s_openapi::api::{
    admissionregistration::v1 as admission, apps::v1 as apps, autoscaling::v2 as autoscaling, batch::v1 as batch,
    coordination::v1 as coordination, core::v1 as core, discovery::v1 as discovery, events::v1 as events,
    networking::v1 as networking, policy::v1 as policy, rbac::v1 as rbac, scheduling::v1 as scheduling,
    storage::v1 as storage,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as apiextensions;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

fn through<T: DeserializeOwned + Serialize>(object: &Value) -> Result<Value, serde_json::Error> {
    serde_json::to_value(serde_json::from_value::<T>(object.clone())?)
}

/// The object as its type keeps it; `None` for kinds whose type is not known here.
pub(crate) fn normalize(group: &str, kind: &str, object: &Value) -> Option<Result<Value, serde_json::Error>> {
    let read: fn(&Value) -> Result<Value, serde_json::Error> = match (group, kind) {
        ("", "Namespace") => through::<core::Namespace>,
        ("", "Node") => through::<core::Node>,
        ("", "Pod") => through::<core::Pod>,
        ("", "Service") => through::<core::Service>,
        ("", "Endpoints") => through::<core::Endpoints>,
        ("", "ConfigMap") => through::<core::ConfigMap>,
        ("", "Secret") => through::<core::Secret>,
        ("", "ServiceAccount") => through::<core::ServiceAccount>,
        ("", "Event") => through::<core::Event>,
        ("", "PersistentVolumeClaim") => through::<core::PersistentVolumeClaim>,
        ("", "PersistentVolume") => through::<core::PersistentVolume>,
        ("", "ReplicationController") => through::<core::ReplicationController>,
        ("", "LimitRange") => through::<core::LimitRange>,
        ("", "ResourceQuota") => through::<core::ResourceQuota>,
        ("", "PodTemplate") => through::<core::PodTemplate>,
        ("apps", "Deployment") => through::<apps::Deployment>,
        ("apps", "ReplicaSet") => through::<apps::ReplicaSet>,
        ("apps", "StatefulSet") => through::<apps::StatefulSet>,
        ("apps", "DaemonSet") => through::<apps::DaemonSet>,
        ("apps", "ControllerRevision") => through::<apps::ControllerRevision>,
        ("batch", "Job") => through::<batch::Job>,
        ("batch", "CronJob") => through::<batch::CronJob>,
        ("autoscaling", "HorizontalPodAutoscaler") => through::<autoscaling::HorizontalPodAutoscaler>,
        ("networking.k8s.io", "NetworkPolicy") => through::<networking::NetworkPolicy>,
        ("networking.k8s.io", "Ingress") => through::<networking::Ingress>,
        ("networking.k8s.io", "IngressClass") => through::<networking::IngressClass>,
        ("discovery.k8s.io", "EndpointSlice") => through::<discovery::EndpointSlice>,
        ("coordination.k8s.io", "Lease") => through::<coordination::Lease>,
        ("events.k8s.io", "Event") => through::<events::Event>,
        ("rbac.authorization.k8s.io", "Role") => through::<rbac::Role>,
        ("rbac.authorization.k8s.io", "RoleBinding") => through::<rbac::RoleBinding>,
        ("rbac.authorization.k8s.io", "ClusterRole") => through::<rbac::ClusterRole>,
        ("rbac.authorization.k8s.io", "ClusterRoleBinding") => through::<rbac::ClusterRoleBinding>,
        ("policy", "PodDisruptionBudget") => through::<policy::PodDisruptionBudget>,
        ("scheduling.k8s.io", "PriorityClass") => through::<scheduling::PriorityClass>,
        ("storage.k8s.io", "StorageClass") => through::<storage::StorageClass>,
        ("apiextensions.k8s.io", "CustomResourceDefinition") => through::<apiextensions::CustomResourceDefinition>,
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy") => {
            through::<admission::ValidatingAdmissionPolicy>
        }
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding") => {
            through::<admission::ValidatingAdmissionPolicyBinding>
        }
        _ => return None,
    };
    Some(read(object))
}

/// Removes from `object` nulls and what `known`, the same object read and written by its type, lacks.
/// Returns the paths of what was unknown.
pub(crate) fn prune(object: &mut Value, known: &Value) -> Vec<String> {
    let mut unknown = Vec::new();
    walk(object, known, "", &mut unknown);
    unknown
}

fn walk(object: &mut Value, known: &Value, path: &str, unknown: &mut Vec<String>) {
    match (object, known) {
        (Value::Object(fields), Value::Object(kept)) => fields.retain(|key, value| {
            let here = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            match kept.get(key) {
                Some(_) if value.is_null() => false,
                Some(known) => {
                    walk(value, known, &here, unknown);
                    true
                }
                None => {
                    if !value.is_null() {
                        unknown.push(here);
                    }
                    false
                }
            }
        }),
        (Value::Array(items), Value::Array(kept)) => {
            for (at, (item, known)) in items.iter_mut().zip(kept).enumerate() {
                walk(item, known, &format!("{path}[{at}]"), unknown);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn finds_and_removes_unknown_fields() {
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "creationTimestamp": null},
            "spec": {"foo": 1, "containers": [{"name": "c", "image": "i", "bar": {}}]},
        });
        let known = normalize("", "Pod", &pod).unwrap().unwrap();
        assert_eq!(prune(&mut pod, &known), ["spec.containers[0].bar", "spec.foo"]);
        assert_eq!(
            pod,
            json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"},
                "spec": {"containers": [{"name": "c", "image": "i"}]},
            })
        );
    }

    #[test]
    fn every_builtin_kind_has_a_type() {
        for resource in super::super::builtin::all() {
            let bare = json!({"apiVersion": resource.api_version(), "kind": resource.kind, "metadata": {}});
            let known = normalize(&resource.group, &resource.kind, &bare);
            assert_eq!(known.is_some(), resource.verbs == super::super::Verbs::All, "{}", resource.kind);
        }
    }
}
