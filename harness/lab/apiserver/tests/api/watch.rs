//! Watches, by hand and through `kube`'s runtime.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::{config_map, pod, start};

/// Long enough for a loaded machine, short enough to notice that nothing comes.
const SOON: Duration = Duration::from_secs(20);

fn told<K: kube::Resource>(event: &WatchEvent<K>) -> String {
    let name = |object: &K| object.meta().name.clone().unwrap_or_default();
    match event {
        WatchEvent::Added(object) => format!("added {}", name(object)),
        WatchEvent::Modified(object) => format!("modified {}", name(object)),
        WatchEvent::Deleted(object) => format!("deleted {}", name(object)),
        WatchEvent::Bookmark(bookmark) => {
            format!("bookmark {}", bookmark.metadata.annotations.contains_key("k8s.io/initial-events-end"))
        }
        WatchEvent::Error(status) => format!("error {}", status.code),
    }
}

async fn some(maps: &Api<ConfigMap>, params: &WatchParams, version: &str, count: usize) -> Vec<String> {
    let stream = maps.watch(params, version).await.unwrap().map_ok(|event| told(&event)).take(count);
    tokio::time::timeout(SOON, stream.try_collect()).await.expect("events in time").unwrap()
}

#[tokio::test]
async fn a_watch_tells_what_happens_after_its_version() {
    let (_server, client) = start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let first = maps.create(&PostParams::default(), &config_map("a", json!({}))).await.unwrap();
    let version = first.resource_version().unwrap();
    maps.create(&PostParams::default(), &config_map("b", json!({}))).await.unwrap();
    maps.patch("a", &PatchParams::default(), &Patch::Merge(json!({"data": {"x": "y"}}))).await.unwrap();
    maps.delete("b", &DeleteParams::default()).await.unwrap();
    let params = WatchParams::default();
    assert_eq!(some(&maps, &params, &version, 3).await, ["added b", "modified a", "deleted b"]);
    assert_eq!(some(&maps, &params, "0", 1).await, ["added a"]);
}

#[tokio::test]
async fn objects_enter_and_leave_a_selection() {
    let (_server, client) = start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let start = maps.list(&Default::default()).await.unwrap().metadata.resource_version.unwrap();
    maps.create(&PostParams::default(), &config_map("a", json!({}))).await.unwrap();
    for label in [json!("in"), json!("out"), json!("in")] {
        let patch = json!({"metadata": {"labels": {"place": label}}});
        maps.patch("a", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    let params = WatchParams::default().labels("place=in");
    assert_eq!(some(&maps, &params, &start, 4).await, ["added a", "deleted a", "added a", "deleted a"]);
}

#[tokio::test]
async fn an_old_version_has_expired() {
    let (_server, client) = start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let first = maps.create(&PostParams::default(), &config_map("a", json!({}))).await.unwrap();
    for number in 0..1100 {
        let patch = json!({"data": {"n": number.to_string()}});
        maps.patch("a", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }
    let version = first.resource_version().unwrap();
    assert_eq!(some(&maps, &WatchParams::default(), &version, 1).await, ["error 410"]);
}

#[tokio::test]
async fn a_watch_can_begin_with_what_there_is() {
    let (_server, client) = start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    maps.create(&PostParams::default(), &config_map("a", json!({}))).await.unwrap();
    let params = WatchParams::default().initial_events();
    assert_eq!(some(&maps, &params, "", 2).await, ["added a", "bookmark true"]);
}

#[tokio::test]
async fn a_watch_ends_when_it_was_asked_to() {
    let (_server, client) = start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let params = WatchParams::default().timeout(1);
    let stream = maps.watch(&params, "1").await.unwrap();
    let events: Vec<_> = tokio::time::timeout(SOON, stream.try_collect()).await.expect("an end").unwrap();
    assert!(events.is_empty());
}

#[tokio::test]
async fn the_runtimes_watcher_follows_with_both_strategies() {
    let (_server, client) = start().await;
    let pods: Api<Pod> = Api::default_namespaced(client);
    pods.create(&PostParams::default(), &pod("a")).await.unwrap();
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let mut stream = watcher(pods.clone(), config).applied_objects().boxed();
        let first = tokio::time::timeout(SOON, stream.next()).await.expect("in time").unwrap().unwrap();
        assert_eq!(first.name_any(), "a");
        pods.create(&PostParams::default(), &pod("b")).await.unwrap();
        let second = tokio::time::timeout(SOON, stream.next()).await.expect("in time").unwrap().unwrap();
        assert_eq!(second.name_any(), "b");
        pods.delete("b", &DeleteParams::default()).await.unwrap();
    }
}
