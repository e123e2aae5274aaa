//! Whether what is promised of a pod's inside holds.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use super::view::{NetworkEntry, PodView};
use super::{DEFAULT_INTERFACE, Fact, PRIMARY_INTERFACE};
use crate::naming::Naming;
use crate::words::{Family, Topology};
use crate::world::{Network, NetworkId, Pod, PodRef, Requested, World};

/// Everything that a judgement may look at.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    /// The world as declared.
    pub world: &'a World,
    /// The run's names.
    pub naming: &'a Naming,
    /// All pods that could be looked into.
    pub views: &'a BTreeMap<PodRef, PodView>,
}

/// Whether a fact holds: `Ok` says what was found, `Err` what is wrong.
///
/// # Errors
/// What was expected and what was found instead.
pub fn judge(fact: &Fact, family: Option<Family>, pod: &Pod, scene: Scene<'_>) -> Result<String, String> {
    let view = scene.views.get(&pod.pod).ok_or_else(|| format!("nothing is known of the inside of {}", pod.pod))?;
    let judged = Judged { pod, view, scene };
    match (fact, family) {
        (Fact::Interfaces, _) => judged.interfaces(),
        (Fact::Roles, _) => judged.roles(),
        (Fact::NetworkStatus, _) => judged.network_status(),
        (Fact::DefaultRoute, Some(family)) => judged.default_route(family),
        (Fact::Subnet, Some(family)) => judged.subnet(family),
        (Fact::Gateway, Some(family)) => judged.gateway(family),
        (Fact::NotReserved, Some(family)) => judged.not_reserved(family),
        (Fact::Mac, _) => judged.mac(),
        (Fact::Mtu, _) => judged.mtu(),
        (Fact::Secondary(n), _) => judged.secondary(*n),
        (Fact::AsRequested, _) => judged.as_requested(),
        (Fact::GuestAddress, Some(family)) => judged.guest_address(family),
        (Fact::GuestRoute, Some(family)) => judged.guest_route(family),
        (Fact::GuestMac, _) => judged.guest_mac(),
        (Fact::GuestMtu, _) => judged.guest_mtu(),
        (Fact::GuestResolvers, _) => judged.resolvers(),
        (Fact::GuestHostname, _) => judged.hostname(),
        (Fact::Claimed, _) => judged.claimed(),
        (Fact::AsBefore, _) => judged.as_before(),
        (Fact::AnnouncedAt(at), _) => judged.announced_at(at),
        (Fact::GatewayAnnounced, Some(family)) => judged.gateway_announced(family),
        (Fact::GatewayEntry, Some(family)) => judged.gateway_entry(family),
        (fact, None) => Err(format!("the fact {fact} concerns one family, and none is named")),
    }
}

/// The key of a network in `pod-networks` of a pod in this namespace.
#[must_use]
pub fn attachment_key(naming: &Naming, namespace: &str, network: &NetworkId) -> String {
    format!("{}/{}", naming.real(namespace), naming.attachment(network.name()))
}

pub(super) struct Judged<'a> {
    pub(super) pod: &'a Pod,
    pub(super) view: &'a PodView,
    pub(super) scene: Scene<'a>,
}

impl Judged<'_> {
    fn key(&self, network: &NetworkId) -> String {
        attachment_key(self.scene.naming, &self.pod.pod.namespace, network)
    }

    pub(super) fn primary(&self) -> Result<(&Network, &NetworkEntry), String> {
        let id = self.pod.primary.as_ref().ok_or("the pod has no primary user defined network")?;
        let network = self.scene.world.network(id).ok_or_else(|| format!("the world has no network {id}"))?;
        Ok((network, self.view.entry(&self.key(id))?))
    }

    /// The entry and interface that carry the default route.
    fn main(&self) -> Result<(&NetworkEntry, &'static str), String> {
        match &self.pod.primary {
            Some(id) => Ok((self.view.entry(&self.key(id))?, PRIMARY_INTERFACE)),
            None => Ok((self.view.entry("default")?, DEFAULT_INTERFACE)),
        }
    }

    /// Interface names and entries, in the order of the pod's networks.
    fn expected_interfaces(&self) -> Result<Vec<(String, &NetworkEntry)>, String> {
        let mut expected = vec![(DEFAULT_INTERFACE.to_owned(), self.view.entry("default")?)];
        if let Some(id) = &self.pod.primary {
            expected.push((PRIMARY_INTERFACE.to_owned(), self.view.entry(&self.key(id))?));
        }
        for (n, attachment) in self.pod.secondary.iter().enumerate() {
            expected.push((format!("net{}", n + 1), self.view.entry(&self.key(&attachment.network))?));
        }
        Ok(expected)
    }

    fn interfaces(&self) -> Result<String, String> {
        let expected = self.expected_interfaces()?;
        for (name, entry) in &expected {
            let interface = self.view.interface(name)?;
            if !interface.up {
                return Err(format!("{name} is down"));
            }
            if let Some(missing) = entry.ips.iter().find(|ip| !interface.addresses.contains(ip)) {
                return Err(format!("{name} lacks {missing} of pod-networks; it has {}", list(&interface.addresses)));
            }
        }
        let strangers: Vec<_> = self
            .view
            .interfaces
            .iter()
            .map(|i| i.name.clone())
            .filter(|name| !expected.iter().any(|(e, _)| e == name))
            .collect();
        if !strangers.is_empty() {
            return Err(format!("interfaces that nothing explains: {}", strangers.join(", ")));
        }
        Ok(expected.iter().map(|(name, entry)| format!("{name} {}", list(&entry.ips))).collect::<Vec<_>>().join(", "))
    }

    fn roles(&self) -> Result<String, String> {
        let mut expected =
            vec![("default".to_owned(), if self.pod.primary.is_some() { "infrastructure-locked" } else { "primary" })];
        expected.extend(self.pod.primary.iter().map(|id| (self.key(id), "primary")));
        expected.extend(self.pod.secondary.iter().map(|attachment| (self.key(&attachment.network), "secondary")));
        for (key, role) in &expected {
            let found = self.view.entry(key)?.role.as_deref().unwrap_or("none");
            if found != *role {
                return Err(format!("role of {key} is {found}, not {role}"));
            }
        }
        if let Some(stranger) = self.view.pod_networks.keys().find(|key| !expected.iter().any(|(e, _)| e == *key)) {
            return Err(format!("pod-networks has an entry {stranger} that nothing explains"));
        }
        Ok(expected.iter().map(|(key, role)| format!("{key} {role}")).collect::<Vec<_>>().join(", "))
    }

    fn network_status(&self) -> Result<String, String> {
        let expected = self.expected_interfaces()?;
        let (_, main) = self.main()?;
        for (interface, entry) in &expected {
            let status = self.view.network_status.iter().find(|status| status.interface == *interface);
            let status = status.ok_or_else(|| format!("network-status has no entry with interface {interface}"))?;
            let ips: Vec<IpAddr> = entry.ips.iter().map(IpNet::addr).collect();
            if ips.iter().any(|ip| !status.ips.contains(ip)) || status.ips.len() != ips.len() {
                return Err(format!(
                    "network-status gives {interface} {}, pod-networks {}",
                    list(&status.ips),
                    list(&ips)
                ));
            }
            if !status.mac.eq_ignore_ascii_case(&entry.mac) {
                return Err(format!("network-status gives {interface} {}, pod-networks {}", status.mac, entry.mac));
            }
            if status.default != (interface == main) {
                return Err(format!("network-status says default: {} of {interface}", status.default));
            }
        }
        Ok(format!("{} entries, default {main}", expected.len()))
    }

    fn default_route(&self, family: Family) -> Result<String, String> {
        let (entry, device) = self.main()?;
        let mut routes = self.view.defaults(family);
        let route = routes.next().ok_or_else(|| format!("no default route for {family}"))?;
        if let Some(second) = routes.next() {
            return Err(format!("two default routes for {family}: by {} and by {}", route.dev, second.dev));
        }
        if route.dev != device {
            return Err(format!("the default route leaves by {}, not by {device}", route.dev));
        }
        let via = route.via.ok_or_else(|| format!("the default route by {device} has no gateway"))?;
        let gateways: Vec<IpAddr> =
            entry.gateways.iter().copied().filter(|gateway| Family::of(*gateway) == family).collect();
        if gateways.contains(&via) {
            Ok(format!("default via {via} dev {device}"))
        } else {
            Err(format!("the default route goes via {via}; pod-networks says {}", list(&gateways)))
        }
    }

    pub(super) fn address(&self, entry: &NetworkEntry, family: Family) -> Result<IpNet, String> {
        let found = entry.ips.iter().copied().find(|ip| Family::of(ip.addr()) == family);
        found.ok_or_else(|| format!("no {family} address on the primary network; there are {}", list(&entry.ips)))
    }

    fn subnet(&self, family: Family) -> Result<String, String> {
        let (network, entry) = self.primary()?;
        let address = self.address(entry, family)?;
        let subnets = || network.subnets.iter().filter(|subnet| Family::of_net(&subnet.cidr) == family);
        let subnet = subnets().find(|subnet| subnet.cidr.contains(&address.addr()));
        let subnet = subnet.ok_or_else(|| {
            format!(
                "{address} is in none of the network's subnets {}",
                list(&network.subnets.iter().map(|s| s.cidr).collect::<Vec<_>>())
            )
        })?;
        let length = subnet.host_prefix.unwrap_or(subnet.cidr.prefix_len());
        if address.prefix_len() != length {
            return Err(format!("{address} has prefix length {}, not {length}", address.prefix_len()));
        }
        for other in
            self.scene.world.pods.iter().filter(|other| other.primary == self.pod.primary && other.pod != self.pod.pod)
        {
            let key = attachment_key(self.scene.naming, &other.pod.namespace, &network.id);
            let Some(entry) = self.scene.views.get(&other.pod).and_then(|view| view.pod_networks.get(&key)) else {
                continue;
            };
            let Ok(theirs) = self.address(entry, family) else {
                continue;
            };
            if theirs.addr() == address.addr() {
                return Err(format!("{} has the same address {theirs} in the same network", other.pod));
            }
            let shared = theirs.trunc() == address.trunc();
            if network.topology == Topology::Layer3 && shared != (other.node == self.pod.node) {
                let relation = if shared {
                    "on another node has the same node subnet"
                } else {
                    "on the same node has another node subnet"
                };
                return Err(format!("{} {relation}: {} and {}", other.pod, theirs.trunc(), address.trunc()));
            }
        }
        Ok(format!("{address} in {}", subnet.cidr))
    }

    fn gateway(&self, family: Family) -> Result<String, String> {
        let (network, entry) = self.primary()?;
        let address = self.address(entry, family)?;
        let configured = network.gateways.iter().copied().find(|gateway| Family::of(*gateway) == family);
        let expected = configured.unwrap_or_else(|| nth(address, 1));
        let found: Vec<IpAddr> =
            entry.gateways.iter().copied().filter(|gateway| Family::of(*gateway) == family).collect();
        if found == [expected] {
            Ok(format!("gateway {expected}"))
        } else {
            Err(format!("gateway {}, not {expected}", list(&found)))
        }
    }

    fn not_reserved(&self, family: Family) -> Result<String, String> {
        let (network, entry) = self.primary()?;
        let address = self.address(entry, family)?;
        let own = address.addr();
        let mut withheld: Vec<IpNet> = network.withheld.clone();
        withheld.extend([nth(address, 0), nth(address, 1)].map(IpNet::from));
        withheld.extend(network.gateways.iter().map(|gateway| IpNet::from(*gateway)));
        if network.withheld.is_empty() {
            // Without infrastructure subnets the management port is `.2` of the subnet.
            withheld.push(IpNet::from(nth(address, 2)));
        }
        if let IpNet::V4(net) = address {
            withheld.push(IpNet::from(IpAddr::V4(net.broadcast())));
        }
        match withheld.iter().find(|net| net.contains(&own)) {
            Some(net) => Err(format!("{own} lies in {net}, which pods must not get")),
            None => Ok(format!("{own} is outside of {}", list(&withheld))),
        }
    }

    fn mac(&self) -> Result<String, String> {
        let (_, entry) = self.primary()?;
        let interface = self.view.interface(PRIMARY_INTERFACE)?;
        if interface.mac != entry.mac {
            return Err(format!("{PRIMARY_INTERFACE} has {}, pod-networks says {}", interface.mac, entry.mac));
        }
        let requested = self.pod.requested.mac.as_ref();
        let v4 = entry.ips.iter().find_map(|ip| match ip.addr() {
            IpAddr::V4(v4) => Some(v4),
            IpAddr::V6(_) => None,
        });
        match (requested, v4) {
            (Some(requested), _) if interface.mac != *requested => {
                Err(format!("{}, not {requested} as requested", interface.mac))
            }
            (None, Some(v4)) if interface.mac != mac_of(v4) => {
                Err(format!("{}, not {} of {v4}", interface.mac, mac_of(v4)))
            }
            (None, None) if !interface.mac.starts_with("0a:58:") => {
                Err(format!("{} does not begin with 0a:58:", interface.mac))
            }
            _ => Ok(interface.mac.clone()),
        }
    }

    fn mtu(&self) -> Result<String, String> {
        let (network, _) = self.primary()?;
        let found = self.view.interface(PRIMARY_INTERFACE)?.mtu;
        let expected =
            network.mtu.map_or_else(|| self.view.interface(DEFAULT_INTERFACE).map(|interface| interface.mtu), Ok)?;
        if found == expected { Ok(format!("{found} bytes")) } else { Err(format!("MTU {found}, not {expected}")) }
    }

    fn secondary(&self, n: u8) -> Result<String, String> {
        let attachment =
            self.pod.secondary.get(usize::from(n).saturating_sub(1)).ok_or("the pod declares no such network")?;
        let network = self
            .scene
            .world
            .network(&attachment.network)
            .ok_or_else(|| format!("the world has no network {}", attachment.network))?;
        let entry = self.view.entry(&self.key(&attachment.network))?;
        let name = format!("net{n}");
        let interface = self.view.interface(&name)?;
        for ip in &entry.ips {
            if !interface.addresses.contains(ip) {
                return Err(format!("{name} lacks {ip}; it has {}", list(&interface.addresses)));
            }
            if !network.subnets.iter().any(|subnet| subnet.cidr.contains(&ip.addr())) {
                return Err(format!("{ip} is outside of the network's subnets"));
            }
        }
        if entry.ips.is_empty() && !network.subnets.is_empty() {
            return Err(format!("no address on {name}"));
        }
        match self.view.routes.iter().find(|route| route.to.is_none() && route.dev == name) {
            Some(route) => Err(format!("{name} carries a default route ({})", route.family)),
            None => Ok(format!("{name} {}", list(&entry.ips))),
        }
    }

    fn as_requested(&self) -> Result<String, String> {
        let mut wanted: Vec<(String, &Requested)> =
            self.pod.primary.iter().map(|id| (self.key(id), &self.pod.requested)).collect();
        wanted
            .extend(self.pod.secondary.iter().map(|attachment| (self.key(&attachment.network), &attachment.requested)));
        let mut honoured = Vec::new();
        for (key, requested) in wanted {
            let entry = self.view.entry(&key)?;
            if let Some(missing) =
                requested.ips.iter().find(|ip| !entry.ips.iter().any(|have| have.addr() == ip.addr()))
            {
                return Err(format!("{key} has {}, not {missing} as requested", list(&entry.ips)));
            }
            if requested.mac.as_ref().is_some_and(|mac| !mac.eq_ignore_ascii_case(&entry.mac)) {
                return Err(format!(
                    "{key} has {}, not {} as requested",
                    entry.mac,
                    requested.mac.as_deref().unwrap_or_default()
                ));
            }
            honoured.push(format!("{key} {} {}", list(&entry.ips), entry.mac));
        }
        Ok(honoured.join(", "))
    }
}

/// OVN-Kubernetes' MAC of an IPv4 address: `0a:58:` and its four octets (catalog of upstream facts, "What a pod gets").
#[must_use]
pub fn mac_of(ip: Ipv4Addr) -> String {
    let [a, b, c, d] = ip.octets();
    format!("0a:58:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

/// The n-th address of a subnet.
fn nth(net: IpNet, n: u8) -> IpAddr {
    match net.trunc().addr() {
        IpAddr::V4(first) => IpAddr::V4(Ipv4Addr::from(u32::from(first).saturating_add(n.into()))),
        IpAddr::V6(first) => IpAddr::V6(std::net::Ipv6Addr::from(u128::from(first).saturating_add(n.into()))),
    }
}

pub(super) fn list<T: fmt::Display>(items: &[T]) -> String {
    if items.is_empty() { "none".into() } else { items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ") }
}
