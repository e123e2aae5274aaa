//! Vantage points outside of worlds: the nodes' host networks, and a client outside of the cluster. Made once per run.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, AttachParams};
use kube::{Client, ResourceExt};
use rand::RngExt;
use serde_json::{Value, json};
use tokio::sync::{OnceCell, Semaphore};
use udn_agent::protocol::{Body, Listen, Op, Transport as Wire};
use udn_model::words::Transport;
use udn_model::world::PROBE_CONTAINER;
use udn_runner::cluster::{EXTERNAL_IDENTITY, NodeAddresses, node_identity};

use crate::agent::link::Exec;
use crate::agent::{Agent, AgentError};
use crate::connect::NodeInfo;
use crate::error::Error;
use crate::external::{self, External};
use crate::inject::equip;
use crate::names::{AGENT_DIRECTORY, RUN_LABEL, VANTAGE_LABEL, nodes_namespace, selector};
use crate::objects::Objects;
use crate::pods::PodWatch;
use crate::world::Station;

/// What host-network pods run where nothing else is wanted: the fixtures' image.
const IMAGE: &str = "registry.k8s.io/e2e-test-images/agnhost:2.53";
/// Ports from which one is drawn for the run's listeners on a node: below NodePorts and ephemeral ports.
const PORTS: std::ops::RangeInclusive<u16> = 20_000..=29_999;
/// How often a port that turns out to be taken is drawn again.
const DRAWS: u32 = 8;
/// How long an agent may take to end.
const SHUTDOWN: Duration = Duration::from_secs(3);

/// Makes and keeps them.
pub(crate) struct Outposts {
    objects: Objects,
    run: String,
    image: Option<String>,
    session: u64,
    uploads: Arc<Semaphore>,
    nodes: Vec<NodeInfo>,
    external_pod: Option<Pod>,
    deadline: Duration,
    made: OnceCell<Result<Made, String>>,
    external: OnceCell<Result<External, String>>,
}

/// The nodes' pods, ready and listening.
pub(crate) struct Made {
    stations: BTreeMap<u8, Arc<Station>>,
    pub(crate) addresses: BTreeMap<u8, NodeAddresses>,
    _watch: PodWatch,
}

/// Everything that [`Outposts`] needs to know.
pub(crate) struct Plan {
    pub(crate) run: String,
    pub(crate) image: Option<String>,
    pub(crate) session: u64,
    pub(crate) uploads: Arc<Semaphore>,
    pub(crate) nodes: Vec<NodeInfo>,
    pub(crate) external: Option<Pod>,
    pub(crate) deadline: Duration,
}

impl Outposts {
    pub(crate) fn new(objects: Objects, plan: Plan) -> Self {
        let Plan { run, image, session, uploads, nodes, external, deadline } = plan;
        Self {
            objects,
            run,
            image,
            session,
            uploads,
            nodes,
            external_pod: external,
            deadline,
            made: OnceCell::new(),
            external: OnceCell::new(),
        }
    }

    fn client(&self) -> Client {
        self.objects.client.clone()
    }

    /// Makes the nodes' pods if they are not there, and waits until they listen.
    ///
    /// # Errors
    /// Why there are none; it is not tried again.
    pub(crate) async fn nodes(&self) -> Result<&Made, String> {
        let made = self.made.get_or_init(async || self.make().await.map_err(|error| error.to_string())).await;
        made.as_ref().map_err(Clone::clone)
    }

    /// The nodes' addresses as far as they listen by now.
    pub(crate) fn addresses(&self) -> BTreeMap<u8, NodeAddresses> {
        match self.made.get() {
            Some(Ok(made)) => {
                let mut addresses = made.addresses.clone();
                for (slot, node) in &mut addresses {
                    node.life = made.stations.get(slot).and_then(|station| station.agent.life());
                }
                addresses
            }
            _ => BTreeMap::new(),
        }
    }

    /// The agent on the node of a slot.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) async fn node(&self, slot: u8) -> Result<Arc<Station>, String> {
        let made = self.nodes().await?;
        made.stations.get(&slot).cloned().ok_or_else(|| format!("the cluster has no node for slot {slot}"))
    }

    /// The agent outside of the cluster.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) async fn external(&self) -> Result<Arc<Station>, String> {
        let found = self.external.get_or_init(async || {
            let pod = self.external_pod.as_ref().ok_or("no pod is a vantage point outside of the cluster")?;
            self.go_outside(pod).await.map_err(|error| format!("agent in {}: {error}", pod.name_any()))
        });
        found.await.as_ref().map(|external| external.station.clone()).map_err(Clone::clone)
    }

    async fn go_outside(&self, pod: &Pod) -> Result<External, AgentError> {
        let station = Station::new(Agent::start(self.external_link(pod), self.session));
        station.agent.ready().await?;
        let identity = format!("{}/{EXTERNAL_IDENTITY}", self.run);
        let ports = listen(&station, &identity).await?;
        let flow_port = listen_for(&station.agent, Wire::Tcp, &identity, true).await?;
        let addresses = match station.agent.call(Op::Facts, SHUTDOWN).await? {
            Body::Facts(facts) => external::addresses(pod, &facts),
            other => return Err(AgentError::Failed(format!("it answered {other:?} when asked for facts"))),
        };
        Ok(External {
            station: Arc::new(station),
            addresses: NodeAddresses { addresses, ports, flow_port: Some(flow_port), life: None },
        })
    }

    /// The external server, if it listens by now.
    pub(crate) fn outside(&self) -> Option<NodeAddresses> {
        let external = self.external.get()?.as_ref().ok()?;
        Some(NodeAddresses { life: external.station.agent.life(), ..external.addresses.clone() })
    }

    /// Whether somebody is outside at all.
    pub(crate) const fn has_outside(&self) -> bool {
        self.external_pod.is_some()
    }

    /// Names of the nodes by slot.
    pub(crate) fn names(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.name.clone()).collect()
    }

    fn external_link(&self, pod: &Pod) -> Exec {
        let pods = Api::namespaced(self.client(), &pod.namespace().unwrap_or_default());
        let container =
            pod.spec.as_ref().and_then(|spec| spec.containers.first()).map(|container| container.name.clone());
        Exec::new(
            pods,
            &pod.name_any(),
            pod.uid(),
            container.as_deref(),
            &self.external_directory(pod),
            self.uploads.clone(),
        )
    }

    /// The pod outlives the run and may serve another at the same time: the agent lives in a directory of the run's own.
    fn external_directory(&self, pod: &Pod) -> String {
        let containers = pod.spec.iter().flat_map(|spec| spec.containers.first());
        let mut mounts = containers.filter_map(|container| container.volume_mounts.as_ref()).flatten();
        let root = if mounts.any(|mount| mount.mount_path == AGENT_DIRECTORY) { AGENT_DIRECTORY } else { "/tmp" };
        format!("{root}/udn-{}", self.run)
    }

    async fn make(&self) -> Result<Made, Error> {
        let namespace = nodes_namespace(&self.run);
        let watch = PodWatch::start(self.client(), &format!("{},{VANTAGE_LABEL}=node", selector(&self.run, None)));
        self.objects
            .apply(&json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace,
                "labels": { RUN_LABEL: self.run, "pod-security.kubernetes.io/enforce": "privileged" } } }))
            .await?;
        let slots = u8::try_from(self.nodes.len()).unwrap_or(u8::MAX);
        let manifests = (0..slots).map(|slot| self.pod(&namespace, slot)).collect::<Result<Vec<_>, _>>()?;
        futures::future::try_join_all(
            manifests.iter().map(|manifest| crate::provision::apply_pod(&self.objects, manifest)),
        )
        .await?;
        let keys: Vec<_> = (0..slots).map(|slot| ((namespace.clone(), node_identity(slot)), None)).collect();
        watch.wait_ready(&keys, self.deadline).await?;
        let attached = (0..slots).map(|slot| self.attach(&namespace, slot));
        let attached = futures::future::try_join_all(attached).await?;
        let mut made = Made { stations: BTreeMap::new(), addresses: BTreeMap::new(), _watch: watch };
        for (slot, (station, ports)) in (0..).zip(attached) {
            let addresses = self.nodes.get(usize::from(slot)).map(|node| node.addresses.clone()).unwrap_or_default();
            made.stations.insert(slot, Arc::new(station));
            made.addresses.insert(slot, NodeAddresses { addresses, ports, flow_port: None, life: None });
        }
        Ok(made)
    }

    fn pod(&self, namespace: &str, slot: u8) -> Result<Value, Error> {
        let name = node_identity(slot);
        let hostname = self.nodes.get(usize::from(slot)).map(|node| node.hostname.clone()).unwrap_or_default();
        let image = self.image.as_deref().unwrap_or(IMAGE);
        let mut container = json!({ "name": PROBE_CONTAINER, "image": image, "args": ["pause"] });
        equip(&mut container, None).map_err(|problem| Error::Manifest { object: format!("Pod {name}"), problem })?;
        Ok(json!({ "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name, "namespace": namespace, "labels": { RUN_LABEL: self.run, VANTAGE_LABEL: "node" } },
            "spec": {
                "hostNetwork": true,
                "terminationGracePeriodSeconds": 1,
                "nodeSelector": { "kubernetes.io/hostname": hostname },
                "containers": [container],
                "volumes": [{ "name": "udn-agent", "emptyDir": {} }] } }))
    }

    async fn attach(&self, namespace: &str, slot: u8) -> Result<(Station, BTreeMap<Transport, u16>), Error> {
        let name = node_identity(slot);
        let pods = Api::namespaced(self.client(), namespace);
        let link = Exec::new(pods, &name, None, Some(PROBE_CONTAINER), AGENT_DIRECTORY, self.uploads.clone());
        let station = Station::new(Agent::start(link, self.session));
        let ports = listen(&station, &format!("{}/{}", self.run, node_identity(slot))).await;
        let ports = ports.map_err(|source| Error::Agent { pod: format!("{namespace}/{name}"), source })?;
        Ok((station, ports))
    }

    /// Ends the agent outside of the cluster and removes its files; the nodes' pods go with their namespace.
    pub(crate) async fn leave(&self) {
        let (Some(Ok(external)), Some(pod)) = (self.external.get(), &self.external_pod) else { return };
        let _ = external.station.agent.call(Op::Shutdown, SHUTDOWN).await;
        let pods: Api<Pod> = Api::namespaced(self.client(), &pod.namespace().unwrap_or_default());
        let directory = self.external_directory(pod);
        let params = AttachParams { stdout: true, stderr: false, ..AttachParams::default() };
        let removed = async {
            let mut process = pods.exec(&pod.name_any(), ["rm", "-rf", directory.as_str()], &params).await?;
            if let Some(status) = process.take_status() {
                status.await;
            }
            Ok::<_, kube::Error>(())
        };
        if !matches!(tokio::time::timeout(SHUTDOWN, removed).await, Ok(Ok(()))) {
            tracing::warn!(%directory, "the agent's files outside of the cluster could not be removed");
        }
    }
}

/// Listens with TCP and UDP on ports that nobody else has on that host.
async fn listen(station: &Station, identity: &str) -> Result<BTreeMap<Transport, u16>, AgentError> {
    let mut ports = BTreeMap::new();
    for (transport, wire) in [(Transport::Tcp, Wire::Tcp), (Transport::Udp, Wire::Udp)] {
        ports.insert(transport, listen_somewhere(&station.agent, wire, identity).await?);
    }
    Ok(ports)
}

/// Listens on a port that nobody else has on that host.
pub(crate) async fn listen_somewhere(agent: &Agent, transport: Wire, identity: &str) -> Result<u16, AgentError> {
    listen_for(agent, transport, identity, false).await
}

/// `echo`: for flows.
async fn listen_for(agent: &Agent, transport: Wire, identity: &str, echo: bool) -> Result<u16, AgentError> {
    let mut last = AgentError::Failed("no port was tried".into());
    for _ in 0..DRAWS {
        let port = rand::rng().random_range(PORTS);
        match agent.listen(Listen { transport, port, identity: identity.into(), echo }).await {
            Ok(()) => return Ok(port),
            Err(AgentError::Failed(why)) => {
                last = AgentError::Failed(why);
                // Else it would be opened again with the others in the agent's next life.
                let _ = agent.call(Op::Unlisten { transport, port }, SHUTDOWN).await;
            }
            Err(other) => return Err(other),
        }
    }
    Err(last)
}
