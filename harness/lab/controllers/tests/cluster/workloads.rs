//! Deployments, stateful sets, daemon sets and jobs become pods.

use std::collections::BTreeSet;
use std::time::Instant;

use futures::StreamExt;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams, WatchEvent, WatchParams};
use serde_json::{Value, json};

use crate::support::{Cluster, eventually, workload};

fn condition(deployment: &Deployment, kind: &str) -> Option<(String, String)> {
    let conditions = deployment.status.as_ref()?.conditions.as_ref()?;
    let found = conditions.iter().find(|condition| condition.type_ == kind)?;
    Some((found.status.clone(), found.reason.clone().unwrap_or_default()))
}

/// What `kubectl rollout status` waits for.
fn rolled_out(deployment: &Deployment) -> bool {
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas);
    let Some(status) = deployment.status.as_ref() else { return false };
    status.observed_generation >= deployment.metadata.generation
        && status.updated_replicas.unwrap_or(0) == wanted.unwrap_or(1)
        && status.replicas == status.updated_replicas
        && status.available_replicas == status.updated_replicas
}

fn image(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.containers[0].image.as_deref()).unwrap_or_default()
}

async fn patch<K>(cluster: &Cluster, name: &str, patch: Value) -> K
where
    K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + serde::de::DeserializeOwned
        + Clone
        + std::fmt::Debug,
{
    cluster.api::<K>("default").patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap()
}

/// Lists are merged by their keys.
async fn patch_strategically<K>(cluster: &Cluster, name: &str, patch: Value) -> K
where
    K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + serde::de::DeserializeOwned
        + Clone
        + std::fmt::Debug,
{
    cluster.api::<K>("default").patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_rolls_out_updates_and_goes() {
    let cluster = Cluster::start().await;
    let begin = Instant::now();
    cluster.create::<Deployment>("default", workload("web", 3, json!({}))).await;
    let deployment: Deployment = cluster.until("default", "web", "rolled out", rolled_out).await;
    println!("a deployment of 3 was available after {:?}", begin.elapsed());
    assert_eq!(condition(&deployment, "Available"), Some(("True".into(), "MinimumReplicasAvailable".into())));
    let deployment: Deployment = cluster
        .until("default", "web", "progressed", |d| {
            condition(d, "Progressing") == Some(("True".into(), "NewReplicaSetAvailable".into()))
        })
        .await;
    assert_eq!(deployment.annotations()["deployment.kubernetes.io/revision"], "1");
    cluster.event("default", "ScalingReplicaSet", "from 0 to 3").await;
    cluster.event("default", "SuccessfulCreate", "Created pod: web-").await;

    // An update keeps to its bounds: at most one pod more than wanted, none fewer.
    let pods = cluster.api::<Pod>("default");
    let version = pods.list(&Default::default()).await.unwrap().metadata.resource_version.unwrap();
    let mut watch = pods.watch(&WatchParams::default(), &version).await.unwrap().boxed();
    let mut live: std::collections::BTreeMap<String, Pod> =
        cluster.pods("default").await.into_iter().map(|pod| (pod.name_any(), pod)).collect();
    let image_patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "agnhost:2"}]}}}});
    patch_strategically::<Deployment>(&cluster, "web", image_patch).await;
    while live.len() != 3 || !live.values().all(|pod| image(pod) == "agnhost:2") {
        match watch.next().await.unwrap().unwrap() {
            WatchEvent::Added(pod) | WatchEvent::Modified(pod) if pod.metadata.deletion_timestamp.is_none() => {
                live.insert(pod.name_any(), pod);
            }
            WatchEvent::Added(pod) | WatchEvent::Modified(pod) | WatchEvent::Deleted(pod) => {
                live.remove(&pod.name_any());
            }
            _ => {}
        }
        assert!(live.len() <= 4, "surge of one: {:?}", live.keys());
        let ready = live.values().filter(|pod| {
            let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
            conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
        });
        assert!(ready.count() >= 3, "none unavailable: {:?}", live.keys());
    }
    let deployment: Deployment = cluster.until("default", "web", "updated", rolled_out).await;
    assert_eq!(deployment.annotations()["deployment.kubernetes.io/revision"], "2");
    let mut sets: Vec<ReplicaSet> = cluster.list("default").await;
    sets.sort_by_key(|set| set.annotations()["deployment.kubernetes.io/revision"].clone());
    let sizes: Vec<_> = sets.iter().map(|set| set.spec.as_ref().unwrap().replicas).collect();
    assert_eq!(sizes, [Some(0), Some(3)]);

    // Back to the first template: its set returns with a new revision.
    let image_patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "agnhost:1"}]}}}});
    patch_strategically::<Deployment>(&cluster, "web", image_patch).await;
    let first = sets[0].name_any();
    cluster
        .until::<ReplicaSet>("default", &first, "the old set is back", |set| {
            set.spec.as_ref().unwrap().replicas == Some(3)
                && set.annotations()["deployment.kubernetes.io/revision"] == "3"
        })
        .await;
    cluster.until::<Deployment>("default", "web", "rolled back", rolled_out).await;
    assert_eq!(cluster.list::<ReplicaSet>("default").await.len(), 2);

    patch::<Deployment>(&cluster, "web", json!({"spec": {"replicas": 5}})).await;
    cluster.until::<Deployment>("default", "web", "scaled up", rolled_out).await;
    assert_eq!(cluster.pods("default").await.len(), 5);
    patch::<Deployment>(&cluster, "web", json!({"spec": {"replicas": 1}})).await;
    cluster.until::<Deployment>("default", "web", "scaled down", rolled_out).await;

    cluster.api::<Deployment>("default").delete("web", &DeleteParams::background()).await.unwrap();
    eventually("sets and pods go with their deployment", async || {
        let left = (cluster.list::<ReplicaSet>("default").await.len(), cluster.list::<Pod>("default").await.len());
        if left == (0, 0) { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn recreate_never_mixes_templates() {
    let cluster = Cluster::start().await;
    let mut deployment = workload("web", 2, json!({"strategy": {"type": "Recreate"}}));
    deployment["spec"]["template"]["metadata"]["annotations"] = json!({"test/linger": "50"});
    cluster.create::<Deployment>("default", deployment).await;
    cluster.until::<Deployment>("default", "web", "rolled out", rolled_out).await;
    let change = json!({"spec": {"template": {"metadata": {"annotations": {"version": "2"}}}}});
    patch::<Deployment>(&cluster, "web", change).await;
    eventually("only new pods", async || {
        let pods: Vec<Pod> = cluster.list("default").await;
        let versions: BTreeSet<_> = pods.iter().map(|pod| pod.annotations().get("version").cloned()).collect();
        assert!(versions.len() <= 1, "old and new at once");
        if pods.len() == 2 && versions.contains(&Some("2".into())) { Ok(()) } else { Err(format!("{versions:?}")) }
    })
    .await;
    cluster.until::<Deployment>("default", "web", "rolled out", rolled_out).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_that_cannot_progress_says_so() {
    let cluster = Cluster::start().await;
    let mut deployment = workload("web", 1, json!({"progressDeadlineSeconds": 1}));
    deployment["spec"]["template"]["metadata"]["annotations"] = json!({"test/hold": "yes"});
    cluster.create::<Deployment>("default", deployment).await;
    cluster
        .until::<Deployment>("default", "web", "deadline exceeded", |d| {
            condition(d, "Progressing") == Some(("False".into(), "ProgressDeadlineExceeded".into()))
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_adopts_pods_that_match() {
    let cluster = Cluster::start().await;
    cluster.create::<ReplicaSet>("default", workload("web", 2, json!({}))).await;
    eventually("two pods", async || match cluster.pods("default").await.len() {
        2 => Ok(()),
        other => Err(other.to_string()),
    })
    .await;
    cluster.api::<ReplicaSet>("default").delete("web", &DeleteParams::orphan()).await.unwrap();
    eventually("orphans", async || {
        let pods = cluster.pods("default").await;
        let sets: Vec<ReplicaSet> = cluster.list("default").await;
        let orphaned = pods.iter().all(|pod| pod.owner_references().is_empty());
        if pods.len() == 2 && sets.is_empty() && orphaned { Ok(()) } else { Err(format!("{pods:#?}")) }
    })
    .await;
    let before: Vec<_> = cluster.pods("default").await.iter().map(|pod| pod.uid()).collect();
    let set: ReplicaSet = cluster
        .create(
            "default",
            workload(
                "heir",
                2,
                json!({
                    "selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels": {"app": "web"}}}
                }),
            ),
        )
        .await;
    eventually("adoption", async || {
        let pods = cluster.pods("default").await;
        let adopted = pods
            .iter()
            .all(|pod| pod.owner_references().iter().any(|owner| Some(&owner.uid) == set.metadata.uid.as_ref()));
        if adopted { Ok(()) } else { Err(format!("{pods:#?}")) }
    })
    .await;
    let after: Vec<_> = cluster.pods("default").await.iter().map(|pod| pod.uid()).collect();
    assert_eq!(before, after, "the same pods");
    // A pod that loses the label is released and replaced.
    let victim = cluster.pods("default").await[0].name_any();
    patch::<Pod>(&cluster, &victim, json!({"metadata": {"labels": {"app": "other"}}})).await;
    cluster.until::<Pod>("default", &victim, "released", |pod| pod.owner_references().is_empty()).await;
    eventually("replaced", async || match cluster.pods("default").await.len() {
        3 => Ok(()),
        other => Err(other.to_string()),
    })
    .await;
}

fn all_ready(set: &StatefulSet) -> bool {
    let Some(status) = set.status.as_ref() else { return false };
    status.observed_generation == set.metadata.generation
        && Some(status.ready_replicas.unwrap_or(0)) == set.spec.as_ref().and_then(|spec| spec.replicas)
        && status.replicas == status.ready_replicas.unwrap_or(0)
        && status.current_revision == status.update_revision
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stateful_set_starts_in_order_and_updates_from_the_end() {
    let cluster = Cluster::start().await;
    let pods = cluster.api::<Pod>("default");
    let version = pods.list(&Default::default()).await.unwrap().metadata.resource_version.unwrap();
    let mut watch = pods.watch(&WatchParams::default(), &version).await.unwrap().boxed();
    let begin = Instant::now();
    cluster.create::<StatefulSet>("default", workload("db", 2, json!({"serviceName": "db"}))).await;
    // db-1 appears only after db-0 is ready.
    let mut ready_at = None;
    loop {
        match watch.next().await.unwrap().unwrap() {
            WatchEvent::Added(pod) if pod.name_any() == "db-1" => break,
            WatchEvent::Added(pod) | WatchEvent::Modified(pod) => {
                assert_eq!(pod.name_any(), "db-0");
                let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
                if conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True") {
                    ready_at = Some(Instant::now());
                }
            }
            _ => {}
        }
    }
    let reaction = ready_at.expect("db-0 was ready before db-1 appeared").elapsed();
    println!("db-1 was created {reaction:?} after db-0 was ready");
    let set: StatefulSet = cluster.until("default", "db", "both ready", all_ready).await;
    println!("a stateful set of 2 was ready after {:?}", begin.elapsed());
    let pods = cluster.pods("default").await;
    assert_eq!(pods.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), ["db-0", "db-1"]);
    assert_eq!(pods[1].labels()["statefulset.kubernetes.io/pod-name"], "db-1");
    assert_eq!(pods[1].labels()["apps.kubernetes.io/pod-index"], "1");
    assert_eq!(pods[1].spec.as_ref().unwrap().subdomain.as_deref(), Some("db"));
    let nodes: BTreeSet<_> = pods.iter().map(|pod| pod.spec.as_ref().unwrap().node_name.clone()).collect();
    assert_eq!(nodes.len(), 2, "on different nodes");
    let revision = set.status.unwrap().update_revision.unwrap();
    assert_eq!(pods[0].labels()["controller-revision-hash"], revision);
    cluster.event("default", "SuccessfulCreate", "create Pod db-1 in StatefulSet db successful").await;

    let before: Vec<_> = pods.iter().map(ResourceExt::uid).collect();
    let change = json!({"spec": {"template": {"metadata": {"annotations": {"version": "2"}}}}});
    patch::<StatefulSet>(&cluster, "db", change).await;
    let set: StatefulSet = cluster
        .until("default", "db", "updated", |set: &StatefulSet| {
            all_ready(set) && set.status.as_ref().unwrap().update_revision.as_deref() != Some(&revision)
        })
        .await;
    assert_eq!(set.status.unwrap().updated_replicas, Some(2));
    let pods = cluster.pods("default").await;
    assert!(pods.iter().all(|pod| pod.annotations()["version"] == "2" && !before.contains(&pod.uid())));
    assert_eq!(cluster.list::<ControllerRevision>("default").await.len(), 2);

    patch::<StatefulSet>(&cluster, "db", json!({"spec": {"replicas": 1}})).await;
    cluster.until::<StatefulSet>("default", "db", "scaled down", all_ready).await;
    assert_eq!(cluster.pods("default").await.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), ["db-0"]);
    // A pod that is deleted comes back under the same name.
    let old = cluster.pods("default").await[0].uid();
    cluster.api::<Pod>("default").delete("db-0", &DeleteParams::default()).await.unwrap();
    cluster.until::<Pod>("default", "db-0", "back", |pod| pod.uid() != old).await;
    cluster.until::<StatefulSet>("default", "db", "ready again", all_ready).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parallel_and_partition() {
    let cluster = Cluster::start().await;
    let set = workload(
        "db",
        3,
        json!({"serviceName": "db", "podManagementPolicy": "Parallel",
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}},
        "template": {"metadata": {"annotations": {"test/hold": "yes"}}}}),
    );
    cluster.create::<StatefulSet>("default", set).await;
    eventually("all at once although none is ready", async || match cluster.pods("default").await.len() {
        3 => Ok(()),
        other => Err(other.to_string()),
    })
    .await;
    let change = json!({"spec": {"template": {"metadata": {"annotations": {"test/hold": null, "version": "2"}}}}});
    patch::<StatefulSet>(&cluster, "db", change).await;
    let updated = |pod: &Pod| pod.annotations().contains_key("version");
    cluster.until::<Pod>("default", "db-2", "replaced", updated).await;
    cluster
        .until::<StatefulSet>("default", "db", "one updated", |set| {
            set.status
                .as_ref()
                .is_some_and(|status| status.updated_replicas == Some(1) && status.ready_replicas == Some(1))
        })
        .await;
    let pods = cluster.pods("default").await;
    assert_eq!(pods.iter().map(updated).collect::<Vec<_>>(), [false, false, true]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_set_is_on_every_node_that_suits() {
    let cluster = Cluster::start().await;
    let daemon = json!({"metadata": {"name": "agent"}, "spec": {
        "selector": {"matchLabels": {"app": "agent"}}, "template": crate::support::template("agent", "agnhost:1")}});
    cluster.create::<DaemonSet>("default", daemon).await;
    let ready = |count: i32| {
        move |set: &DaemonSet| {
            set.status.as_ref().is_some_and(|status| {
                status.observed_generation == set.metadata.generation
                    && status.desired_number_scheduled == count
                    && status.number_available == Some(count)
                    && status.updated_number_scheduled == Some(count)
            })
        }
    };
    cluster.until::<DaemonSet>("default", "agent", "on both workers", ready(2)).await;
    let tolerate = json!({"spec": {"template": {"spec": {"tolerations": [{"operator": "Exists"}]}}}});
    patch::<DaemonSet>(&cluster, "agent", tolerate).await;
    cluster.until::<DaemonSet>("default", "agent", "on all nodes", ready(3)).await;
    let pods = cluster.pods("default").await;
    let nodes: BTreeSet<_> = pods.iter().filter_map(|pod| pod.spec.as_ref()?.node_name.clone()).collect();
    assert_eq!((pods.len(), nodes.len()), (3, 3));
    crate::kubelet::add_node(&cluster.client, "ovn-worker3").await;
    cluster.until::<DaemonSet>("default", "agent", "on the new node", ready(4)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_complete_or_fail() {
    let cluster = Cluster::start().await;
    let job = |name: &str, result: &str| {
        json!({"metadata": {"name": name}, "spec": {"completions": 3, "parallelism": 2, "backoffLimit": 0, "template": {
            "metadata": {"annotations": {"test/result": result}},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "agnhost:1"}]}}}})
    };
    cluster.create::<Job>("default", job("good", "Succeeded")).await;
    cluster.create::<Job>("default", job("bad", "Failed")).await;
    let has = |kind: &'static str| {
        move |job: &Job| {
            let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
            conditions.into_iter().any(|condition| condition.type_ == kind && condition.status == "True")
        }
    };
    let good: Job = cluster.until("default", "good", "complete", has("Complete")).await;
    let status = good.status.unwrap();
    assert_eq!((status.succeeded, status.active), (Some(3), None));
    assert!(status.completion_time.is_some());
    cluster.until::<Job>("default", "bad", "failed", has("Failed")).await;
    cluster.event("default", "BackoffLimitExceeded", "backoff limit").await;
}
