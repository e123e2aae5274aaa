//! A network as its attachment definitions say it: CNI configuration of type `ovn-k8s-cni-overlay`, read and written.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use udn_api::{
    Cidr, ClusterUserDefinedNetworkSpec, Layer2Config, Layer3Config, LocalnetConfig, NetworkRole,
    UserDefinedNetworkSpec,
};

/// Join subnets of primary networks, unless they say otherwise.
const JOIN_SUBNETS: &str = "100.65.0.0/16,fd99::/64";
/// The CNI type that this network carries.
const CNI_TYPE: &str = "ovn-k8s-cni-overlay";
/// Prefix lengths of node subnets, unless the network says otherwise.
const HOST_SUBNET_V4: u8 = 24;
const HOST_SUBNET_V6: u8 = 64;
/// Localnet networks are not encapsulated.
const LOCALNET_MTU: u32 = 1500;

/// How a network is laid out.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Topology {
    Layer2,
    Layer3,
    Localnet,
}

/// A range of a Layer3 network, or the subnet of another.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Range {
    pub(crate) net: IpNet,
    /// Prefix length of a node's piece (Layer3).
    pub(crate) host_length: u8,
}

/// What a network is, wherever it was said.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Definition {
    pub(crate) name: String,
    pub(crate) topology: Topology,
    pub(crate) primary: bool,
    pub(crate) ranges: Vec<Range>,
    pub(crate) join: Vec<IpNet>,
    pub(crate) mtu: u32,
    pub(crate) excluded: Vec<IpNet>,
    pub(crate) reserved: Vec<IpNet>,
    pub(crate) infrastructure: Vec<IpNet>,
    pub(crate) gateways: Vec<IpAddr>,
    pub(crate) persistent: bool,
    pub(crate) physical_network: Option<String>,
    pub(crate) vlan: Option<u16>,
}

/// The configuration's fields, as text.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Configuration {
    r#type: String,
    name: String,
    net_attach_def_name: String,
    topology: Option<Topology>,
    role: String,
    subnets: String,
    join_subnet: String,
    exclude_subnets: String,
    reserved_subnets: String,
    infrastructure_subnets: String,
    #[serde(rename = "defaultGatewayIPs")]
    default_gateway_ips: String,
    #[serde(rename = "allowPersistentIPs")]
    allow_persistent_ips: bool,
    mtu: u32,
    physical_network_name: String,
    #[serde(rename = "vlanID")]
    vlan_id: u16,
}

/// Reads the configuration of the attachment definition `key` (`<namespace>/<name>`). `None`: another plugin's.
pub(crate) fn parse(key: &str, config: &str) -> Result<Option<Definition>, String> {
    let configuration: Configuration =
        serde_json::from_str(config).map_err(|error| format!("failed to parse the configuration of {key}: {error}"))?;
    if configuration.r#type != CNI_TYPE {
        return Ok(None);
    }
    let Some(topology) = configuration.topology else {
        // Without a topology it is the cluster default network under another name.
        return Ok(None);
    };
    if configuration.net_attach_def_name != key {
        return Err(format!(
            "net-attach-def name ({key}) is inconsistent with config ({})",
            configuration.net_attach_def_name
        ));
    }
    let ranges = list(&configuration.subnets).map(|text| range(text, topology)).collect::<Result<Vec<_>, _>>()?;
    if topology == Topology::Layer3 && ranges.is_empty() {
        return Err(format!("invalid subnet configuration of {key}: a layer3 network needs subnets"));
    }
    let primary = configuration.role == "primary";
    let join = if configuration.join_subnet.is_empty() { JOIN_SUBNETS } else { &configuration.join_subnet };
    let join = nets(join)?;
    if let Some(range) = ranges.iter().find(|range| primary && join.iter().any(|join| overlap(*join, range.net))) {
        return Err(format!("invalid subnet configuration of {key}: {} overlaps with the join subnet", range.net));
    }
    let gateways = list(&configuration.default_gateway_ips)
        .map(|text| text.parse().map_err(|_| format!("{text:?} is not an address")))
        .collect::<Result<Vec<IpAddr>, String>>()?;
    let overlay = if topology == Topology::Localnet { LOCALNET_MTU } else { udn_lab_sys::site::OVERLAY_MTU };
    Ok(Some(Definition {
        name: configuration.name,
        topology,
        primary,
        ranges,
        join,
        mtu: if configuration.mtu == 0 { overlay } else { configuration.mtu },
        excluded: nets(&configuration.exclude_subnets)?,
        reserved: nets(&configuration.reserved_subnets)?,
        infrastructure: nets(&configuration.infrastructure_subnets)?,
        gateways,
        persistent: configuration.allow_persistent_ips,
        physical_network: Some(configuration.physical_network_name).filter(|name| !name.is_empty()),
        vlan: Some(configuration.vlan_id).filter(|id| *id != 0),
    }))
}

fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

fn nets(text: &str) -> Result<Vec<IpNet>, String> {
    list(text).map(|item| item.parse().map_err(|_| format!("{item:?} is not a subnet"))).collect()
}

/// `10.0.0.0/16` or `10.0.0.0/16/24`.
fn range(text: &str, topology: Topology) -> Result<Range, String> {
    let mut parts = text.splitn(3, '/');
    let (address, length, host) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default(), parts.next());
    let net: IpNet = format!("{address}/{length}").parse().map_err(|_| format!("{text:?} is not a subnet"))?;
    let net = net.trunc();
    let default = if net.addr().is_ipv4() { HOST_SUBNET_V4 } else { HOST_SUBNET_V6 };
    let host_length = match host {
        Some(host) => host.parse().map_err(|_| format!("{text:?} has no valid host prefix"))?,
        None => default,
    };
    if topology == Topology::Layer3 && host_length <= net.prefix_len() {
        return Err(format!(
            "invalid subnet {text:?}: the host prefix /{host_length} must be longer than the subnet's"
        ));
    }
    Ok(Range { net, host_length })
}

fn overlap(one: IpNet, other: IpNet) -> bool {
    one.contains(&other) || other.contains(&one)
}

/// The configuration that a UDN's attachment definition carries.
pub(crate) fn render_udn(network: &str, key: &str, spec: &UserDefinedNetworkSpec) -> Result<String, String> {
    match (&spec.layer2, &spec.layer3) {
        (Some(layer2), None) => Ok(render_layer2(network, key, layer2)),
        (None, Some(layer3)) => Ok(render_layer3(network, key, layer3)),
        _ => Err(mismatch(&format!("{:?}", spec.topology))),
    }
}

/// The configuration that a CUDN's attachment definitions carry.
pub(crate) fn render_cudn(network: &str, key: &str, spec: &ClusterUserDefinedNetworkSpec) -> Result<String, String> {
    if let Some(transport) = spec.network.transport {
        return Err(format!("transport {transport:?} is not supported by the lab; use the overlay"));
    }
    match (&spec.network.layer2, &spec.network.layer3, &spec.network.localnet) {
        (Some(layer2), None, None) => Ok(render_layer2(network, key, layer2)),
        (None, Some(layer3), None) => Ok(render_layer3(network, key, layer3)),
        (None, None, Some(localnet)) => Ok(render_localnet(network, key, localnet)),
        _ => Err(mismatch(&format!("{:?}", spec.network.topology))),
    }
}

fn mismatch(topology: &str) -> String {
    format!("invalid topology specified: topology {topology} is specified but its configuration is not")
}

fn common(network: &str, key: &str, topology: &str, role: NetworkRole) -> Map<String, Value> {
    let role = if role == NetworkRole::Primary { "primary" } else { "secondary" };
    let fields = json!({
        "cniVersion": "1.1.0", "type": CNI_TYPE, "name": network, "netAttachDefName": key, "topology": topology, "role": role,
    });
    fields.as_object().cloned().unwrap_or_default()
}

fn join_subnets(fields: &mut Map<String, Value>, role: NetworkRole, subnets: &[Cidr]) {
    if role == NetworkRole::Primary {
        let text = if subnets.is_empty() { JOIN_SUBNETS.to_owned() } else { joined(subnets) };
        fields.insert("joinSubnet".into(), text.into());
    }
}

fn put(fields: &mut Map<String, Value>, name: &str, text: String) {
    if !text.is_empty() {
        fields.insert(name.into(), text.into());
    }
}

fn joined<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn render_layer2(network: &str, key: &str, config: &Layer2Config) -> String {
    let mut fields = common(network, key, "layer2", config.role);
    fields.extend(config.mtu.map(|mtu| ("mtu".into(), mtu.into())));
    put(&mut fields, "subnets", joined(&config.subnets));
    put(&mut fields, "reservedSubnets", joined(&config.reserved_subnets));
    put(&mut fields, "infrastructureSubnets", joined(&config.infrastructure_subnets));
    put(&mut fields, "defaultGatewayIPs", joined(&config.default_gateway_ips));
    if config.persistent() {
        fields.insert("allowPersistentIPs".into(), true.into());
    }
    join_subnets(&mut fields, config.role, &config.join_subnets);
    Value::Object(fields).to_string()
}

fn render_layer3(network: &str, key: &str, config: &Layer3Config) -> String {
    let mut fields = common(network, key, "layer3", config.role);
    fields.extend(config.mtu.map(|mtu| ("mtu".into(), mtu.into())));
    let subnets: Vec<String> = config
        .subnets
        .iter()
        .map(|subnet| match subnet.host_subnet {
            Some(host) => format!("{}/{host}", subnet.cidr),
            None => subnet.cidr.to_string(),
        })
        .collect();
    put(&mut fields, "subnets", subnets.join(","));
    join_subnets(&mut fields, config.role, &config.join_subnets);
    Value::Object(fields).to_string()
}

fn render_localnet(network: &str, key: &str, config: &LocalnetConfig) -> String {
    let mut fields = common(network, key, "localnet", NetworkRole::Secondary);
    fields.insert("mtu".into(), config.mtu.unwrap_or(LOCALNET_MTU.cast_signed()).into());
    put(&mut fields, "subnets", joined(&config.subnets));
    put(&mut fields, "excludeSubnets", joined(&config.exclude_subnets));
    put(&mut fields, "physicalNetworkName", config.physical_network_name.clone());
    if let Some(access) = config.vlan.as_ref().and_then(|vlan| vlan.access) {
        fields.insert("vlanID".into(), access.id.into());
    }
    Value::Object(fields).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_rendered_is_read_again() {
        let mut layer2 = Layer2Config::new(NetworkRole::Primary, &["172.16.0.0/16", "2014:100:200::/60"]);
        layer2.default_gateway_ips = vec!["172.16.0.3".into(), "2014:100:200::3".into()];
        layer2.reserved_subnets = vec!["172.16.1.0/24".into()];
        let text = render_udn("ns_net", "ns/net", &UserDefinedNetworkSpec::layer2(layer2)).unwrap();
        let definition = parse("ns/net", &text).unwrap().unwrap();
        assert!(definition.primary);
        assert_eq!(definition.topology, Topology::Layer2);
        assert_eq!(definition.gateways[0].to_string(), "172.16.0.3");
        assert_eq!(definition.reserved[0].to_string(), "172.16.1.0/24");
        assert_eq!(definition.mtu, 1400);
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["joinSubnet"], "100.65.0.0/16,fd99::/64");
        assert_eq!(value["netAttachDefName"], "ns/net");
    }

    #[test]
    fn layer3_ranges_carry_their_host_prefix() {
        let mut layer3 = Layer3Config::new(NetworkRole::Primary, &["103.103.0.0/16", "2010:100:200::/60"]);
        layer3.subnets[0].host_subnet = Some(26);
        let text = render_udn("n", "a/b", &UserDefinedNetworkSpec::layer3(layer3)).unwrap();
        let definition = parse("a/b", &text).unwrap().unwrap();
        assert_eq!((definition.ranges[0].host_length, definition.ranges[1].host_length), (26, 64));
    }

    #[test]
    fn other_plugins_and_bad_definitions() {
        assert_eq!(parse("a/b", r#"{"type":"bridge"}"#), Ok(None));
        assert!(
            parse("a/b", r#"{"type":"ovn-k8s-cni-overlay","topology":"layer2","netAttachDefName":"a/c"}"#).is_err()
        );
        assert!(parse("a/b", "{").is_err());
        let inside = r#"{"type":"ovn-k8s-cni-overlay","topology":"layer3","role":"primary","netAttachDefName":"a/b","subnets":"100.65.0.0/16/24"}"#;
        assert!(parse("a/b", inside).unwrap_err().contains("join subnet"));
    }
}
