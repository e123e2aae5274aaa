//! Strategic merge patches.

use k8s_openapi::api::core::v1::{Pod, Service};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

use super::{from, pod, start};

#[tokio::test]
async fn conditions_merge_by_type() {
    let (_server, client) = start().await;
    let pods: Api<Pod> = Api::default_namespaced(client);
    pods.create(&PostParams::default(), &pod("p")).await.unwrap();
    for (kind, status) in [("Ready", "False"), ("Initialized", "True"), ("Ready", "True")] {
        let patch = json!({"status": {"conditions": [{"type": kind, "status": status}]}});
        pods.patch_status("p", &PatchParams::default(), &Patch::Strategic(patch)).await.unwrap();
    }
    let conditions = json!(pods.get("p").await.unwrap().status.unwrap().conditions);
    assert_eq!(conditions, json!([{"type": "Ready", "status": "True"}, {"type": "Initialized", "status": "True"}]));
}

#[tokio::test]
async fn ports_of_a_service_merge_by_number() {
    let (_server, client) = start().await;
    let services: Api<Service> = Api::default_namespaced(client);
    let service = from(json!({"metadata": {"name": "s"}, "spec": {"ports": [{"name": "a", "port": 80}]}}));
    services.create(&PostParams::default(), &service).await.unwrap();
    let patch = json!({"spec": {"ports": [{"name": "b", "port": 81}, {"port": 80, "targetPort": 8080}]}});
    let patched = services.patch("s", &PatchParams::default(), &Patch::Strategic(patch)).await.unwrap();
    let ports = patched.spec.unwrap().ports.unwrap();
    assert_eq!(ports.iter().map(|port| port.port).collect::<Vec<_>>(), [80, 81]);
    assert_eq!(json!(ports[0].target_port), json!(8080));
}
