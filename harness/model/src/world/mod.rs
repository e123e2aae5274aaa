//! Namespaces, networks, pods, VMs, services and policies, read from plain manifests. No cluster is needed to know what a world contains.

mod policy;
mod read;
mod selector;
mod service;
mod vm;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::policy::{Membership, Peer, Policy, PolicyPort, PolicyRule, Ports, Whereabouts};
pub use self::selector::Selector;
pub use self::service::{Service, ServicePort, ServiceRef, TargetPort};
pub use self::vm::{ADDRESSES_ANNOTATION, LISTENS_ANNOTATION, VM_KIND, VM_NAME_LABEL, Vm, listens};
use crate::words::{Family, Role, Topology, Transport};

/// The label that makes a namespace fit for a primary network; fixed at the namespace's creation.
pub const PRIMARY_LABEL: &str = "k8s.ovn.org/primary-user-defined-network";
/// The label that the API server puts on every namespace: its name.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";
/// The pod annotation that attaches secondary networks.
pub const NETWORKS_ANNOTATION: &str = "k8s.v1.cni.cncf.io/networks";
/// The pod annotation that asks for addresses on the primary network.
pub const DEFAULT_NETWORK_ANNOTATION: &str = "v1.multus-cni.io/default-network";
/// The pod annotation that opens ports of the default-network address.
pub const OPEN_PORTS_ANNOTATION: &str = "k8s.ovn.org/open-default-ports";
/// The pod label that places a pod: the slot of a schedulable node, 0 the first.
pub const NODE_LABEL: &str = "udn-conformance.io/node";
/// The readiness gate by which the harness decides whether a pod that names it is Ready; at first it is.
pub const READY_GATE: &str = "udn-conformance.io/ready";
/// The container in which the probe agent runs and listens on the ports that the container declares.
pub const PROBE_CONTAINER: &str = "probe";

/// A pod by the names of its world.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PodRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl PodRef {
    /// A pod.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// `namespace.name`: for cell ids, where `/` would be hard to type.
    #[must_use]
    pub fn dotted(&self) -> String {
        format!("{}.{}", self.namespace, self.name)
    }
}

impl fmt::Display for PodRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.namespace, self.name))
    }
}

/// Which object makes a network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkId {
    /// A `UserDefinedNetwork`.
    Udn {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// A `ClusterUserDefinedNetwork`.
    Cudn {
        /// Its name.
        name: String,
    },
}

impl NetworkId {
    /// The name of the object, which is also the name of its NetworkAttachmentDefinition in every member namespace.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Udn { name, .. } | Self::Cudn { name } => name,
        }
    }
}

impl fmt::Display for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udn { namespace, name } => f.pad(&format!("udn.{namespace}.{name}")),
            Self::Cudn { name } => f.pad(&format!("cudn.{name}")),
        }
    }
}

/// A network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Which object makes it.
    pub id: NetworkId,
    /// How it is laid out.
    pub topology: Topology,
    /// What it is for its pods.
    pub role: Role,
    /// Its subnets, as declared.
    pub subnets: Vec<Subnet>,
    /// Addresses that pods never get: reserved, infrastructure and excluded subnets.
    pub withheld: Vec<IpNet>,
    /// Gateways that the network declares; empty: `.1` of each subnet.
    pub gateways: Vec<IpAddr>,
    /// MTU that the network declares, bytes.
    pub mtu: Option<u32>,
    /// Namespaces that it covers.
    pub namespaces: Vec<String>,
    /// Whether addresses stay those of a VM that moves or is restarted (`ipam.lifecycle: Persistent`).
    pub persistent: bool,
}

/// A subnet of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// The subnet of the whole network.
    pub cidr: IpNet,
    /// Layer3: prefix length of the part that each node gets.
    pub host_prefix: Option<u8>,
}

impl Network {
    /// Whether the network has addresses of the family.
    #[must_use]
    pub fn has_family(&self, family: Family) -> bool {
        self.subnets.iter().any(|subnet| Family::of_net(&subnet.cidr) == family)
    }

    /// Whether an address of this family could belong to both networks.
    #[must_use]
    pub fn overlaps(&self, other: &Self, family: Family) -> bool {
        let of = |network: &Self| -> Vec<IpNet> {
            network.subnets.iter().map(|s| s.cidr).filter(|net| Family::of_net(net) == family).collect()
        };
        of(self).iter().any(|a| of(other).iter().any(|b| a.contains(b) || b.contains(a)))
    }
}

/// A pod, or a VM: a pod whose agent is in a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its names.
    pub pod: PodRef,
    /// Slot of the node it is placed on.
    pub node: u8,
    /// Whether it is Ready, as far as the harness decides about it ([`READY_GATE`]).
    pub ready: bool,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// `spec.hostname`: its name within `subdomain`.
    pub hostname: Option<String>,
    /// `spec.subdomain`: the headless service that it is a member of by name.
    pub subdomain: Option<String>,
    /// What its agent listens on.
    pub listens: Vec<(Transport, u16)>,
    /// Those of its ports that have names.
    pub named_ports: BTreeMap<(Transport, String), u16>,
    /// Its primary network; `None`: the cluster default network.
    pub primary: Option<NetworkId>,
    /// Its secondary networks, in order: `net1`, `net2` …
    pub secondary: Vec<Attachment>,
    /// Ports of its default-network address that are opened; a malformed annotation opens none.
    pub open_default_ports: Vec<(Transport, Option<u16>)>,
    /// What it asks for on its primary network.
    pub requested: Requested,
    /// What makes it a VM.
    pub vm: Option<Vm>,
}

/// A secondary attachment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The network.
    pub network: NetworkId,
    /// What the pod asks for.
    pub requested: Requested,
}

/// Static addresses that a pod asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requested {
    /// Addresses with prefix length.
    pub ips: Vec<IpNet>,
    /// MAC address, lower case, colons.
    pub mac: Option<String>,
}

/// A provisioned set of fixtures, as declared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct World {
    /// Namespaces and their labels, the one with their name included.
    pub namespaces: BTreeMap<String, BTreeMap<String, String>>,
    /// Networks.
    pub networks: Vec<Network>,
    /// Pods.
    pub pods: Vec<Pod>,
    /// Services.
    pub services: Vec<Service>,
    /// NetworkPolicies.
    pub policies: Vec<Policy>,
}

/// A manifest that cannot be a part of a world.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{object}: {problem}")]
pub struct WorldError {
    /// `kind namespace/name`.
    pub object: String,
    /// What is wrong and what is expected.
    pub problem: String,
}

impl World {
    /// Reads namespaces, networks, pods, services and policies; other kinds are left alone.
    ///
    /// # Errors
    /// A field that the world needs is missing or has a value that cannot be read.
    pub fn from_manifests(manifests: &[Value]) -> Result<Self, WorldError> {
        let mut world = Self::default();
        for manifest in of_kind(manifests, "Namespace") {
            let name = text(manifest, "/metadata/name")?.to_owned();
            let mut labels = string_map(&manifest["metadata"]["labels"]);
            labels.insert(NAME_LABEL.into(), name.clone());
            world.namespaces.insert(name, labels);
        }
        for manifest in manifests {
            match manifest["kind"].as_str() {
                Some("UserDefinedNetwork") => world.networks.push(read::udn(manifest)?),
                Some("ClusterUserDefinedNetwork") => world.networks.push(read::cudn(manifest, &world.namespaces)?),
                _ => {}
            }
        }
        for manifest in of_kind(manifests, "Pod") {
            let pod = read::pod(manifest, &world)?;
            world.pods.push(pod);
        }
        for manifest in of_kind(manifests, VM_KIND) {
            let vm = vm::read(manifest, &world)?;
            world.pods.push(vm);
        }
        for manifest in of_kind(manifests, "Service") {
            world.services.push(service::read(manifest)?);
        }
        for manifest in of_kind(manifests, "NetworkPolicy") {
            world.policies.push(policy::read(manifest)?);
        }
        Ok(world)
    }

    /// The network of this id.
    #[must_use]
    pub fn network(&self, id: &NetworkId) -> Option<&Network> {
        self.networks.iter().find(|network| network.id == *id)
    }

    /// The pod of these names.
    #[must_use]
    pub fn pod(&self, pod: &PodRef) -> Option<&Pod> {
        self.pods.iter().find(|candidate| candidate.pod == *pod)
    }

    /// The service of these names.
    #[must_use]
    pub fn service(&self, service: &ServiceRef) -> Option<&Service> {
        self.services.iter().find(|candidate| candidate.service == *service)
    }

    /// The primary network of a namespace's pods; `None`: the cluster default network.
    #[must_use]
    pub fn primary_of(&self, namespace: &str) -> Option<&Network> {
        let labelled = self.namespaces.get(namespace).is_some_and(|labels| labels.contains_key(PRIMARY_LABEL));
        self.networks.iter().find(|network| {
            labelled && network.role == Role::Primary && network.namespaces.iter().any(|n| n == namespace)
        })
    }

    /// Slots of the nodes that the world uses.
    #[must_use]
    pub fn nodes(&self) -> Vec<u8> {
        let mut slots: Vec<u8> = self.pods.iter().map(|pod| pod.node).collect();
        slots.sort_unstable();
        slots.dedup();
        slots
    }
}

fn of_kind<'a>(manifests: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    manifests.iter().filter(move |manifest| manifest["kind"] == kind)
}

fn describe(manifest: &Value) -> String {
    let part = |pointer: &str| manifest.pointer(pointer).and_then(Value::as_str).unwrap_or("?").to_owned();
    match manifest.pointer("/metadata/namespace").and_then(Value::as_str) {
        Some(namespace) => format!("{} {namespace}/{}", part("/kind"), part("/metadata/name")),
        None => format!("{} {}", part("/kind"), part("/metadata/name")),
    }
}

fn problem(manifest: &Value, problem: impl Into<String>) -> WorldError {
    WorldError { object: describe(manifest), problem: problem.into() }
}

fn text<'a>(manifest: &'a Value, pointer: &str) -> Result<&'a str, WorldError> {
    manifest.pointer(pointer).and_then(Value::as_str).ok_or_else(|| {
        problem(manifest, format!("{} must be a text", pointer.trim_start_matches('/').replace('/', ".")))
    })
}

/// The protocol of a port's entry.
fn transport(manifest: &Value, port: &Value) -> Result<Transport, WorldError> {
    let protocol = port["protocol"].as_str();
    Transport::of_protocol(protocol)
        .ok_or_else(|| problem(manifest, format!("protocol {} is not TCP, UDP or SCTP", protocol.unwrap_or_default())))
}

fn string_map(value: &Value) -> BTreeMap<String, String> {
    let entries = value.as_object().into_iter().flatten();
    entries.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}
