//! Server-side apply.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Service};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use super::{config_map, from, refusal, start};

fn apply(manager: &str) -> PatchParams {
    PatchParams::apply(manager)
}

fn map(data: Value) -> Patch<Value> {
    Patch::Apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": data}))
}

#[tokio::test]
async fn what_is_no_longer_applied_goes() {
    let (_server, client) = start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    maps.patch("m", &apply("one"), &map(json!({"a": "1", "b": "1"}))).await.unwrap();
    maps.patch("m", &apply("two"), &map(json!({"c": "2", "b": "1"}))).await.unwrap();
    let after = maps.patch("m", &apply("one"), &map(json!({"a": "1"}))).await.unwrap();
    // `b` stays: `two` owns it as well.
    assert_eq!(json!(after.data), json!({"a": "1", "b": "1", "c": "2"}));
    let after = maps.patch("m", &apply("two"), &map(json!({"c": "2"}))).await.unwrap();
    assert_eq!(json!(after.data), json!({"a": "1", "c": "2"}));
    let managers: Vec<_> = after.managed_fields().iter().map(|one| one.manager.clone().unwrap()).collect();
    assert_eq!(managers, ["one", "two"]);
}

#[tokio::test]
async fn applying_twice_writes_once() {
    let (_server, client) = start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let first = maps.patch("m", &apply("one"), &map(json!({"a": "1"}))).await.unwrap();
    let second = maps.patch("m", &apply("one"), &map(json!({"a": "1"}))).await.unwrap();
    assert_eq!(first.resource_version(), second.resource_version());
}

#[tokio::test]
async fn fields_of_others_conflict_unless_forced() {
    let (_server, client) = start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    maps.patch("m", &apply("one"), &map(json!({"a": "1", "b": "1"}))).await.unwrap();
    let refused = refusal(maps.patch("m", &apply("two"), &map(json!({"a": "2"}))).await);
    assert_eq!((refused.code, refused.reason.as_str()), (409, "Conflict"));
    assert_eq!(refused.message, "Apply failed with 1 conflict: conflict with \"one\": .data.a");
    let causes = refused.details.unwrap().causes;
    assert_eq!((causes[0].reason.as_str(), causes[0].field.as_str()), ("FieldManagerConflict", ".data.a"));
    let forced = maps.patch("m", &apply("two").force(), &map(json!({"a": "2"}))).await.unwrap();
    assert_eq!(forced.data.unwrap()["a"], "2");
    // `one` lost `a`, so its next configuration without it removes nothing.
    let after = maps.patch("m", &apply("one"), &map(json!({"b": "1"}))).await.unwrap();
    assert_eq!(json!(after.data), json!({"a": "2", "b": "1"}));
}

#[tokio::test]
async fn plain_writes_own_what_they_change() {
    let (_server, client) = start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let params = PostParams { field_manager: Some("creator".into()), ..PostParams::default() };
    maps.create(&params, &config_map("m", json!({"a": "1"}))).await.unwrap();
    let refused = refusal(maps.patch("m", &apply("one"), &map(json!({"a": "2"}))).await);
    assert_eq!(refused.message, "Apply failed with 1 conflict: conflict with \"creator\" using v1: .data.a");
    maps.patch("m", &apply("one").force(), &map(json!({"a": "2"}))).await.unwrap();
    let patch = Patch::Merge(json!({"data": {"a": "3"}}));
    maps.patch("m", &PatchParams { field_manager: Some("editor".into()), ..PatchParams::default() }, &patch)
        .await
        .unwrap();
    let refused = refusal(maps.patch("m", &apply("one"), &map(json!({"a": "2"}))).await);
    assert_eq!(refused.message, "Apply failed with 1 conflict: conflict with \"editor\" using v1: .data.a");
}

fn deployment(containers: Value) -> Patch<Value> {
    Patch::Apply(json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": containers}},
        },
    }))
}

#[tokio::test]
async fn containers_are_told_apart_by_name() {
    let (_server, client) = start().await;
    let all: Api<Deployment> = Api::default_namespaced(client);
    let both = json!([
        {"name": "x", "image": "i", "ports": [{"containerPort": 80}, {"containerPort": 80, "protocol": "UDP"}],
         "env": [{"name": "A", "value": "1"}]},
        {"name": "y", "image": "j"},
    ]);
    all.patch("d", &apply("one"), &deployment(both)).await.unwrap();
    let extra = json!([{"name": "x", "env": [{"name": "B", "value": "2"}]}]);
    let merged = all.patch("d", &apply("two"), &deployment(extra)).await.unwrap();
    let containers = merged.spec.unwrap().template.spec.unwrap().containers;
    assert_eq!(containers.len(), 2);
    assert_eq!(containers[0].env.as_ref().unwrap().len(), 2);
    let fewer = json!([{"name": "x", "image": "i", "ports": [{"containerPort": 80, "protocol": "UDP"}]}]);
    let fewer = all.patch("d", &apply("one"), &deployment(fewer)).await.unwrap();
    let containers = json!(fewer.spec.unwrap().template.spec.unwrap().containers);
    assert_eq!(containers.as_array().unwrap().len(), 1, "{containers}");
    assert_eq!(containers[0]["ports"], json!([{"containerPort": 80, "protocol": "UDP"}]));
    assert_eq!(containers[0]["env"], json!([{"name": "B", "value": "2"}]));
    assert_eq!(containers[0]["imagePullPolicy"], "Always");
}

#[tokio::test]
async fn conditions_of_several_managers_live_together() {
    let (_server, client) = start().await;
    let nodes: Api<Node> = Api::all(client);
    nodes.create(&PostParams::default(), &from(json!({"metadata": {"name": "n"}}))).await.unwrap();
    let condition = |kind: &str| {
        Patch::Apply(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"},
            "status": {"conditions": [{"type": kind, "status": "True"}]}}))
    };
    nodes.patch_status("n", &apply("one"), &condition("A")).await.unwrap();
    let node = nodes.patch_status("n", &apply("two"), &condition("B")).await.unwrap();
    let kinds: Vec<_> = node.status.unwrap().conditions.unwrap().into_iter().map(|one| one.type_).collect();
    assert_eq!(kinds, ["A", "B"]);
}

#[tokio::test]
async fn service_ports_default_their_protocol_when_compared() {
    let (_server, client) = start().await;
    let services: Api<Service> = Api::default_namespaced(client);
    let service = Patch::Apply(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
        "spec": {"selector": {"a": "b"}, "ports": [{"port": 80}]}}));
    let first = services.patch("s", &apply("one"), &service).await.unwrap();
    let second = services.patch("s", &apply("one"), &service).await.unwrap();
    assert_eq!(first.resource_version(), second.resource_version());
    assert_eq!(second.spec.unwrap().ports.unwrap().len(), 1);
}

#[tokio::test]
async fn fields_that_a_kind_lacks_cannot_be_applied() {
    let (_server, client) = start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let patch = Patch::Apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "what": 1}));
    let refused = refusal(maps.patch("m", &apply("one"), &patch).await);
    assert_eq!(
        refused.message,
        "failed to create typed patch object (default/m; /v1, Kind=ConfigMap): .what: field not declared in schema"
    );
}
