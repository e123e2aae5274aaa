//! Pods get nodes, or say why not.

use std::collections::BTreeMap;
use std::time::Instant;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::kubelet::add_node;
use crate::support::Cluster;

fn pod(name: &str, spec: Value) -> Value {
    let mut spec = spec;
    spec["containers"] = json!([{"name": "main", "image": "agnhost:1"}]);
    json!({"metadata": {"name": name, "labels": {"app": "x"}}, "spec": spec})
}

fn node(pod: &Pod) -> Option<String> {
    pod.spec.as_ref()?.node_name.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_waits_for_a_node_that_suits() {
    let cluster = Cluster::start().await;
    let spec = json!({"nodeSelector": {"kubernetes.io/hostname": "ovn-worker3"}});
    cluster.create::<Pod>("default", pod("picky", spec)).await;
    let message = "0/3 nodes are available: 1 node(s) had untolerated taint {node-role.kubernetes.io/control-plane: }, \
                   2 node(s) didn't match Pod's node affinity/selector.";
    cluster.event("default", "FailedScheduling", message).await;
    cluster
        .until::<Pod>("default", "picky", "unschedulable", |pod| {
            let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
            conditions.into_iter().any(|c| {
                c.type_ == "PodScheduled"
                    && c.status == "False"
                    && c.reason.as_deref() == Some("Unschedulable")
                    && c.message.as_deref() == Some(message)
            })
        })
        .await;
    add_node(&cluster.client, "ovn-worker3").await;
    let pod: Pod = cluster.until("default", "picky", "bound", |pod| node(pod).is_some()).await;
    assert_eq!(node(&pod).as_deref(), Some("ovn-worker3"));
    cluster.event("default", "Scheduled", "Successfully assigned default/picky to ovn-worker3").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_pods_at_once_are_spread() {
    let cluster = Cluster::start().await;
    let begin = Instant::now();
    let creations = (0..40).map(|n| {
        let cluster = &cluster;
        async move { cluster.create::<Pod>("default", pod(&format!("p{n}"), json!({}))).await }
    });
    futures::future::join_all(creations).await;
    let mut per_node: BTreeMap<String, usize> = BTreeMap::new();
    for n in 0..40 {
        let pod: Pod = cluster.until("default", &format!("p{n}"), "bound", |pod| node(pod).is_some()).await;
        *per_node.entry(node(&pod).unwrap()).or_default() += 1;
    }
    println!("40 pods were bound {:?} after the first was created", begin.elapsed());
    assert_eq!(per_node, [("ovn-worker".to_owned(), 20), ("ovn-worker2".to_owned(), 20)].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn anti_affinity_holds_for_pods_created_together() {
    let cluster = Cluster::start().await;
    let apart = json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"labelSelector": {"matchLabels": {"app": "x"}}, "topologyKey": "kubernetes.io/hostname"}]}}});
    for name in ["a", "b", "c"] {
        cluster.create::<Pod>("default", pod(name, apart.clone())).await;
    }
    cluster.event("default", "FailedScheduling", "2 node(s) didn't match pod anti-affinity rules").await;
    let pods: Vec<Pod> = cluster.list("default").await;
    let stuck: Vec<_> = pods.iter().filter(|pod| node(pod).is_none()).collect();
    assert_eq!(stuck.len(), 1);
    // Once one of the others is gone, its node is free.
    let bound = pods.iter().find(|pod| node(pod).is_some()).unwrap();
    cluster.api::<Pod>("default").delete(&bound.name_any(), &Default::default()).await.unwrap();
    let late: Pod = cluster.until("default", &stuck[0].name_any(), "bound at last", |pod| node(pod).is_some()).await;
    assert_eq!(node(&late), node(bound));
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_other_schedulers_are_left_alone() {
    let cluster = Cluster::start().await;
    cluster.create::<Pod>("default", pod("theirs", json!({"schedulerName": "other"}))).await;
    cluster.create::<Pod>("default", pod("gated", json!({"schedulingGates": [{"name": "wait"}]}))).await;
    cluster.create::<Pod>("default", pod("ours", json!({}))).await;
    cluster.until::<Pod>("default", "ours", "bound", |pod| node(pod).is_some()).await;
    for name in ["theirs", "gated"] {
        assert_eq!(node(&cluster.api::<Pod>("default").get(name).await.unwrap()), None);
    }
    let ungate = json!({"spec": {"schedulingGates": null}});
    let patch = kube::api::Patch::Merge(ungate);
    cluster.api::<Pod>("default").patch("gated", &Default::default(), &patch).await.unwrap();
    cluster.until::<Pod>("default", "gated", "bound", |pod| node(pod).is_some()).await;
}
