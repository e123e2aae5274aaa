//! The API server as its clients see it: `kube` and, in `kubectl`, the program of that name.

// Clippy knows the functions with `#[test]`, not those that they call.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod aggregation;
mod apply;
mod basics;
mod custom;
mod deletion;
mod exec;
mod kubectl;
mod load;
mod policy;
mod rights;
mod services;
mod strategic;
mod tables;
mod watch;

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};
use udn_lab_apiserver::testing::TestServer;

/// A server and a client of it.
async fn start() -> (TestServer, kube::Client) {
    let server = TestServer::start().await.unwrap();
    let client = server.client().await.unwrap();
    (server, client)
}

/// A pod with one container `c`.
fn pod(name: &str) -> Pod {
    from(json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "registry/image:1"}]}}))
}

fn config_map(name: &str, data: Value) -> ConfigMap {
    from(json!({"metadata": {"name": name}, "data": data}))
}

fn from<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// Creates a pod and puts it on a node.
async fn scheduled(client: &kube::Client, name: &str) -> Api<Pod> {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    pods.create(&PostParams::default(), &pod(name)).await.unwrap();
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
        "target": {"apiVersion": "v1", "kind": "Node", "name": "ovn-worker"}});
    let _: Value = pods.create_subresource("binding", name, &PostParams::default(), &binding).await.unwrap();
    pods
}

/// What a refused request was told.
fn refusal<T: std::fmt::Debug>(result: Result<T, kube::Error>) -> kube::core::Status {
    match result {
        Err(kube::Error::Api(status)) => *status,
        other => panic!("not refused by the API server: {other:?}"),
    }
}
