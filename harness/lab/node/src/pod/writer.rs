//! Writes a pod's status whenever what is known of it changes. Changes that come while one is written are written
//! together afterwards.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

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
    let patch = json!({ "metadata": { "uid": pod.uid }, "status": status });
    pods.patch_status(&pod.name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
}
