//! The configuration of a VM's network: which part gets which event, and what comes of their answers.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::IpAddr;

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::system::sethostname;

use super::link::{self, Link};
use super::log::Log;
use super::router::{self, Routers};
use super::sockets::{self, Sockets4};
use super::{boot, devices, dhcp4, dhcp6};
use crate::agent::random;
use crate::clock::{monotonic_us, wall_us};
use crate::protocol;
use crate::reactor::{Kind, Reactor, Ready, Token};
use crate::slab::Key;

/// What an event is about.
const DEVICES: Key = 0;
const ROUTERS: Key = 1;
const V4: Key = 2;
const V6: Key = 3;

/// The resolver's configuration.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The VM that the agent is the first process of.
pub(crate) struct Guest {
    console: String,
    log: Log,
    devices: OwnedFd,
    network: Option<Network>,
}

/// The interface and its clients; each works whether or not the others get answers.
struct Network {
    link: Link,
    advertisements: OwnedFd,
    sockets4: Sockets4,
    socket6: OwnedFd,
    client4: dhcp4::Client,
    client6: dhcp6::Client,
    routers: Routers,
    /// When the timers of the two clients are set to.
    timers: [u64; 2],
    /// What was written last.
    resolv_conf: String,
}

impl Guest {
    /// `console` is the device's path; `log` what went wrong so far.
    pub(crate) fn start(reactor: &Reactor, console: String, log: Log) -> Result<Self, Errno> {
        let devices = devices::open()?;
        reactor.watch(&devices, Token::new(Kind::Guest, DEVICES), Ready::IN)?;
        let mut guest = Self { console, log, devices, network: None };
        guest.log.check("set lo up", link::set_up(link::LOOPBACK));
        Ok(guest)
    }

    pub(crate) fn console(&self) -> &str {
        &self.console
    }

    pub(crate) fn note(&mut self, attempted: &str, errno: Errno) {
        self.log.note(attempted, errno);
    }

    /// Configures the first interface once it is there.
    pub(crate) fn look_around(&mut self, reactor: &mut Reactor) {
        if self.network.is_some() {
            return;
        }
        let Some(link) = link::find() else { return };
        match Network::start(reactor, link) {
            Ok(network) => self.network = Some(network),
            Err(errno) => self.log.note("set up the network interface", errno),
        }
    }

    /// A socket became ready; true: a device may have appeared.
    pub(crate) fn ready(&mut self, reactor: &mut Reactor, key: Key) -> bool {
        if key == DEVICES {
            devices::drain(&self.devices);
            return true;
        }
        if let Some(network) = &mut self.network {
            network.read(key, &mut self.log);
            network.settle(reactor, &mut self.log);
        }
        false
    }

    /// A timer is due.
    pub(crate) fn due(&mut self, reactor: &mut Reactor, key: Key) {
        if let Some(network) = &mut self.network {
            network.due(key, &mut self.log);
            network.settle(reactor, &mut self.log);
        }
    }

    pub(crate) fn facts(&self) -> protocol::Guest {
        let network = self.network.as_ref();
        protocol::Guest {
            dhcpv4: network.and_then(|network| network.client4.lease().cloned()),
            dhcpv6: network.and_then(|network| network.client6.lease().cloned()),
            routers: network.map(|network| network.routers.list().to_vec()).unwrap_or_default(),
            troubles: self.log.troubles().to_vec(),
        }
    }
}

impl Network {
    fn start(reactor: &mut Reactor, link: Link) -> Result<Self, Errno> {
        // Before the interface is up: the kernel asks for routers at once.
        let advertisements = router::open()?;
        reactor.watch(&advertisements, Token::new(Kind::Guest, ROUTERS), Ready::IN)?;
        let sockets4 = Sockets4::open(link.index)?;
        reactor.watch(&sockets4.raw, Token::new(Kind::Guest, V4), Ready::IN)?;
        let socket6 = sockets::open_v6()?;
        reactor.watch(&socket6, Token::new(Kind::Guest, V6), Ready::IN)?;
        link::set_up(link.index)?;
        let seed = random() as u32;
        let mut network = Self {
            link,
            advertisements,
            sockets4,
            socket6,
            client4: dhcp4::Client::new(link.mac, seed, monotonic_us()),
            client6: dhcp6::Client::new(link.mac, seed),
            routers: Routers::default(),
            timers: [u64::MAX; 2],
            resolv_conf: String::new(),
        };
        network.set_timers(reactor);
        Ok(network)
    }

    /// Reads all that came to a socket.
    fn read(&mut self, key: Key, log: &mut Log) {
        match key {
            ROUTERS => {
                while let Some(advertisement) = router::receive(&self.advertisements, wall_us()) {
                    self.client6.invited(advertisement.managed, advertisement.other, monotonic_us());
                    self.routers.heard(advertisement);
                }
            }
            V4 => {
                while let Some(message) = self.sockets4.receive() {
                    let steps = self.client4.received(&message, monotonic_us(), wall_us());
                    self.follow4(steps, log);
                }
            }
            _ => {
                while let Some(message) = sockets::receive_v6(&self.socket6) {
                    let steps = self.client6.received(&message, monotonic_us(), wall_us());
                    self.follow6(steps, log);
                }
            }
        }
    }

    fn due(&mut self, key: Key, log: &mut Log) {
        if key == V4 {
            let steps = self.client4.due(monotonic_us());
            self.follow4(steps, log);
        } else {
            let steps = self.client6.due(monotonic_us());
            self.follow6(steps, log);
        }
    }

    fn follow4(&mut self, steps: Vec<dhcp4::Step>, log: &mut Log) {
        let index = self.link.index;
        for step in steps {
            match step {
                // A message that cannot leave is as good as lost: it is sent again.
                dhcp4::Step::Broadcast(message) => {
                    log.check("broadcast by DHCPv4", self.sockets4.broadcast(&message));
                }
                dhcp4::Step::Send(message, server) => {
                    log.check("renew by DHCPv4", self.sockets4.send(&message, server));
                }
                dhcp4::Step::Use(lease) => {
                    if let Some(mtu) = lease.mtu {
                        log.check(&format!("set the MTU to {mtu}"), link::set_mtu(index, mtu.into()));
                    }
                    let own = IpAddr::V4(lease.address);
                    log.check(&format!("take the address {own}"), link::add_address(index, own, lease.prefix));
                    if let Some(router) = lease.routers.first() {
                        log.check(&format!("use the router {router}"), link::set_default_route(index, *router));
                    }
                    if let Some(name) = &lease.hostname {
                        log.check("set the host name", sethostname(name.as_bytes()));
                    }
                }
                dhcp4::Step::Drop(lease) => {
                    let own = IpAddr::V4(lease.address);
                    log.check(&format!("drop the address {own}"), link::remove_address(index, own, lease.prefix));
                }
            }
        }
    }

    fn follow6(&mut self, steps: Vec<dhcp6::Step>, log: &mut Log) {
        let index = self.link.index;
        for step in steps {
            match step {
                dhcp6::Step::Send(message) => {
                    log.check("send by DHCPv6", sockets::send_v6(&self.socket6, index, &message));
                }
                dhcp6::Step::Use(lease) => {
                    if let Some(own) = lease.address.map(IpAddr::V6) {
                        log.check(&format!("take the address {own}"), link::add_address(index, own, 128));
                    }
                    // Where there is DHCPv4, its name is the one.
                    let name = lease.hostname.as_ref().filter(|_| self.client4.lease().is_none());
                    if let Some(name) = name.and_then(|name| name.split('.').next()) {
                        log.check("set the host name", sethostname(name.as_bytes()));
                    }
                }
                dhcp6::Step::Drop(lease) => {
                    if let Some(own) = lease.address.map(IpAddr::V6) {
                        log.check(&format!("drop the address {own}"), link::remove_address(index, own, 128));
                    }
                }
            }
        }
    }

    /// Brings what depends on the clients up to date.
    fn settle(&mut self, reactor: &mut Reactor, log: &mut Log) {
        self.set_timers(reactor);
        let (lease4, lease6) = (self.client4.lease(), self.client6.lease());
        let mut resolvers: Vec<String> = Vec::new();
        resolvers.extend(lease4.iter().flat_map(|lease| &lease.resolvers).map(ToString::to_string));
        resolvers.extend(lease6.iter().flat_map(|lease| &lease.resolvers).map(ToString::to_string));
        resolvers.extend(self.routers.resolvers());
        let mut search: Vec<String> = Vec::new();
        search.extend(lease4.and_then(|lease| lease.domain.clone()));
        search.extend(lease6.iter().flat_map(|lease| lease.search.clone()));
        let text = boot::resolv_conf(&unique(resolvers), &unique(search));
        if text != self.resolv_conf {
            log.check(&["write ", RESOLV_CONF].concat(), boot::write_file(RESOLV_CONF, &text));
            self.resolv_conf = text;
        }
    }

    fn set_timers(&mut self, reactor: &mut Reactor) {
        let wanted = [(V4, self.client4.next()), (V6, self.client6.next())];
        for ((key, next), set) in wanted.into_iter().zip(&mut self.timers) {
            let token = Token::new(Kind::Guest, key);
            reactor.disarm(token, *set);
            *set = next;
            if next != u64::MAX {
                reactor.arm(token, next);
            }
        }
    }
}

/// Each once, where it comes first.
fn unique(mut list: Vec<String>) -> Vec<String> {
    let mut seen = alloc::collections::BTreeSet::new();
    list.retain(|entry| seen.insert(entry.clone()));
    list
}
