//! A virtual machine as the network sees it: a namespace of its own, whose one interface leads into the namespace of the
//! launcher pod that "runs" it, by a bridge there. Moving it is what a live migration does: TCP and all goes on elsewhere.

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

use anyhow::{Context, Result};
use futures::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::{Handle, LinkBridge, LinkUnspec, LinkVeth, RouteMessageBuilder};
use udn_lab_sys::netns::Netns;
use udn_lab_sys::offload;
use udn_lab_sys::pod::Sandbox;

pub(crate) const INTERFACE: &str = "eth0";

pub(crate) struct Guest {
    pub(crate) netns: Netns,
    links: Handle,
    bridge: u32,
    /// Interfaces to the pods that it could run in.
    ways: Vec<(String, u32)>,
    made: u8,
}

impl Guest {
    /// Up, without addresses.
    pub(crate) async fn new(name: &str, mac: [u8; 6]) -> Result<Self> {
        let netns = Netns::create(name)?;
        for (path, value) in [("accept_ra", "0"), ("accept_dad", "0")] {
            netns.write_sysctl(&format!("ipv6/conf/default/{path}"), value)?;
        }
        let links = netns.netlink()?;
        // A bridge of its own: which of several ways is up says where the guest runs.
        links.link().add(LinkBridge::new(INTERFACE).address(mac.to_vec()).mtu(1400).up().build()).execute().await?;
        let bridge = index(&links, INTERFACE).await?;
        offload::disable_tx_checksum(&netns, INTERFACE)?;
        Ok(Self { netns, links, bridge, ways: Vec::new(), made: 0 })
    }

    pub(crate) async fn configure(&self, addresses: &[IpNet], gateways: &[IpAddr]) -> Result<()> {
        for address in addresses {
            self.links.address().add(self.bridge, address.addr(), address.prefix_len()).execute().await?;
        }
        for gateway in gateways {
            let everything = if gateway.is_ipv6() { IpAddr::from([0_u16; 8]) } else { IpAddr::from([0_u8; 4]) };
            let route = RouteMessageBuilder::<IpAddr>::new()
                .destination_prefix(everything, 0)?
                .gateway(*gateway)?
                .output_interface(self.bridge)
                .build();
            self.links.route().add(route).execute().await.with_context(|| format!("route by {gateway}"))?;
        }
        Ok(())
    }

    /// Makes a way into a launcher pod, down: what the launcher does with its interface before the guest runs there.
    pub(crate) async fn prepare(&mut self, sandbox: &Sandbox) -> Result<()> {
        let pod = sandbox.netns.netlink()?;
        self.made += 1;
        let way = format!("way{}", self.made);
        self.links.link().add(LinkVeth::new(&way, "tap0").mtu(1400).build()).execute().await?;
        let (own, peer) = (index(&self.links, &way).await?, index(&self.links, "tap0").await?);
        let there = LinkUnspec::new_with_index(peer).setns_by_fd(sandbox.netns.as_fd().as_raw_fd()).build();
        self.links.link().set(there).execute().await?;
        offload::disable_tx_checksum(&self.netns, &way)?;
        self.links.link().set(LinkUnspec::new_with_index(own).controller(self.bridge).build()).execute().await?;

        sandbox.netns.write_sysctl("ipv6/conf/default/disable_ipv6", "1")?;
        pod.link().add(LinkBridge::new("k6t").mtu(1400).up().build()).execute().await?;
        let bridge = index(&pod, "k6t").await?;
        // The MAC is the guest's: a bridge would take what is for its port's own as for itself.
        let network = index(&pod, "ovn-udn1").await?;
        let own_mac = LinkUnspec::new_with_index(network).address(vec![2, 0, 0, 0, 1, self.made]).controller(bridge);
        pod.link().set(own_mac.build()).execute().await?;
        let tap = index(&pod, "tap0").await?;
        pod.link().set(LinkUnspec::new_with_index(tap).controller(bridge).up().build()).execute().await?;
        self.ways.push((sandbox.pod.clone(), own));
        Ok(())
    }

    /// The pod is gone, and the way into it.
    pub(crate) fn forget(&mut self, pod: &str) {
        self.ways.retain(|(name, _)| name != pod);
    }

    /// The guest runs in this pod from now on.
    pub(crate) async fn run_in(&self, pod: &str) -> Result<()> {
        for (other, way) in &self.ways {
            if other != pod {
                self.links.link().set(LinkUnspec::new_with_index(*way).down().build()).execute().await?;
            }
        }
        let (_, way) = self.ways.iter().find(|(name, _)| name == pod).context("no way into that pod")?;
        self.links.link().set(LinkUnspec::new_with_index(*way).up().build()).execute().await?;
        Ok(())
    }
}

async fn index(links: &Handle, name: &str) -> Result<u32> {
    let found = links.link().get().match_name(name.to_owned()).execute().try_next().await?;
    Ok(found.with_context(|| format!("no interface {name}"))?.header.index)
}
