//! The whole network: controllers and the node side of every node.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use ipnet::IpNet;
use kube::Client;
use tokio::task::JoinSet;
use udn_lab_sys::pod::{AttachError, Attached, PodNetwork, Sandbox};
use udn_lab_sys::site::Site;

use crate::annotation;
use crate::controller::state::PodState;
use crate::controller::{Controller, Ground};
use crate::error::Error;
use crate::layout::{Layout, Node, probe_address};
use crate::naming::DEFAULT_NETWORK;
use crate::node::links::Links;
use crate::node::sync::Sync;
use crate::node::vswitch::Vswitch;
use crate::node::{NodeSide, announce, attach, flows, management, setup};
use crate::ovsdb::{self, Transaction};
use crate::policy;
use crate::topology::services::Groups;
use crate::topology::{self, isolation, services};

const NORTHBOUND: &str = "OVN_Northbound";
/// How long [`PodNetwork::attach`] waits for a decision before it says that the pod has to wait.
const DECISION: Duration = Duration::from_secs(5);
/// … where it is already known what the pod waits for.
const KNOWN_WAIT: Duration = Duration::from_millis(500);

/// The API server's service.
pub(crate) const API_SERVER: &str = "default/kubernetes";

/// What can be chosen.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Options {
    /// Services of the default network (`<namespace>/<name>`) that pods of all networks may use by their ClusterIPs, as
    /// OVN-Kubernetes' `--udn-allowed-default-services`.
    pub allowed_default_services: Vec<String>,
    /// Where the service `default/kubernetes` leads, whatever its endpoints: for an API server that tells an address which the
    /// lab has no way to. Empty: to its endpoints.
    pub api_server: Vec<SocketAddr>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            allowed_default_services: vec![API_SERVER.into(), "kube-system/kube-dns".into()],
            api_server: Vec::new(),
        }
    }
}

/// User Defined Networks on the lab's OVN. Clones are the same network; it ends with the last.
#[derive(Clone)]
pub struct Network {
    shared: Arc<Shared>,
}

struct Shared {
    controller: Arc<Controller>,
    nodes: HashMap<String, NodeSide>,
    sync: Sync,
    site: Arc<Site>,
    /// What runs on each node while its component does.
    parts: Mutex<HashMap<String, JoinSet<()>>>,
    // Dropping the set ends its tasks.
    _tasks: JoinSet<()>,
}

impl std::fmt::Debug for Network {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Network").field("nodes", &self.shared.nodes.keys()).finish_non_exhaustive()
    }
}

impl Network {
    /// Lays out the default network, prepares all nodes, and starts the controllers.
    ///
    /// `client` needs the kinds of `udn_api::crds()` in its API server; `site`'s daemons must be up. Returns when default
    /// network and nodes work; networks of objects follow as the objects come.
    ///
    /// # Errors
    /// When a database does not answer or refuses, or a node cannot be prepared.
    pub async fn start(client: Client, site: Arc<Site>, options: Options) -> Result<Self, Error> {
        let nodes: Arc<Vec<Node>> = Arc::new(site.nodes.iter().map(Node::from).collect());
        let default_network = Layout::default_network(nodes);
        let socket = site.ovn.northbound();
        let northbound = ovsdb::Client::new(NORTHBOUND, socket.clone());
        let policies = policy::leftovers(&northbound).await?;
        let ground = lay_default_network(&northbound, &default_network).await?;
        let sides = site
            .nodes
            .iter()
            .map(|node| {
                let vswitch = Vswitch::open(node.ovs_run.join("db.sock"));
                let links = Links::open(&node.netns)?;
                Ok(NodeSide { site: node.clone(), vswitch, links, making_ports: Arc::default() })
            })
            .collect::<Result<Vec<_>, Error>>()?;
        let sync = Sync::start(northbound.clone(), socket);
        futures::future::try_join_all(sides.iter().map(|side| setup::prepare(side, &site.tools, &default_network)))
            .await?;
        sync.all_chassis().await?;
        let controller = Arc::new(Controller::new(client, northbound, default_network, ground, options, policies));
        let mut tasks = JoinSet::new();
        controller.start(&mut tasks);
        let names: Vec<String> = sides.iter().map(|side| side.site.name.clone()).collect();
        let nodes = sides.into_iter().map(|side| (side.site.name.clone(), side)).collect();
        let shared = Shared { controller, nodes, sync, site, parts: Mutex::default(), _tasks: tasks };
        let network = Self { shared: Arc::new(shared) };
        names.iter().for_each(|name| network.start_node(name));
        Ok(network)
    }

    /// Starts what keeps a node's flows and routes current, unless it runs. Without it pods are not attached there.
    pub fn start_node(&self, name: &str) {
        let Some(side) = self.shared.nodes.get(name) else { return };
        self.parts().entry(name.to_owned()).or_insert_with(|| {
            let mut tasks = JoinSet::new();
            let exposures = self.shared.controller.exposures.subscribe();
            tasks.spawn(flows::keep(side.clone(), self.shared.site.tools.clone(), exposures));
            let announcements = self.shared.controller.announcements.subscribe();
            tasks.spawn(announce::keep(
                side.clone(),
                self.shared.site.tools.clone(),
                self.shared.sync.clone(),
                announcements,
            ));
            let exposures = self.shared.controller.exposures.subscribe();
            tasks.spawn(management::keep(side.clone(), exposures));
            tasks
        });
    }

    /// Ends it; what it wrote stays.
    pub fn stop_node(&self, name: &str) {
        self.parts().remove(name);
    }

    fn parts(&self) -> MutexGuard<'_, HashMap<String, JoinSet<()>>> {
        self.shared.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until every chassis has installed what OVN was told so far.
    ///
    /// # Errors
    /// When a chassis does not answer in time.
    pub async fn settle(&self) -> Result<(), Error> {
        self.shared.sync.all_chassis().await
    }

    /// The node's own port on the network of the virtual machine that a pod runs.
    fn speaker(&self, pod: &PodState) -> Option<management::Port> {
        let attachment = pod.attachments.iter().find(|attachment| attachment.guest.is_some())?;
        let state = self.shared.controller.state();
        let layout = &state.networks.get(&attachment.network)?.layout;
        layout.has_management_ports().then(|| management::Port::of(layout, &pod.node))
    }

    /// The pod's attachments as soon as OVN has them.
    async fn decided(&self, sandbox: &Sandbox) -> Result<PodState, AttachError> {
        let key = format!("{}/{}", sandbox.namespace, sandbox.pod);
        let controller = &self.shared.controller;
        let mut changes = controller.changes.subscribe();
        let started = tokio::time::Instant::now();
        loop {
            changes.mark_unchanged();
            let reason = {
                let state = controller.state();
                if let Some(pod) = state.pods.get(&key).filter(|pod| pod.uid == sandbox.uid && !pod.ports.is_empty()) {
                    return Ok(pod.clone());
                }
                state.waiting.get(&key).cloned()
            };
            let deadline = started + if reason.is_some() { KNOWN_WAIT } else { DECISION };
            if tokio::time::timeout_at(deadline, changes.changed()).await.is_err() {
                let reason = reason.unwrap_or_else(|| "the network has not annotated it yet".into());
                return Err(AttachError::Pending { pod: key, reason });
            }
        }
    }
}

/// The address from which the kubelet of a node must probe a pod: a pod whose primary network is another lets nothing
/// else in on its default-network address. `node_index` is [`udn_lab_sys::site::NodeSite::index`].
#[must_use]
pub fn probe_source(node_index: u8, pod_address: IpAddr) -> IpAddr {
    let default_network = Layout::default_network(Arc::default());
    let node =
        Node { name: String::new(), index: node_index, addresses: [pod_address; 2], mac: crate::address::Mac([0; 6]) };
    let subnets = default_network.subnets(&node).unwrap_or_default();
    let subnet: Option<&IpNet> = subnets.iter().find(|subnet| subnet.addr().is_ipv6() == pod_address.is_ipv6());
    subnet.and_then(|subnet| probe_address(*subnet)).unwrap_or(pod_address)
}

/// The default network, its isolation, and what services need.
async fn lay_default_network(northbound: &ovsdb::Client, layout: &Layout) -> Result<Ground, Error> {
    let purpose = "laying out the default network";
    let refused = |reason: String| Error::Refused { database: NORTHBOUND, purpose: purpose.into(), reason };
    // What a former life left is replaced as a whole: pods' ports and services follow from their objects.
    let mut leftovers = services::forget();
    leftovers.append(topology::delete(DEFAULT_NETWORK));
    leftovers.delete("Port_Group", &isolation::port_group());
    northbound.commit(purpose, leftovers).await?;
    let common = northbound.commit(purpose, services::common(layout)).await?;
    let load_balancers = common.into_iter().take(2).collect();
    let groups = Groups::created(layout, northbound.commit(purpose, Groups::create(layout, &[])).await?);
    let rows: Transaction = topology::create(layout, Some(&groups)).map_err(refused)?;
    northbound.commit(purpose, rows).await?;
    northbound.commit(purpose, isolation::create(layout)).await?;
    Ok(Ground { groups, load_balancers })
}

#[async_trait]
impl PodNetwork for Network {
    async fn attach(&self, sandbox: &Sandbox) -> Result<Attached, AttachError> {
        let pod = format!("{}/{}", sandbox.namespace, sandbox.pod);
        let refused = |reason: String| AttachError::Refused { pod: pod.clone(), reason };
        let node = self
            .shared
            .nodes
            .get(&sandbox.node)
            .ok_or_else(|| refused(format!("there is no node {}", sandbox.node)))?;
        if !self.parts().contains_key(&sandbox.node) {
            let reason = format!("the node component of {} does not run", sandbox.node);
            return Err(AttachError::Pending { pod, reason });
        }
        let decided = self.decided(sandbox).await?;
        let speaker = self.speaker(&decided);
        attach::attach(node, &self.shared.sync, sandbox, &decided.attachments, speaker.as_ref())
            .await
            .map_err(|error| refused(error.to_string()))?;
        let default = decided.attachments.iter().find(|attachment| attachment.nad == DEFAULT_NETWORK);
        Ok(Attached {
            ips: default.map(annotation::Attachment::ips).unwrap_or_default(),
            network_status: annotation::network_status(&decided.attachments),
        })
    }

    async fn detach(&self, sandbox: &Sandbox) {
        let Some(node) = self.shared.nodes.get(&sandbox.node) else { return };
        if let Err(error) = attach::detach(node, &sandbox.uid).await {
            tracing::warn!(pod = %format!("{}/{}", sandbox.namespace, sandbox.pod), %error, "detaching failed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kubelet_has_an_address_of_its_own_on_each_node() {
        assert_eq!(probe_source(2, "10.244.2.7".parse().unwrap()).to_string(), "10.244.2.254");
        assert_eq!(probe_source(3, "fd00:10:244:3::7".parse().unwrap()).to_string(), "fd00:10:244:3::fe");
    }
}
