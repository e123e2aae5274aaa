//! A kubelet that runs nothing: bound pods become running and ready, deleted ones vanish.
//!
//! Annotations of a pod steer it: `test/hold` keeps it from getting ready, `test/result` (`Succeeded` or `Failed`)
//! ends it, `test/linger` (milliseconds) delays its end after deletion.

use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::watcher::{self, Event};
use kube::{Client, ResourceExt};
use serde_json::json;

/// The lab's nodes.
pub(crate) const NODES: [&str; 3] = ["ovn-control-plane", "ovn-worker", "ovn-worker2"];

/// A ready node; the control plane with its taint.
pub(crate) async fn add_node(client: &Client, name: &str) {
    let control_plane = name.contains("control-plane");
    let taints = json!([{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}]);
    let node: Node = serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": {"taints": if control_plane { taints } else { json!([]) }},
    }))
    .unwrap();
    let nodes: Api<Node> = Api::all(client.clone());
    nodes.create(&PostParams::default(), &node).await.unwrap();
    heartbeat(client, name).await;
}

/// Says that a node is ready.
pub(crate) async fn heartbeat(client: &Client, name: &str) {
    let nodes: Api<Node> = Api::all(client.clone());
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let status = json!({"status": {
        "allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"},
        "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "ready",
            "lastHeartbeatTime": now, "lastTransitionTime": now}],
    }});
    nodes.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
}

/// Serves the pods of all nodes, for ever.
pub(crate) async fn run(client: Client) {
    let pods: Api<Pod> = Api::all(client.clone());
    let mut events = std::pin::pin!(watcher::watcher(pods, watcher::Config::default()));
    let mut address = 1;
    while let Some(event) = events.next().await {
        let Ok(Event::Apply(pod) | Event::InitApply(pod)) = event else {
            if event.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            continue;
        };
        if pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref()).is_none() {
            continue;
        }
        address += 1;
        tokio::spawn(serve(client.clone(), pod, address));
    }
}

async fn serve(client: Client, pod: Pod, address: u32) {
    let api: Api<Pod> = Api::namespaced(client, &pod.namespace().unwrap());
    let name = pod.name_any();
    if pod.metadata.deletion_timestamp.is_some() {
        if let Some(text) = pod.annotations().get("test/linger") {
            tokio::time::sleep(Duration::from_millis(text.parse().unwrap())).await;
        }
        let mut parameters = DeleteParams::default().grace_period(0);
        parameters.preconditions = Some(Preconditions { uid: pod.uid(), resource_version: None });
        let _ = api.delete(&name, &parameters).await;
        return;
    }
    let result = pod.annotations().get("test/result").cloned();
    let hold = pod.annotations().contains_key("test/hold");
    let phase = result.clone().unwrap_or_else(|| "Running".to_owned());
    let ready = if hold || result.is_some() { "False" } else { "True" };
    let status = pod.status.unwrap_or_default();
    let current = status.conditions.iter().flatten().find(|c| c.type_ == "Ready").map(|c| c.status.clone());
    if status.phase.as_deref() == Some(phase.as_str()) && current.as_deref() == Some(ready) {
        return;
    }
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let (v4, v6) = (format!("10.244.{}.{}", address >> 8, address & 255), format!("fd00:10:244::{address:x}"));
    let mut conditions: Vec<_> =
        status.conditions.into_iter().flatten().filter(|c| c.type_ != "Ready").map(|c| json!(c)).collect();
    conditions.push(json!({"type": "Ready", "status": ready, "lastTransitionTime": now}));
    let ips = match status.pod_ips {
        Some(ips) if !ips.is_empty() => json!(ips),
        _ => json!([{"ip": v4}, {"ip": v6}]),
    };
    let status = json!({"status": {
        "phase": phase, "podIP": ips[0]["ip"], "podIPs": ips, "startTime": now, "conditions": conditions,
    }});
    let _ = api.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await;
}
