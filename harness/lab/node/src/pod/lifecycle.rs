//! One container: start, watch, restart.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use tokio::time::{Instant, sleep, timeout};

use super::backoff::Backoff;
use super::record::{Ended, PodCell, Role, Run, State, containers};
use super::start::{self, StartError};
use super::{hooks, stop};
use crate::container::spawn::Exit;
use crate::events::about;
use crate::images::{self, Image};
use crate::kubelet::Host;
use crate::probes;
use crate::volumes::Volumes;

/// How long the end of a container waits for the rest of its output.
const DRAIN: Duration = Duration::from_secs(1);
/// The exit code of a container that could not be started: containerd's.
const NOT_STARTED: i32 = 128;
/// The most that is read of a termination message: a kubelet's limit.
const LAST_WORDS: usize = 4096;

/// Runs a container until it has ended and will not be started again; whether its last run ended well.
/// A sidecar never ends.
pub(super) async fn run(
    host: &Arc<Host>,
    pod: &Arc<PodCell>,
    index: usize,
    role: Role,
    container: &Container,
    volumes: &Volumes,
) -> bool {
    let mut backoff = Backoff::restarts();
    let mut has_restarted = false;
    loop {
        let image = pull(host, pod, index, container).await;
        let begun = Instant::now();
        let exit = match start::start(host, pod, index, container, &image, volumes).await {
            Ok(run) => {
                let exit = follow(host, pod, index, container, &image.asked, &run).await;
                finish(pod, index, &run, exit).await;
                exit
            }
            Err(StartError::Configuration(message)) => {
                let waiting =
                    State::Waiting { reason: "CreateContainerConfigError".into(), message: Some(message.clone()) };
                pod.update_container(index, |record| record.state = waiting);
                host.events.warning(about(&pod.arrival, Some(&container.name)), "Failed", format!("Error: {message}"));
                sleep(backoff.next()).await;
                continue;
            }
            Err(StartError::Runtime(message)) => {
                let exit = Exit { code: NOT_STARTED, signal: None };
                host.events.warning(about(&pod.arrival, Some(&container.name)), "Failed", format!("Error: {message}"));
                let now = Timestamp::now();
                pod.update_container(index, |record| {
                    record.state = State::Ended(Ended {
                        exit,
                        reason: "StartError".into(),
                        message: Some(message),
                        started: None,
                        finished: now,
                        container_id: record.container_id.clone(),
                    });
                });
                exit
            }
        };
        if !starts_again(&pod.arrival, role, exit) {
            return exit.code == 0;
        }
        backoff.forgive(begun.elapsed());
        if has_restarted {
            back_off(host, pod, index, container, backoff.next()).await;
        }
        has_restarted = true;
        pod.update_container(index, |record| {
            record.restarts += 1;
            if let State::Ended(ended) = &record.state {
                record.last = Some(ended.clone());
            }
        });
    }
}

/// Waits until a sidecar has started, so that what comes after it may begin.
pub(super) async fn until_started(pod: &PodCell, index: usize) {
    let mut changed = pod.changed.subscribe();
    while !pod.record().containers.get(index).is_some_and(|record| record.started) {
        if changed.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Notes that a run is over. Called by whoever sees the end first, once.
pub(super) async fn finish(pod: &PodCell, index: usize, run: &Arc<Run>, exit: Exit) {
    let mut drained = run.drained.clone();
    // A process that left the container's namespaces could hold the pipe open for ever.
    let _ = timeout(DRAIN, drained.wait_for(|drained| *drained)).await;
    run.output.close();
    let message = std::fs::read(&run.last_words).ok().filter(|words| !words.is_empty()).map(|words| {
        let kept = &words[words.len().saturating_sub(LAST_WORDS)..];
        String::from_utf8_lossy(kept).into_owned()
    });
    pod.update_container(index, |record| {
        if !record.run.as_ref().is_some_and(|current| Arc::ptr_eq(current, run)) {
            return;
        }
        let started = match &record.state {
            State::Running { since } => Some(*since),
            _ => None,
        };
        record.run = None;
        record.ready = false;
        record.started = false;
        record.state = State::Ended(Ended {
            exit,
            reason: if exit.code == 0 { "Completed" } else { "Error" }.into(),
            message,
            started,
            finished: Timestamp::now(),
            container_id: record.container_id.clone(),
        });
        if record.role == Role::Init && exit.code == 0 {
            record.ready = true;
        }
    });
}

/// Finds the container's image, for as long as the pod names one that does not exist.
async fn pull(host: &Host, pod: &PodCell, index: usize, container: &Container) -> Image {
    let mut backoff = Backoff::restarts();
    let reference = || about(&pod.arrival, Some(&container.name));
    loop {
        let name = current_image(&pod.latest(), &container.name);
        pod.update_container(index, |record| record.image.clone_from(&name));
        let unknown = match images::find(&name) {
            Ok(image) => {
                let message = format!("Container image \"{name}\" already present on machine");
                host.events.normal(reference(), "Pulled", message);
                return image;
            }
            Err(unknown) => format!("rpc error: code = NotFound desc = {unknown}"),
        };
        host.events.normal(reference(), "Pulling", format!("Pulling image \"{name}\""));
        host.events.warning(reference(), "Failed", format!("Failed to pull image \"{name}\": {unknown}"));
        host.events.warning(reference(), "Failed", "Error: ErrImagePull");
        wait(pod, index, "ErrImagePull", unknown.clone());
        let time = backoff.next();
        sleep(time / 2).await;
        let message = format!("Back-off pulling image \"{name}\"");
        host.events.normal(reference(), "BackOff", message.clone());
        host.events.warning(reference(), "Failed", "Error: ImagePullBackOff");
        wait(pod, index, "ImagePullBackOff", format!("{message}: ErrImagePull: {unknown}"));
        tokio::select! {
            () = sleep(time / 2) => {}
            () = image_change(pod, &container.name, &name) => {}
        }
    }
}

fn wait(pod: &PodCell, index: usize, reason: &str, message: String) {
    let state = State::Waiting { reason: reason.into(), message: Some(message) };
    pod.update_container(index, |record| record.state = state);
}

fn current_image(pod: &Pod, container: &str) -> String {
    let containers = containers(pod);
    let found = containers.iter().find(|(_, candidate)| candidate.name == container);
    found.and_then(|(_, found)| found.image.clone()).unwrap_or_default()
}

/// Waits until the pod names another image for the container: the one thing of its spec that may change.
async fn image_change(pod: &PodCell, container: &str, image: &str) {
    let mut object = pod.object.clone();
    let differs = |pod: &Option<Arc<Pod>>| pod.as_ref().is_some_and(|pod| current_image(pod, container) != image);
    let unwatched = object.wait_for(differs).await.is_err();
    if unwatched {
        std::future::pending::<()>().await;
    }
}

/// Watches a running container to its end, or ends it where hooks or probes say so.
async fn follow(
    host: &Arc<Host>,
    pod: &Arc<PodCell>,
    index: usize,
    container: &Container,
    image: &str,
    run: &Arc<Run>,
) -> Exit {
    let supervise = async {
        if let Err(error) = hooks::post_start(host, pod, container, run).await {
            host.events.warning(about(&pod.arrival, Some(&container.name)), "FailedPostStartHook", error);
            return "FailedPostStartHook".to_owned();
        }
        probes::watch(host, pod, index, container, run).await
    };
    let reason = tokio::select! {
        biased;
        exit = run.process.exited() => return exit,
        reason = supervise => reason,
        () = image_change(pod, &container.name, image) => {
            format!("Container {} definition changed, will be restarted", container.name)
        }
    };
    host.events.normal(about(&pod.arrival, Some(&container.name)), "Killing", reason);
    let grace = stop::grace(&pod.arrival);
    stop::container(host, pod, container, run, grace).await
}

fn starts_again(pod: &Pod, role: Role, exit: Exit) -> bool {
    let policy = pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()).unwrap_or("Always");
    match role {
        Role::Sidecar => true,
        Role::Init => exit.code != 0 && policy != "Never",
        Role::Main => policy == "Always" || (policy == "OnFailure" && exit.code != 0),
    }
}

async fn back_off(host: &Host, pod: &PodCell, index: usize, container: &Container, time: Duration) {
    let what = format!("{} in pod {}_{}({})", container.name, pod.name, pod.namespace, pod.uid);
    let message = format!("Back-off restarting failed container {what}");
    host.events.warning(about(&pod.arrival, Some(&container.name)), "BackOff", message);
    pod.update_container(index, |record| {
        if let State::Ended(ended) = &record.state {
            record.last = Some(ended.clone());
        }
        let message = format!(
            "back-off {time:?} restarting failed container={} pod={}_{}({})",
            container.name, pod.name, pod.namespace, pod.uid
        );
        record.state = State::Waiting { reason: "CrashLoopBackOff".into(), message: Some(message) };
    });
    sleep(time).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(policy: &str) -> Pod {
        let pod = serde_json::json!({ "spec": { "restartPolicy": policy, "containers": [] } });
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn restart_policies() {
        let ok = Exit { code: 0, signal: None };
        let bad = Exit { code: 1, signal: None };
        for (policy, role, exit, expected) in [
            ("Always", Role::Main, ok, true),
            ("OnFailure", Role::Main, ok, false),
            ("OnFailure", Role::Main, bad, true),
            ("Never", Role::Main, bad, false),
            ("Always", Role::Init, ok, false),
            ("Always", Role::Init, bad, true),
            ("Never", Role::Init, bad, false),
            ("Never", Role::Sidecar, bad, true),
        ] {
            assert_eq!(starts_again(&pod(policy), role, exit), expected, "{policy} {role:?} {exit:?}");
        }
    }
}
