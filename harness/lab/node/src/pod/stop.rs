//! Graceful ends of containers and pods.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::api::{Api, DeleteParams, Preconditions};
use rustix::process::Signal;
use tokio::time::timeout;

use super::backoff::Backoff;
use super::record::{ContainerRecord, End, PodCell, Role, Run, containers as containers_of};
use super::{hooks, lifecycle, sandbox, writer};
use crate::container::spawn::Exit;
use crate::events::about;
use crate::kubelet::Host;
use crate::volumes;

/// The grace period of a pod that says none.
const DEFAULT_GRACE: Duration = Duration::from_secs(30);

/// How long the pod's containers may take to end by themselves.
pub(super) fn grace(pod: &Pod) -> Duration {
    let asked = pod.metadata.deletion_grace_period_seconds;
    let usual = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
    let seconds = asked.or(usual).and_then(|seconds| u64::try_from(seconds).ok());
    seconds.map_or(DEFAULT_GRACE, Duration::from_secs)
}

/// Ends one container: `preStop`, SIGTERM, and SIGKILL when `grace` is over.
pub(super) async fn container(
    host: &Host,
    pod: &PodCell,
    container: &Container,
    run: &Arc<Run>,
    grace: Duration,
) -> Exit {
    let end = async {
        if let Err(error) = hooks::pre_stop(host, pod, container, run).await {
            host.events.warning(about(&pod.arrival, Some(&container.name)), "FailedPreStopHook", error);
        }
        run.process.signal(stop_signal(container));
        run.process.exited().await
    };
    match timeout(grace, end).await {
        Ok(exit) => exit,
        Err(_) => {
            run.process.signal(Signal::KILL);
            run.process.exited().await
        }
    }
}

fn stop_signal(container: &Container) -> Signal {
    let named = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.stop_signal.as_deref());
    match named {
        Some("SIGINT") => Signal::INT,
        Some("SIGQUIT") => Signal::QUIT,
        Some("SIGHUP") => Signal::HUP,
        Some("SIGUSR1") => Signal::USR1,
        Some("SIGUSR2") => Signal::USR2,
        Some("SIGKILL") => Signal::KILL,
        _ => Signal::TERM,
    }
}

/// Ends all containers that run: the ordinary ones side by side, then the sidecars.
pub(super) async fn containers(host: &Host, pod: &PodCell, grace: Duration) {
    let deadline = tokio::time::Instant::now() + grace;
    for roles in [&[Role::Main, Role::Init][..], &[Role::Sidecar]] {
        let ends = pod.record().containers.into_iter().enumerate().filter_map(|(index, record)| {
            let run = record.run.filter(|_| roles.contains(&record.role))?;
            let (_, spec) = *containers_of(&pod.arrival).get(index)?;
            Some(async move {
                if run.process.exit().is_none() {
                    let message = format!("Stopping container {}", spec.name);
                    host.events.normal(about(&pod.arrival, Some(&spec.name)), "Killing", message);
                }
                let grace = deadline.saturating_duration_since(tokio::time::Instant::now());
                let exit = container(host, pod, spec, &run, grace).await;
                lifecycle::finish(pod, index, &run, exit).await;
            })
        });
        join_all(ends).await;
    }
}

/// Ends a pod that was deleted, or is gone already: containers, networks, volumes, and then the object:
/// whoever sees it gone may count on it.
pub(super) async fn pod(host: &Arc<Host>, pod: &Arc<PodCell>) {
    let mut object = pod.object.clone();
    // A second deletion may shorten the grace period, down to the pod's disappearance.
    loop {
        let grace = match &*object.borrow_and_update() {
            None => Duration::ZERO,
            Some(latest) => grace(latest),
        };
        let shorter =
            object.wait_for(|latest| latest.as_ref().map_or(Duration::ZERO, |latest| self::grace(latest)) < grace);
        tokio::select! {
            () = containers(host, pod, grace) => break,
            Ok(_) = shorter => {}
        }
    }
    pod.update(|record| {
        // A pod that is deleted ends like one that ended by itself.
        let mut mains = record.containers.iter().filter(|container| container.role == Role::Main);
        let end = if mains.all(ContainerRecord::succeeded) {
            End::Succeeded
        } else {
            End::Failed { reason: None, message: None }
        };
        record.end.get_or_insert(end);
    });
    sandbox::release(host, pod).await;
    volumes::remove(host, pod).await;
    if object.borrow().is_some() {
        writer::flush(host, pod).await;
        delete(host, pod).await;
    }
}

/// Tells the API server that nothing of the pod is left, so that it forgets the object.
async fn delete(host: &Host, pod: &PodCell) {
    let pods: Api<Pod> = Api::namespaced(host.client.clone(), &pod.namespace);
    let preconditions = Preconditions { uid: Some(pod.uid.clone()), resource_version: None };
    let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default().grace_period(0) };
    let mut backoff = Backoff::retries();
    loop {
        match pods.delete(&pod.name, &parameters).await {
            Ok(_) => return,
            // Gone already, or another pod has its name.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => return,
            Err(error) => {
                tracing::warn!(pod = pod.name, %error, "cannot delete a pod that has ended; trying again");
                tokio::time::sleep(backoff.next()).await;
            }
        }
    }
}
