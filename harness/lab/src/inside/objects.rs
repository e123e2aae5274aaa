//! What the lab puts into its API: kinds, admission policies, namespaces, static pods.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, PostParams};
use kube::runtime::wait::{Condition, await_condition};
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use udn_lab_sys::ground::NODES;
use udn_lab_sys::site::{LAB_LABEL, NodeSite, OVN_NAMESPACE};

use super::component;
use crate::error::Error;

/// Namespace of what stands outside the cluster.
pub(super) const EXTERNAL_NAMESPACE: &str = "udn-external";
/// The pod there.
pub(super) const EXTERNAL_POD: &str = "external";
const DEADLINE: Duration = Duration::from_secs(60);
/// Between two looks for a kind.
const PAUSE: Duration = Duration::from_millis(50);

/// Creates an object, labelled as the lab's; one that is there is left as it is.
pub(super) async fn create<K>(api: &Api<K>, object: &K) -> Result<(), Error>
where
    K: Clone + Debug + DeserializeOwned + Serialize + Resource<DynamicType = ()>,
{
    let mut object = object.clone();
    object.meta_mut().labels.get_or_insert_default().insert(LAB_LABEL.into(), String::new());
    let refused = match api.create(&PostParams::default(), &object).await {
        Ok(_) => return Ok(()),
        Err(kube::Error::Api(status)) if status.code == 409 => return Ok(()),
        Err(kube::Error::Api(status)) => status.message,
        Err(error) => error.to_string(),
    };
    let (kind, name) = (K::kind(&()), object.meta().name.clone().unwrap_or_default());
    // What a killed lab left at an API server that was there before may be in its own way: an address is given already.
    let left = api.get_opt(&name).await.ok().flatten();
    if left.is_some_and(|left| left.meta().labels.as_ref().is_some_and(|labels| labels.contains_key(LAB_LABEL))) {
        return Ok(());
    }
    Err(Error::Inside { action: format!("create {kind} {name}"), reason: refused })
}

pub(super) async fn create_json<K>(client: &Client, namespace: &str, object: Value) -> Result<(), Error>
where
    K: Clone + Debug + DeserializeOwned + Serialize + Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    let object = serde_json::from_value(object).map_err(Error::inside("describe an object"))?;
    create(&Api::<K>::namespaced(client.clone(), namespace), &object).await
}

/// Kinds and what guards them, then namespaces.
pub(super) async fn cluster(client: &Client) -> Result<(), Error> {
    let kinds = Api::all(client.clone());
    let crds = udn_api::crds();
    stream::iter(&crds).map(Ok).try_for_each_concurrent(8, |crd| create(&kinds, crd)).await?;
    for crd in &crds {
        let name = crd.metadata.name.clone().unwrap_or_default();
        let established = kube::runtime::conditions::is_crd_established();
        until(&kinds, &name, established, format!("kind {name} to be established")).await?;
        served(client, crd).await?;
    }
    let (policies, bindings) = (Api::all(client.clone()), Api::all(client.clone()));
    for (policy, binding) in udn_api::admission_policies() {
        create(&policies, &policy).await?;
        create(&bindings, &binding).await?;
    }
    let namespaces = Api::<Namespace>::all(client.clone());
    for name in [OVN_NAMESPACE, EXTERNAL_NAMESPACE] {
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some(name.into());
        create(&namespaces, &namespace).await?;
    }
    // What requests for addresses on a primary network name: the cluster default network's own attachment definition.
    let default_network = json!({
        "metadata": {"name": "default"},
        "spec": {"config": json!({"cniVersion": "1.1.0", "name": "ovn-kubernetes", "type": "ovn-k8s-cni-overlay"}).to_string()},
    });
    create_json::<udn_api::NetworkAttachmentDefinition>(client, OVN_NAMESPACE, default_network).await
}

/// Waits until requests for a kind find it: some time after it is established, where the server is not the lab's own.
async fn served(client: &Client, crd: &CustomResourceDefinition) -> Result<(), Error> {
    let (group, kind) = (&crd.spec.group, &crd.spec.names.kind);
    for version in crd.spec.versions.iter().filter(|version| version.served) {
        let resource = ApiResource::from_gvk_with_plural(
            &GroupVersionKind::gvk(group, &version.name, kind),
            &crd.spec.names.plural,
        );
        let objects = Api::<DynamicObject>::all_with(client.clone(), &resource);
        let started = Instant::now();
        loop {
            match objects.list_metadata(&ListParams::default().limit(1)).await {
                Ok(_) => break,
                Err(kube::Error::Api(status)) if status.code == 404 && started.elapsed() < DEADLINE => {
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => {
                    return Err(Error::inside(format!("look for {kind}s of {}", resource.api_version))(error));
                }
            }
        }
    }
    Ok(())
}

/// The external host, as a pod.
fn external() -> Value {
    json!({
        "metadata": {
            "name": EXTERNAL_POD,
            "labels": {"udn-conformance.io/vantage-point": "external", "udn-conformance.io/load-balancers": ""},
            "annotations": {
                "lab.udn-conformance.io/netns": "external",
                // Parts of the underlay that nobody else has: neither nodes nor the pool of load-balancer addresses.
                "udn-conformance.io/external-ips": "172.18.128.0/18,fc00:f853:ccd:e793:1::/80",
                "udn-conformance.io/external-name": super::dns::EXTERNAL,
            },
        },
        "spec": {
            "nodeName": NODES[0], "hostNetwork": true, "tolerations": [{"operator": "Exists"}],
            "enableServiceLinks": false, "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "external", "image": "registry.k8s.io/e2e-test-images/agnhost:2.45", "args": ["pause"],
                "volumeMounts": [{"name": "agent", "mountPath": "/agent"}],
            }],
            "volumes": [{"name": "agent", "emptyDir": {}}],
        },
    })
}

/// Creates the pods of the lab itself once their nodes are ready, and waits until they run: OVN's on every node, and the
/// external host.
pub(super) async fn pods(client: &Client, nodes: &[NodeSite]) -> Result<(), Error> {
    let all = Api::<Node>::all(client.clone());
    for node in nodes {
        until(&all, &node.name, ready_node(), format!("node {} to be ready", node.name)).await?;
    }
    component::create(client).await?;
    create_json::<Pod>(client, EXTERNAL_NAMESPACE, external()).await?;
    let pods = Api::<Pod>::namespaced(client.clone(), EXTERNAL_NAMESPACE);
    let running = kube::runtime::conditions::is_pod_running();
    until(&pods, EXTERNAL_POD, running, format!("pod {EXTERNAL_NAMESPACE}/{EXTERNAL_POD} to run")).await?;
    component::ready(client, nodes.len()).await
}

fn ready_node() -> impl Condition<Node> {
    |node: Option<&Node>| {
        let conditions = node.and_then(|node| node.status.as_ref()).and_then(|status| status.conditions.as_ref());
        conditions
            .is_some_and(|all| all.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True"))
    }
}

pub(super) async fn until<K>(api: &Api<K>, name: &str, condition: impl Condition<K>, what: String) -> Result<(), Error>
where
    K: Clone + Debug + Send + DeserializeOwned + Serialize + Resource<DynamicType = ()> + 'static,
{
    match tokio::time::timeout(DEADLINE, await_condition(api.clone(), name, condition)).await {
        Ok(result) => result.map(drop).map_err(Error::inside(format!("wait for {what}"))),
        Err(_) => {
            let last = match api.get(name).await {
                Ok(object) => {
                    serde_json::to_value(object).map(|object| object["status"].to_string()).unwrap_or_default()
                }
                Err(error) => error.to_string(),
            };
            Err(Error::Deadline { what, seconds: DEADLINE.as_secs(), last })
        }
    }
}
