//! Objects without kubelets: nodes, namespaces, networks, and pods that this test attaches itself.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{Event, Namespace, Node, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use udn_lab_apiserver::testing::TestServer;
use udn_lab_network::{Network, Options};
use udn_lab_sys::netns::Netns;
use udn_lab_sys::pod::{AttachError, PodNetwork, Sandbox};
use udn_lab_sys::site::Site;

/// An API server with the network on it.
pub(crate) struct Cluster {
    pub(crate) client: Client,
    pub(crate) site: Arc<Site>,
    pub(crate) network: Network,
    _server: TestServer,
}

/// A pod that has been attached.
#[derive(Clone, Debug)]
pub(crate) struct Attached {
    pub(crate) name: String,
    pub(crate) sandbox: Sandbox,
    /// Addresses by attachment (`default`, `<namespace>/<name>`).
    pub(crate) addresses: BTreeMap<String, Vec<IpAddr>>,
    pub(crate) status: Value,
}

impl Attached {
    /// Addresses on the default network.
    pub(crate) fn default_addresses(&self) -> &[IpAddr] {
        &self.addresses["default"]
    }

    /// Addresses on the only network beside the default one.
    pub(crate) fn own_addresses(&self) -> &[IpAddr] {
        self.addresses.iter().find(|(key, _)| *key != "default").map_or(&[], |(_, addresses)| addresses)
    }
}

pub(crate) fn socket(address: &IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(*address, port)
}

impl Cluster {
    pub(crate) async fn start(site: Arc<Site>) -> Result<Self> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let server = TestServer::start().await?;
        let client = server.client().await?;
        let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
        for definition in udn_api::crds() {
            definitions.create(&PostParams::default(), &definition).await.context("creating the kinds")?;
        }
        let nodes: Api<Node> = Api::all(client.clone());
        for node in &site.nodes {
            let node = serde_json::from_value(json!({"metadata": {"name": node.name}}))?;
            nodes.create(&PostParams::default(), &node).await?;
        }
        let started = Instant::now();
        let network = Network::start(client.clone(), site.clone(), Options::default()).await?;
        crate::services::api_server(&client, &site).await?;
        println!("network started in {} ms", started.elapsed().as_millis());
        Ok(Self { client, site, network, _server: server })
    }

    pub(crate) async fn namespace(&self, name: &str, labels: Value) -> Result<()> {
        let api: Api<Namespace> = Api::all(self.client.clone());
        let namespace = serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}}))?;
        api.create(&PostParams::default(), &namespace).await.with_context(|| format!("creating namespace {name}"))?;
        Ok(())
    }

    /// A namespace whose pods wait for a primary network.
    pub(crate) async fn tenant(&self, name: &str) -> Result<()> {
        self.namespace(name, json!({"k8s.ovn.org/primary-user-defined-network": "", "tenant": name})).await
    }

    fn dynamic(&self, kind: &str, namespace: Option<&str>) -> Api<DynamicObject> {
        let (group, version) = match kind {
            "NetworkAttachmentDefinition" => ("k8s.cni.cncf.io", "v1"),
            _ => ("k8s.ovn.org", "v1"),
        };
        let mut resource = kube::api::ApiResource::from_gvk(&kube::core::GroupVersionKind::gvk(group, version, kind));
        if kind == "NetworkAttachmentDefinition" {
            resource.plural = "network-attachment-definitions".into();
        }
        match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        }
    }

    /// Creates a network object.
    pub(crate) async fn create(&self, kind: &str, namespace: Option<&str>, name: &str, spec: Value) -> Result<()> {
        let version = if kind == "NetworkAttachmentDefinition" { "k8s.cni.cncf.io/v1" } else { "k8s.ovn.org/v1" };
        let object = serde_json::from_value(json!({
            "apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": namespace}, "spec": spec,
        }))?;
        self.dynamic(kind, namespace)
            .create(&PostParams::default(), &object)
            .await
            .with_context(|| format!("creating {kind} {name}"))?;
        Ok(())
    }

    pub(crate) async fn patch(&self, kind: &str, namespace: Option<&str>, name: &str, patch: Value) -> Result<()> {
        let patched = self.dynamic(kind, namespace).patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        patched.with_context(|| format!("changing {kind} {name}"))?;
        Ok(())
    }

    pub(crate) async fn delete(&self, kind: &str, namespace: Option<&str>, name: &str) -> Result<()> {
        self.dynamic(kind, namespace)
            .delete(name, &DeleteParams::default())
            .await
            .with_context(|| format!("deleting {kind} {name}"))?;
        Ok(())
    }

    /// The object as it is, or nothing.
    pub(crate) async fn get(&self, kind: &str, namespace: Option<&str>, name: &str) -> Result<Option<DynamicObject>> {
        Ok(self.dynamic(kind, namespace).get_opt(name).await?)
    }

    /// Waits for a condition with this status whose message contains `words`.
    pub(crate) async fn condition(
        &self,
        kind: &str,
        namespace: Option<&str>,
        name: &str,
        condition: &str,
        status: &str,
        words: &str,
    ) -> Result<()> {
        let mut last = Value::Null;
        eventually(&format!("{kind} {name} {condition}={status} {words:?}"), async || {
            let object = self.get(kind, namespace, name).await?;
            last = object.map(|object| object.data["status"]["conditions"].clone()).unwrap_or_default();
            Ok(last.as_array().into_iter().flatten().any(|it| {
                it["type"] == condition
                    && it["status"] == status
                    && it["message"].as_str().is_some_and(|text| text.contains(words))
            }))
        })
        .await
        .with_context(|| format!("conditions were {last}"))
    }

    /// Waits until a network is laid out.
    pub(crate) async fn ready(&self, kind: &str, namespace: Option<&str>, name: &str) -> Result<()> {
        self.condition(kind, namespace, name, "NetworkCreated", "True", "").await?;
        self.condition(kind, namespace, name, "NetworkAllocationSucceeded", "True", "").await
    }

    pub(crate) async fn event(&self, namespace: &str, reason: &str, words: &str) -> Result<()> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        eventually(&format!("event {reason} {words:?}"), async || {
            let events = api.list(&Default::default()).await?;
            let is_it = |event: &Event| {
                event.reason.as_deref() == Some(reason) && event.message.as_deref().unwrap_or_default().contains(words)
            };
            Ok(events.iter().any(is_it))
        })
        .await
    }

    /// Creates a pod that has a node already.
    pub(crate) async fn create_pod(
        &self,
        namespace: &str,
        name: &str,
        node: &str,
        annotations: Value,
    ) -> Result<Sandbox> {
        self.create_labelled(namespace, name, node, json!({}), annotations).await
    }

    /// … with labels.
    pub(crate) async fn create_labelled(
        &self,
        namespace: &str,
        name: &str,
        node: &str,
        labels: Value,
        annotations: Value,
    ) -> Result<Sandbox> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let pod = serde_json::from_value(json!({
            "metadata": {"name": name, "labels": labels, "annotations": annotations},
            "spec": {"nodeName": node, "containers": [{"name": "c", "image": "none"}]},
        }))?;
        let pod = api
            .create(&PostParams::default(), &pod)
            .await
            .with_context(|| format!("creating pod {namespace}/{name}"))?;
        let netns = Netns::create(&format!("{namespace}/{name}"))?;
        Ok(Sandbox {
            namespace: namespace.into(),
            pod: name.into(),
            uid: pod.uid().unwrap_or_default(),
            node: node.into(),
            netns,
        })
    }

    /// Creates and attaches a pod, as a kubelet would, and lets it answer on port 8080.
    pub(crate) async fn pod(&self, namespace: &str, name: &str, node: &str, annotations: Value) -> Result<Attached> {
        let sandbox = self.create_pod(namespace, name, node, annotations).await?;
        self.attach(sandbox).await
    }

    /// Attaches a pod that answers nobody.
    pub(crate) async fn attach_silent(&self, sandbox: &Sandbox) -> Result<udn_lab_sys::pod::Attached> {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            match self.network.attach(sandbox).await {
                Ok(attached) => return Ok(attached),
                Err(AttachError::Pending { .. }) if Instant::now() < end => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    pub(crate) async fn attach(&self, sandbox: Sandbox) -> Result<Attached> {
        let attached = self.attach_silent(&sandbox).await?;
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &sandbox.namespace);
        let pod = api.get(&sandbox.pod).await?;
        let text =
            pod.annotations().get("k8s.ovn.org/pod-networks").context("the pod has no pod-networks annotation")?;
        let networks: BTreeMap<String, Value> = serde_json::from_str(text)?;
        let mut addresses = BTreeMap::new();
        for (key, network) in networks {
            let parsed = network["ip_addresses"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let parsed = parsed.map(|text| text.split('/').next().unwrap_or_default().parse::<IpAddr>());
            addresses.insert(key, parsed.collect::<Result<Vec<_>, _>>()?);
        }
        let name = format!("{}/{}", sandbox.namespace, sandbox.pod);
        crate::probe::listen(&sandbox.netns, &name, 8080)?;
        Ok(Attached { name, sandbox, addresses, status: attached.network_status })
    }

    /// Several pods at once: (namespace, name, node).
    pub(crate) async fn pods(&self, pods: &[(&str, &str, &str)]) -> Result<Vec<Attached>> {
        let started = Instant::now();
        let made =
            try_join_all(pods.iter().map(|(namespace, name, node)| self.pod(namespace, name, node, json!({})))).await?;
        println!("{} pods created and attached in {} ms", made.len(), started.elapsed().as_millis());
        Ok(made)
    }

    pub(crate) async fn annotate_pod(&self, pod: &Attached, annotations: Value) -> Result<()> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.sandbox.namespace);
        let patch = Patch::Merge(json!({"metadata": {"annotations": annotations}}));
        api.patch(&pod.sandbox.pod, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// Ends a pod, as a kubelet would.
    pub(crate) async fn delete_pod(&self, sandbox: &Sandbox) -> Result<()> {
        self.network.detach(sandbox).await;
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &sandbox.namespace);
        api.delete(&sandbox.pod, &DeleteParams::default().grace_period(0)).await?;
        Ok(())
    }

    pub(crate) async fn label_namespace(&self, name: &str, labels: Value) -> Result<()> {
        let api: Api<Namespace> = Api::all(self.client.clone());
        api.patch(name, &PatchParams::default(), &Patch::Merge(json!({"metadata": {"labels": labels}}))).await?;
        Ok(())
    }
}

/// Asks again and again, for at most 20 s.
pub(crate) async fn eventually(what: &str, mut done: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        if done().await? {
            return Ok(());
        }
        if Instant::now() > end {
            bail!("waited in vain for {what}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
