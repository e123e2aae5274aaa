//! Writes a pod's status whenever what is known of it changes. Changes that come while one is written are written
//! together afterwards.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use super::backoff::Backoff;
use super::record::{End, PodCell};
use super::status;
use crate::kubelet::Host;

/// Follows the pod's record, for ever.
pub(super) async fn run(host: &Host, pod: &PodCell) {
    let mut changed = pod.changed.subscribe();
    let mut object = pod.object.clone();
    loop {
        flush(host, pod).await;
        tokio::select! {
            Ok(()) = changed.changed() => {}
            // A readiness gate may have opened.
            Ok(()) = object.changed() => {}
            else => std::future::pending().await,
        }
    }
}

/// Writes the status if it differs from the one written last; tries until that works or the pod is gone.
pub(super) async fn flush(host: &Host, pod: &PodCell) {
    let pods: Api<Pod> = Api::namespaced(host.client.clone(), &pod.namespace);
    let mut written = pod.written.lock().await;
    let mut backoff = Backoff::retries();
    loop {
        let record = pod.record();
        if record.end == Some(End::Earlier) {
            return;
        }
        let latest = pod.latest();
        let before = written.clone().or_else(|| latest.status.clone()).unwrap_or_default();
        let status = status::compose(&latest, &record, &host.node, &before, Timestamp::now());
        if written.as_ref() == Some(&status) {
            return;
        }
        match write(&pods, pod, &status).await {
            Ok(()) => {
                *written = Some(status);
                return;
            }
            // The pod is gone, or another one has its name.
            Err(kube::Error::Api(error)) if matches!(error.code, 404 | 409 | 422) => {
                tracing::debug!(pod = pod.name, %error, "the API server refuses a pod's status");
                return;
            }
            Err(error) => {
                tracing::warn!(pod = pod.name, %error, "cannot write a pod's status; trying again");
                tokio::time::sleep(backoff.next()).await;
            }
        }
    }
}

async fn write(pods: &Api<Pod>, pod: &PodCell, status: &PodStatus) -> kube::Result<()> {
    // The uid makes it fail on a younger pod of the same name.
    let mut patch = json!({ "metadata": { "uid": pod.uid }, "status": status });
    if let Some(conditions) = patch.pointer_mut("/status/conditions").and_then(Value::as_array_mut) {
        own_conditions(conditions);
    }
    pods.patch_status(&pod.name, &PatchParams::default(), &Patch::Strategic(patch)).await.map(drop)
}

/// Conditions as a strategic merge takes them. Those of other writers are left out, and so left alone: what is known of
/// them here may be old already. Why one did not hold goes when it does.
fn own_conditions(conditions: &mut Vec<Value>) {
    let is_own = |condition: &Value| status::OWN_CONDITIONS.iter().any(|own| condition["type"] == *own);
    conditions.retain(is_own);
    for condition in conditions.iter_mut().filter_map(Value::as_object_mut) {
        for field in ["reason", "message"] {
            condition.entry(field).or_insert(Value::Null);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_of_others_are_left_alone_and_reasons_go() {
        let mut conditions = vec![
            json!({ "type": "Ready", "status": "True" }),
            json!({ "type": "example.org/gate", "status": "False" }),
        ];
        own_conditions(&mut conditions);
        assert_eq!(conditions, [json!({ "type": "Ready", "status": "True", "reason": null, "message": null })]);
    }
}
