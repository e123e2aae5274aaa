//! Many watches, some of them slow, and many writes.

use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams, WatchParams};
use serde_json::json;

use super::{config_map, start};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_watches_delay_nobody() {
    let (_server, client) = start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    maps.create(&PostParams::default(), &config_map("m", json!({"n": "0"}))).await.unwrap();
    // Opened and never read.
    let mut idle = Vec::new();
    for _ in 0..50 {
        idle.push(maps.watch(&WatchParams::default(), "1").await.unwrap().boxed());
    }
    let mut watches = Vec::new();
    for _ in 0..100 {
        let stream = maps.watch(&WatchParams::default(), "0").await.unwrap().boxed();
        watches.push(tokio::spawn(async move {
            let mut stream = stream;
            while let Some(Ok(event)) = stream.next().await {
                if let kube::api::WatchEvent::Modified(map) = event
                    && map.data.as_ref().is_some_and(|data| data["n"] == "last")
                {
                    return true;
                }
            }
            false
        }));
    }
    let filler = "x".repeat(10_000);
    for number in 0..300 {
        let n = if number == 299 { "last".to_owned() } else { number.to_string() };
        let patch = Patch::Merge(json!({"data": {"n": n, "filler": filler}}));
        maps.patch("m", &PatchParams::default(), &patch).await.unwrap();
    }
    for watch in watches {
        assert!(tokio::time::timeout(Duration::from_secs(60), watch).await.expect("the last event").unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_patches_are_all_kept() {
    let (_server, client) = start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    maps.create(&PostParams::default(), &config_map("m", json!({}))).await.unwrap();
    let writers = (0..40).map(|number| {
        let maps = maps.clone();
        async move {
            let patch = Patch::Merge(json!({"data": {format!("k{number}"): "v"}}));
            maps.patch("m", &PatchParams::default(), &patch).await.unwrap();
        }
    });
    futures::future::join_all(writers).await;
    assert_eq!(maps.get("m").await.unwrap().data.unwrap().len(), 40);
}
