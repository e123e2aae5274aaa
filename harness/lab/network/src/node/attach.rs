//! A pod's interfaces: made, addressed, routed, and ready when this returns.

use std::time::Instant;

use udn_lab_sys::netns::Netns;
use udn_lab_sys::offload;
use udn_lab_sys::pod::Sandbox;

use super::NodeSide;
use super::answers;
use super::links::{Links, everything};
use super::management;
use super::sync::Sync;
use super::vswitch::BridgePort;
use crate::annotation::Attachment;
use crate::error::Error;
use crate::naming;

/// Gives the sandbox its interfaces; returns when packets flow on all nodes. `speaker` is the node's own port on the network
/// of the virtual machine that the pod runs.
pub(crate) async fn attach(
    node: &NodeSide,
    sync: &Sync,
    sandbox: &Sandbox,
    attachments: &[Attachment],
    speaker: Option<&management::Port>,
) -> Result<(), Error> {
    let started = Instant::now();
    let names: Vec<String> =
        (0..attachments.len()).map(|position| naming::host_interface(&sandbox.uid, position)).collect();
    // An attempt that was cut short may have left some of them.
    node.vswitch.remove(&node.vswitch.known(&naming::host_prefix(&sandbox.uid))).await?;
    for name in &names {
        node.links.delete(name).await?;
    }
    quiet(&sandbox.netns)?;
    for (name, attachment) in names.iter().zip(attachments) {
        node.links.add_pair(name, &sandbox.netns, &attachment.interface, attachment.mac, attachment.mtu).await?;
    }
    let ports: Vec<BridgePort<'_>> = names
        .iter()
        .zip(attachments)
        .map(|(name, attachment)| BridgePort {
            interface: name,
            logical_port: &attachment.port,
            uid: Some(&sandbox.uid),
            mac: attachment.mac.to_string(),
            internal: None,
        })
        .collect();
    let purpose = format!("attaching pod {}/{}", sandbox.namespace, sandbox.pod);
    let made = started.elapsed();
    let plugged = async {
        node.vswitch.add(&purpose, &ports).await?;
        let added = started.elapsed();
        node.vswitch.installed(&names).await?;
        if let Some(speaker) = speaker {
            management::ensure(node, speaker).await?;
        }
        let installed = started.elapsed();
        // The pod's own node has its flows; others learn of the port's place a moment later.
        sync.all_chassis().await?;
        tracing::debug!(purpose, ?made, ?added, ?installed, synced = ?started.elapsed(), "interfaces work");
        Ok(())
    };
    tokio::try_join!(plugged, configure(&sandbox.netns, attachments))?;
    answers::wait(&sandbox.netns, attachments).await
}

/// Takes the sandbox's interfaces away.
pub(crate) async fn detach(node: &NodeSide, uid: &str) -> Result<(), Error> {
    let names = node.vswitch.known(&naming::host_prefix(uid));
    node.vswitch.remove(&names).await?;
    for name in &names {
        node.links.delete(name).await?;
    }
    Ok(())
}

/// Interfaces to come take no configuration from the network and use their addresses at once.
fn quiet(netns: &Netns) -> Result<(), Error> {
    for (path, value) in [("ipv6/conf/default/accept_ra", "0"), ("ipv6/conf/default/accept_dad", "0")] {
        netns.write_sysctl(path, value).map_err(|error| Error::Link {
            action: format!("set net/{path} to {value}"),
            netns: netns.name().into(),
            reason: error.to_string(),
        })?;
    }
    Ok(())
}

async fn configure(netns: &Netns, attachments: &[Attachment]) -> Result<(), Error> {
    let links = Links::open(netns)?;
    links.set_up(links.index("lo").await?).await?;
    for attachment in attachments {
        let name = &attachment.interface;
        offload::disable_tx_checksum(netns, name).map_err(|error| Error::Link {
            action: format!("switch checksum offload of {name} off"),
            netns: netns.name().into(),
            reason: error.to_string(),
        })?;
        let index = links.index(name).await?;
        if attachment.guest.is_some() {
            // The guest has them; here the kernel would answer for it.
            let path = format!("ipv6/conf/{name}/disable_ipv6");
            netns.write_sysctl(&path, "1").map_err(|error| Error::Link {
                action: format!("set net/{path} to 1"),
                netns: netns.name().into(),
                reason: error.to_string(),
            })?;
            links.set_up(index).await?;
            continue;
        }
        links.set_up(index).await?;
        for address in &attachment.addresses {
            links.add_address(index, *address).await?;
        }
        for (to, via) in &attachment.routes {
            links.add_route(*to, *via, index).await?;
        }
        for gateway in &attachment.gateways {
            links.add_route(everything(*gateway), *gateway, index).await?;
        }
    }
    Ok(())
}
