//! What is deleted takes with it what it must: owners their dependents, namespaces their content.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, ServiceAccount};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::ResourceExt;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use serde_json::json;

use crate::support::{Cluster, eventually, workload};

fn map(name: &str, owners: &[(&ConfigMap, bool)]) -> serde_json::Value {
    let owners: Vec<_> = owners
        .iter()
        .map(|(owner, block)| {
            json!({"apiVersion": "v1", "kind": "ConfigMap", "name": owner.name_any(), "uid": owner.uid(),
                "blockOwnerDeletion": block})
        })
        .collect();
    json!({"metadata": {"name": name, "ownerReferences": owners}})
}

async fn gone<K>(cluster: &Cluster, namespace: &str, name: &str)
where
    K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + serde::de::DeserializeOwned
        + Clone
        + std::fmt::Debug,
{
    let api: Api<K> = cluster.api(namespace);
    eventually(&format!("{name} is gone"), async || match api.get_opt(name).await.unwrap() {
        None => Ok(()),
        Some(object) => Err(format!("{object:#?}")),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dependents_go_with_their_last_owner() {
    let cluster = Cluster::start().await;
    let a: ConfigMap = cluster.create("default", map("a", &[])).await;
    let b: ConfigMap = cluster.create("default", map("b", &[])).await;
    cluster.create::<ConfigMap>("default", map("of-a", &[(&a, false)])).await;
    cluster.create::<ConfigMap>("default", map("of-both", &[(&a, false), (&b, false)])).await;
    let maps: Api<ConfigMap> = cluster.api("default");
    maps.delete("a", &DeleteParams::background()).await.unwrap();
    gone::<ConfigMap>(&cluster, "default", "of-a").await;
    let kept: ConfigMap = cluster
        .until("default", "of-both", "one owner left", |map: &ConfigMap| map.owner_references().len() == 1)
        .await;
    assert_eq!(kept.owner_references()[0].name, "b");
    // One that is born with a dead owner dies at once; so does one whose owner is a successor of the same name.
    cluster.create::<ConfigMap>("default", map("late", &[(&a, false)])).await;
    gone::<ConfigMap>(&cluster, "default", "late").await;
    cluster.create::<ConfigMap>("default", map("a", &[])).await;
    cluster.create::<ConfigMap>("default", map("of-old-a", &[(&a, false)])).await;
    gone::<ConfigMap>(&cluster, "default", "of-old-a").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn foreground_deletion_waits_for_dependents() {
    let cluster = Cluster::start().await;
    cluster
        .create::<Deployment>("default", {
            let mut deployment = workload("web", 2, json!({}));
            deployment["spec"]["template"]["metadata"]["annotations"] = json!({"test/linger": "300"});
            deployment
        })
        .await;
    eventually("pods", async || match cluster.pods("default").await.len() {
        2 => Ok(()),
        other => Err(other.to_string()),
    })
    .await;
    cluster.api::<Deployment>("default").delete("web", &DeleteParams::foreground()).await.unwrap();
    // As long as a pod is there, so are its owners.
    eventually("all gone in order", async || {
        let deployment = cluster.api::<Deployment>("default").get_opt("web").await.unwrap();
        let sets: Vec<ReplicaSet> = cluster.list("default").await;
        let pods: Vec<Pod> = cluster.list("default").await;
        if deployment.is_none() {
            assert_eq!((sets.len(), pods.len()), (0, 0), "the owner went last");
            return Ok(());
        }
        Err(format!("{} sets, {} pods", sets.len(), pods.len()))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocking_dependent_with_a_finalizer_holds_its_owner() {
    let cluster = Cluster::start().await;
    let owner: ConfigMap = cluster.create("default", map("owner", &[])).await;
    let mut child = map("child", &[(&owner, true)]);
    child["metadata"]["finalizers"] = json!(["test/hold"]);
    cluster.create::<ConfigMap>("default", child).await;
    let maps: Api<ConfigMap> = cluster.api("default");
    maps.delete("owner", &DeleteParams::foreground()).await.unwrap();
    cluster
        .until::<ConfigMap>("default", "child", "being deleted", |map| map.metadata.deletion_timestamp.is_some())
        .await;
    assert!(maps.get_opt("owner").await.unwrap().is_some());
    let release = json!({"metadata": {"finalizers": null}});
    maps.patch("child", &PatchParams::default(), &Patch::Merge(release)).await.unwrap();
    gone::<ConfigMap>(&cluster, "default", "owner").await;
}

fn widgets() -> (CustomResourceDefinition, ApiResource) {
    kind("Widget", "v1")
}

fn kind(kind: &str, version: &str) -> (CustomResourceDefinition, ApiResource) {
    let (singular, plural) = (kind.to_lowercase(), format!("{}s", kind.to_lowercase()));
    let definition = serde_json::from_value(json!({
        "metadata": {"name": format!("{plural}.test.example.com")},
        "spec": {"group": "test.example.com", "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": singular},
            "versions": [{"name": version, "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}
    }))
    .unwrap();
    (definition, ApiResource::from_gvk(&GroupVersionKind::gvk("test.example.com", version, kind)))
}

async fn define_widgets(cluster: &Cluster, namespace: &str) -> Api<DynamicObject> {
    define(cluster, namespace, widgets()).await
}

async fn define(
    cluster: &Cluster,
    namespace: &str,
    (definition, resource): (CustomResourceDefinition, ApiResource),
) -> Api<DynamicObject> {
    let definitions: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
    definitions.create(&PostParams::default(), &definition).await.unwrap();
    let api: Api<DynamicObject> = Api::namespaced_with(cluster.client.clone(), namespace, &resource);
    eventually("the kind is served", async || api.list(&Default::default()).await.map_err(|e| e.to_string())).await;
    api
}

#[tokio::test(flavor = "multi_thread")]
async fn kinds_defined_later_own_and_are_owned() {
    let cluster = Cluster::start().await;
    let widgets = define_widgets(&cluster, "default").await;
    let (_, resource) = self::widgets();
    let widget = widgets.create(&PostParams::default(), &DynamicObject::new("w", &resource)).await.unwrap();
    cluster
        .create::<ConfigMap>(
            "default",
            json!({"metadata": {"name": "of-w", "ownerReferences": [
            {"apiVersion": "test.example.com/v1", "kind": "Widget", "name": "w", "uid": widget.uid()}]}}),
        )
        .await;
    let owner: ConfigMap = cluster.create("default", map("owner", &[])).await;
    let mut owned = DynamicObject::new("owned", &resource);
    owned.metadata.owner_references =
        serde_json::from_value(map("x", &[(&owner, false)])["metadata"]["ownerReferences"].clone()).unwrap();
    widgets.create(&PostParams::default(), &owned).await.unwrap();
    widgets.delete("w", &DeleteParams::background()).await.unwrap();
    gone::<ConfigMap>(&cluster, "default", "of-w").await;
    cluster.api::<ConfigMap>("default").delete("owner", &DeleteParams::background()).await.unwrap();
    eventually("the widget goes with its owner", async || match widgets.get_opt("owned").await.unwrap() {
        None => Ok(()),
        Some(left) => Err(format!("{left:?}")),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn owners_of_a_kind_that_nobody_knew_are_looked_for_again() {
    let cluster = Cluster::start().await;
    cluster
        .create::<ConfigMap>(
            "default",
            json!({"metadata": {"name": "early", "ownerReferences": [
            {"apiVersion": "test.example.com/v1", "kind": "Widget", "name": "never", "uid": "no-such-object"}]}}),
        )
        .await;
    define_widgets(&cluster, "default").await;
    gone::<ConfigMap>(&cluster, "default", "early").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kinds_of_one_group_go_whatever_their_versions() {
    let cluster = Cluster::start().await;
    cluster.namespace("tenant").await;
    let mut all = Vec::new();
    // As with attachment definitions (v1) and IPAMClaims (v1alpha1).
    for (name, version) in [("Gadget", "v1alpha1"), ("Widget", "v1")] {
        let (definition, resource) = kind(name, version);
        let api = define(&cluster, "tenant", (definition, resource.clone())).await;
        api.create(&PostParams::default(), &DynamicObject::new("one", &resource)).await.unwrap();
        all.push(api);
    }
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    namespaces.delete("tenant", &DeleteParams::default()).await.unwrap();
    eventually("the namespace is gone", async || match namespaces.get_opt("tenant").await.unwrap() {
        None => Ok(()),
        Some(namespace) => Err(format!("{namespace:#?}")),
    })
    .await;
    for api in all {
        let left = api.list(&Default::default()).await.unwrap();
        assert!(left.items.is_empty(), "{left:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_goes_with_all_it_holds() {
    let cluster = Cluster::start().await;
    cluster.namespace("tenant").await;
    cluster.until::<ServiceAccount>("tenant", "default", "service account", |_| true).await;
    cluster
        .until::<ConfigMap>("tenant", "kube-root-ca.crt", "certificate", |map| {
            map.data.as_ref().is_some_and(|data| data["ca.crt"] == "PEM")
        })
        .await;
    let widgets = define_widgets(&cluster, "tenant").await;
    let (_, resource) = self::widgets();
    let mut held = DynamicObject::new("held", &resource);
    held.metadata.finalizers = Some(vec!["test/hold".into()]);
    widgets.create(&PostParams::default(), &held).await.unwrap();
    cluster.create::<Deployment>("tenant", workload("web", 3, json!({}))).await;
    eventually("pods", async || match cluster.pods("tenant").await.len() {
        3 => Ok(()),
        other => Err(other.to_string()),
    })
    .await;
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    namespaces.delete("tenant", &DeleteParams::default()).await.unwrap();
    let waiting = eventually("it says what holds it", async || {
        let namespace = namespaces.get("tenant").await.unwrap();
        let status = namespace.status.clone().unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        let of = |kind: &str| conditions.iter().find(|c| c.type_ == kind && c.status == "True").cloned();
        let pods: Vec<Pod> = cluster.list("tenant").await;
        match (of("NamespaceContentRemaining"), of("NamespaceFinalizersRemaining")) {
            (Some(content), Some(finalizers)) if pods.is_empty() => Ok((content, finalizers)),
            _ => Err(format!("{conditions:#?}")),
        }
    })
    .await;
    assert!(waiting.0.message.unwrap().contains("widgets.test.example.com has 1 resource instances"));
    assert!(waiting.1.message.unwrap().contains("test/hold in 1 resource instances"));
    let release = json!({"metadata": {"finalizers": null}});
    let begin = std::time::Instant::now();
    widgets.patch("held", &PatchParams::default(), &Patch::Merge(release)).await.unwrap();
    eventually("the namespace is gone", async || match namespaces.get_opt("tenant").await.unwrap() {
        None => Ok(()),
        Some(left) => Err(format!("{left:#?}")),
    })
    .await;
    println!("the namespace went {:?} after its last object", begin.elapsed());
    // It may return at once.
    cluster.namespace("tenant").await;
    cluster.until::<ServiceAccount>("tenant", "default", "service account", |_| true).await;
}
