//! A guest's way to its network: the launcher pod's interface gives its MAC to the guest and becomes a port of a bridge, the
//! other port of which is the tap that the emulator holds. As KubeVirt's `managedTap` binding does it.

use std::net::IpAddr;

use futures::TryStreamExt;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::{Handle, LinkBridge, LinkUnspec};
use udn_lab_sys::netns::Netns;
use udn_lab_sys::{offload, tap};

use crate::error::Error;

/// The primary user-defined network's interface in a pod.
pub(crate) const PRIMARY: &str = "ovn-udn1";
/// The default network's, where there is no other.
const DEFAULT: &str = "eth0";
/// The emulator's end.
pub(crate) const TAP: &str = "tap0";

/// What a guest's network card is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Card {
    /// The guest's MAC.
    pub(crate) mac: String,
    /// Largest packet, bytes.
    pub(crate) mtu: u32,
    /// The pod's interface behind it.
    pub(crate) interface: String,
}

struct Link {
    index: u32,
    mac: [u8; 6],
    mtu: u32,
}

/// Lays the way inside a launcher pod. `lost`: the tap's bridge has no port to the network, for migrations that shall go
/// wrong. `mac`: what the guest has already.
pub(crate) async fn plug(netns: &Netns, mac: Option<&str>, lost: bool) -> Result<Card, Error> {
    let failed = |action: &str| {
        let (action, pod) = (action.to_owned(), netns.name().to_owned());
        move |reason: String| Error::Network { action, pod, reason }
    };
    let netlink = netns.netlink().map_err(|error| failed("open netlink")(error.to_string()))?;
    let mut name = PRIMARY;
    let mut found = find(&netlink, name).await;
    if found.is_none() {
        name = DEFAULT;
        found = find(&netlink, name).await;
    }
    let link = found.ok_or_else(|| failed("find the network's interface")(format!("it has neither {PRIMARY} nor {DEFAULT}")))?;
    let card = Card {
        mac: mac.map_or_else(|| written(link.mac), str::to_owned),
        mtu: link.mtu,
        interface: name.to_owned(),
    };
    tap::add(netns, TAP).map_err(|error| failed("add the guest's tap")(error.to_string()))?;
    join(netns, &netlink, name, &link, lost)
        .await
        .map_err(|error| failed(&format!("bridge {name} to the guest's tap"))(error.to_string()))?;
    // Frames of the bridge carry no partial checksums: the guest's card offers none. Others' might.
    let _ = offload::disable_tx_checksum(netns, name);
    Ok(card)
}

async fn find(netlink: &Handle, name: &str) -> Option<Link> {
    let message = netlink.link().get().match_name(name.to_owned()).execute().try_next().await.ok()??;
    let mac = message.attributes.iter().find_map(|one| match one {
        LinkAttribute::Address(bytes) => <[u8; 6]>::try_from(bytes.as_slice()).ok(),
        _ => None,
    })?;
    let mtu = message.attributes.iter().find_map(|one| match one {
        LinkAttribute::Mtu(mtu) => Some(*mtu),
        _ => None,
    })?;
    Some(Link { index: message.header.index, mac, mtu })
}

async fn join(netns: &Netns, netlink: &Handle, name: &str, link: &Link, lost: bool) -> Result<(), rtnetlink::Error> {
    let bridge = format!("k6t-{name}");
    // Nothing in the pod answers for the guest.
    for interface in [name, TAP] {
        let _ = netns.write_sysctl(&format!("ipv6/conf/{interface}/disable_ipv6"), "1");
    }
    flush(netlink, link.index).await?;
    set(netlink, LinkUnspec::new_with_index(link.index).down().build()).await?;
    set(netlink, LinkUnspec::new_with_index(link.index).address(local(link.mac).to_vec()).build()).await?;
    let bridge_index = add_bridge(netns, netlink, &bridge, link.mtu).await?;
    set(netlink, LinkUnspec::new_with_index(link.index).controller(bridge_index).up().build()).await?;
    let tap = find(netlink, TAP).await.map(|tap| tap.index).unwrap_or_default();
    let tap_bridge = if lost { add_bridge(netns, netlink, "k6t-lost", link.mtu).await? } else { bridge_index };
    set(netlink, LinkUnspec::new_with_index(tap).mtu(link.mtu).controller(tap_bridge).up().build()).await
}

async fn set(netlink: &Handle, message: LinkMessage) -> Result<(), rtnetlink::Error> {
    netlink.link().set(message).execute().await
}

async fn add_bridge(netns: &Netns, netlink: &Handle, name: &str, mtu: u32) -> Result<u32, rtnetlink::Error> {
    // Floods multicast: neighbour discovery must get through before anybody has joined anything.
    netlink.link().add(LinkBridge::new(name).mcast_snooping(false).build()).execute().await?;
    let _ = netns.write_sysctl(&format!("ipv6/conf/{name}/disable_ipv6"), "1");
    let index = find(netlink, name).await.map(|link| link.index).unwrap_or_default();
    set(netlink, LinkUnspec::new_with_index(index).mtu(mtu).up().build()).await?;
    Ok(index)
}

/// Takes all addresses away: they are the guest's.
async fn flush(netlink: &Handle, index: u32) -> Result<(), rtnetlink::Error> {
    let mut all = netlink.address().get().set_link_index_filter(index).execute();
    while let Some(message) = all.try_next().await? {
        let address = message.attributes.iter().find_map(|one| match one {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        });
        // IPv6 went with the sysctl above.
        if let Some(IpAddr::V4(_)) = address {
            netlink.address().del(message).execute().await?;
        }
    }
    Ok(())
}

/// A MAC for the pod's own end, made of the guest's: locally administered, and another.
fn local(mac: [u8; 6]) -> [u8; 6] {
    [0x02, mac[1] ^ 0xff, mac[2], mac[3], mac[4], mac[5]]
}

fn written(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
