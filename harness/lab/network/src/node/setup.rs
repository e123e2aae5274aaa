//! What a node needs once: flows of br-ex, the management port, and routes to pods, services and gateway routers.

use std::net::IpAddr;

use ipnet::IpNet;
use udn_lab_sys::site::{OVERLAY_MTU, Tools};

use super::vswitch::BridgePort;
use super::{NodeSide, flows};
use crate::address::Mac;
use crate::error::Error;
use crate::layout::{DEFAULT_JOIN, Layout, POD_RANGES, SERVICE_RANGES, masquerade, masquerade_next_hop, probe_address};
use crate::service::NODE_PORTS;
use crate::topology::switches::management_addresses;

/// The host's port on the default network.
pub(super) const MANAGEMENT_PORT: &str = "ovn-k8s-mp0";
/// What fits through the underlay.
const PAIR_MTU: u32 = 1500;
/// Routing table of connections from the host to node ports of its own address.
const NODE_PORT_TABLE: u32 = 7;

/// Prepares a node. The default network must be in the northbound database.
pub(crate) async fn prepare(node: &NodeSide, tools: &Tools, default_network: &Layout) -> Result<(), Error> {
    tokio::try_join!(
        external_bridge(node, tools),
        management_port(node, default_network),
        masquerades(node),
        own_node_ports(node)
    )?;
    Ok(())
}

/// br-ex' own ports and its flows, which name them.
async fn external_bridge(node: &NodeSide, tools: &Tools) -> Result<(), Error> {
    let [first, second] = flows::AGAIN;
    node.links.delete(first).await?;
    node.links.add_pair(first, &node.site.netns, second, Mac([0x0a, 0x58, 0, 0, 0, 1]), PAIR_MTU).await?;
    // The kernel has no part in it.
    for name in flows::AGAIN {
        for (path, value) in [("ipv6/conf/NAME/disable_ipv6", "1"), ("ipv4/conf/NAME/arp_ignore", "8")] {
            let path = path.replace("NAME", name);
            node.site.netns.write_sysctl(&path, value).map_err(|error| Error::Link {
                action: format!("set net/{path} to {value}"),
                netns: node.site.name.clone(),
                reason: error.to_string(),
            })?;
        }
    }
    node.vswitch.add_external(&flows::AGAIN).await?;
    flows::install(tools, &node.site, &flows::br_ex(&node.site)).await?;
    // Not before: without flows br-ex floods, and the pair would be a loop.
    node.links.set_up(node.links.index(second).await?).await
}

async fn management_port(node: &NodeSide, default_network: &Layout) -> Result<(), Error> {
    let name = &node.site.name;
    let known = default_network.node(name).ok_or_else(|| Error::NoNode(name.clone()))?;
    let subnets = default_network.subnets(known).map_err(Error::NoNode)?;
    let (mac, addresses) = management_addresses(default_network, &subnets);
    let logical_port = format!("k8s-{name}");
    let interface = vec![MANAGEMENT_PORT.to_owned()];
    node.vswitch.remove(&interface).await?;
    let port = BridgePort {
        interface: MANAGEMENT_PORT,
        logical_port: &logical_port,
        uid: None,
        mac: mac.to_string(),
        internal: Some(OVERLAY_MTU),
    };
    node.vswitch.add(&format!("adding the management port of {name}"), &[port]).await?;
    node.vswitch.present(&interface).await?;
    let index = node.links.index(MANAGEMENT_PORT).await?;
    node.links.set_up(index).await?;
    let probes: Vec<IpAddr> = subnets.iter().filter_map(|subnet| probe_address(*subnet)).collect();
    for address in addresses {
        if probes.contains(&address.addr()) {
            node.links.add_unpreferred_address(index, address).await?;
        } else {
            node.links.add_address(index, address).await?;
        }
    }
    for range in POD_RANGES.iter().filter_map(|text| text.parse::<IpNet>().ok()) {
        let same_family = subnets.iter().find(|subnet| subnet.addr().is_ipv6() == range.addr().is_ipv6());
        if let Some(gateway) = same_family.and_then(|subnet| default_network.gateway(*subnet)) {
            node.links.add_route(range, gateway, index).await?;
        }
    }
    Ok(())
}

/// The host's ways to gateway routers, by br-ex: to services of the default network, and back to whoever reached the host
/// under its masquerade address.
async fn masquerades(node: &NodeSide) -> Result<(), Error> {
    let index = node.links.index("br-ex").await?;
    for (ipv6, (join, services)) in [false, true].into_iter().zip(DEFAULT_JOIN.into_iter().zip(SERVICE_RANGES)) {
        let Some(next_hop) = masquerade_next_hop(ipv6) else { continue };
        // br-ex rewrites the MAC.
        node.links.add_neighbour(index, next_hop, Mac::of(next_hop)).await?;
        for range in [masquerade(ipv6), join, services].into_iter().filter_map(|text| text.parse().ok()) {
            node.links.add_route(range, next_hop, index).await?;
        }
    }
    Ok(())
}

/// The host reaches node ports of its own address by br-ex, as everybody else does, instead of by `lo`: the kernel's
/// rule for local addresses makes way for one that looks at the port first.
async fn own_node_ports(node: &NodeSide) -> Result<(), Error> {
    let index = node.links.index("br-ex").await?;
    let failed = |error: std::io::Error| Error::Link {
        action: "let br-ex take packets from the node's own address".into(),
        netns: node.site.name.clone(),
        reason: error.to_string(),
    };
    node.site.netns.write_sysctl("ipv4/conf/br-ex/accept_local", "1").map_err(failed)?;
    for address in [IpAddr::from(node.site.ipv4), node.site.ipv6.into()] {
        let Some(next_hop) = masquerade_next_hop(address.is_ipv6()) else { continue };
        node.links.add_route_in(address.into(), next_hop, index, Some(NODE_PORT_TABLE)).await?;
        node.links.node_ports_first(address, NODE_PORTS, NODE_PORT_TABLE).await?;
    }
    Ok(())
}
