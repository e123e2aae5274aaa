use std::net::Ipv4Addr;
use std::sync::Arc;

use tokio::sync::watch;
use udn_lab_sys::netns::Netns;

use super::*;
use crate::container::spawn::Exit;
use crate::pod::record::PodCell;

fn pod(spec: serde_json::Value) -> Pod {
    serde_json::from_value(serde_json::json!({
        "metadata": { "name": "p", "namespace": "n", "uid": "u" },
        "spec": spec,
        "status": { "conditions": [
            { "type": "PodScheduled", "status": "True" },
            { "type": "example.org/gate", "status": "True" },
        ] },
    }))
    .unwrap()
}

fn node() -> NodeSite {
    NodeSite {
        name: "ovn-worker".into(),
        index: 2,
        ipv4: Ipv4Addr::new(172, 18, 0, 3),
        ipv6: "fc00:f853:ccd:e793::3".parse().unwrap(),
        mac: [0; 6],
        netns: Netns::current("test").unwrap(),
        ovs_run: "/run".into(),
        ovn_run: "/run".into(),
    }
}

fn record(pod: &Pod) -> PodRecord {
    let pod = Arc::new(pod.clone());
    PodCell::new(Arc::clone(&pod), watch::channel(Some(pod)).1).record()
}

fn compose_now(pod: &Pod, record: &PodRecord) -> PodStatus {
    compose(pod, record, &node(), &PodStatus::default(), Timestamp::now())
}

fn of<'a>(status: &'a PodStatus, kind: &str) -> &'a PodCondition {
    status.conditions.as_ref().unwrap().iter().find(|condition| condition.type_ == kind).unwrap()
}

fn two_containers() -> Pod {
    pod(serde_json::json!({
        "initContainers": [{ "name": "first" }],
        "containers": [{ "name": "a" }, { "name": "b" }],
    }))
}

fn ended(code: i32) -> Ended {
    Ended {
        exit: Exit { code, signal: None },
        reason: "Completed".into(),
        message: None,
        started: None,
        finished: Timestamp::now(),
        container_id: None,
    }
}

#[test]
fn a_new_pod_waits_for_its_init_containers() {
    let pod = two_containers();
    let status = compose_now(&pod, &record(&pod));
    assert_eq!(status.phase.as_deref(), Some("Pending"));
    assert_eq!(status.pod_ip, None);
    let initialized = of(&status, "Initialized");
    assert_eq!(initialized.status, "False");
    assert_eq!(initialized.message.as_deref(), Some("containers with incomplete status: [first]"));
    assert_eq!(of(&status, "Ready").message.as_deref(), Some("containers with unready status: [a b]"));
    assert_eq!(of(&status, "PodScheduled").status, "True", "the scheduler's condition stays");
    assert_eq!(of(&status, "example.org/gate").status, "True", "so does everybody else's");
}

#[test]
fn a_pod_is_ready_when_all_its_containers_are() {
    let pod = two_containers();
    let mut record = record(&pod);
    record.containers[0].state = State::Ended(ended(0));
    record.ips = vec!["10.244.2.5".parse().unwrap(), "fd00:10:244:2::5".parse().unwrap()];
    for container in &mut record.containers[1..] {
        container.state = State::Running { since: Timestamp::now() };
        container.started = true;
        container.ready = true;
    }
    let status = compose_now(&pod, &record);
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert_eq!(of(&status, "Ready").status, "True");
    assert_eq!(status.pod_ips.as_ref().unwrap().len(), 2);
    record.containers[2].ready = false;
    let status = compose_now(&pod, &record);
    assert_eq!(of(&status, "Ready").message.as_deref(), Some("containers with unready status: [b]"));
}

#[test]
fn a_readiness_gate_keeps_a_pod_from_being_ready() {
    let gated = |gate: &str| {
        pod(serde_json::json!({ "containers": [{ "name": "a" }], "readinessGates": [{ "conditionType": gate }] }))
    };
    for (gate, expected) in [("example.org/gate", "True"), ("example.org/other", "False")] {
        let pod = gated(gate);
        let mut record = record(&pod);
        record.containers[0].state = State::Running { since: Timestamp::now() };
        record.containers[0].ready = true;
        let status = compose_now(&pod, &record);
        assert_eq!(of(&status, "Ready").status, expected, "{gate}");
        assert_eq!(of(&status, "ContainersReady").status, "True");
    }
}

#[test]
fn a_crashing_container_leaves_the_pod_running() {
    let pod = pod(serde_json::json!({ "containers": [{ "name": "a" }] }));
    let mut record = record(&pod);
    record.containers[0].last = Some(ended(1));
    record.containers[0].restarts = 3;
    let status = compose_now(&pod, &record);
    assert_eq!(status.phase.as_deref(), Some("Running"));
    let container = &status.container_statuses.unwrap()[0];
    assert_eq!(container.restart_count, 3);
    assert_eq!(container.last_state.as_ref().unwrap().terminated.as_ref().unwrap().exit_code, 1);
}

#[test]
fn the_time_of_a_condition_is_that_of_its_last_change() {
    let pod = pod(serde_json::json!({ "containers": [{ "name": "a" }] }));
    let mut record = record(&pod);
    let early = Timestamp::from_second(1_000).unwrap();
    let late = Timestamp::from_second(2_000).unwrap();
    let before = compose(&pod, &record, &node(), &PodStatus::default(), early);
    record.sandbox_ready = true;
    let after = compose(&pod, &record, &node(), &before, late);
    assert_eq!(of(&after, "Ready").last_transition_time, Some(Time(early)));
    assert_eq!(of(&after, "PodReadyToStartContainers").last_transition_time, Some(Time(late)));
}

#[test]
fn quality_of_service_classes() {
    let class = |resources: serde_json::Value| {
        qos_class(pod(serde_json::json!({ "containers": [{ "name": "a", "resources": resources }] })).spec.as_ref())
    };
    assert_eq!(class(serde_json::json!({})), "BestEffort");
    assert_eq!(class(serde_json::json!({ "requests": { "cpu": "1" } })), "Burstable");
    assert_eq!(class(serde_json::json!({ "limits": { "cpu": "1", "memory": "1Gi" } })), "Guaranteed");
}
