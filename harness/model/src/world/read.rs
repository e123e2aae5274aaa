//! One reader per kind.

use super::selector::Selector;
use super::{
    Attachment, BTreeMap, DEFAULT_NETWORK_ANNOTATION, IpNet, NETWORKS_ANNOTATION, NODE_LABEL, Network, NetworkId,
    OPEN_PORTS_ANNOTATION, PROBE_CONTAINER, Pod, PodRef, READY_GATE, Requested, Role, Subnet, Topology, Transport,
    Value, World, WorldError, problem, string_map, text, transport,
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
    let selector = Selector::read(&manifest["spec"]["namespaceSelector"]).map_err(|why| problem(manifest, why))?;
    let members =
        namespaces.iter().filter(|(_, labels)| selector.selects(labels)).map(|(name, _)| name.clone()).collect();
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
    let persistent = spec["ipam"]["lifecycle"] == "Persistent";
    Ok(Network { id, topology, role, subnets, withheld, gateways, mtu, namespaces, persistent })
}

pub(super) fn pod(manifest: &Value, world: &World) -> Result<Pod, WorldError> {
    let pod = PodRef::new(text(manifest, "/metadata/namespace")?, text(manifest, "/metadata/name")?);
    let labels = string_map(&manifest["metadata"]["labels"]);
    let annotations = string_map(&manifest["metadata"]["annotations"]);
    let node = labels.get(NODE_LABEL).and_then(|slot| slot.parse().ok());
    let node =
        node.ok_or_else(|| problem(manifest, format!("label {NODE_LABEL} must be a node slot such as \"0\"")))?;
    let mut listens = Vec::new();
    let mut named_ports = BTreeMap::new();
    let containers = manifest["spec"]["containers"].as_array();
    let probe = containers.into_iter().flatten().find(|container| container["name"] == PROBE_CONTAINER);
    let probe = probe.ok_or_else(|| problem(manifest, format!("needs a container named {PROBE_CONTAINER}")))?;
    for port in probe["ports"].as_array().into_iter().flatten() {
        let transport = transport(manifest, port)?;
        let number = port["containerPort"].as_u64().and_then(|port| u16::try_from(port).ok());
        let number = number.ok_or_else(|| problem(manifest, "containerPort must be a port number"))?;
        listens.push((transport, number));
        if let Some(name) = port["name"].as_str() {
            named_ports.insert((transport, name.to_owned()), number);
        }
    }
    let open_default_ports = annotations.get(OPEN_PORTS_ANNOTATION).map(|value| open_ports(value)).unwrap_or_default();
    let requested = match annotations.get(DEFAULT_NETWORK_ANNOTATION) {
        Some(value) => elements(manifest, value)?.first().map(|element| request(manifest, element)).transpose()?,
        None => None,
    };
    let mut secondary = Vec::new();
    for element in annotations.get(NETWORKS_ANNOTATION).map(|v| elements(manifest, v)).transpose()?.unwrap_or_default()
    {
        secondary.push(attachment(manifest, world, &pod.namespace, &element)?);
    }
    let primary = world.primary_of(&pod.namespace).map(|network| network.id.clone());
    let mut conditions = manifest["status"]["conditions"].as_array().into_iter().flatten();
    let ready = conditions.all(|condition| condition["type"] != READY_GATE || condition["status"] == "True");
    Ok(Pod {
        pod,
        node,
        ready,
        labels,
        hostname: manifest["spec"]["hostname"].as_str().map(str::to_owned),
        subdomain: manifest["spec"]["subdomain"].as_str().map(str::to_owned),
        listens,
        named_ports,
        primary,
        secondary,
        open_default_ports,
        requested: requested.unwrap_or_default(),
        vm: None,
    })
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
        return serde_json::from_str(value).map_err(|error| problem(manifest, format!("network selection: {error}")));
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
    let network = network.ok_or_else(|| problem(manifest, format!("no network {name} in namespace {namespace}")))?;
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
