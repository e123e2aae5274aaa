//! Words what is known of a pod as its `status`.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus, HostIP,
    Pod, PodCondition, PodIP, PodSpec, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use udn_lab_sys::site::NodeSite;

use super::record::{ContainerRecord, End, Ended, PodRecord, Role, State};

/// Types of the conditions that the node itself writes.
pub(super) const OWN_CONDITIONS: [&str; 5] =
    ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];

/// The status of a pod. `before` is the one written last: what did not change keeps its times, and conditions of
/// other writers are kept.
pub(super) fn compose(pod: &Pod, record: &PodRecord, node: &NodeSite, before: &PodStatus, now: Timestamp) -> PodStatus {
    let (reason, message) = match &record.end {
        Some(End::Failed { reason, message }) => (reason.clone(), message.clone()),
        _ => (None, None),
    };
    let statuses = |init: bool| {
        let chosen = record.containers.iter().filter(|container| (container.role != Role::Main) == init);
        let statuses: Vec<ContainerStatus> = chosen.map(container_status).collect();
        (!statuses.is_empty()).then_some(statuses)
    };
    PodStatus {
        phase: Some(phase(record).into()),
        reason,
        message,
        host_ip: Some(node.ipv4.to_string()),
        host_ips: Some([node.ipv4.to_string(), node.ipv6.to_string()].map(|ip| HostIP { ip }).into()),
        pod_ip: record.ips.first().map(ToString::to_string),
        pod_ips: (!record.ips.is_empty()).then(|| record.ips.iter().map(|ip| PodIP { ip: ip.to_string() }).collect()),
        qos_class: Some(qos_class(pod.spec.as_ref()).into()),
        start_time: record.started.map(Time),
        conditions: Some(conditions(pod, record, before, now)),
        container_statuses: statuses(false),
        init_container_statuses: statuses(true),
        ..PodStatus::default()
    }
}

/// The phase, as a kubelet derives it.
fn phase(record: &PodRecord) -> &'static str {
    match record.end {
        Some(End::Succeeded) => return "Succeeded",
        Some(End::Failed { .. }) => return "Failed",
        _ => {}
    }
    let begun = |container: &&ContainerRecord| {
        container.role == Role::Main && (!matches!(container.state, State::Waiting { .. }) || container.last.is_some())
    };
    if record.containers.iter().any(|container| begun(&container)) { "Running" } else { "Pending" }
}

fn conditions(pod: &Pod, record: &PodRecord, before: &PodStatus, now: Timestamp) -> Vec<PodCondition> {
    let old = before.conditions.as_deref().unwrap_or_default();
    let old = if old.is_empty() {
        pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default()
    } else {
        old
    };
    let ended = match &record.end {
        Some(End::Succeeded) => Some("PodCompleted"),
        Some(_) => Some("PodFailed"),
        None => None,
    };
    let waiting_init: Vec<&str> = names(record, |container| match container.role {
        Role::Init => !container.succeeded(),
        Role::Sidecar => !container.started,
        Role::Main => false,
    });
    let unready: Vec<&str> = names(record, |container| container.role != Role::Init && !container.ready);
    let gates = pod.spec.as_ref().and_then(|spec| spec.readiness_gates.as_deref()).unwrap_or_default();
    let latest = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let closed: Vec<&str> = gates
        .iter()
        .map(|gate| gate.condition_type.as_str())
        .filter(|gate| !latest.iter().any(|condition| condition.type_ == *gate && condition.status == "True"))
        .collect();

    let containers_ready = match ended {
        Some(reason) => Some((reason, None)),
        None if unready.is_empty() => None,
        None => Some(("ContainersNotReady", Some(format!("containers with unready status: [{}]", unready.join(" "))))),
    };
    let ready = containers_ready.clone().or_else(|| {
        let message = format!("corresponding condition of pod readiness gate \"{}\" does not exist.", closed.first()?);
        Some(("ReadinessGatesNotReady", Some(message)))
    });
    let initialized = match record.end {
        Some(End::Succeeded) => None,
        _ if waiting_init.is_empty() => None,
        _ => {
            let message = format!("containers with incomplete status: [{}]", waiting_init.join(" "));
            Some(("ContainersNotInitialized", Some(message)))
        }
    };
    let mut conditions = vec![
        condition("PodReadyToStartContainers", record.sandbox_ready, None, old, now),
        condition("Initialized", initialized.is_none(), initialized, old, now),
        condition("Ready", ready.is_none(), ready, old, now),
        condition("ContainersReady", containers_ready.is_none(), containers_ready, old, now),
    ];
    if !latest.iter().any(|condition| condition.type_ == "PodScheduled") {
        conditions.push(condition("PodScheduled", true, None, old, now));
    }
    // What others wrote (the scheduler, a network's controller) stays.
    let foreign = latest.iter().filter(|foreign| !conditions.iter().any(|own| own.type_ == foreign.type_));
    let foreign: Vec<PodCondition> = foreign.cloned().collect();
    conditions.extend(foreign);
    conditions
}

fn names(record: &PodRecord, which: impl Fn(&ContainerRecord) -> bool) -> Vec<&str> {
    record.containers.iter().filter(|container| which(container)).map(|container| container.name.as_str()).collect()
}

fn condition(
    kind: &str,
    holds: bool,
    why_not: Option<(&str, Option<String>)>,
    old: &[PodCondition],
    now: Timestamp,
) -> PodCondition {
    let status = if holds { "True" } else { "False" };
    let unchanged = old.iter().find(|old| old.type_ == kind && old.status == status);
    let (reason, message) = why_not.unzip();
    PodCondition {
        type_: kind.into(),
        status: status.into(),
        reason: reason.map(str::to_owned),
        message: message.flatten(),
        last_transition_time: unchanged.and_then(|old| old.last_transition_time.clone()).or(Some(Time(now))),
        ..PodCondition::default()
    }
}

fn container_status(record: &ContainerRecord) -> ContainerStatus {
    ContainerStatus {
        name: record.name.clone(),
        image: record.image.clone(),
        image_id: record.image_id.clone(),
        container_id: record.container_id.clone(),
        ready: record.ready,
        started: Some(record.started),
        restart_count: record.restarts,
        state: Some(container_state(&record.state)),
        last_state: Some(record.last.as_ref().map_or_else(ContainerState::default, |last| ContainerState {
            terminated: Some(terminated(last)),
            ..ContainerState::default()
        })),
        ..ContainerStatus::default()
    }
}

fn container_state(state: &State) -> ContainerState {
    let mut worded = ContainerState::default();
    match state {
        State::Waiting { reason, message } => {
            worded.waiting = Some(ContainerStateWaiting { reason: Some(reason.clone()), message: message.clone() });
        }
        State::Running { since } => worded.running = Some(ContainerStateRunning { started_at: Some(Time(*since)) }),
        State::Ended(ended) => worded.terminated = Some(terminated(ended)),
    }
    worded
}

fn terminated(ended: &Ended) -> ContainerStateTerminated {
    ContainerStateTerminated {
        exit_code: ended.exit.code,
        reason: Some(ended.reason.clone()),
        message: ended.message.clone(),
        started_at: ended.started.map(Time),
        finished_at: Some(Time(ended.finished)),
        container_id: ended.container_id.clone(),
        ..ContainerStateTerminated::default()
    }
}

fn qos_class(spec: Option<&PodSpec>) -> &'static str {
    let containers: Vec<_> =
        spec.map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers).collect()).unwrap_or_default();
    let resources =
        |container: &&k8s_openapi::api::core::v1::Container| container.resources.clone().unwrap_or_default();
    let mut guaranteed = !containers.is_empty();
    let mut any = false;
    for resources in containers.iter().map(resources) {
        let limits = resources.limits.unwrap_or_default();
        let requests = resources.requests.unwrap_or_default();
        any |= !limits.is_empty() || !requests.is_empty();
        guaranteed &= ["cpu", "memory"].iter().all(|name| {
            limits.get(*name).is_some_and(|limit| requests.get(*name).is_none_or(|request| request == limit))
        });
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests;
