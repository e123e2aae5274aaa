//! Interfaces, addresses and routes by netlink.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, AsRawFd};

use futures::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::IpProtocol;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, CacheInfo};
use rtnetlink::packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoVeth, LinkAttribute, LinkMessage,
};
use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourState};
use rtnetlink::packet_route::route::RouteMessage;
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage, RulePortRange};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};
use udn_lab_sys::netns::Netns;

use crate::address::Mac;
use crate::error::Error;

/// The kernel's table of local addresses.
const LOCAL_TABLE: u8 = 255;

/// Netlink in one namespace.
#[derive(Clone)]
pub(crate) struct Links {
    handle: Handle,
    netns: Netns,
}

impl std::fmt::Debug for Links {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Links({})", self.netns.name())
    }
}

impl Links {
    pub(crate) fn open(netns: &Netns) -> Result<Self, Error> {
        let handle = netns.netlink().map_err(|error| Error::Link {
            action: "open netlink".into(),
            netns: netns.name().into(),
            reason: error.to_string(),
        })?;
        Ok(Self { handle, netns: netns.clone() })
    }

    fn failed(&self, action: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> Error {
        let (action, netns) = (action.into(), self.netns.name().to_owned());
        move |error| Error::Link { action, netns, reason: error.to_string() }
    }

    pub(crate) async fn index(&self, name: &str) -> Result<u32, Error> {
        let found = self.handle.link().get().match_name(name).execute().try_next().await;
        let link = found.map_err(self.failed(format!("find interface {name}")))?;
        Ok(link.map(|link| link.header.index).unwrap_or_default())
    }

    /// A pair: `name` here, up and without addresses of its own; `peer_name` in `peer`.
    pub(crate) async fn add_pair(
        &self,
        name: &str,
        peer: &Netns,
        peer_name: &str,
        mac: Mac,
        mtu: u32,
    ) -> Result<(), Error> {
        let far: LinkMessage = LinkMessageBuilder::<LinkUnspec>::new()
            .name(peer_name)
            .address(mac.0.to_vec())
            .mtu(mtu)
            .setns_by_fd(peer.as_fd().as_raw_fd())
            .build();
        let near = LinkVeth::new(name, peer_name).set_info_data(InfoData::Veth(InfoVeth::Peer(far))).mtu(mtu);
        let result = self.handle.link().add(near.build()).execute().await;
        result.map_err(self.failed(format!("add interface {name} with its peer {peer_name} in {}", peer.name())))?;
        // Before it goes up: the host's side must not solicit routers or neighbours into the pod's network.
        let silent = LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(
            In6AddrGenMode::None,
        )])]);
        let message = LinkUnspec::new_with_name(name).append_extra_attribute(silent).up().build();
        self.handle.link().set(message).execute().await.map_err(self.failed(format!("set interface {name} up")))
    }

    /// Deletes an interface; it is no error if there is none.
    pub(crate) async fn delete(&self, name: &str) -> Result<(), Error> {
        let Ok(index) = self.index(name).await else { return Ok(()) };
        self.handle.link().del(index).execute().await.map_err(self.failed(format!("delete interface {name}")))
    }

    pub(crate) async fn set_up(&self, index: u32) -> Result<(), Error> {
        let message = LinkUnspec::new_with_index(index).up().build();
        self.handle.link().set(message).execute().await.map_err(self.failed(format!("set interface {index} up")))
    }

    pub(crate) async fn add_address(&self, index: u32, address: IpNet) -> Result<(), Error> {
        self.put_address(index, address, None).await
    }

    /// An address that the kernel chooses as source only when asked to.
    pub(crate) async fn add_unpreferred_address(&self, index: u32, address: IpNet) -> Result<(), Error> {
        let mut lifetimes = CacheInfo::default();
        (lifetimes.ifa_preferred, lifetimes.ifa_valid) = (0, u32::MAX);
        self.put_address(index, address, Some(AddressAttribute::CacheInfo(lifetimes))).await
    }

    async fn put_address(&self, index: u32, address: IpNet, attribute: Option<AddressAttribute>) -> Result<(), Error> {
        let mut request = self.handle.address().add(index, address.addr(), address.prefix_len());
        request.message_mut().attributes.extend(attribute);
        // An address that is still being checked for duplicates cannot be used, and nobody else may have it.
        request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        request.replace().execute().await.map_err(self.failed(format!("add address {address}")))
    }

    pub(crate) async fn add_route(&self, to: IpNet, via: IpAddr, index: u32) -> Result<(), Error> {
        self.add_route_in(to, via, index, None).await
    }

    fn route(&self, to: IpNet, via: IpAddr, index: u32, what: &str) -> Result<RouteMessage, Error> {
        let to = to.trunc();
        let invalid = |error: &dyn std::fmt::Display| Error::Link {
            action: what.to_owned(),
            netns: self.netns.name().into(),
            reason: error.to_string(),
        };
        let mut message = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(to.addr(), to.prefix_len())
            .map_err(|error| invalid(&error))?
            .gateway(via)
            .map_err(|error| invalid(&error))?
            .output_interface(index)
            .onlink()
            .build();
        message.header.address_family = if to.addr().is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
        Ok(message)
    }

    /// … in a table of its own.
    pub(crate) async fn add_route_in(
        &self,
        to: IpNet,
        via: IpAddr,
        index: u32,
        table: Option<u32>,
    ) -> Result<(), Error> {
        let what = format!("add route to {to} via {via}");
        let mut message = self.route(to, via, index, &what)?;
        if let Some(table) = table.and_then(|table| u8::try_from(table).ok()) {
            message.header.table = table;
        }
        let result = self.handle.route().add(message).replace().execute().await;
        result.map_err(self.failed(what))
    }

    /// Deletes a route; it is no error if there is none.
    pub(crate) async fn delete_route(&self, to: IpNet, via: IpAddr, index: u32) -> Result<(), Error> {
        let what = format!("delete the route to {to} via {via}");
        let message = self.route(to, via, index, &what)?;
        match self.handle.route().del(message).execute().await {
            Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -nix::libc::ESRCH => Ok(()),
            result => result.map_err(self.failed(what)),
        }
    }

    /// What is there already is no error.
    fn added(&self, result: Result<(), rtnetlink::Error>, what: String) -> Result<(), Error> {
        match result {
            Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -nix::libc::EEXIST => Ok(()),
            result => result.map_err(self.failed(what)),
        }
    }

    /// Sends what the host itself sends to `ports` of its own `address` by `table`. The rule that sends everything to local
    /// addresses to `lo` comes first of all rules; it is moved behind.
    pub(crate) async fn node_ports_first(
        &self,
        address: IpAddr,
        ports: RangeInclusive<u16>,
        table: u32,
    ) -> Result<(), Error> {
        let (family, length) = if address.is_ipv6() { (AddressFamily::Inet6, 128) } else { (AddressFamily::Inet, 32) };
        let range = RulePortRange { start: *ports.start(), end: *ports.end() };
        for (priority, protocol) in [(10, IpProtocol::Tcp), (11, IpProtocol::Udp)] {
            let mut request = self.handle.rule().add();
            let message = request.message_mut();
            (message.header.family, message.header.dst_len) = (family, length);
            (message.header.table, message.header.action) = (u8::try_from(table).unwrap_or(7), RuleAction::ToTable);
            message.attributes.extend([
                RuleAttribute::Destination(address),
                RuleAttribute::Iifname("lo".into()),
                RuleAttribute::Priority(priority),
                RuleAttribute::IpProtocol(protocol),
                RuleAttribute::DestinationPortRange(range),
            ]);
            self.added(request.execute().await, format!("add a rule for node ports of {address}"))?;
        }
        let mut behind = self.handle.rule().add();
        let message = behind.message_mut();
        (message.header.family, message.header.table) = (family, LOCAL_TABLE);
        message.header.action = RuleAction::ToTable;
        message.attributes.push(RuleAttribute::Priority(100));
        self.added(behind.execute().await, "add the rule for local addresses behind that for node ports".into())?;
        let mut first = RuleMessage::default();
        (first.header.family, first.header.table, first.header.action) = (family, LOCAL_TABLE, RuleAction::ToTable);
        first.attributes.push(RuleAttribute::Priority(0));
        // Already away after a restart.
        let _ = self.handle.rule().del(first).execute().await;
        Ok(())
    }

    /// Neighbours whose link-layer addresses are known.
    pub(crate) async fn neighbours(&self) -> Result<Vec<IpAddr>, Error> {
        let mut known = Vec::new();
        let mut all = self.handle.neighbours().get().execute();
        while let Some(neighbour) = all.try_next().await.map_err(self.failed("list neighbours"))? {
            let resolved = matches!(
                neighbour.header.state,
                NeighbourState::Reachable
                    | NeighbourState::Stale
                    | NeighbourState::Delay
                    | NeighbourState::Probe
                    | NeighbourState::Permanent
            );
            let address = neighbour.attributes.iter().find_map(|attribute| match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some(IpAddr::V4(*address)),
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
                _ => None,
            });
            known.extend(address.filter(|_| resolved));
        }
        Ok(known)
    }

    pub(crate) async fn add_neighbour(&self, index: u32, address: IpAddr, mac: Mac) -> Result<(), Error> {
        let request =
            self.handle.neighbours().add(index, address).link_layer_address(&mac.0).state(NeighbourState::Permanent);
        request.replace().execute().await.map_err(self.failed(format!("add neighbour {address}")))
    }
}

/// Everything, in the address's family.
pub(crate) fn everything(family: IpAddr) -> IpNet {
    match family {
        IpAddr::V4(_) => IpNet::V4(ipnet::Ipv4Net::default()),
        IpAddr::V6(_) => IpNet::V6(ipnet::Ipv6Net::default()),
    }
}
