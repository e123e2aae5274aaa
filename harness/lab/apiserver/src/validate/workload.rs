//! Deployments, stateful sets, jobs and their like.

use serde_json::Value;

use super::pod;
use crate::json::{at, int, is_empty, map, remove, text};
use crate::resources::Resource;
use crate::selectors::Selector;
use crate::status::FieldError;

pub(super) fn workload(resource: &Resource, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    match resource.kind.as_str() {
        "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet" => {
            let mut errors = common(object, old);
            if resource.kind == "StatefulSet" {
                errors.retain(|error| old.is_none() || error.path != "spec.selector");
                errors.extend(old.and_then(|old| stateful_set_update(object, old)));
            }
            errors
        }
        "Job" => job(object, old),
        "CronJob" => cron_job(object),
        _ => Vec::new(),
    }
}

fn common(object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if let Some(replicas) = int(object, &["spec", "replicas"]).filter(|number| *number < 0) {
        let detail = "must be greater than or equal to 0";
        errors.push(FieldError::invalid("spec.replicas", &replicas.into(), detail));
    }
    let selector = at(object, &["spec", "selector"]);
    let empty = |selector: &Value| is_empty(&selector["matchLabels"]) && is_empty(&selector["matchExpressions"]);
    let template = &object["spec"]["template"];
    match selector {
        None => errors.push(FieldError::required("spec.selector", "")),
        Some(selector) if empty(selector) => {
            let detail = "empty selector is invalid for deployment";
            errors.push(FieldError::invalid("spec.selector", selector, detail));
        }
        Some(selector) => {
            if !Selector::of_object(Some(selector)).is_some_and(|selector| selector.matches(template)) {
                errors.push(FieldError::invalid(
                    "spec.template.metadata.labels",
                    &template["metadata"]["labels"],
                    "`selector` does not match template `labels`",
                ));
            }
        }
    }
    if let Some(old) = old
        && old["spec"]["selector"] != object["spec"]["selector"]
    {
        errors.push(FieldError::invalid("spec.selector", &object["spec"]["selector"], "field is immutable"));
    }
    errors.extend(pod::spec(&template["spec"], "spec.template.spec"));
    let policy = text(template, &["spec", "restartPolicy"]);
    if !matches!(policy, "" | "Always") {
        errors.push(FieldError::unsupported("spec.template.spec.restartPolicy", &policy.into(), ["Always"]));
    }
    errors
}

fn stateful_set_update(object: &Value, old: &Value) -> Option<FieldError> {
    let fixed = |value: &Value| {
        let mut spec = value["spec"].clone();
        for key in [
            "replicas",
            "ordinals",
            "template",
            "updateStrategy",
            "revisionHistoryLimit",
            "persistentVolumeClaimRetentionPolicy",
            "minReadySeconds",
        ] {
            remove(&mut spec, key);
        }
        map(&mut spec).retain(|_, value| !is_empty(value));
        spec
    };
    (fixed(object) != fixed(old)).then(|| {
        FieldError::forbidden(
            "spec",
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', \
             'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
        )
    })
}

fn job(object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let template = &object["spec"]["template"]["spec"];
    let mut errors = pod::spec(template, "spec.template.spec");
    if text(template, &["restartPolicy"]) == "Always" {
        let path = "spec.template.spec.restartPolicy";
        errors.push(FieldError::unsupported(path, &template["restartPolicy"], ["OnFailure", "Never"]));
    }
    for key in ["template", "selector", "completionMode"] {
        if old.is_some_and(|old| old["spec"][key] != object["spec"][key]) {
            errors.push(FieldError::invalid(format!("spec.{key}"), &object["spec"][key], "field is immutable"));
        }
    }
    errors
}

fn cron_job(object: &Value) -> Vec<FieldError> {
    let mut errors =
        pod::spec(&object["spec"]["jobTemplate"]["spec"]["template"]["spec"], "spec.jobTemplate.spec.template.spec");
    if text(object, &["spec", "schedule"]).is_empty() {
        errors.push(FieldError::required("spec.schedule", ""));
    }
    errors
}
