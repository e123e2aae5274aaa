//! Rules of built-in kinds that clients may run into.

mod names;
mod network_policy;
mod pod;
mod service;
mod workload;

use serde_json::Value;

use crate::json::{at, list, text};
use crate::resources::Resource;
use crate::status::FieldError;
use crate::{admission, crd};

/// Names, labels and annotations: the same rules for all kinds.
pub(crate) fn metadata(resource: &Resource, object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let metadata = &object["metadata"];
    let name = text(metadata, &["name"]);
    let problem = match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "namespaces") => names::label(name),
        ("", "services") => names::service(name),
        ("rbac.authorization.k8s.io", _) => names::segment(name),
        _ => names::subdomain(name),
    };
    if let Some(problem) = problem {
        errors.push(FieldError::invalid("metadata.name", &name.into(), &problem));
    }
    for (key, value) in at(metadata, &["labels"]).and_then(Value::as_object).into_iter().flatten() {
        if let Some(problem) = names::qualified(key) {
            errors.push(FieldError::invalid("metadata.labels", &key.as_str().into(), &problem));
        }
        match value.as_str() {
            Some(text) => {
                if let Some(problem) = names::label_value(text) {
                    errors.push(FieldError::invalid("metadata.labels", value, &problem));
                }
            }
            None => errors.push(FieldError::invalid("metadata.labels", value, "must be a string")),
        }
    }
    let mut size = 0;
    for (key, value) in at(metadata, &["annotations"]).and_then(Value::as_object).into_iter().flatten() {
        if let Some(problem) = names::qualified(&key.to_lowercase()) {
            errors.push(FieldError::invalid("metadata.annotations", &key.as_str().into(), &problem));
        }
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > names::LARGEST_ANNOTATIONS {
        errors.push(FieldError::too_long("metadata.annotations", names::LARGEST_ANNOTATIONS as u64));
    }
    for finalizer in list(metadata, &["finalizers"]).iter().filter_map(Value::as_str) {
        if let Some(problem) = names::qualified(finalizer) {
            errors.push(FieldError::invalid("metadata.finalizers", &finalizer.into(), &problem));
        }
    }
    for (at, owner) in list(metadata, &["ownerReferences"]).iter().enumerate() {
        for key in ["apiVersion", "kind", "name", "uid"] {
            if text(owner, &[key]).is_empty() {
                let path = format!("metadata.ownerReferences[{at}].{key}");
                errors.push(FieldError::invalid(path, &"".into(), "must not be empty"));
            }
        }
    }
    errors
}

/// What a built-in kind demands. `old` is what the object replaces.
pub(crate) fn object(
    resource: &Resource,
    subresource: Option<&str>,
    object: &Value,
    old: Option<&Value>,
) -> Vec<FieldError> {
    if matches!(subresource, Some("status" | "finalize" | "binding")) {
        return Vec::new();
    }
    match (resource.group.as_str(), resource.kind.as_str()) {
        ("", "Pod") => pod::pod(object, old, subresource),
        ("", "Service") => service::service(object),
        ("", "Secret" | "ConfigMap") => data(object, old),
        ("apps", _) | ("batch", _) => workload::workload(resource, object, old),
        ("networking.k8s.io", "NetworkPolicy") => network_policy::network_policy(object),
        ("discovery.k8s.io", "EndpointSlice") => service::endpoint_slice(object, old),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => crd::check(object),
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => {
            unchanged(object, old, "roleRef", "cannot change roleRef")
        }
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy") => policy(object),
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding") => policy_binding(object),
        _ => Vec::new(),
    }
}

fn unchanged(object: &Value, old: Option<&Value>, key: &str, detail: &str) -> Vec<FieldError> {
    match old {
        Some(old) if old[key] != object[key] => vec![FieldError::invalid(key, &object[key], detail)],
        _ => Vec::new(),
    }
}

/// Secrets and config maps.
fn data(object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for field in ["data", "binaryData"] {
        for key in at(object, &[field]).and_then(Value::as_object).into_iter().flat_map(|map| map.keys()) {
            if let Some(problem) = names::config_key(key) {
                errors.push(FieldError::invalid(format!("{field}[{key}]"), &key.as_str().into(), problem));
            }
        }
    }
    let Some(old) = old else { return errors };
    if old["immutable"] == true {
        for field in ["immutable", "data", "binaryData"] {
            if old[field] != object[field] {
                errors.push(FieldError::forbidden(field, "field is immutable when `immutable` is set"));
            }
        }
    }
    if old.get("type") != object.get("type") {
        errors.push(FieldError::invalid("type", &object["type"], "field is immutable"));
    }
    errors
}

fn policy(object: &Value) -> Vec<FieldError> {
    let mut errors: Vec<FieldError> = admission::broken_expressions(object)
        .into_iter()
        .map(|(path, source, error)| FieldError::invalid(path, &source.into(), &format!("compilation failed: {error}")))
        .collect();
    if list(object, &["spec", "validations"]).is_empty() && list(object, &["spec", "auditAnnotations"]).is_empty() {
        let detail = "validations or auditAnnotations must contain at least one item";
        errors.push(FieldError::required("spec.validations", detail));
    }
    if list(object, &["spec", "matchConstraints", "resourceRules"]).is_empty() {
        errors.push(FieldError::required("spec.matchConstraints.resourceRules", ""));
    }
    errors
}

fn policy_binding(object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if text(object, &["spec", "policyName"]).is_empty() {
        errors.push(FieldError::required("spec.policyName", ""));
    }
    if list(object, &["spec", "validationActions"]).is_empty() {
        errors.push(FieldError::required("spec.validationActions", ""));
    }
    errors
}
