//! Namespaces, networks and pods, read from plain manifests. No cluster is needed to know what a world contains.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::words::{Family, Role, Topology, Transport};

/// The label that makes a namespace fit for a primary network; fixed at the namespace's creation.
pub const PRIMARY_LABEL: &str = "k8s.ovn.org/primary-user-defined-network";
/// The pod annotation that attaches secondary networks.
pub const NETWORKS_ANNOTATION: &str = "k8s.v1.cni.cncf.io/networks";
/// The pod annotation that asks for addresses on the primary network.
pub const DEFAULT_NETWORK_ANNOTATION: &str = "v1.multus-cni.io/default-network";
/// The pod annotation that opens ports of the default-network address.
pub const OPEN_PORTS_ANNOTATION: &str = "k8s.ovn.org/open-default-ports";
/// The pod label that places a pod: the slot of a schedulable node, 0 the first.
pub const NODE_LABEL: &str = "udn-conformance.io/node";
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

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its names.
    pub pod: PodRef,
    /// Slot of the node it is placed on.
    pub node: u8,
    /// What its agent listens on.
    pub listens: Vec<(Transport, u16)>,
    /// Its primary network; `None`: the cluster default network.
    pub primary: Option<NetworkId>,
    /// Its secondary networks, in order: `net1`, `net2` …
    pub secondary: Vec<Attachment>,
    /// Ports of its default-network address that are opened; a malformed annotation opens none.
    pub open_default_ports: Vec<(Transport, Option<u16>)>,
    /// What it asks for on its primary network.
    pub requested: Requested,
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
    /// Namespaces and their labels.
    pub namespaces: BTreeMap<String, BTreeMap<String, String>>,
    /// Networks.
    pub networks: Vec<Network>,
    /// Pods.
    pub pods: Vec<Pod>,
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
    /// Reads namespaces, networks and pods; other kinds are left alone.
    ///
    /// # Errors
    /// A field that the world needs is missing or has a value that cannot be read.
    pub fn from_manifests(manifests: &[Value]) -> Result<Self, WorldError> {
        let mut world = Self::default();
        for manifest in of_kind(manifests, "Namespace") {
            world
                .namespaces
                .insert(text(manifest, "/metadata/name")?.to_owned(), string_map(&manifest["metadata"]["labels"]));
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

fn string_map(value: &Value) -> BTreeMap<String, String> {
    let entries = value.as_object().into_iter().flatten();
    entries.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

mod read {
    //! One reader per kind.

    use super::{
        Attachment, BTreeMap, DEFAULT_NETWORK_ANNOTATION, IpNet, NETWORKS_ANNOTATION, NODE_LABEL, Network, NetworkId,
        OPEN_PORTS_ANNOTATION, PROBE_CONTAINER, Pod, PodRef, Requested, Role, Subnet, Topology, Transport, Value,
        World, WorldError, problem, string_map, text,
    };

    pub(super) fn udn(manifest: &Value) -> Result<Network, WorldError> {
        let namespace = text(manifest, "/metadata/namespace")?.to_owned();
        let id = NetworkId::Udn { namespace: namespace.clone(), name: text(manifest, "/metadata/name")?.to_owned() };
        network(manifest, "/spec", id, vec![namespace])
    }

    pub(super) fn cudn(
        manifest: &Value,
        namespaces: &BTreeMap<String, BTreeMap<String, String>>,
    ) -> Result<Network, WorldError> {
        let id = NetworkId::Cudn { name: text(manifest, "/metadata/name")?.to_owned() };
        let selector = &manifest["spec"]["namespaceSelector"];
        let mut members = Vec::new();
        for (name, labels) in namespaces {
            if selects(selector, name, labels).map_err(|why| problem(manifest, why))? {
                members.push(name.clone());
            }
        }
        network(manifest, "/spec/network", id, members)
    }

    fn network(manifest: &Value, at: &str, id: NetworkId, namespaces: Vec<String>) -> Result<Network, WorldError> {
        let topology = match text(manifest, &format!("{at}/topology"))? {
            "Layer2" => Topology::Layer2,
            "Layer3" => Topology::Layer3,
            "Localnet" => Topology::Localnet,
            other => {
                return Err(problem(manifest, format!("topology is {other}; it must be Layer2, Layer3 or Localnet")));
            }
        };
        let body = format!("{at}/{topology}"); // the field is called `layer2`, `layer3`, `localnet`: as the word prints
        let role = match text(manifest, &format!("{body}/role"))? {
            "Primary" => Role::Primary,
            "Secondary" => Role::Secondary,
            other => {
                return Err(problem(manifest, format!("role is {other}; it must be Primary or Secondary")));
            }
        };
        let spec = manifest.pointer(&body).cloned().unwrap_or_default();
        let mut subnets = Vec::new();
        for entry in spec["subnets"].as_array().into_iter().flatten() {
            let cidr = entry.as_str().or_else(|| entry["cidr"].as_str());
            let cidr = cidr.ok_or_else(|| problem(manifest, "every subnet must have a CIDR"))?;
            let cidr = net(manifest, cidr)?;
            let host_prefix = match (topology, entry["hostSubnet"].as_u64()) {
                (Topology::Layer3, Some(prefix)) => u8::try_from(prefix).ok(),
                // OVN-Kubernetes' defaults for hostSubnet.
                (Topology::Layer3, None) => Some(if cidr.addr().is_ipv4() { 24 } else { 64 }),
                _ => None,
            };
            subnets.push(Subnet { cidr, host_prefix });
        }
        let mut withheld = Vec::new();
        for field in ["reservedSubnets", "infrastructureSubnets", "excludeSubnets"] {
            for entry in spec[field].as_array().into_iter().flatten().filter_map(Value::as_str) {
                withheld.push(net(manifest, entry)?);
            }
        }
        let mut gateways = Vec::new();
        for entry in spec["defaultGatewayIPs"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            gateways.push(entry.parse().map_err(|_| problem(manifest, format!("`{entry}` is not an address")))?);
        }
        let mtu = spec["mtu"].as_u64().and_then(|mtu| u32::try_from(mtu).ok());
        Ok(Network { id, topology, role, subnets, withheld, gateways, mtu, namespaces })
    }

    pub(super) fn pod(manifest: &Value, world: &World) -> Result<Pod, WorldError> {
        let pod = PodRef::new(text(manifest, "/metadata/namespace")?, text(manifest, "/metadata/name")?);
        let labels = string_map(&manifest["metadata"]["labels"]);
        let annotations = string_map(&manifest["metadata"]["annotations"]);
        let node = labels.get(NODE_LABEL).and_then(|slot| slot.parse().ok());
        let node =
            node.ok_or_else(|| problem(manifest, format!("label {NODE_LABEL} must be a node slot such as \"0\"")))?;
        let mut listens = Vec::new();
        let containers = manifest["spec"]["containers"].as_array();
        let probe = containers.into_iter().flatten().find(|container| container["name"] == PROBE_CONTAINER);
        let probe = probe.ok_or_else(|| problem(manifest, format!("needs a container named {PROBE_CONTAINER}")))?;
        for port in probe["ports"].as_array().into_iter().flatten() {
            let transport = match port["protocol"].as_str() {
                None | Some("TCP") => Transport::Tcp,
                Some("UDP") => Transport::Udp,
                Some("SCTP") => Transport::Sctp,
                Some(other) => {
                    return Err(problem(manifest, format!("protocol {other} is not TCP, UDP or SCTP")));
                }
            };
            let number = port["containerPort"].as_u64().and_then(|port| u16::try_from(port).ok());
            listens.push((transport, number.ok_or_else(|| problem(manifest, "containerPort must be a port number"))?));
        }
        let open_default_ports =
            annotations.get(OPEN_PORTS_ANNOTATION).map(|value| open_ports(value)).unwrap_or_default();
        let requested = match annotations.get(DEFAULT_NETWORK_ANNOTATION) {
            Some(value) => elements(manifest, value)?.first().map(|element| request(manifest, element)).transpose()?,
            None => None,
        };
        let mut secondary = Vec::new();
        for element in
            annotations.get(NETWORKS_ANNOTATION).map(|v| elements(manifest, v)).transpose()?.unwrap_or_default()
        {
            secondary.push(attachment(manifest, world, &pod.namespace, &element)?);
        }
        let primary = world.primary_of(&pod.namespace).map(|network| network.id.clone());
        Ok(Pod { pod, node, listens, primary, secondary, open_default_ports, requested: requested.unwrap_or_default() })
    }

    /// The annotation's value is YAML; the subset that fixtures use is JSON. What cannot be read opens nothing, as in
    /// OVN-Kubernetes; so does a list with one entry that cannot be read.
    fn open_ports(value: &str) -> Vec<(Transport, Option<u16>)> {
        let Ok(Value::Array(entries)) = serde_json::from_str::<Value>(value) else {
            return Vec::new();
        };
        let read = |entry: &Value| {
            let port = entry["port"].as_u64().and_then(|port| u16::try_from(port).ok());
            match (entry["protocol"].as_str(), port) {
                (Some("tcp"), Some(_)) => Some((Transport::Tcp, port)),
                (Some("udp"), Some(_)) => Some((Transport::Udp, port)),
                (Some("sctp"), Some(_)) => Some((Transport::Sctp, port)),
                (Some("icmp"), None) => Some((Transport::Icmp, None)),
                _ => None,
            }
        };
        entries.iter().map(read).collect::<Option<Vec<_>>>().unwrap_or_default()
    }

    /// The network selection elements of an annotation: JSON, or names separated by commas.
    fn elements(manifest: &Value, value: &str) -> Result<Vec<Value>, WorldError> {
        if value.trim_start().starts_with('[') {
            return serde_json::from_str(value)
                .map_err(|error| problem(manifest, format!("network selection: {error}")));
        }
        Ok(value.split(',').map(|name| serde_json::json!({ "name": name.trim() })).collect())
    }

    fn attachment(manifest: &Value, world: &World, own: &str, element: &Value) -> Result<Attachment, WorldError> {
        let name = element["name"].as_str().ok_or_else(|| problem(manifest, "a network selection needs a name"))?;
        let (namespace, name) = name.split_once('/').unwrap_or((element["namespace"].as_str().unwrap_or(own), name));
        let network = world
            .networks
            .iter()
            .find(|network| network.id.name() == name && network.namespaces.iter().any(|member| member == namespace));
        let network =
            network.ok_or_else(|| problem(manifest, format!("no network {name} in namespace {namespace}")))?;
        Ok(Attachment { network: network.id.clone(), requested: request(manifest, element)? })
    }

    fn request(manifest: &Value, element: &Value) -> Result<Requested, WorldError> {
        let mut ips = Vec::new();
        for ip in element["ips"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            ips.push(net(manifest, ip)?);
        }
        Ok(Requested { ips, mac: element["mac"].as_str().map(str::to_lowercase) })
    }

    fn net(manifest: &Value, text: &str) -> Result<IpNet, WorldError> {
        text.parse().map_err(|_| problem(manifest, format!("`{text}` is not a CIDR")))
    }

    /// A label selector on namespaces, `kubernetes.io/metadata.name` included.
    fn selects(selector: &Value, name: &str, labels: &BTreeMap<String, String>) -> Result<bool, String> {
        let value = |key: &str| {
            if key == "kubernetes.io/metadata.name" { Some(name) } else { labels.get(key).map(String::as_str) }
        };
        let exact = string_map(&selector["matchLabels"]).iter().all(|(key, want)| value(key) == Some(want));
        let mut all = exact;
        for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
            let key = expression["key"].as_str().unwrap_or_default();
            let among = || {
                expression["values"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .any(|v| v.as_str() == value(key) && value(key).is_some())
            };
            all &= match expression["operator"].as_str() {
                Some("In") => among(),
                Some("NotIn") => !among(),
                Some("Exists") => value(key).is_some(),
                Some("DoesNotExist") => value(key).is_none(),
                other => {
                    return Err(format!(
                        "namespaceSelector operator {other:?} is not In, NotIn, Exists or DoesNotExist"
                    ));
                }
            };
        }
        Ok(all)
    }
}
