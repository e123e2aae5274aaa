//! What a node tells a virtual machine that has come to it: where its gateway is. As OVN-Kubernetes does, from the network's
//! management port of that node: a gratuitous ARP request and reply for the IPv4 gateway, to everybody, and router
//! advertisements to the guest alone, which take the gateway routers of all nodes away (guests of releases before the
//! transit router had them) and give the network's own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv6Net};
use tokio::sync::broadcast;

use super::NodeSide;
use super::management;
use super::raw;
use super::sync::Sync;
use crate::address::Mac;
use crate::error::Error;
use crate::layout::Layout;

const BROADCAST: Mac = Mac([0xff; 6]);
/// The longest router lifetime that there is, in seconds.
const FOR_EVER: u16 = u16::MAX;

/// Frames for a guest that has come to a node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Announcement {
    pub(crate) node: String,
    /// The management port that they leave by.
    pub(crate) port: management::Port,
    pub(crate) frames: Vec<Vec<u8>>,
}

impl Announcement {
    /// What the guest with this MAC and these addresses is told on `node`.
    pub(crate) fn new(layout: &Layout, node: &str, mac: Mac, addresses: &[IpAddr]) -> Self {
        let subnets: Vec<IpNet> = layout.definition.ranges.iter().map(|range| range.net).collect();
        let gateways: Vec<IpAddr> = subnets.iter().filter_map(|subnet| layout.gateway(*subnet)).collect();
        let mut frames = Vec::new();
        // The router's port has one MAC, that of its first address.
        let router = Mac::of_first(gateways.iter().copied());
        for gateway in gateways.iter().filter_map(|gateway| match gateway {
            IpAddr::V4(gateway) => Some(*gateway),
            IpAddr::V6(_) => None,
        }) {
            frames.extend([1, 2].map(|operation| gratuitous(operation, Mac::of(gateway.into()), gateway)));
        }
        let guest = addresses.iter().find_map(|address| match address {
            IpAddr::V6(address) => Some(*address),
            IpAddr::V4(_) => None,
        });
        if let (Some(guest), Some(router)) = (guest, router) {
            let former = layout
                .nodes
                .iter()
                .filter_map(|node| Mac::of_first(layout.gateway_join(node).iter().take(1).map(IpNet::addr)));
            frames.extend(former.map(|gateway| advertisement(gateway, mac, guest, 0, None)));
            let join = layout.join().into_iter().find_map(|net| match net {
                IpNet::V6(net) => Some(net),
                IpNet::V4(_) => None,
            });
            frames.push(advertisement(router, mac, guest, FOR_EVER, join));
        }
        Self { node: node.to_owned(), port: management::Port::of(layout, node), frames }
    }
}

/// Sends what is announced for a node, for ever.
pub(crate) async fn keep(side: NodeSide, sync: Sync, mut announcements: broadcast::Receiver<Arc<Announcement>>) {
    loop {
        match announcements.recv().await {
            Ok(announcement) if announcement.node == side.site.name => {
                if let Err(error) = send(&side, &sync, &announcement).await {
                    tracing::warn!(%error, node = announcement.node, "a virtual machine was not told its gateway");
                }
            }
            Ok(_) => {}
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                tracing::warn!(missed, node = side.site.name, "announcements of gateways were lost");
            }
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

async fn send(side: &NodeSide, sync: &Sync, announcement: &Announcement) -> Result<(), Error> {
    management::ensure(side, &announcement.port).await?;
    // The guest's port has been enabled a moment ago: before its node knows, it would hear nothing.
    sync.all_chassis().await?;
    let index = side.links.index(&announcement.port.interface).await?;
    raw::transmit(&side.site.netns, index, &announcement.frames).map_err(|error| Error::Link {
        action: format!("announce gateways by {}", announcement.port.interface),
        netns: side.site.netns.name().into(),
        reason: error.to_string(),
    })
}

fn ethernet(to: Mac, from: Mac, kind: u16) -> Vec<u8> {
    let mut frame = Vec::with_capacity(128);
    frame.extend(to.0);
    frame.extend(from.0);
    frame.extend(kind.to_be_bytes());
    frame
}

/// RFC 826: `address` is at `mac`, said to itself. Some systems heed requests, others replies.
fn gratuitous(operation: u16, mac: Mac, address: Ipv4Addr) -> Vec<u8> {
    let mut frame = ethernet(BROADCAST, mac, 0x0806);
    frame.extend([0, 1, 8, 0, 6, 4]);
    frame.extend(operation.to_be_bytes());
    frame.extend(mac.0);
    frame.extend(address.octets());
    frame.extend([0; 6]);
    frame.extend(address.octets());
    frame
}

/// RFC 4861, section 4.2: the router with this MAC is one for so many seconds. `withdrawn` is a prefix that is no longer
/// the link's.
fn advertisement(router: Mac, to: Mac, guest: Ipv6Addr, lifetime: u16, withdrawn: Option<Ipv6Net>) -> Vec<u8> {
    // Addresses are managed (DHCPv6); the router is preferred (RFC 4191) unless it is none.
    let flags = 0x80 | if lifetime == 0 { 0 } else { 0x08 };
    let mut message = vec![134, 0, 0, 0, 255, flags];
    message.extend(lifetime.to_be_bytes());
    message.extend([0; 8]);
    message.extend([1, 1]);
    message.extend(router.0);
    if let Some(prefix) = withdrawn {
        // On link, for address autoconfiguration, and valid for no time.
        message.extend([3, 4, prefix.prefix_len(), 0xc0]);
        message.extend([0; 12]);
        message.extend(prefix.network().octets());
    }
    let source = router.link_local();
    let sum = checksum(source, guest, &message).to_be_bytes();
    message[2..4].copy_from_slice(&sum);
    let mut frame = ethernet(to, router, 0x86dd);
    frame.extend([0x60, 0, 0, 0]);
    frame.extend(u16::try_from(message.len()).unwrap_or_default().to_be_bytes());
    frame.extend([58, 255]);
    frame.extend(source.octets());
    frame.extend(guest.octets());
    frame.extend(message);
    frame
}

/// RFC 4443, section 2.3.
fn checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let length = u32::try_from(message.len()).unwrap_or_default().to_be_bytes();
    let mut bytes: Vec<u8> = source.octets().into_iter().chain(destination.octets()).chain(length).collect();
    bytes.extend([0, 0, 0, 58]);
    bytes.extend(message);
    let mut sum: u32 =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::tests::{LAYER2, layout};

    #[test]
    fn the_guest_hears_of_its_gateways() {
        let layout = layout(LAYER2, 7);
        let (mac, addresses) =
            (Mac([2, 0, 0, 0, 0, 9]), ["172.16.0.9".parse().unwrap(), "2014:100:200::9".parse().unwrap()]);
        let told = Announcement::new(&layout, "ovn-worker", mac, &addresses);
        assert_eq!(told.port.interface, "ovn-k8s-mp7");
        assert_eq!(told.port.logical, "blue_blue.network_k8s-ovn-worker");
        // Request and reply, an end for each node's gateway router, and the router.
        assert_eq!(told.frames.len(), 2 + 3 + 1);
        let gateway = [0x0a, 0x58, 172, 16, 0, 2];
        for (frame, operation) in told.frames[..2].iter().zip([1, 2]) {
            assert_eq!((&frame[..6], &frame[6..12], frame[21]), (&[0xff; 6][..], &gateway[..], operation));
            assert_eq!((&frame[28..32], &frame[38..42]), (&[172, 16, 0, 2][..], &[172, 16, 0, 2][..]));
        }
        for (number, frame) in told.frames[2..5].iter().enumerate() {
            assert_eq!((&frame[..6], frame[54]), (&mac.0[..], 134));
            // 100.65.0.2 and following
            assert_eq!(frame[6..12], [0x0a, 0x58, 100, 65, 0, u8::try_from(number).unwrap() + 2]);
            assert_eq!(frame[60..62], [0, 0]);
        }
        let last = &told.frames[5];
        assert_eq!((&last[6..12], &last[60..62]), (&gateway[..], &[0xff, 0xff][..]));
        assert_eq!(last[78..82], [3, 4, 64, 0xc0]);
        assert_eq!(last[94..110], "fd99::".parse::<Ipv6Addr>().unwrap().octets());
    }

    #[test]
    fn checksums_are_right() {
        let (source, guest) = (Mac([0x0a, 0x58, 172, 16, 0, 2]).link_local(), "2014:100:200::9".parse().unwrap());
        let frame = advertisement(Mac([0x0a, 0x58, 172, 16, 0, 2]), BROADCAST, guest, 9, None);
        // What a receiver does: the sum over all, checksum included, is nothing.
        assert_eq!(checksum(source, guest, &frame[54..]), 0);
    }
}
