//! Pods and pod templates.

use serde_json::Value;

use super::names;
use crate::json::{is_empty, list, map, remove, text};
use crate::status::FieldError;

pub(super) fn pod(object: &Value, old: Option<&Value>, subresource: Option<&str>) -> Vec<FieldError> {
    match old {
        None => spec(&object["spec"], "spec"),
        Some(_) if subresource == Some("ephemeralcontainers") => Vec::new(),
        Some(old) => update(object, old),
    }
}

/// The spec of a pod or of a template.
pub(super) fn spec(spec: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let containers = list(spec, &["containers"]);
    if containers.is_empty() {
        errors.push(FieldError::required(format!("{path}.containers"), ""));
    }
    let volumes: Vec<&str> = list(spec, &["volumes"]).iter().map(|volume| text(volume, &["name"])).collect();
    for (at, name) in volumes.iter().enumerate() {
        let here = format!("{path}.volumes[{at}].name");
        if volumes[..at].contains(name) {
            errors.push(FieldError::duplicate(here, &(*name).into()));
        } else if name.is_empty() {
            errors.push(FieldError::required(here, ""));
        } else if let Some(problem) = names::label(name) {
            errors.push(FieldError::invalid(here, &(*name).into(), &problem));
        }
    }
    let mut seen = Vec::new();
    for key in ["initContainers", "containers"] {
        for (at, one) in list(spec, &[key]).iter().enumerate() {
            container(one, &format!("{path}.{key}[{at}]"), &volumes, &mut seen, &mut errors);
        }
    }
    let mut choice = |key: &str, allowed: &[&str]| {
        let value = text(spec, &[key]);
        if !value.is_empty() && !allowed.contains(&value) {
            errors.push(FieldError::unsupported(format!("{path}.{key}"), &spec[key], allowed.iter().copied()));
        }
    };
    choice("restartPolicy", &["Always", "OnFailure", "Never"]);
    choice("dnsPolicy", &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"]);
    errors
}

fn container<'a>(one: &'a Value, path: &str, volumes: &[&str], seen: &mut Vec<&'a str>, errors: &mut Vec<FieldError>) {
    let name = text(one, &["name"]);
    if name.is_empty() {
        errors.push(FieldError::required(format!("{path}.name"), ""));
    } else if let Some(problem) = names::label(name) {
        errors.push(FieldError::invalid(format!("{path}.name"), &name.into(), &problem));
    } else if seen.contains(&name) {
        errors.push(FieldError::duplicate(format!("{path}.name"), &name.into()));
    }
    seen.push(name);
    if text(one, &["image"]).is_empty() {
        errors.push(FieldError::required(format!("{path}.image"), ""));
    }
    for (at, port) in list(one, &["ports"]).iter().enumerate() {
        let here = format!("{path}.ports[{at}]");
        match port["containerPort"].as_i64() {
            Some(1..=65535) => {}
            None | Some(0) => errors.push(FieldError::required(format!("{here}.containerPort"), "")),
            Some(number) => errors.push(FieldError::invalid(
                format!("{here}.containerPort"),
                &number.into(),
                "must be between 1 and 65535, inclusive",
            )),
        }
        if !matches!(text(port, &["protocol"]), "TCP" | "UDP" | "SCTP") {
            errors.push(FieldError::unsupported(format!("{here}.protocol"), &port["protocol"], ["SCTP", "TCP", "UDP"]));
        }
    }
    for (at, mount) in list(one, &["volumeMounts"]).iter().enumerate() {
        let here = format!("{path}.volumeMounts[{at}]");
        let name = text(mount, &["name"]);
        if name.is_empty() {
            errors.push(FieldError::required(format!("{here}.name"), ""));
        } else if !volumes.contains(&name) {
            let text = format!("{here}.name");
            errors.push(FieldError::not_found(text, &name.into()));
        }
        if text(mount, &["mountPath"]).is_empty() {
            errors.push(FieldError::required(format!("{here}.mountPath"), ""));
        }
    }
    for (at, variable) in list(one, &["env"]).iter().enumerate() {
        if text(variable, &["name"]).is_empty() {
            errors.push(FieldError::required(format!("{path}.env[{at}].name"), ""));
        }
    }
}

/// Of a pod that exists little may change.
fn update(object: &Value, old: &Value) -> Vec<FieldError> {
    if list(&object["spec"], &["containers"]).len() != list(&old["spec"], &["containers"]).len() {
        return vec![FieldError::forbidden("spec.containers", "pod updates may not add or remove containers")];
    }
    let mut errors = Vec::new();
    for key in ["initContainers", "containers"] {
        for (at, one) in list(&object["spec"], &[key]).iter().enumerate() {
            if text(one, &["image"]).is_empty() {
                errors.push(FieldError::required(format!("spec.{key}[{at}].image"), ""));
            }
        }
    }
    let before = list(old, &["spec", "tolerations"]);
    let now = list(object, &["spec", "tolerations"]);
    let without_seconds = |one: &Value| {
        let mut one = one.clone();
        remove(&mut one, "tolerationSeconds");
        one
    };
    if before.iter().any(|one| !now.iter().any(|other| without_seconds(other) == without_seconds(one))) {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        errors.push(FieldError::forbidden("spec.tolerations", detail));
    }
    let fixed = |value: &Value| {
        let mut spec = value["spec"].clone();
        for key in ["initContainers", "containers"] {
            for one in crate::json::list_mut(&mut spec, key) {
                remove(one, "image");
            }
        }
        for key in ["activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds", "schedulingGates"] {
            remove(&mut spec, key);
        }
        map(&mut spec).retain(|_, value| !is_empty(value));
        spec
    };
    if fixed(object) != fixed(old) {
        errors.push(FieldError::forbidden(
            "spec",
            "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,\
             `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),\
             `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
        ));
    }
    errors
}
