//! What Kubernetes sets in built-in kinds when a client does not.

mod definition;
mod network;
mod pod;
mod workload;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::json::{default, list_mut, map, now, object, remove};
use crate::resources::Resource;

/// Sets defaults. Does nothing to an object that has them.
pub(crate) fn set(resource: &Resource, value: &mut Value) {
    match (resource.group.as_str(), resource.kind.as_str()) {
        ("", "Namespace") => namespace(value),
        ("", "Pod") => pod::pod(value),
        ("", "PodTemplate") => pod::template(&mut value["template"]),
        ("", "Service") => network::service(value),
        ("", "Endpoints") => network::endpoints(value),
        ("", "Secret") => secret(value),
        ("", "PersistentVolumeClaim") => default(&mut value["spec"], "volumeMode", "Filesystem"),
        ("" | "events.k8s.io", "Event") => event(value),
        ("", "ReplicationController") => workload::replication_controller(value),
        ("apps", "Deployment") => workload::deployment(value),
        ("apps", "ReplicaSet") => workload::replica_set(value),
        ("apps", "StatefulSet") => workload::stateful_set(value),
        ("apps", "DaemonSet") => workload::daemon_set(value),
        ("batch", "Job") => workload::job(value),
        ("batch", "CronJob") => workload::cron_job(value),
        ("networking.k8s.io", "NetworkPolicy") => network::policy(value),
        ("discovery.k8s.io", "EndpointSlice") => network::endpoint_slice(value),
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => role_binding(value),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => definition::definition(value),
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy") => policy(value),
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding") => policy_binding(value),
        _ => {}
    }
}

/// The status that an object is born with.
pub(crate) fn first_status(resource: &Resource, value: &mut Value) {
    match (resource.group.as_str(), resource.kind.as_str()) {
        ("", "Namespace") => value["status"] = json!({"phase": "Active"}),
        ("", "Pod") => pod::first_status(value),
        ("", "PersistentVolumeClaim" | "PersistentVolume") => value["status"] = json!({"phase": "Pending"}),
        ("", "Service") => value["status"] = json!({"loadBalancer": {}}),
        ("", "Node") => default(value, "status", json!({})),
        ("apps", "Deployment" | "DaemonSet") => value["status"] = json!({}),
        ("apps", "ReplicaSet" | "StatefulSet") | ("", "ReplicationController") => {
            value["status"] = json!({"replicas": 0});
        }
        ("apiextensions.k8s.io", "CustomResourceDefinition") => definition::first_status(value),
        _ => {}
    }
}

fn namespace(value: &mut Value) {
    let name = crate::json::name(value).to_owned();
    object(&mut value["metadata"], "labels").insert("kubernetes.io/metadata.name".into(), name.into());
    object(value, "spec");
    // Once it is being deleted, whoever removed the finalizer meant it.
    if !crate::json::deleting(value) {
        default(&mut value["spec"], "finalizers", json!(["kubernetes"]));
    }
}

fn secret(value: &mut Value) {
    default(value, "type", "Opaque");
    if let Some(Value::Object(plain)) = remove(value, "stringData") {
        let data = object(value, "data");
        for (key, text) in plain {
            data.insert(key, STANDARD.encode(text.as_str().unwrap_or_default()).into());
        }
    }
}

fn event(value: &mut Value) {
    default(value, "type", "Normal");
}

fn role_binding(value: &mut Value) {
    default(&mut value["roleRef"], "apiGroup", "rbac.authorization.k8s.io");
    for subject in list_mut(value, "subjects") {
        let group = if subject["kind"] == "ServiceAccount" { "" } else { "rbac.authorization.k8s.io" };
        default(subject, "apiGroup", group);
    }
}

fn match_resources(constraints: &mut Value) {
    map(constraints);
    default(constraints, "matchPolicy", "Equivalent");
    default(constraints, "namespaceSelector", json!({}));
    default(constraints, "objectSelector", json!({}));
    for key in ["resourceRules", "excludeResourceRules"] {
        for rule in list_mut(constraints, key) {
            default(rule, "scope", "*");
        }
    }
}

fn policy(value: &mut Value) {
    let spec = &mut value["spec"];
    default(spec, "failurePolicy", "Fail");
    match_resources(&mut spec["matchConstraints"]);
}

fn policy_binding(value: &mut Value) {
    if !value["spec"]["matchResources"].is_null() {
        match_resources(&mut value["spec"]["matchResources"]);
    } else {
        remove(&mut value["spec"], "matchResources");
    }
}

/// A condition as Kubernetes writes it.
fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": now()})
}
