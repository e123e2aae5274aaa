//! Deployments, stateful sets and their like.

use serde_json::{Value, json};

use super::pod::template;
use crate::json::{default, list_mut, map, object, text, truth};

pub(super) fn deployment(value: &mut Value) {
    let spec = &mut value["spec"];
    template(&mut spec["template"]);
    default(spec, "replicas", 1);
    default(spec, "revisionHistoryLimit", 10);
    default(spec, "progressDeadlineSeconds", 600);
    default(spec, "strategy", json!({}));
    let strategy = &mut spec["strategy"];
    default(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        default(strategy, "rollingUpdate", json!({}));
        default(&mut strategy["rollingUpdate"], "maxUnavailable", "25%");
        default(&mut strategy["rollingUpdate"], "maxSurge", "25%");
    }
}

pub(super) fn replica_set(value: &mut Value) {
    let spec = &mut value["spec"];
    if !spec["template"].is_null() {
        template(&mut spec["template"]);
    }
    default(spec, "replicas", 1);
}

pub(super) fn replication_controller(value: &mut Value) {
    let labels = value["spec"]["template"]["metadata"]["labels"].clone();
    let spec = &mut value["spec"];
    template(&mut spec["template"]);
    default(spec, "replicas", 1);
    if labels.is_object() {
        default(spec, "selector", labels);
    }
}

pub(super) fn stateful_set(value: &mut Value) {
    let spec = &mut value["spec"];
    template(&mut spec["template"]);
    default(spec, "replicas", 1);
    default(spec, "revisionHistoryLimit", 10);
    default(spec, "podManagementPolicy", "OrderedReady");
    default(spec, "persistentVolumeClaimRetentionPolicy", json!({"whenDeleted": "Retain", "whenScaled": "Retain"}));
    default(spec, "updateStrategy", json!({}));
    let strategy = &mut spec["updateStrategy"];
    default(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        default(strategy, "rollingUpdate", json!({}));
        default(&mut strategy["rollingUpdate"], "partition", 0);
    }
    for claim in list_mut(spec, "volumeClaimTemplates") {
        default(claim, "apiVersion", "v1");
        default(claim, "kind", "PersistentVolumeClaim");
        default(claim, "status", json!({"phase": "Pending"}));
        if let Some(spec) = claim.get_mut("spec") {
            default(spec, "volumeMode", "Filesystem");
        }
    }
}

pub(super) fn daemon_set(value: &mut Value) {
    let spec = &mut value["spec"];
    template(&mut spec["template"]);
    default(spec, "revisionHistoryLimit", 10);
    default(spec, "updateStrategy", json!({}));
    let strategy = &mut spec["updateStrategy"];
    default(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        default(strategy, "rollingUpdate", json!({}));
        default(&mut strategy["rollingUpdate"], "maxUnavailable", 1);
        default(&mut strategy["rollingUpdate"], "maxSurge", 0);
    }
}

pub(super) fn job(value: &mut Value) {
    let uid = text(value, &["metadata", "uid"]).to_owned();
    let name = crate::json::name(value).to_owned();
    job_spec(&mut value["spec"]);
    let spec = &mut value["spec"];
    if truth(spec, &["manualSelector"]) || spec.get("selector").is_some_and(Value::is_object) || uid.is_empty() {
        return;
    }
    let labels = object(&mut spec["template"]["metadata"], "labels");
    for (key, label) in [
        ("controller-uid", &uid),
        ("batch.kubernetes.io/controller-uid", &uid),
        ("job-name", &name),
        ("batch.kubernetes.io/job-name", &name),
    ] {
        labels.insert(key.into(), label.clone().into());
    }
    spec["selector"] = json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}});
}

fn job_spec(spec: &mut Value) {
    map(spec);
    template(&mut spec["template"]);
    if spec.get("completions").is_none() && spec.get("parallelism").is_none() {
        default(spec, "completions", 1);
    }
    default(spec, "parallelism", 1);
    default(spec, "backoffLimit", 6);
    default(spec, "completionMode", "NonIndexed");
    default(spec, "suspend", false);
    default(spec, "podReplacementPolicy", "TerminatingOrFailed");
}

pub(super) fn cron_job(value: &mut Value) {
    let spec = &mut value["spec"];
    default(spec, "concurrencyPolicy", "Allow");
    default(spec, "suspend", false);
    default(spec, "successfulJobsHistoryLimit", 3);
    default(spec, "failedJobsHistoryLimit", 1);
    object(&mut spec["jobTemplate"], "metadata");
    job_spec(&mut spec["jobTemplate"]["spec"]);
}
