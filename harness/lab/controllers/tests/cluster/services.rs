//! Endpoints of services.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use udn_lab_controllers::{LoadBalancerPool, Options};

use crate::support::{Cluster, eventually, options, workload};

fn of<'a>(slices: &'a [EndpointSlice], service: &str, family: &str) -> Option<&'a EndpointSlice> {
    slices.iter().find(|slice| {
        slice.labels().get("kubernetes.io/service-name").is_some_and(|name| name == service)
            && slice.address_type == family
    })
}

fn ready(slice: &EndpointSlice) -> usize {
    slice.endpoints.iter().filter(|e| e.conditions.as_ref().and_then(|c| c.ready) == Some(true)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn slices_follow_the_pods() {
    let cluster = Cluster::start().await;
    let service = json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ipFamilyPolicy": "PreferDualStack",
        "ports": [{"name": "web", "port": 80, "targetPort": "http"}]}});
    cluster.create::<Service>("default", service).await;
    eventually("an empty slice", async || {
        let slices: Vec<EndpointSlice> = cluster.list("default").await;
        of(&slices, "web", "IPv4").map(|_| ()).ok_or(format!("{slices:#?}"))
    })
    .await;
    cluster.create::<Deployment>("default", workload("web", 3, json!({}))).await;
    let slices = eventually("three ready endpoints in both families", async || {
        let slices: Vec<EndpointSlice> = cluster.list("default").await;
        let full = |family| of(&slices, "web", family).is_some_and(|slice| ready(slice) == 3);
        if full("IPv4") && full("IPv6") { Ok(slices) } else { Err(format!("{slices:#?}")) }
    })
    .await;
    assert_eq!(slices.iter().filter(|slice| slice.name_any().starts_with("web-")).count(), 2, "one per family");
    let slice = of(&slices, "web", "IPv6").unwrap();
    let port = &slice.ports.as_ref().unwrap()[0];
    assert_eq!((port.name.as_deref(), port.port), (Some("web"), Some(8080)));
    assert!(slice.endpoints[0].addresses[0].starts_with("fd00:10:244:"));
    assert_eq!(slice.endpoints[0].target_ref.as_ref().unwrap().kind.as_deref(), Some("Pod"));
    cluster
        .until::<Endpoints>("default", "web", "legacy endpoints", |endpoints| {
            let subsets = endpoints.subsets.as_deref().unwrap_or_default();
            subsets.len() == 1 && subsets[0].addresses.as_ref().is_some_and(|addresses| addresses.len() == 3)
        })
        .await;
    // A pod that is not ready any more stays, unready.
    let pod = cluster.pods("default").await[0].name_any();
    let hold = json!({"metadata": {"annotations": {"test/hold": "yes"}}});
    cluster.api::<Pod>("default").patch(&pod, &PatchParams::default(), &Patch::Merge(hold)).await.unwrap();
    eventually("two ready of three", async || {
        let slices: Vec<EndpointSlice> = cluster.list("default").await;
        let slice = of(&slices, "web", "IPv4").unwrap();
        if (ready(slice), slice.endpoints.len()) == (2, 3) { Ok(()) } else { Err(format!("{slice:#?}")) }
    })
    .await;
    cluster.api::<Service>("default").delete("web", &DeleteParams::default()).await.unwrap();
    eventually("the slices go with their service", async || {
        let slices: Vec<EndpointSlice> = cluster.list("default").await;
        let legacy = cluster.api::<Endpoints>("default").get_opt("web").await.unwrap();
        if of(&slices, "web", "IPv4").is_none() && legacy.is_none() { Ok(()) } else { Err(format!("{slices:#?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_has_its_service() {
    let cluster = Cluster::start().await;
    let service: Service = cluster.until("default", "kubernetes", "there", |_| true).await;
    let spec = service.spec.unwrap();
    assert_eq!(spec.cluster_ips, Some(vec!["10.96.0.1".into(), "fd00:10:96::1".into()]));
    assert_eq!(spec.ports.unwrap()[0].port, 443);
    let slice: EndpointSlice = cluster.until("default", "kubernetes", "its slice", |_| true).await;
    assert_eq!(slice.endpoints[0].addresses, ["172.18.0.2"]);
    assert_eq!(slice.ports.unwrap()[0].port, Some(6443));
}

fn balancer(name: &str, more: serde_json::Value) -> serde_json::Value {
    let mut spec = json!({"type": "LoadBalancer", "ipFamilyPolicy": "RequireDualStack", "ports": [{"port": 80}]});
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    json!({"metadata": {"name": name}, "spec": spec})
}

fn ingress(service: &Service) -> Vec<String> {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = status.into_iter().flat_map(|status| status.ingress.iter().flatten());
    ingress.filter_map(|ingress| ingress.ip.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn load_balancers_have_addresses_until_the_pool_is_used_up() {
    let pool = LoadBalancerPool {
        ipv4: "172.18.255.200".parse().unwrap()..="172.18.255.201".parse().unwrap(),
        ..LoadBalancerPool::default()
    };
    let cluster = Cluster::with(Options { load_balancer_pool: Some(pool), ..options() }).await;
    for (name, address) in [("one", "172.18.255.200"), ("two", "172.18.255.201")] {
        cluster.create::<Service>("default", balancer(name, json!({}))).await;
        let service = cluster.until::<Service>("default", name, "addresses", |it| ingress(it).len() == 2).await;
        assert_eq!(ingress(&service)[0], address);
        assert!(ingress(&service)[1].starts_with("fc00:f853:ccd:e793::ff"));
    }
    cluster.create::<Service>("default", balancer("three", json!({}))).await;
    cluster.event("default", "AllocationFailed", "Failed to allocate IP for \"default/three\": no available IPs").await;
    cluster.create::<Service>("default", balancer("rival", json!({"loadBalancerIP": "172.18.255.200"}))).await;
    cluster.event("default", "AllocationFailed", "address also in use by default/one").await;
    let services: Vec<Service> = cluster.list("default").await;
    let half =
        services.iter().filter(|it| ["three", "rival"].contains(&it.name_any().as_str()) && !ingress(it).is_empty());
    assert_eq!(half.count(), 0, "no address, not half of one");
    // What is released goes to who waits: by deletion, and by a change of type.
    cluster.api::<Service>("default").delete("one", &DeleteParams::default()).await.unwrap();
    cluster.until::<Service>("default", "rival", "the address it asks for", |it| ingress(it).len() == 2).await;
    let plain = Patch::Merge(json!({"spec": {"type": "ClusterIP"}}));
    cluster.api::<Service>("default").patch("two", &PatchParams::default(), &plain).await.unwrap();
    cluster.until::<Service>("default", "three", "a released address", |it| ingress(it).len() == 2).await;
    cluster.until::<Service>("default", "two", "no address", |it| ingress(it).is_empty()).await;
}
