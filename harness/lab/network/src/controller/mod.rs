//! Controllers: objects in, OVN and annotations out. All are clients of the API server; level-triggered, so that a lost
//! watch, a restart or an object changed behind their back ends in the same state.
//!
//! * [`cache`], [`queue`]: objects as last told; what is to be looked at again
//! * [`state`]: networks with their pools, pods with their attachments
//! * [`owners`]: UDN and CUDN to attachment definitions, conditions, finalizers
//! * [`networks`]: attachment definitions to networks in OVN
//! * [`pods`]: addresses, ports, annotations; [`plan`]: which attachments a pod gets
//! * [`claims`]: IPAMClaims, which keep addresses; [`denied`]: why there are none
//! * [`standing`]: which of a virtual machine's pods the network leads to; [`migration`]: the hand-over between them
//! * [`faults`]: what nodes are told to do wrong
//! * [`services`]: services to load balancers and flows; [`mirror`]: EndpointSlices with addresses on primary networks
//! * [`nodes`]: annotations of nodes
//! * [`status`]: conditions and events

pub(crate) mod cache;
pub(crate) mod claims;
pub(crate) mod denied;
pub(crate) mod faults;
pub(crate) mod migration;
pub(crate) mod mirror;
pub(crate) mod networks;
pub(crate) mod nodes;
pub(crate) mod owners;
pub(crate) mod plan;
pub(crate) mod pods;
pub(crate) mod queue;
pub(crate) mod services;
pub(crate) mod standing;
pub(crate) mod state;
pub(crate) mod status;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::{Namespace, Node as KubeNode, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::{Api, Client, ResourceExt};
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;
use udn_api::{ClusterUserDefinedNetwork, IpamClaim, NetworkAttachmentDefinition, UserDefinedNetwork};

use self::cache::{Cache, key_of};
use self::queue::Queue;
use self::state::State;
use crate::error::Error;
use crate::layout::{Layout, Node};
use crate::naming::DEFAULT_NETWORK;
use crate::network::Options;
use crate::node::announce::Announcement;
use crate::ovsdb;
use crate::policy::change::Applied;
use crate::service::exposure::Exposures;
use crate::topology::services::Groups;

/// How many keys are worked on at once.
const WORKERS: usize = 16;
/// How many announcements a node may be behind.
const ANNOUNCEMENTS: usize = 256;

/// What is to be looked at again.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Key {
    /// `<namespace>/<name>` of a UDN.
    Udn(String),
    /// Name of a CUDN.
    Cudn(String),
    /// `<namespace>/<name>` of an attachment definition.
    Definition(String),
    /// Name of a network.
    Network(String),
    /// `<namespace>/<name>` of a pod.
    Pod(String),
    /// `<namespace>/<name>` of an IPAMClaim.
    Claim(String),
    /// Name of a node.
    Node(String),
    /// All network policies.
    Policies,
    /// `<namespace>/<name>` of a service.
    Service(String),
    /// `<namespace>/<name>` of an EndpointSlice that is to be mirrored.
    Mirror(String),
}

/// What was laid before the first object was looked at.
#[derive(Debug)]
pub(crate) struct Ground {
    /// The default network's.
    pub(crate) groups: Groups,
    /// Load balancers that the switches of every user defined network have.
    pub(crate) load_balancers: Vec<String>,
}

/// Everything that the controllers share.
pub(crate) struct Controller {
    pub(crate) client: Client,
    pub(crate) northbound: ovsdb::Client,
    pub(crate) default_network: Layout,
    /// UUIDs of load balancers that the switches of every user defined network have.
    pub(crate) common_load_balancers: Vec<String>,
    pub(crate) options: Options,
    pub(crate) namespaces: Cache<Namespace>,
    pub(crate) udns: Cache<UserDefinedNetwork>,
    pub(crate) cudns: Cache<ClusterUserDefinedNetwork>,
    pub(crate) definitions: Cache<NetworkAttachmentDefinition>,
    pub(crate) pods: Cache<Pod>,
    pub(crate) claims: Cache<IpamClaim>,
    pub(crate) nodes: Cache<KubeNode>,
    pub(crate) policies: Cache<NetworkPolicy>,
    pub(crate) services: Cache<Service>,
    pub(crate) slices: Cache<EndpointSlice>,
    pub(crate) queue: Arc<Queue<Key>>,
    state: Mutex<State>,
    /// Told whenever a pod's state changed; the node side waits on it.
    pub(crate) changes: watch::Sender<u64>,
    /// What br-ex has to know; the node side follows it.
    pub(crate) exposures: watch::Sender<Arc<Exposures>>,
    /// Taken for writing while a network is laid out anew, for reading while a pod's ports change: none may be lost.
    pub(crate) rebuilding: tokio::sync::RwLock<()>,
    /// What OVN has of network policies; held while a transaction that changes it is under way.
    pub(crate) policies_applied: tokio::sync::Mutex<Applied>,
    /// What nodes have to tell virtual machines that came to them.
    pub(crate) announcements: broadcast::Sender<Arc<Announcement>>,
    /// Held while a port is handed over from one pod of a virtual machine to another; taken after `rebuilding`.
    pub(crate) handing_over: tokio::sync::Mutex<()>,
    /// A primary network is created in a namespace only if it has none: one at a time.
    pub(crate) creating: tokio::sync::Mutex<()>,
}

impl Controller {
    pub(crate) fn new(
        client: Client,
        northbound: ovsdb::Client,
        default_network: Layout,
        ground: Ground,
        options: Options,
        policies_applied: Applied,
    ) -> Self {
        let mut state = State::default();
        let mut network = state::NetworkState::new(default_network.clone());
        network.ready = true;
        network.groups = Some(ground.groups);
        state.networks.insert(default_network.name().to_owned(), network);
        Self {
            client,
            northbound,
            default_network,
            common_load_balancers: ground.load_balancers,
            options,
            namespaces: Cache::default(),
            udns: Cache::default(),
            cudns: Cache::default(),
            definitions: Cache::default(),
            pods: Cache::default(),
            claims: Cache::default(),
            nodes: Cache::default(),
            policies: Cache::default(),
            services: Cache::default(),
            slices: Cache::default(),
            queue: Arc::default(),
            state: Mutex::new(state),
            changes: watch::Sender::new(0),
            exposures: watch::Sender::new(Arc::default()),
            rebuilding: tokio::sync::RwLock::new(()),
            policies_applied: tokio::sync::Mutex::new(policies_applied),
            announcements: broadcast::Sender::new(ANNOUNCEMENTS),
            handing_over: tokio::sync::Mutex::new(()),
            creating: tokio::sync::Mutex::new(()),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn node(&self, name: &str) -> Option<&Node> {
        self.default_network.node(name)
    }

    /// Tells those who wait for a pod.
    pub(crate) fn pod_changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// Starts watches and workers. They end with the set.
    pub(crate) fn start(self: &Arc<Self>, tasks: &mut JoinSet<()>) {
        self.clone().watch(tasks, |it| &it.namespaces, Self::namespace_changed);
        self.clone().watch(tasks, |it| &it.udns, |it, udn| it.queue.add(Key::Udn(key_of(udn))));
        self.clone().watch(tasks, |it| &it.cudns, |it, cudn| it.queue.add(Key::Cudn(key_of(cudn))));
        self.clone().watch(tasks, |it| &it.definitions, |it, nad| it.queue.add(Key::Definition(key_of(nad))));
        self.clone().watch(tasks, |it| &it.pods, Self::pod_told);
        self.clone().watch(tasks, |it| &it.claims, |it, claim| it.queue.add(Key::Claim(key_of(claim))));
        self.clone().watch(tasks, |it| &it.nodes, Self::node_told);
        self.clone().watch(tasks, |it| &it.policies, |it, _| it.queue.add(Key::Policies));
        // What a former life left of them has to go even if there are none now.
        self.queue.add(Key::Policies);
        self.clone().watch(tasks, |it| &it.services, Self::service_told);
        self.clone().watch(tasks, |it| &it.slices, Self::slice_told);
        let aside = Arc::new(tokio::sync::OnceCell::new());
        for _ in 0..WORKERS {
            let (controller, aside) = (self.clone(), aside.clone());
            tasks.spawn(async move {
                // Nothing is decided on half a picture.
                tokio::join!(
                    controller.namespaces.synced(),
                    controller.udns.synced(),
                    controller.cudns.synced(),
                    controller.definitions.synced(),
                    controller.pods.synced(),
                    controller.claims.synced(),
                    controller.nodes.synced(),
                    controller.policies.synced(),
                    controller.services.synced(),
                    controller.slices.synced(),
                );
                // Other networks do so when they are laid out.
                let default = async || controller.put_known_addresses_aside(&mut controller.state(), DEFAULT_NETWORK);
                aside.get_or_init(default).await;
                let queue = controller.queue.clone();
                queue.work(move |key| controller.clone().reconcile(key)).await;
            });
        }
    }

    fn watch<K>(self: Arc<Self>, tasks: &mut JoinSet<()>, cache: fn(&Self) -> &Cache<K>, changed: fn(&Self, &K))
    where
        K: kube::Resource<DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned
            + Send
            + Sync
            + 'static,
    {
        tasks.spawn(async move {
            cache(&self).follow(Api::all(self.client.clone()), |object| changed(&self, object)).await;
        });
    }

    async fn reconcile(self: Arc<Self>, key: Key) -> Result<(), Error> {
        match &key {
            Key::Udn(key) => self.reconcile_udn(key).await,
            Key::Cudn(name) => self.reconcile_cudn(name).await,
            Key::Definition(key) => self.reconcile_definition(key).await,
            Key::Network(name) => self.reconcile_network(name).await,
            Key::Pod(key) => self.reconcile_pod(key).await,
            Key::Claim(key) => self.reconcile_claim(key).await,
            Key::Node(name) => self.reconcile_node(name).await,
            Key::Policies => self.reconcile_policies().await,
            Key::Service(key) => self.reconcile_service(key).await,
            Key::Mirror(key) => self.reconcile_mirror(key).await,
        }
    }

    fn namespace_changed(&self, namespace: &Namespace) {
        self.owners_changed(&namespace.name_any());
        self.policies_affected();
        self.services_of_changed(&namespace.name_any());
        self.wake_waiting_pods();
    }

    /// UDNs of a namespace and all CUDNs: membership, or what blocked them, may have changed.
    pub(crate) fn owners_changed(&self, namespace: &str) {
        self.udns.in_namespace(namespace).iter().for_each(|udn| self.queue.add(Key::Udn(key_of(udn.as_ref()))));
        self.cudns.all().iter().for_each(|cudn| self.queue.add(Key::Cudn(key_of(cudn.as_ref()))));
    }

    /// Something that policies select by may have changed.
    pub(crate) fn policies_affected(&self) {
        if !self.policies.is_empty() {
            self.queue.add(Key::Policies);
        }
    }

    fn node_told(&self, node: &KubeNode) {
        self.queue.add(Key::Node(key_of(node)));
        // A fault may have kept their guests from being reached.
        let waiting = |(key, pod): (&String, &state::PodState)| {
            (pod.node == node.name_any() && pod.standing == standing::Standing::Waiting).then(|| key.clone())
        };
        let pods: Vec<String> = self.state().pods.iter().filter_map(waiting).collect();
        pods.into_iter().for_each(|pod| self.queue.add(Key::Pod(pod)));
    }

    fn pod_told(&self, pod: &Pod) {
        self.queue.add(Key::Pod(key_of(pod)));
        self.policies_affected();
        // A network in use goes when its last pod does.
        if pod.metadata.deletion_timestamp.is_some() || self.pods.get(&key_of(pod)).is_none() {
            let namespace = pod.namespace().unwrap_or_default();
            for udn in self.udns.in_namespace(&namespace) {
                if udn.metadata.deletion_timestamp.is_some() {
                    self.queue.add(Key::Udn(key_of(udn.as_ref())));
                }
            }
            // A CUDN may also be waiting to leave a namespace that it no longer selects.
            self.cudns.all().iter().for_each(|cudn| self.queue.add(Key::Cudn(key_of(cudn.as_ref()))));
        }
    }

    /// Looks again at pods that wait for something.
    pub(crate) fn wake_waiting_pods(&self) {
        let waiting: Vec<String> = self.state().waiting.keys().cloned().collect();
        waiting.into_iter().for_each(|pod| self.queue.add(Key::Pod(pod)));
    }
}
