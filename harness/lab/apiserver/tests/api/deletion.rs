//! Deletion: finalizers, grace periods, namespaces, collections.

use http::Request;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use super::{config_map, from, pod, refusal, scheduled, start};

#[tokio::test]
async fn finalizers_keep_an_object() {
    let (_server, client) = start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let mut map = config_map("m", json!({}));
    map.metadata.finalizers = Some(vec!["test.io/one".into()]);
    maps.create(&PostParams::default(), &map).await.unwrap();
    let marked = maps.delete("m", &DeleteParams::default()).await.unwrap().left().expect("still there");
    assert!(marked.metadata.deletion_timestamp.is_some());
    let more = Patch::Merge(json!({"metadata": {"finalizers": ["test.io/one", "test.io/two"]}}));
    let refused = refusal(maps.patch("m", &PatchParams::default(), &more).await);
    assert!(
        refused.message.contains("no new finalizers can be added if the object is being deleted"),
        "{}",
        refused.message
    );
    let none = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    maps.patch("m", &PatchParams::default(), &none).await.unwrap();
    assert_eq!(refusal(maps.get("m").await).code, 404);
}

#[tokio::test]
async fn propagation_leaves_its_finalizer() {
    let (_server, client) = start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    for (policy, finalizer) in
        [(PropagationPolicy::Foreground, "foregroundDeletion"), (PropagationPolicy::Orphan, "orphan")]
    {
        let name = finalizer.to_lowercase();
        maps.create(&PostParams::default(), &config_map(&name, json!({}))).await.unwrap();
        let params = DeleteParams { propagation_policy: Some(policy), ..DeleteParams::default() };
        let marked = maps.delete(&name, &params).await.unwrap().left().expect("still there");
        assert_eq!(marked.finalizers(), [finalizer]);
    }
}

#[tokio::test]
async fn pods_end_gracefully() {
    let (_server, client) = start().await;
    let pods = scheduled(&client, "p").await;
    let marked = pods.delete("p", &DeleteParams::default()).await.unwrap().left().unwrap();
    assert_eq!(marked.metadata.deletion_grace_period_seconds, Some(30));
    let sooner = DeleteParams { grace_period_seconds: Some(5), ..DeleteParams::default() };
    let sooner = pods.delete("p", &sooner).await.unwrap().left().unwrap();
    assert_eq!(sooner.metadata.deletion_grace_period_seconds, Some(5));
    let wrong = Preconditions { uid: Some("other".into()), resource_version: None };
    let wrong = DeleteParams { grace_period_seconds: Some(0), preconditions: Some(wrong), ..DeleteParams::default() };
    assert_eq!(refusal(pods.delete("p", &wrong).await).code, 409);
    let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    pods.delete("p", &now).await.unwrap();
    assert_eq!(refusal(pods.get("p").await).code, 404);
}

#[tokio::test]
async fn a_pod_without_a_node_goes_at_once() {
    let (_server, client) = start().await;
    let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::default_namespaced(client);
    pods.create(&PostParams::default(), &pod("p")).await.unwrap();
    pods.delete("p", &DeleteParams::default()).await.unwrap();
    assert_eq!(refusal(pods.get("p").await).code, 404);
}

#[tokio::test]
async fn collections_go_by_selection() {
    let (_server, client) = start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    for name in ["a", "b"] {
        let mut map = config_map(name, json!({}));
        map.metadata.labels = Some([("name".to_owned(), name.to_owned())].into());
        maps.create(&PostParams::default(), &map).await.unwrap();
    }
    maps.delete_collection(&DeleteParams::default(), &ListParams::default().labels("name=a")).await.unwrap();
    let left = maps.list(&ListParams::default()).await.unwrap();
    assert_eq!(left.items.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), ["b"]);
}

#[tokio::test]
async fn a_namespace_ends_when_it_is_finalized() {
    let (_server, client) = start().await;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces.create(&PostParams::default(), &from(json!({"metadata": {"name": "n"}}))).await.unwrap();
    namespaces.delete("n", &DeleteParams::default()).await.unwrap();
    let mut ending = namespaces.get("n").await.unwrap();
    assert_eq!(ending.status.as_ref().unwrap().phase.as_deref(), Some("Terminating"));
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "n");
    let refused = refusal(maps.create(&PostParams::default(), &config_map("m", json!({}))).await);
    assert_eq!(
        refused.message,
        "configmaps \"m\" is forbidden: unable to create new content in namespace n because it is being terminated"
    );
    assert_eq!(refused.code, 403);
    assert_eq!(refused.details.as_ref().unwrap().causes[0].reason, "NamespaceTerminating");
    ending.spec.as_mut().unwrap().finalizers = None;
    let request = Request::put("/api/v1/namespaces/n/finalize")
        .header("content-type", "application/json")
        .body(serde_json::to_vec(&ending).unwrap())
        .unwrap();
    client.request::<Value>(request).await.unwrap();
    assert_eq!(refusal(namespaces.get("n").await).code, 404);
}

#[tokio::test]
async fn a_disruption_budget_forbids_evictions() {
    let (_server, client) = start().await;
    let pods = scheduled(&client, "p").await;
    let status = json!({"metadata": {"labels": {"a": "b"}}, "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    pods.patch_status("p", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    let budgets: Api<k8s_openapi::api::policy::v1::PodDisruptionBudget> = Api::default_namespaced(client.clone());
    let budget =
        json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"a": "b"}}}});
    budgets.create(&PostParams::default(), &from(budget)).await.unwrap();
    // Refused with 429, which the client takes as "try again".
    let eviction = pods.clone();
    let eviction = tokio::spawn(async move { eviction.evict("p", &Default::default()).await });
    let answer = client.send(
        Request::post("/api/v1/namespaces/default/pods/p/eviction?dryRun=All")
            .header("content-type", "application/json")
            .body(kube::client::Body::from(b"{}".to_vec()))
            .unwrap(),
    );
    assert!(
        tokio::time::timeout(std::time::Duration::from_millis(700), answer).await.is_err(),
        "evicted in spite of a budget"
    );
    assert!(pods.get("p").await.unwrap().metadata.deletion_timestamp.is_none());
    budgets.delete("b", &DeleteParams::default()).await.unwrap();
    eviction.await.unwrap().unwrap();
    assert!(pods.get("p").await.unwrap().metadata.deletion_timestamp.is_some());
}
