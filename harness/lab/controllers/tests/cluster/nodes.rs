//! Nodes that fall silent, return, or vanish.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::json;
use udn_lab_controllers::Options;

use crate::kubelet::{NODES, heartbeat};
use crate::support::{Cluster, eventually, options};

async fn renew(cluster: &Cluster, node: &str) {
    let leases: Api<Lease> = cluster.api("kube-node-lease");
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": node},
        "spec": {"holderIdentity": node, "leaseDurationSeconds": 40, "renewTime": now}});
    leases.patch(node, &PatchParams::apply("test"), &Patch::Apply(lease)).await.unwrap();
}

fn ready(node: &Node) -> String {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().find(|c| c.type_ == "Ready").map(|c| c.status.clone()).unwrap_or_default()
}

fn taints(node: &Node) -> Vec<String> {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    taints.map(|taint| format!("{}:{}", taint.key, taint.effect)).collect()
}

async fn until(cluster: &Cluster, name: &str, what: &str, holds: impl Fn(&Node) -> bool) -> Node {
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    eventually(what, async || {
        let node = nodes.get(name).await.unwrap();
        if holds(&node) { Ok(node) } else { Err(format!("{node:#?}")) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_node_is_not_ready_until_it_returns() {
    let cluster = Cluster::with(Options { node_grace: Duration::from_millis(1500), ..options() }).await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeSelector": {"kubernetes.io/hostname": "ovn-worker2"},
        "containers": [{"name": "main", "image": "agnhost:1"}]}});
    cluster.create::<Pod>("default", pod).await;
    let is_ready = |pod: &Pod| {
        let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
    };
    cluster.until::<Pod>("default", "p", "ready", is_ready).await;
    let mut cluster = cluster;
    cluster.freeze_pods();
    let alive = NODES.into_iter().filter(|name| *name != "ovn-worker2");
    eventually("the silent node is lost", async || {
        for name in alive.clone() {
            renew(&cluster, name).await;
        }
        let nodes: Api<Node> = Api::all(cluster.client.clone());
        let node = nodes.get("ovn-worker2").await.unwrap();
        if ready(&node) == "Unknown" { Ok(()) } else { Err(format!("{node:#?}")) }
    })
    .await;
    until(&cluster, "ovn-worker2", "tainted", |node| {
        taints(node) == ["node.kubernetes.io/unreachable:NoSchedule", "node.kubernetes.io/unreachable:NoExecute"]
    })
    .await;
    cluster.until::<Pod>("default", "p", "not ready", |pod| !is_ready(pod)).await;
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    assert_eq!(ready(&nodes.get("ovn-worker").await.unwrap()), "True", "the others are fine");
    heartbeat(&cluster.client, "ovn-worker2").await;
    until(&cluster, "ovn-worker2", "clean again", |node| ready(node) == "True" && taints(node).is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_a_node_that_is_gone_go_too() {
    let mut cluster = Cluster::start().await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeSelector": {"kubernetes.io/hostname": "ovn-worker2"},
        "containers": [{"name": "main", "image": "agnhost:1"}]}});
    cluster.create::<Pod>("default", pod).await;
    cluster
        .until::<Pod>("default", "p", "bound", |pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some()))
        .await;
    cluster.freeze_pods();
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    nodes.delete("ovn-worker2", &DeleteParams::default()).await.unwrap();
    eventually("the pod is gone", async || match cluster.api::<Pod>("default").get_opt("p").await.unwrap() {
        None => Ok(()),
        Some(pod) => Err(format!("{pod:#?}")),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cordoned_node_is_tainted() {
    let cluster = Cluster::start().await;
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let cordon = |on: bool| Patch::Merge(json!({"spec": {"unschedulable": on}}));
    nodes.patch("ovn-worker", &PatchParams::default(), &cordon(true)).await.unwrap();
    until(&cluster, "ovn-worker", "tainted", |node| taints(node) == ["node.kubernetes.io/unschedulable:NoSchedule"])
        .await;
    nodes.patch("ovn-worker", &PatchParams::default(), &cordon(false)).await.unwrap();
    until(&cluster, "ovn-worker", "clean", |node| taints(node).is_empty()).await;
}
