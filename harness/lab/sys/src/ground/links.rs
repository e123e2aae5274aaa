//! Interfaces, addresses and routes by netlink.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use futures::TryStreamExt;
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkMessage};
use rtnetlink::{Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};

use crate::error::Error;
use crate::netns::Netns;

/// Netlink in one namespace, with errors that say what was attempted.
#[derive(Clone)]
pub struct Links {
    handle: Handle,
    netns: Netns,
}

impl Links {
    /// Opens netlink inside `netns`. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// When the socket cannot be opened.
    pub fn open(netns: &Netns) -> Result<Self, Error> {
        let handle =
            netns.netlink().map_err(Error::sandbox(format!("open netlink in network namespace {}", netns.name())))?;
        Ok(Self { handle, netns: netns.clone() })
    }

    fn failed(&self, action: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> Error {
        let (action, netns) = (action.into(), self.netns.name().to_owned());
        move |source| Error::Netlink { action, netns, source }
    }

    /// Index of the interface `name`.
    ///
    /// # Errors
    /// When there is none.
    pub async fn index(&self, name: &str) -> Result<u32, Error> {
        let found = self.handle.link().get().match_name(name).execute().try_next().await;
        let link = found.map_err(self.failed(format!("find interface {name}")))?;
        Ok(link.map(|link| link.header.index).unwrap_or_default())
    }

    /// Index of the interface `name`, as soon as it is there.
    ///
    /// # Errors
    /// When it is not within `deadline`.
    pub async fn await_index(&self, name: &str, deadline: Duration) -> Result<u32, Error> {
        let end = tokio::time::Instant::now() + deadline;
        loop {
            match self.index(name).await {
                Err(_) if tokio::time::Instant::now() < end => tokio::time::sleep(Duration::from_millis(5)).await,
                result => return result,
            }
        }
    }

    /// Adds a bridge that floods multicast.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn add_bridge(&self, name: &str, mac: [u8; 6]) -> Result<u32, Error> {
        let message = LinkBridge::new(name).mcast_snooping(false).address(mac.to_vec()).up().build();
        self.handle.link().add(message).execute().await.map_err(self.failed(format!("add bridge {name}")))?;
        self.index(name).await
    }

    /// Adds a pair of interfaces, `name` here as a port of the bridge `controller`, `peer_name` in `peer`.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn add_pair(
        &self,
        name: &str,
        controller: u32,
        peer: &Netns,
        peer_name: &str,
        mac: [u8; 6],
    ) -> Result<(), Error> {
        let far: LinkMessage = LinkMessageBuilder::<LinkUnspec>::new()
            .name(peer_name)
            .address(mac.to_vec())
            .setns_by_fd(peer.as_fd().as_raw_fd())
            .build();
        let near = LinkVeth::new(name, peer_name)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(far)))
            .controller(controller)
            .up();
        let result = self.handle.link().add(near.build()).execute().await;
        result.map_err(self.failed(format!("add interface {name} with its peer {peer_name} in {}", peer.name())))
    }

    /// Sets an interface up.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn set_up(&self, index: u32) -> Result<(), Error> {
        let message = LinkUnspec::new_with_index(index).up().build();
        self.handle.link().set(message).execute().await.map_err(self.failed(format!("set interface {index} up")))
    }

    /// Adds an address.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn add_address(&self, index: u32, address: impl Into<IpAddr>, prefix: u8) -> Result<(), Error> {
        let address = address.into();
        let result = self.handle.address().add(index, address, prefix).execute().await;
        result.map_err(self.failed(format!("add address {address}/{prefix}")))
    }

    /// Adds default routes of both families.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn add_default_routes(&self, index: u32, via4: Ipv4Addr, via6: Ipv6Addr) -> Result<(), Error> {
        let v4 = RouteMessageBuilder::<Ipv4Addr>::new().gateway(via4).output_interface(index).build();
        self.handle.route().add(v4).execute().await.map_err(self.failed(format!("add default route via {via4}")))?;
        let v6 = RouteMessageBuilder::<Ipv6Addr>::new().gateway(via6).output_interface(index).build();
        self.handle.route().add(v6).execute().await.map_err(self.failed(format!("add default route via {via6}")))
    }
}
