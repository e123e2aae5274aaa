//! Against an API server with controllers and without nodes that run anything: what is made, refused, waited for, removed.

#![allow(clippy::unwrap_used)] // the helpers are part of the tests

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Node};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::mpsc::unbounded_channel;
use udn_cluster::{Connect, Kube, names::RUN_LABEL};
use udn_lab_apiserver::testing::TestServer;
use udn_lab_controllers::{Controllers, Options};
use udn_model::cell::{Claim, Feature, ObjectRef};
use udn_model::scenario::{Action, WorldSpec};
use udn_model::world::World as Declared;
use udn_runner::cluster::{Cluster, World};

struct Bench {
    client: Client,
    directory: tempfile::TempDir,
    _server: TestServer,
    _controllers: Controllers,
}

impl Bench {
    async fn start() -> Self {
        let server = TestServer::start().await.unwrap();
        let client = server.client().await.unwrap();
        let controllers = Controllers::start(client.clone(), Options::default());
        let directory = tempfile::tempdir().unwrap();
        server.write_kubeconfig(&directory.path().join("config")).unwrap();
        let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
        for definition in udn_api::crds() {
            definitions.create(&PostParams::default(), &definition).await.unwrap();
        }
        let nodes: Api<Node> = Api::all(client.clone());
        for name in ["w1", "w2"] {
            let node = json!({ "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name } } });
            nodes.create(&PostParams::default(), &serde_json::from_value(node).unwrap()).await.unwrap();
            let status = json!({ "status": { "conditions": [{ "type": "Ready", "status": "True" }],
                "addresses": [{ "type": "InternalIP", "address": "192.0.2.1" }] } });
            nodes.patch_status(name, &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
        }
        Self { client, directory, _server: server, _controllers: controllers }
    }

    async fn kube(&self, run: &str) -> Kube {
        let connect = Connect {
            kubeconfig: Some(self.directory.path().join("config")),
            run: run.into(),
            without_host_network: true,
            ready_deadline: Some(Duration::from_secs(2)),
            ..Connect::default()
        };
        Kube::connect(connect).await.unwrap()
    }

    async fn namespaces(&self) -> Vec<String> {
        let list =
            Api::<Namespace>::all(self.client.clone()).list(&ListParams::default().labels(RUN_LABEL)).await.unwrap();
        list.items.iter().map(ResourceExt::name_any).collect()
    }
}

fn spec(manifests: Vec<Value>) -> WorldSpec {
    WorldSpec {
        name: "w".into(),
        world: Declared::from_manifests(&manifests).unwrap_or_default(),
        manifests,
        requires: vec![],
    }
}

fn namespace(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } })
}

fn pod() -> Value {
    json!({ "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "a", "namespace": "blue", "labels": { "udn-conformance.io/node": "0" } },
        "spec": { "containers": [{ "name": "probe", "image": "agnhost" }] } })
}

async fn provision(kube: &Kube, manifests: Vec<Value>) -> Result<Arc<dyn World>, String> {
    let (progress, _lines) = unbounded_channel();
    kube.provision(&spec(manifests), "a", progress).await.map_err(|trouble| trouble.to_string())
}

#[tokio::test]
async fn what_the_cluster_offers_is_found_out() {
    let bench = Bench::start().await;
    let kube = bench.kube("tst1").await;
    let features = &kube.environment().features;
    let served = [
        Feature::UserDefinedNetworks,
        Feature::MultiHoming,
        Feature::TwoNodes,
        Feature::NoOverlay,
        Feature::Evpn,
        Feature::Vteps,
        Feature::NetworkConnects,
    ];
    for feature in served {
        assert!(features.contains(&feature), "{feature:?}");
    }
    assert!(!features.contains(&Feature::ExternalVantagePoint) && !features.contains(&Feature::StaticPrimaryAddress));
    assert!(kube.versions()["Kubernetes"].starts_with('v'));
    assert_eq!(kube.nodes().iter().map(|node| node.name.as_str()).collect::<Vec<_>>(), ["w1", "w2"]);
}

#[tokio::test]
async fn a_field_that_does_not_exist_is_named_with_its_object() {
    let bench = Bench::start().await;
    let kube = bench.kube("tst1").await;
    let mut odd = pod();
    odd["spec"]["hostNetwurk"] = true.into();
    let error = provision(&kube, vec![namespace("blue"), odd]).await.err().unwrap();
    assert!(error.contains("apply Pod tst1a-blue/a") && error.contains("hostNetwurk"), "{error}");
    let unknown = json!({ "apiVersion": "example.org/v1", "kind": "Gadget", "metadata": { "name": "x" } });
    let error = provision(&kube, vec![unknown]).await.err().unwrap();
    assert!(error.contains("does not serve Gadget of example.org/v1"), "{error}");
}

#[tokio::test]
async fn a_pod_that_never_gets_ready_is_named_with_its_state() {
    let bench = Bench::start().await;
    let kube = bench.kube("tst1").await;
    let error = provision(&kube, vec![namespace("blue"), pod()]).await.err().unwrap();
    let waited = "waited 2 s for pod tst1a-blue/a to be Ready (--ready-deadline allows more); Pending";
    assert!(error.starts_with(waited), "{error}");
    assert!(error.contains("last event: Scheduled: "), "{error}");
}

#[tokio::test]
async fn two_runs_never_touch_each_other() {
    let bench = Bench::start().await;
    let (one, two) = (bench.kube("tst1").await, bench.kube("tst2").await);
    let manifests = || {
        vec![
            namespace("blue"),
            json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "c", "namespace": "blue" } }),
        ]
    };
    let world = provision(&one, manifests()).await.unwrap();
    provision(&two, manifests()).await.unwrap();
    assert_eq!(bench.namespaces().await, ["tst1a-blue", "tst2a-blue"]);
    drop(world);
    one.remove("a").await.unwrap();
    one.finish().await.unwrap();
    assert_eq!(bench.namespaces().await, ["tst2a-blue"]);
}

#[tokio::test]
async fn leftovers_of_every_run_are_found_and_nothing_else() {
    let bench = Bench::start().await;
    let cudn = json!({ "apiVersion": "k8s.ovn.org/v1", "kind": "ClusterUserDefinedNetwork",
        "metadata": { "name": "shared", "labels": { RUN_LABEL: "tst2" } },
        "spec": { "namespaceSelector": {}, "network": { "topology": "Layer2",
            "layer2": { "role": "Secondary", "subnets": ["10.9.0.0/16"] } } } });
    let (one, two) = (bench.kube("tst1").await, bench.kube("tst2").await);
    provision(&one, vec![namespace("blue")]).await.unwrap();
    provision(&two, vec![namespace("red")]).await.unwrap();
    let applied = two.provision(&spec(vec![namespace("x")]), "b", unbounded_channel().0).await.unwrap();
    applied.act(&Action::Submit(vec![cudn])).await.unwrap();
    drop(applied);
    Api::<Namespace>::all(bench.client.clone())
        .create(&PostParams::default(), &serde_json::from_value(namespace("a-users-own")).unwrap())
        .await
        .unwrap();
    let cleaned = bench.kube("tst3").await.cleanup(Some("tst1")).await.unwrap();
    assert_eq!(cleaned.removed, ["Namespace tst1a-blue"]);
    let cleaned = bench.kube("tst3").await.cleanup(None).await.unwrap();
    assert_eq!(cleaned.runs.into_iter().collect::<Vec<_>>(), ["tst2"]);
    let removed = ["Namespace tst2a-red", "Namespace tst2b-x", "ClusterUserDefinedNetwork tst2b-shared"];
    assert_eq!(cleaned.removed, removed);
    assert!(bench.namespaces().await.is_empty());
    Api::<Namespace>::all(bench.client.clone()).get("a-users-own").await.unwrap();
}

#[tokio::test]
async fn answers_to_actions_are_kept_for_the_matrix() {
    let bench = Bench::start().await;
    let kube = bench.kube("tst1").await;
    let world = provision(&kube, vec![namespace("blue")]).await.unwrap();
    let blue = ObjectRef::cluster("v1", "Namespace", "blue");
    let label = Action::Label { object: blue.clone(), key: "team".into(), value: Some("x".into()) };
    world.act(&label).await.unwrap();
    assert!(world.claim(&blue, &Claim::Accepted).await.unwrap().holds);
    assert!(world.claim(&blue, &Claim::Exists).await.unwrap().holds);

    let network = ObjectRef::namespaced("k8s.ovn.org/v1", "UserDefinedNetwork", "blue", "odd");
    let odd = json!({ "apiVersion": "k8s.ovn.org/v1", "kind": "UserDefinedNetwork",
        "metadata": { "name": "odd", "namespace": "blue" }, "spec": { "topology": "Layer9" } });
    world.act(&Action::Submit(vec![odd])).await.unwrap();
    let refused = |text: &str| Claim::Refused { message_contains: vec![text.into()] };
    let found = world.claim(&network, &refused("topology")).await.unwrap();
    assert!(found.holds, "{}", found.found);
    assert!(!world.claim(&network, &refused("something else")).await.unwrap().holds);
    assert!(world.claim(&network, &Claim::Gone).await.unwrap().holds);

    let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "c", "namespace": "blue" } });
    let object = ObjectRef::namespaced("v1", "ConfigMap", "blue", "c");
    world.act(&Action::Apply(vec![map])).await.unwrap();
    assert!(world.claim(&object, &Claim::Exists).await.unwrap().holds);
    world.act(&Action::DeleteAndWait(object.clone())).await.unwrap();
    assert!(world.claim(&object, &Claim::Gone).await.unwrap().holds);
}

#[tokio::test]
async fn what_is_only_asked_is_not_done() {
    let bench = Bench::start().await;
    let kube = bench.kube("tst1").await;
    let world = provision(&kube, vec![namespace("blue")]).await.unwrap();
    let vtep = |cidrs: &[&str]| json!({ "apiVersion": "k8s.ovn.org/v1", "kind": "VTEP", "metadata": { "name": "ends" }, "spec": { "cidrs": cidrs } });
    let object = ObjectRef::cluster("k8s.ovn.org/v1", "VTEP", "ends");
    let refused = |text: &str| Claim::Refused { message_contains: vec![text.into()] };
    let holds = async |claim: &Claim| {
        let found = world.claim(&object, claim).await.unwrap();
        assert!(found.holds, "{claim:?}: {}", found.found);
    };

    world.act(&Action::TryCreate(vec![vtep(&["198.18.0.0/24"])])).await.unwrap();
    holds(&Claim::Accepted).await;
    holds(&Claim::Gone).await;
    world.act(&Action::TryCreate(vec![vtep(&[])])).await.unwrap();
    holds(&refused("spec.cidrs")).await;
    let mut odd = vtep(&["198.18.0.0/24"]);
    odd["spec"]["cidrz"] = json!([]);
    world.act(&Action::TryCreate(vec![odd.clone()])).await.unwrap();
    holds(&refused("cidrz")).await;
    // There is nothing to be changed yet.
    world.act(&Action::TryChange(vec![vtep(&["198.18.0.0/20"])])).await.unwrap();
    holds(&refused("not found")).await;

    world.act(&Action::Submit(vec![vtep(&["198.18.0.0/24"])])).await.unwrap();
    holds(&Claim::Exists).await;
    world.act(&Action::TryCreate(vec![vtep(&["198.18.0.0/24"])])).await.unwrap();
    holds(&refused("already exists")).await;
    world.act(&Action::TryChange(vec![odd])).await.unwrap();
    holds(&refused("cidrz")).await;
    world.act(&Action::TryChange(vec![vtep(&["198.18.0.0/28"])])).await.unwrap();
    holds(&refused("must remain at the same position")).await;
    // A question that was granted has changed nothing: asked again, the same is a change.
    for _ in 0..2 {
        world.act(&Action::TryChange(vec![vtep(&["198.18.0.0/20"])])).await.unwrap();
        holds(&Claim::Accepted).await;
    }
    world.act(&Action::TryChange(vec![vtep(&["198.18.0.0/24"])])).await.unwrap();
    holds(&Claim::Accepted).await;
}
