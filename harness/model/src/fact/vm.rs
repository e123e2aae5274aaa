//! Whether what is promised of a guest holds.

use std::net::IpAddr;

use ipnet::IpNet;

use super::PRIMARY_INTERFACE;
use super::judge::{Judged, list, mac_of};
use super::view::{Announcement, Guest, Identity, Interface, PodView, Said};
use crate::words::Family;
use crate::world::PodRef;

/// How long the network may take to tell a VM its gateway's MAC after a switch, milliseconds (OVN-Kubernetes' own tests).
const GATEWAY_ARP_MS: i64 = 10_000;
/// The same of router advertisements.
const GATEWAY_RA_MS: i64 = 5_000;
/// Clocks of guests and nodes are known to about this, milliseconds: what seems to have been said shortly before the switch
/// counts.
const CLOCKS_MS: i64 = 250;

impl Judged<'_> {
    fn guest(&self) -> Result<&Guest, String> {
        self.view
            .guest
            .as_deref()
            .ok_or_else(|| format!("{} is no VM, or its guest could not be looked into", self.pod.pod))
    }

    /// The guest's interface: the one with its network's MAC, else its only one.
    fn device(&self) -> Result<&Interface, String> {
        let (_, entry) = self.primary()?;
        self.view.device(&entry.mac).ok_or_else(|| {
            let found: Vec<String> =
                self.view.interfaces.iter().map(|interface| format!("{} {}", interface.name, interface.mac)).collect();
            format!("no interface of the guest has {}; there are {}", entry.mac, list(&found))
        })
    }

    pub(super) fn guest_address(&self, family: Family) -> Result<String, String> {
        let (_, entry) = self.primary()?;
        let address = self.address(entry, family)?;
        // DHCPv6 gives single addresses; what is on the link is for router advertisements to say.
        let expected = match address {
            IpNet::V6(v6) => IpNet::from(IpAddr::V6(v6.addr())),
            v4 => v4,
        };
        let device = self.device()?;
        let found: Vec<IpNet> =
            device.addresses.iter().copied().filter(|ip| Family::of(ip.addr()) == family && is_global(ip)).collect();
        if found == [expected] {
            Ok(format!("{expected} on {}", device.name))
        } else {
            Err(format!("{} has {}, not {expected}", device.name, list(&found)))
        }
    }

    pub(super) fn guest_route(&self, family: Family) -> Result<String, String> {
        let (_, entry) = self.primary()?;
        let device = &self.device()?.name;
        let mut routes = self.view.defaults(family);
        let route = routes.next().ok_or_else(|| format!("no default route for {family}"))?;
        if let Some(second) = routes.next() {
            let via = |via: Option<IpAddr>| via.map_or_else(|| "nobody".into(), |via| via.to_string());
            return Err(format!("two default routes for {family}: via {} and via {}", via(route.via), via(second.via)));
        }
        if route.dev != *device {
            return Err(format!("the default route leaves by {}, not by {device}", route.dev));
        }
        let via = route.via.ok_or_else(|| format!("the default route by {device} has no gateway"))?;
        let gateways: Vec<IpAddr> = entry.gateways.iter().copied().filter(|ip| Family::of(*ip) == family).collect();
        let right = match via {
            IpAddr::V4(_) => gateways.contains(&via),
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        };
        if right {
            return Ok(format!("default via {via} dev {device}"));
        }
        let wanted = if family == Family::V6 { "a link-local address".into() } else { list(&gateways) };
        Err(format!("the default route goes via {via}, not via {wanted}"))
    }

    pub(super) fn guest_mac(&self) -> Result<String, String> {
        let (_, entry) = self.primary()?;
        let device = self.device()?;
        let v4 = entry.ips.iter().find_map(|ip| match ip.addr() {
            IpAddr::V4(v4) => Some(v4),
            IpAddr::V6(_) => None,
        });
        let expected = match (&self.pod.requested.mac, v4) {
            (Some(requested), _) => requested.clone(),
            (None, Some(v4)) => mac_of(v4),
            (None, None) => entry.mac.clone(),
        };
        if device.mac == expected {
            Ok(expected)
        } else {
            Err(format!("{} has {}, not {expected}", device.name, device.mac))
        }
    }

    pub(super) fn guest_mtu(&self) -> Result<String, String> {
        let (network, _) = self.primary()?;
        let device = self.device()?;
        let peers = self.scene.world.pods.iter().filter(|pod| pod.vm.is_none() && pod.primary == self.pod.primary);
        let of_peer = |pod: &PodRef| Some(self.scene.views.get(pod)?.interface(PRIMARY_INTERFACE).ok()?.mtu);
        let expected = network
            .mtu
            .or_else(|| peers.into_iter().find_map(|pod| of_peer(&pod.pod)))
            .or(self.guest()?.default_mtu)
            .ok_or("the network declares no MTU, and no pod of it shows one")?;
        if device.mtu == expected {
            Ok(format!("{expected} bytes"))
        } else {
            Err(format!("{} has MTU {}, not {expected}", device.name, device.mtu))
        }
    }

    pub(super) fn resolvers(&self) -> Result<String, String> {
        let guest = self.guest()?;
        let (network, _) = self.primary()?;
        let wanted: Vec<IpAddr> = guest.dns.iter().copied().filter(|ip| network.has_family(Family::of(*ip))).collect();
        if wanted.is_empty() {
            return Err("the cluster's DNS service has no address of the network's families".into());
        }
        let strangers: Vec<IpAddr> = guest.resolvers.iter().copied().filter(|ip| !guest.dns.contains(ip)).collect();
        if guest.resolvers.is_empty() || !strangers.is_empty() {
            return Err(format!("the guest asks {}; the DNS service is {}", list(&guest.resolvers), list(&wanted)));
        }
        Ok(list(&guest.resolvers))
    }

    pub(super) fn hostname(&self) -> Result<String, String> {
        let found = self.guest()?.hostname.clone().unwrap_or_default();
        if found == self.pod.pod.name {
            Ok(found)
        } else {
            Err(format!("the guest is called `{found}`, not {}", self.pod.pod.name))
        }
    }

    pub(super) fn claimed(&self) -> Result<String, String> {
        let (_, entry) = self.primary()?;
        let name = self.pod.vm.as_ref().map(|vm| vm.claim(&self.pod.pod.name)).unwrap_or_default();
        let claim = self.guest()?.claim.as_ref().ok_or_else(|| format!("there is no IPAMClaim {name}"))?;
        let addresses = |nets: &[IpNet]| {
            let mut addresses: Vec<IpAddr> = nets.iter().map(IpNet::addr).collect();
            addresses.sort_unstable();
            addresses
        };
        if addresses(claim) == addresses(&entry.ips) {
            Ok(format!("IPAMClaim {name} holds {}", list(claim)))
        } else {
            Err(format!("IPAMClaim {name} holds {}, pod-networks says {}", list(claim), list(&entry.ips)))
        }
    }

    pub(super) fn as_before(&self) -> Result<String, String> {
        let (_, entry) = self.primary()?;
        let now = Identity::of(self.view, &entry.mac).ok_or("the guest has no interface of its network")?;
        let before = self.guest()?.before.as_ref().ok_or("the guest was not configured yet when it was looked into")?;
        let different = before.differences(&now);
        if different.is_empty() {
            Ok(format!("{} {}", list(&now.addresses), now.mac))
        } else {
            Err(different.join("; "))
        }
    }

    pub(super) fn announced_at(&self, at: &PodRef) -> Result<String, String> {
        let (_, entry) = self.primary()?;
        let heard = self.scene.views.get(at).ok_or_else(|| format!("nothing is known of the inside of {at}"))?;
        let own: Vec<IpAddr> = entry.ips.iter().map(IpNet::addr).collect();
        let about = |said: &&Announcement| {
            said.said != Said::RouterAdvertisement
                && (said.mac == entry.mac || said.address.is_some_and(|ip| own.contains(&ip)))
        };
        let after = self.after_switch(heard.heard.iter().filter(about))?;
        if after.is_empty() {
            return Err(format!("{at} heard nothing about {} after the switch", entry.mac));
        }
        let told: Vec<String> = after.iter().take(6).map(|(ms, said)| tell(*ms, said)).collect();
        Ok(format!("{at} heard {}", told.join(", ")))
    }

    pub(super) fn gateway_announced(&self, family: Family) -> Result<String, String> {
        let (_, entry) = self.primary()?;
        let gateways: Vec<IpAddr> = entry.gateways.iter().copied().filter(|ip| Family::of(*ip) == family).collect();
        let limit = if family == Family::V4 { GATEWAY_ARP_MS } else { GATEWAY_RA_MS };
        let about = |said: &&Announcement| match family {
            Family::V4 => said.said == Said::Arp && said.address.is_some_and(|address| gateways.contains(&address)),
            Family::V6 => said.said == Said::RouterAdvertisement,
        };
        let after = self.after_switch(self.view.heard.iter().filter(about))?;
        match after.first() {
            Some((ms, said)) if *ms <= limit => Ok(tell(*ms, said)),
            Some((ms, said)) => Err(format!("{}; it may take {limit} ms", tell(*ms, said))),
            None => Err(format!("the VM heard nothing of its {family} gateway after the switch")),
        }
    }

    pub(super) fn gateway_entry(&self, family: Family) -> Result<String, String> {
        let (_, entry) = self.primary()?;
        let gateway = entry.gateways.iter().copied().find(|ip| Family::of(*ip) == family);
        let Some(IpAddr::V4(gateway)) = gateway else { return Err("pod-networks names no IPv4 gateway".into()) };
        let expected = mac_of(gateway);
        let known = self.guest()?.neighbours.iter().find(|(address, _)| *address == IpAddr::V4(gateway));
        match known {
            Some((_, mac)) if *mac == expected => Ok(format!("{gateway} is at {mac}")),
            Some((_, mac)) => Err(format!("{gateway} is at {mac}, not {expected}")),
            None => Err(format!("the guest does not know its gateway {gateway}")),
        }
    }

    /// What was said after the last switch, with the delay in milliseconds, first things first.
    fn after_switch<'a>(
        &self,
        said: impl Iterator<Item = &'a Announcement>,
    ) -> Result<Vec<(i64, &'a Announcement)>, String> {
        let switched = self.guest()?.switched_us.ok_or("no migration of it has ended yet")?;
        let mut after: Vec<(i64, &Announcement)> =
            said.map(|said| ((said.at_us - switched) / 1000, said)).filter(|(ms, _)| *ms >= -CLOCKS_MS).collect();
        after.sort_by_key(|(ms, _)| *ms);
        Ok(after)
    }
}

fn tell(ms: i64, said: &Announcement) -> String {
    let address = said.address.map(|address| format!(" for {address}")).unwrap_or_default();
    format!("{}{address} from {} at {ms:+} ms", said.said, said.mac)
}

fn is_global(ip: &IpNet) -> bool {
    match ip.addr() {
        IpAddr::V4(v4) => !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_unicast_link_local(),
    }
}

impl PodView {
    /// The guest's interface: the one with this MAC, else its only one.
    #[must_use]
    pub fn device(&self, mac: &str) -> Option<&Interface> {
        let own = self.interfaces.iter().find(|interface| interface.mac == mac);
        own.or(if let [only] = &self.interfaces[..] { Some(only) } else { None })
    }
}

impl Identity {
    /// What is to stay, as far as the guest is configured; `None` where it lacks its interface.
    #[must_use]
    pub fn of(view: &PodView, mac: &str) -> Option<Self> {
        let device = view.device(mac)?;
        let guest = view.guest.as_deref()?;
        let mut addresses: Vec<IpNet> = device.addresses.iter().copied().filter(is_global).collect();
        addresses.sort_unstable();
        let route = |route: &super::Route| {
            let to = route.to.map_or_else(|| "default".to_owned(), |to| to.to_string());
            let via = route.via.map(|via| format!(" via {via}")).unwrap_or_default();
            format!("{} {to}{via} dev {}", route.family, route.dev)
        };
        // Its link's own come and go with its state.
        let told = view.routes.iter().filter(|route| route.to.as_ref().is_none_or(is_global));
        let mut routes: Vec<String> = told.map(route).collect();
        routes.sort_unstable();
        routes.dedup();
        let mut resolvers = guest.resolvers.clone();
        resolvers.sort_unstable();
        Some(Self {
            addresses,
            mac: device.mac.clone(),
            mtu: device.mtu,
            routes,
            resolvers,
            hostname: guest.hostname.clone(),
            claim: guest.claim.clone(),
        })
    }

    /// Whether it has an address and a default route of each of these families, and somebody to ask for names.
    #[must_use]
    pub fn is_complete(&self, families: &[Family]) -> bool {
        let has = |family: &Family| {
            self.addresses.iter().any(|ip| Family::of(ip.addr()) == *family)
                && self.routes.iter().any(|route| route.starts_with(&format!("{family} default")))
        };
        !families.is_empty() && families.iter().all(has) && !self.resolvers.is_empty()
    }

    /// What is not the same.
    #[must_use]
    pub fn differences(&self, now: &Self) -> Vec<String> {
        let mut different = Vec::new();
        let mut compare = |what: &str, before: String, now: String| {
            if before != now {
                different.push(format!("{what} was {before}, is {now}"));
            }
        };
        compare("address", list(&self.addresses), list(&now.addresses));
        compare("MAC", self.mac.clone(), now.mac.clone());
        compare("MTU", self.mtu.to_string(), now.mtu.to_string());
        compare("routes", list(&self.routes), list(&now.routes));
        compare("resolvers", list(&self.resolvers), list(&now.resolvers));
        compare("hostname", self.hostname.clone().unwrap_or_default(), now.hostname.clone().unwrap_or_default());
        let claim = |claim: &Option<Vec<IpNet>>| claim.as_deref().map_or_else(|| "not there".into(), list);
        compare("IPAMClaim", claim(&self.claim), claim(&now.claim));
        different
    }
}

#[cfg(test)]
#[path = "vm_tests.rs"]
mod tests;
