//! A node's own ports on user defined networks that keep addresses: what it speaks to virtual machines by. Host and pods of
//! such a network do not reach each other by it: the interface has no addresses, and listens to nobody.

use std::sync::Arc;

use tokio::sync::watch;
use udn_lab_sys::site::OVERLAY_MTU;

use super::NodeSide;
use super::setup::MANAGEMENT_PORT;
use super::vswitch::BridgePort;
use crate::address::Mac;
use crate::error::Error;
use crate::layout::Layout;
use crate::ovsdb::follow::map_value;
use crate::service::exposure::Exposures;

/// What such interfaces are called, before the network's number; 0 is the default network's.
const PREFIX: &str = "ovn-k8s-mp";

/// A node's port on a network.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Port {
    pub(crate) interface: String,
    /// The logical switch port.
    pub(crate) logical: String,
    mac: Mac,
}

impl Port {
    pub(crate) fn of(layout: &Layout, node: &str) -> Self {
        let addresses = layout.definition.ranges.iter().filter_map(|range| layout.management(range.net));
        let mac = Mac::of_first(addresses).unwrap_or(Mac([0x0a, 0x58, 0, 0, 0, 2]));
        Self { interface: format!("{PREFIX}{}", layout.id), logical: layout.management_port(node), mac }
    }
}

/// Makes the port, unless it is there: they are made when the first virtual machine comes to a node, as most networks never
/// have one. What an earlier network of this number left is replaced.
pub(crate) async fn ensure(node: &NodeSide, port: &Port) -> Result<(), Error> {
    let names = vec![port.interface.clone()];
    let there = {
        let rows = node.vswitch.interfaces();
        let rows = rows.borrow();
        let logical = |row: &&serde_json::Value| map_value(&row["external_ids"], "iface-id") == Some(&port.logical);
        rows.values().filter(|row| row["name"] == *port.interface).any(|row| logical(&row))
    };
    if !there {
        let _one_at_a_time = node.making_ports.lock().await;
        node.vswitch.remove(&names).await?;
        let wanted = BridgePort {
            interface: &port.interface,
            logical_port: &port.logical,
            uid: None,
            mac: port.mac.to_string(),
            internal: Some(OVERLAY_MTU),
        };
        node.vswitch.add(&format!("adding the management port {}", port.logical), &[wanted]).await?;
        node.vswitch.present(&names).await?;
        for (path, value) in [("ipv6/conf/NAME/disable_ipv6", "1"), ("ipv4/conf/NAME/arp_ignore", "8")] {
            let path = path.replace("NAME", &port.interface);
            node.site.netns.write_sysctl(&path, value).map_err(|error| Error::Link {
                action: format!("set net/{path} to {value}"),
                netns: node.site.name.clone(),
                reason: error.to_string(),
            })?;
        }
        node.links.set_up(node.links.index(&port.interface).await?).await?;
    }
    node.vswitch.installed(&names).await
}

/// Removes the ports of networks that are gone, for ever.
pub(crate) async fn keep(node: NodeSide, mut exposures: watch::Receiver<Arc<Exposures>>) {
    loop {
        let networks = exposures.borrow_and_update().clone();
        let logical: Vec<String> =
            networks.networks.keys().map(|network| crate::layout::management_port(network, &node.site.name)).collect();
        if let Err(error) = remove_others(&node, &logical).await {
            tracing::warn!(%error, node = node.site.name, "management ports of former networks were not removed");
        }
        if exposures.changed().await.is_err() {
            return;
        }
    }
}

async fn remove_others(node: &NodeSide, logical: &[String]) -> Result<(), Error> {
    let _one_at_a_time = node.making_ports.lock().await;
    let stale: Vec<String> = {
        let rows = node.vswitch.interfaces();
        let rows = rows.borrow();
        let is_stale = |row: &&serde_json::Value| {
            let own = row["name"].as_str().is_some_and(|name| name.starts_with(PREFIX) && name != MANAGEMENT_PORT);
            own && map_value(&row["external_ids"], "iface-id").is_none_or(|id| !logical.iter().any(|it| it == id))
        };
        rows.values().filter(is_stale).filter_map(|row| row["name"].as_str().map(str::to_owned)).collect()
    };
    node.vswitch.remove(&stale).await
}
