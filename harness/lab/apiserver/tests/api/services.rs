//! Addresses and node ports of services.

use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::{from, refusal, start};

fn service(name: &str, spec: Value) -> Service {
    from(json!({"metadata": {"name": name}, "spec": spec}))
}

#[tokio::test]
async fn an_address_is_given_once_and_free_again_after_deletion() {
    let (_server, client) = start().await;
    let services: Api<Service> = Api::default_namespaced(client);
    let wanted = || json!({"clusterIP": "10.96.0.10", "ports": [{"port": 53}]});
    services.create(&PostParams::default(), &service("a", wanted())).await.unwrap();
    let refused = refusal(services.create(&PostParams::default(), &service("b", wanted())).await);
    assert_eq!(refused.code, 422);
    assert_eq!(
        refused.message,
        "Service \"b\" is invalid: spec.clusterIPs[0]: Invalid value: \"10.96.0.10\": failed to allocate IP 10.96.0.10: \
         provided IP is already allocated"
    );
    services.delete("a", &DeleteParams::default()).await.unwrap();
    services.create(&PostParams::default(), &service("b", wanted())).await.unwrap();
}

#[tokio::test]
async fn addresses_and_node_ports_survive_changes() {
    let (_server, client) = start().await;
    let services: Api<Service> = Api::default_namespaced(client);
    let spec = json!({"type": "NodePort", "ipFamilyPolicy": "RequireDualStack", "ports": [{"port": 80}]});
    let created = services.create(&PostParams::default(), &service("a", spec.clone())).await.unwrap().spec.unwrap();
    assert_eq!(created.cluster_ips.as_ref().unwrap().len(), 2);
    let mut replacement = service("a", spec);
    replacement.metadata.labels = Some([("x".to_owned(), "y".to_owned())].into());
    let replaced = services.replace("a", &PostParams::default(), &replacement).await.unwrap().spec.unwrap();
    assert_eq!(replaced.cluster_ips, created.cluster_ips);
    assert_eq!(replaced.ports.as_ref().unwrap()[0].node_port, created.ports.unwrap()[0].node_port);
    let patch = Patch::Merge(json!({"spec": {"clusterIP": "10.96.7.7", "clusterIPs": ["10.96.7.7"]}}));
    let refused = refusal(services.patch("a", &PatchParams::default(), &patch).await);
    assert!(refused.message.contains("may not change once set"), "{}", refused.message);
    let patch = Patch::Merge(json!({"spec": {"type": "ClusterIP"}}));
    let plain = services.patch("a", &PatchParams::default(), &patch).await.unwrap().spec.unwrap();
    assert_eq!(plain.ports.unwrap()[0].node_port, None);
}

#[tokio::test]
async fn node_ports_have_a_range() {
    let (_server, client) = start().await;
    let services: Api<Service> = Api::default_namespaced(client);
    let spec = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 8080}]});
    let refused = refusal(services.create(&PostParams::default(), &service("a", spec)).await);
    assert_eq!(
        refused.message,
        "Service \"a\" is invalid: spec.ports[0].nodePort: Invalid value: 8080: provided port is not in the valid range. \
         The range of valid ports is 30000-32767"
    );
}
