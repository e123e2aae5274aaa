//! `postStart` and `preStop`.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler};

use super::record::{PodCell, Run};
use crate::kubelet::Host;
use crate::probes::check;

/// A hook without a limit of its own; the grace period bounds `preStop` from outside.
const LONGEST: Duration = Duration::from_secs(300);

/// Runs the container's `postStart`; an error says how it failed, as a kubelet words it.
pub(super) async fn post_start(
    host: &Host,
    pod: &PodCell,
    container: &Container,
    run: &Arc<Run>,
) -> Result<(), String> {
    let handler = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref());
    perform("PostStartHook", host, pod, container, run, handler).await
}

/// Runs the container's `preStop`.
pub(super) async fn pre_stop(host: &Host, pod: &PodCell, container: &Container, run: &Arc<Run>) -> Result<(), String> {
    if run.process.exit().is_some() {
        return Ok(());
    }
    let handler = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref());
    perform("PreStopHook", host, pod, container, run, handler).await
}

async fn perform(
    name: &str,
    host: &Host,
    pod: &PodCell,
    container: &Container,
    run: &Arc<Run>,
    handler: Option<&LifecycleHandler>,
) -> Result<(), String> {
    let Some(handler) = handler else { return Ok(()) };
    let result = if let Some(exec) = &handler.exec {
        check::exec(host, run, exec.command.as_deref().unwrap_or_default(), LONGEST).await
    } else if let Some(http) = &handler.http_get {
        check::http(host, pod, container, http, LONGEST).await
    } else if let Some(wait) = &handler.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(wait.seconds).unwrap_or_default())).await;
        Ok(())
    } else {
        Err("the lab's node agent knows exec, httpGet and sleep hooks only".to_owned())
    };
    result.map_err(|error| format!("{name} failed: {error}"))
}
