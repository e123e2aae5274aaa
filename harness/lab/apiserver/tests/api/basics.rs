//! Create, read, replace, patch, list.

use http::Request;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Namespace, Pod, Secret};
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::{config_map, from, pod, refusal, scheduled, start};

#[tokio::test]
async fn an_object_gets_an_identity_and_defaults() {
    let (_server, client) = start().await;
    let pods: Api<Pod> = Api::default_namespaced(client);
    let created = pods.create(&PostParams::default(), &pod("a")).await.unwrap();
    assert!(created.metadata.uid.as_ref().is_some_and(|uid| uid.len() == 36));
    assert!(created.metadata.creation_timestamp.is_some());
    assert_eq!(created.metadata.namespace.as_deref(), Some("default"));
    let spec = created.spec.unwrap();
    assert_eq!(spec.restart_policy.as_deref(), Some("Always"));
    assert_eq!(spec.containers[0].image_pull_policy.as_deref(), Some("IfNotPresent"));
    assert_eq!(created.status.unwrap().phase.as_deref(), Some("Pending"));
    let generated: Pod =
        from(json!({"metadata": {"generateName": "g-"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}));
    let generated = pods.create(&PostParams::default(), &generated).await.unwrap();
    assert!(generated.metadata.name.unwrap().starts_with("g-"));
}

#[tokio::test]
async fn refusals_are_worded_as_kubernetes_does() {
    let (_server, client) = start().await;
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let missing = refusal(pods.get("none").await);
    assert_eq!((missing.code, missing.message.as_str()), (404, "pods \"none\" not found"));
    assert_eq!(missing.reason, "NotFound");
    pods.create(&PostParams::default(), &pod("a")).await.unwrap();
    let twice = refusal(pods.create(&PostParams::default(), &pod("a")).await);
    assert_eq!(
        (twice.code, twice.reason.as_str(), twice.message.as_str()),
        (409, "AlreadyExists", "pods \"a\" already exists")
    );
    let nowhere: Api<Pod> = Api::namespaced(client.clone(), "nowhere");
    let nowhere = refusal(nowhere.create(&PostParams::default(), &pod("a")).await);
    assert_eq!((nowhere.code, nowhere.message.as_str()), (404, "namespaces \"nowhere\" not found"));
    let bad = refusal(pods.create(&PostParams::default(), &pod("Bad_Name")).await);
    assert_eq!((bad.code, bad.reason.as_str()), (422, "Invalid"));
    assert!(
        bad.message.starts_with(
            "Pod \"Bad_Name\" is invalid: metadata.name: Invalid value: \"Bad_Name\": a lowercase RFC 1123"
        ),
        "{}",
        bad.message
    );
    let empty: Pod = from(json!({"metadata": {"name": "e"}, "spec": {"containers": []}}));
    let empty = refusal(pods.create(&PostParams::default(), &empty).await);
    assert_eq!(empty.message, "Pod \"e\" is invalid: spec.containers: Required value");
}

#[tokio::test]
async fn a_stale_replacement_conflicts_and_an_empty_one_changes_nothing() {
    let (_server, client) = start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let first = maps.create(&PostParams::default(), &config_map("m", json!({"a": "1"}))).await.unwrap();
    let mut second = first.clone();
    second.data.as_mut().unwrap().insert("b".into(), "2".into());
    let second = maps.replace("m", &PostParams::default(), &second).await.unwrap();
    assert_ne!(first.metadata.resource_version, second.metadata.resource_version);
    let stale = refusal(maps.replace("m", &PostParams::default(), &first).await);
    assert_eq!((stale.code, stale.reason.as_str()), (409, "Conflict"));
    let again = maps.replace("m", &PostParams::default(), &second).await.unwrap();
    assert_eq!(again.metadata.resource_version, second.metadata.resource_version);
}

#[tokio::test]
async fn generation_counts_changes_of_the_spec_only() {
    let (_server, client) = start().await;
    let deployments: Api<Deployment> = Api::default_namespaced(client);
    let deployment: Deployment = from(json!({"metadata": {"name": "d"}, "spec": {
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
    }}));
    let created = deployments.create(&PostParams::default(), &deployment).await.unwrap();
    assert_eq!(created.metadata.generation, Some(1));
    let patch = |value: Value| Patch::Merge(value);
    let params = PatchParams::default();
    let labelled = deployments.patch("d", &params, &patch(json!({"metadata": {"labels": {"x": "y"}}}))).await.unwrap();
    assert_eq!(labelled.metadata.generation, Some(1));
    let status = json!({"status": {"replicas": 1, "observedGeneration": 1}, "spec": {"replicas": 9}});
    let status = deployments.patch_status("d", &params, &patch(status)).await.unwrap();
    assert_eq!((status.metadata.generation, status.spec.unwrap().replicas), (Some(1), Some(1)));
    let scaled = deployments
        .patch("d", &params, &patch(json!({"spec": {"replicas": 3}, "status": {"replicas": 7}})))
        .await
        .unwrap();
    assert_eq!((scaled.metadata.generation, scaled.status.unwrap().replicas), (Some(2), Some(1)));
    let scale = deployments.patch_scale("d", &params, &patch(json!({"spec": {"replicas": 5}}))).await.unwrap();
    assert_eq!(scale.spec.unwrap().replicas, Some(5));
    assert_eq!(deployments.get("d").await.unwrap().metadata.generation, Some(3));
}

#[tokio::test]
async fn unknown_fields_are_met_as_the_client_wants() {
    let (_server, client) = start().await;
    let send = |validation: &str, name: &str| {
        let body = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {"foo": 1, "containers": [{"name": "c", "image": "i", "bar": 2}]}});
        Request::post(format!("/api/v1/namespaces/default/pods?fieldValidation={validation}"))
            .header("content-type", "application/json")
            .body(serde_json::to_vec(&body).unwrap())
            .unwrap()
    };
    let strict = refusal(client.request::<Pod>(send("Strict", "s")).await);
    assert_eq!(strict.code, 400);
    assert_eq!(
        strict.message,
        "Pod in version \"v1\" cannot be handled as a Pod: strict decoding error: \
         unknown field \"spec.containers[0].bar\", unknown field \"spec.foo\""
    );
    let kept = client.request::<Value>(send("Ignore", "i")).await.unwrap();
    assert!(kept["spec"].get("foo").is_none() && kept["spec"]["containers"][0].get("bar").is_none());
}

#[tokio::test]
async fn of_a_pod_little_may_change() {
    let (_server, client) = start().await;
    let pods = scheduled(&client, "p").await;
    let params = PatchParams::default();
    let image = json!({"spec": {"containers": [{"name": "c", "image": "other:2"}]}});
    pods.patch("p", &params, &Patch::Strategic(image)).await.unwrap();
    let refused = refusal(pods.patch("p", &params, &Patch::Merge(json!({"spec": {"hostNetwork": true}}))).await);
    assert_eq!(refused.code, 422);
    assert!(
        refused.message.contains("spec: Forbidden: pod updates may not change fields other than"),
        "{}",
        refused.message
    );
    let again = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": "x"}});
    let refused =
        refusal(pods.create_subresource::<Value, Value>("binding", "p", &PostParams::default(), &again).await);
    assert_eq!(refused.code, 409);
    assert!(refused.message.ends_with("pod p is already assigned to node \"ovn-worker\""), "{}", refused.message);
}

#[tokio::test]
async fn lists_select_and_come_in_pieces() {
    let (_server, client) = start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    for number in 0..7 {
        let mut map = config_map(&format!("m{number}"), json!({}));
        map.metadata.labels = Some([("parity".to_owned(), (number % 2).to_string())].into());
        maps.create(&PostParams::default(), &map).await.unwrap();
    }
    let even = maps.list(&ListParams::default().labels("parity in (0)")).await.unwrap();
    assert_eq!(even.items.len(), 4);
    let one = maps.list(&ListParams::default().fields("metadata.name=m3")).await.unwrap();
    assert_eq!(one.items.len(), 1);
    let mut names = Vec::new();
    let mut params = ListParams::default().limit(3);
    loop {
        let piece = maps.list(&params).await.unwrap();
        names.extend(piece.items.into_iter().filter_map(|map| map.metadata.name));
        match piece.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => break,
        }
    }
    assert_eq!(names, ["m0", "m1", "m2", "m3", "m4", "m5", "m6"]);
    let bad = refusal(maps.list(&ListParams::default().fields("spec.none=1")).await);
    assert_eq!((bad.code, bad.message.as_str()), (400, "field label not supported: spec.none"));
    let pods = scheduled(&client, "p").await;
    assert_eq!(pods.list(&ListParams::default().fields("spec.nodeName=ovn-worker")).await.unwrap().items.len(), 1);
    assert_eq!(pods.list(&ListParams::default().fields("spec.nodeName=")).await.unwrap().items.len(), 0);
    let metadata = maps.list_metadata(&ListParams::default()).await.unwrap();
    assert_eq!(metadata.items.len(), 7);
}

#[tokio::test]
async fn a_dry_run_leaves_nothing() {
    let (_server, client) = start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    maps.create(&dry, &config_map("m", json!({}))).await.unwrap();
    assert_eq!(refusal(maps.get("m").await).code, 404);
}

#[tokio::test]
async fn json_patches_may_test_first() {
    let (_server, client) = start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    maps.create(&PostParams::default(), &config_map("m", json!({"a": "1"}))).await.unwrap();
    let patch = |test: &str| {
        let operations = json!([
            {"op": "test", "path": "/data/a", "value": test}, {"op": "replace", "path": "/data/a", "value": "2"}]);
        Patch::Json::<()>(serde_json::from_value(operations).unwrap())
    };
    assert_eq!(refusal(maps.patch("m", &PatchParams::default(), &patch("x")).await).code, 422);
    let patched = maps.patch("m", &PatchParams::default(), &patch("1")).await.unwrap();
    assert_eq!(patched.data.unwrap()["a"], "2");
}

#[tokio::test]
async fn namespaces_carry_their_name_and_secrets_their_text() {
    let (_server, client) = start().await;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let created: Namespace = from(json!({"metadata": {"name": "green"}}));
    let created = namespaces.create(&PostParams::default(), &created).await.unwrap();
    assert_eq!(created.metadata.labels.unwrap()["kubernetes.io/metadata.name"], "green");
    assert_eq!(created.spec.unwrap().finalizers.unwrap(), ["kubernetes"]);
    let secrets: Api<Secret> = Api::namespaced(client, "green");
    let secret: Secret = from(json!({"metadata": {"name": "s"}, "stringData": {"k": "v"}}));
    let secret = secrets.create(&PostParams::default(), &secret).await.unwrap();
    assert_eq!(secret.data.unwrap()["k"].0, b"v");
    assert_eq!(secret.type_.as_deref(), Some("Opaque"));
}

#[tokio::test]
async fn events_have_two_faces() {
    let (_server, client) = start().await;
    let new: Api<k8s_openapi::api::events::v1::Event> = Api::default_namespaced(client.clone());
    let event = from(json!({
        "metadata": {"name": "e"}, "eventTime": "2025-01-01T00:00:00.000000Z", "reason": "Why", "action": "Do",
        "type": "Warning", "note": "text", "reportingController": "me", "reportingInstance": "me-0",
        "regarding": {"kind": "Pod", "name": "p", "namespace": "default"},
    }));
    new.create(&PostParams::default(), &event).await.unwrap();
    let old: Api<Event> = Api::default_namespaced(client);
    let found = old.list(&ListParams::default().fields("involvedObject.name=p,type=Warning")).await.unwrap();
    assert_eq!(found.items.len(), 1);
    assert_eq!(found.items[0].message.as_deref(), Some("text"));
    assert_eq!(new.get("e").await.unwrap().note.as_deref(), Some("text"));
}

#[tokio::test]
async fn strangers_are_turned_away() {
    let (server, _) = start().await;
    let kubeconfig = server.kubeconfig().replace(&server.token, "wrong");
    let kubeconfig = kube::config::Kubeconfig::from_yaml(&kubeconfig).unwrap();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.unwrap();
    let client = kube::Client::try_from(config).unwrap();
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let refused = refusal(pods.list(&ListParams::default()).await);
    assert_eq!((refused.code, refused.reason.as_str()), (401, "Unauthorized"));
    let healthy = client.request_text(Request::get("/healthz").body(Vec::new()).unwrap()).await.unwrap();
    assert_eq!(healthy, "ok");
}

#[tokio::test]
async fn discovery_in_both_forms() {
    let (_server, client) = start().await;
    for discovery in [
        kube::Discovery::new(client.clone()).run().await.unwrap(),
        kube::Discovery::new(client.clone()).run_aggregated().await.unwrap(),
    ] {
        let kind = kube::core::GroupVersionKind::gvk("apps", "v1", "StatefulSet");
        let (resource, capabilities) = discovery.resolve_gvk(&kind).expect("stateful sets");
        assert_eq!(resource.plural, "statefulsets");
        assert!(capabilities.subresources.iter().any(|(sub, _)| sub.plural.ends_with("scale")));
    }
    assert_eq!(client.apiserver_version().await.unwrap().minor, "33");
}

#[tokio::test]
async fn a_node_is_registered_with_its_status() {
    let (_server, client) = start().await;
    let nodes: Api<k8s_openapi::api::core::v1::Node> = Api::all(client);
    let node =
        from(json!({"metadata": {"name": "n"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}));
    let node = nodes.create(&PostParams::default(), &node).await.unwrap();
    assert_eq!(node.status.unwrap().conditions.unwrap().len(), 1);
}
