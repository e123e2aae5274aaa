//! One pod, from its arrival to its end.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{join_all, select_all};
use k8s_openapi::api::core::v1::Pod;

use super::backoff::Backoff;
use super::record::{End, PodCell, Role, State, containers};
use super::{lifecycle, sandbox, stop, writer};
use crate::events::about;
use crate::kubelet::Host;
use crate::volumes::{self, Volumes};

/// Runs a pod until it is deleted, then takes it away.
pub(super) async fn run(host: &Arc<Host>, pod: &Arc<PodCell>) {
    let write = writer::run(host, pod);
    let live = async {
        let end = tokio::select! {
            biased;
            () = deleted(pod) => None,
            end = until_end(host, pod) => Some(end),
        };
        if let Some(end) = end {
            pod.update(|record| record.end = Some(end));
            stop::containers(host, pod, Duration::from_secs(30)).await;
            sandbox::release(host, pod).await;
            deleted(pod).await;
        }
    };
    tokio::select! {
        () = live => {}
        () = write => {}
    }
    stop::pod(host, pod).await;
}

/// Waits for the wish to delete the pod, or for its disappearance.
async fn deleted(pod: &PodCell) {
    let mut object = pod.object.clone();
    let gone = |pod: &Option<Arc<Pod>>| pod.as_ref().is_none_or(|pod| pod.metadata.deletion_timestamp.is_some());
    // An error means that nobody watches any more, so that nothing will be known of a deletion: as good as one.
    let _ = object.wait_for(gone).await;
}

/// Runs the pod's containers until none will ever run again.
async fn until_end(host: &Arc<Host>, pod: &Arc<PodCell>) -> End {
    let phase = pod.arrival.status.as_ref().and_then(|status| status.phase.as_deref());
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return End::Earlier;
    }
    let deadline = pod.arrival.spec.as_ref().and_then(|spec| spec.active_deadline_seconds);
    let run = run_containers(host, pod);
    let Some(seconds) = deadline.and_then(|seconds| u64::try_from(seconds).ok()) else { return run.await };
    match tokio::time::timeout(Duration::from_secs(seconds), run).await {
        Ok(end) => end,
        Err(_) => {
            let message = "Pod was active on the node longer than the specified deadline".to_owned();
            host.events.normal(about(&pod.arrival, None), "DeadlineExceeded", message.clone());
            End::Failed { reason: Some("DeadlineExceeded".into()), message: Some(message) }
        }
    }
}

async fn run_containers(host: &Arc<Host>, pod: &Arc<PodCell>) -> End {
    let containers = containers(&pod.arrival);
    let has_init = containers.iter().any(|(role, _)| *role != Role::Main);
    pod.update(|record| {
        for container in &mut record.containers {
            let first = container.role != Role::Main || !has_init;
            let reason = if first && !has_init { "ContainerCreating" } else { "PodInitializing" };
            container.state = State::Waiting { reason: reason.into(), message: None };
        }
    });
    let (volumes, ()) = tokio::join!(mount_volumes(host, pod), sandbox::establish(host, pod));

    let mut sidecars = Vec::new();
    for (index, (role, container)) in containers.iter().enumerate() {
        let running = lifecycle::run(host, pod, index, *role, container, &volumes);
        match role {
            Role::Main => {}
            Role::Init => {
                let mut running = std::pin::pin!(running);
                // Sidecars have to be driven while an init container runs.
                let succeeded = loop {
                    if sidecars.is_empty() {
                        break (&mut running).await;
                    }
                    tokio::select! {
                        succeeded = &mut running => break succeeded,
                        // A sidecar never ends by itself.
                        _ = select_all(sidecars.iter_mut()) => {}
                    }
                };
                if !succeeded {
                    return End::Failed { reason: None, message: None };
                }
            }
            Role::Sidecar => {
                let mut running = running.boxed();
                let mut sidecar_up = std::pin::pin!(lifecycle::until_started(pod, index));
                tokio::select! {
                    _ = &mut running => {}
                    _ = select_all_or_pending(&mut sidecars) => {}
                    () = &mut sidecar_up => {}
                }
                sidecars.push(running);
            }
        }
    }
    let mains = containers
        .iter()
        .enumerate()
        .filter(|(_, (role, _))| *role == Role::Main)
        .map(|(index, (role, container))| lifecycle::run(host, pod, index, *role, container, &volumes));
    let results = tokio::select! {
        results = join_all(mains) => results,
        _ = select_all_or_pending(&mut sidecars) => Vec::new(),
    };
    if !results.is_empty() && results.into_iter().all(|succeeded| succeeded) {
        End::Succeeded
    } else {
        End::Failed { reason: None, message: None }
    }
}

/// Like `select_all`, but of nothing waits for ever.
async fn select_all_or_pending<F: Future + Unpin>(futures: &mut [F]) {
    if futures.is_empty() {
        std::future::pending::<()>().await;
    }
    select_all(futures.iter_mut()).await;
}

/// Prepares the pod's volumes, for as long as an object that they need is missing.
async fn mount_volumes(host: &Arc<Host>, pod: &Arc<PodCell>) -> Volumes {
    let mut backoff = Backoff::retries();
    loop {
        match volumes::prepare(host, pod).await {
            Ok(volumes) => return volumes,
            Err(error) => host.events.warning(about(&pod.arrival, None), "FailedMount", error.to_string()),
        }
        tokio::time::sleep(backoff.next()).await;
    }
}
