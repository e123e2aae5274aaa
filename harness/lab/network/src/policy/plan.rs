//! Policies and world to port groups, address sets, ACLs: a pure function.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::expression::{self, ALLOW, DENY};
use super::rules::{Direction, Policy, Ports, Protocol, Rule, Selected, Which};
use super::world::{Member, World};
use crate::layout::identifier;
use crate::naming::DEFAULT_NETWORK;

/// Stands for a service's backend that reaches itself through the service.
const HAIRPIN: [&str; 2] = ["169.254.0.5", "fd69::5"];
/// Address resolution, without which nothing else would be let through.
const NEIGHBOURS: &str = "(arp || nd)";
/// The longest name of an ACL, in bytes.
const LONGEST_NAME: usize = 63;

/// What OVN should have, by the names of rows.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Plan {
    pub(crate) groups: BTreeMap<String, Group>,
    pub(crate) sets: BTreeMap<String, Set>,
}

/// A port group.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Group {
    pub(crate) ids: Ids,
    pub(crate) acls: BTreeSet<Acl>,
    /// Names of logical switch ports.
    pub(crate) ports: BTreeSet<String>,
}

/// An address set.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Set {
    pub(crate) ids: Ids,
    pub(crate) addresses: BTreeSet<IpAddr>,
}

/// What a row says about its origin.
pub(crate) type Ids = Vec<(&'static str, String)>;

/// A rule of a port group.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Acl {
    pub(crate) name: String,
    pub(crate) direction: Direction,
    pub(crate) priority: u32,
    pub(crate) expression: String,
    pub(crate) action: &'static str,
    pub(crate) ids: Ids,
}

/// What OVN should have for this world.
pub(crate) fn plan(world: &World) -> Plan {
    let mut plan = Plan::default();
    for (namespace, scope) in &world.namespaces {
        let Some(network) = &scope.network else { continue };
        for direction in Direction::BOTH {
            if world.restricted(namespace, direction) {
                let (name, group) = denied(world, namespace, network, direction);
                plan.groups.insert(name, group);
            }
        }
    }
    for policy in &world.policies {
        let network = world.namespaces.get(&policy.namespace).and_then(|scope| scope.network.as_deref());
        if let Some(network) = network {
            Allowed { world, policy, network, plan: &mut plan }.policy();
        }
    }
    plan
}

/// The group of a namespace's pods that any policy selects in `direction`: what no policy allows is dropped.
fn denied(world: &World, namespace: &str, network: &str, direction: Direction) -> (String, Group) {
    let ids = ids(network, "NetpolNamespace", namespace, Some(direction));
    let name = row_name(&ids);
    let ports: BTreeSet<String> = world
        .policies
        .iter()
        .filter(|policy| policy.namespace == namespace && policy.rules(direction).is_some())
        .flat_map(|policy| world.targets(policy, network))
        .map(|member| member.port.clone())
        .collect();
    let lport = expression::ports_of(direction, &name);
    let acl = |kind: &str, priority, matches: &str, action| Acl {
        name: cut(&format!("NP:{namespace}:{}:{kind}", direction.name())),
        direction,
        priority,
        expression: if matches.is_empty() { lport.clone() } else { format!("{lport} && {matches}") },
        action,
        ids: with(&ids, "type", kind),
    };
    // OVN tracks connections of a switch only where some rule is `allow-related`; without one, a denied pod's own
    // connections would lose their replies. The hairpin's rule is always there.
    let hairpin = format!("(ip4.src == {} || ip6.src == {})", HAIRPIN[0], HAIRPIN[1]);
    let mut acls = BTreeSet::from([
        acl("defaultDeny", DENY, "", "drop"),
        acl("arpAllow", ALLOW, NEIGHBOURS, "allow"),
        acl("allowHairpinning", ALLOW, &hairpin, "allow-related"),
    ]);
    if network == DEFAULT_NETWORK && direction == Direction::Ingress && !world.nodes.is_empty() {
        // A pod's own node, its kubelet above all, always gets through.
        let nodes = expression::either(world.nodes.iter().map(|node| {
            let source = |ipv6: bool| {
                let addresses: Vec<String> =
                    node.addresses.iter().filter(|it| it.is_ipv6() == ipv6).map(ToString::to_string).collect();
                format!("ip{}.src == {{{}}}", if ipv6 { 6 } else { 4 }, addresses.join(", "))
            };
            format!("(inport == \"{}\" && ({} || {}))", node.port, source(false), source(true))
        }));
        acls.insert(acl("allowFromNode", ALLOW, &nodes, "allow-related"));
    }
    (name, Group { ids, acls, ports })
}

/// What one policy lets through.
struct Allowed<'a> {
    world: &'a World,
    policy: &'a Policy,
    network: &'a str,
    plan: &'a mut Plan,
}

/// A rule of the policy: its direction and position.
#[derive(Clone, Copy)]
struct At<'a> {
    direction: Direction,
    index: usize,
    rule: &'a Rule,
}

impl Allowed<'_> {
    fn policy(&mut self) {
        let policy = self.policy;
        let group = self.group("", |_| true);
        for direction in Direction::BOTH {
            for (index, rule) in policy.rules(direction).unwrap_or_default().iter().enumerate() {
                self.rule(&group, At { direction, index, rule });
            }
        }
    }

    /// Makes the group of the policy's pods that `has`, unless it is there; returns its name.
    fn group(&mut self, part: &str, has: impl Fn(&Member) -> bool) -> String {
        let (world, policy, network) = (self.world, self.policy, self.network);
        let mut ids = self.ids(None);
        if !part.is_empty() {
            ids = with(&ids, "port-name", part);
        }
        let name = row_name(&ids);
        self.plan.groups.entry(name.clone()).or_insert_with(|| {
            let ports = world.targets(policy, network).filter(|member| has(member)).map(|member| member.port.clone());
            Group { ids, acls: BTreeSet::new(), ports: ports.collect() }
        });
        name
    }

    fn rule(&mut self, group: &str, at: At<'_>) {
        let ends = self.ends(at);
        let Some(ports) = &at.rule.ports else {
            ends.iter().for_each(|end| self.allow(group, at, end, None, "None"));
            return;
        };
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            let ports: Vec<&Ports> = ports.iter().filter(|port| port.protocol == protocol).collect();
            if let Some(numbers) = expression::to_ports(protocol, &ports) {
                ends.iter().for_each(|end| self.allow(group, at, end, Some(&numbers), protocol.name()));
            }
            let names: BTreeSet<&str> = ports
                .iter()
                .filter_map(|port| match &port.which {
                    Which::Named(name) => Some(name.as_str()),
                    _ => None,
                })
                .collect();
            for name in names {
                match at.direction {
                    Direction::Ingress => self.named_here(at, &ends, protocol, name),
                    Direction::Egress => self.named_there(group, at, protocol, name),
                }
            }
        }
    }

    /// Expressions for the rule's peers: each lets through what it matches.
    fn ends(&mut self, at: At<'_>) -> Vec<String> {
        let Some(peers) = &at.rule.peers else { return vec![expression::everything()] };
        let mut ends = Vec::new();
        if !peers.selected.is_empty() {
            let sets = peers.selected.iter().map(|peer| self.set(peer)).collect();
            ends.push(expression::in_sets(at.direction, &sets));
        }
        if !peers.blocks.is_empty() {
            ends.push(expression::in_blocks(at.direction, &peers.blocks));
        }
        ends
    }

    fn allow(&mut self, group: &str, at: At<'_>, end: &str, ports: Option<&str>, protocol: &str) {
        let lport = expression::ports_of(at.direction, group);
        let expression = match ports {
            Some(ports) => format!("{end} && {ports} && {lport}"),
            None => format!("{end} && {lport}"),
        };
        let ids = with(&self.ids(Some(at.direction)), "gress-index", &at.index.to_string());
        let policy = self.policy;
        let acl = Acl {
            name: cut(&format!("NP:{}:{}:{}:{}", policy.namespace, policy.name, at.direction.name(), at.index)),
            direction: at.direction,
            priority: ALLOW,
            expression,
            action: "allow-related",
            ids: with(&ids, "port-policy-protocol", protocol),
        };
        if let Some(group) = self.plan.groups.get_mut(group) {
            group.acls.insert(acl);
        }
    }

    /// Into the policy's pods: each pod's own number for the name.
    fn named_here(&mut self, at: At<'_>, ends: &[String], protocol: Protocol, name: &str) {
        let targets = self.world.targets(self.policy, self.network);
        let numbers: BTreeSet<u16> = targets.filter_map(|member| member.number(protocol, name)).collect();
        for number in numbers {
            let part = format!("{}/{name}/{number}", protocol.name());
            let group = self.group(&part, |member| member.number(protocol, name) == Some(number));
            let port = expression::to_port(protocol, number);
            ends.iter().for_each(|end| self.allow(&group, at, end, Some(&port), protocol.name()));
        }
    }

    /// To other pods: the number that each of them gives to the name. Who is no pod of this network has no named ports.
    fn named_there(&mut self, group: &str, at: At<'_>, protocol: Protocol, name: &str) {
        let mut numbers: BTreeMap<u16, BTreeSet<IpAddr>> = BTreeMap::new();
        for (member, addresses) in self.peers(at.rule) {
            if let Some(number) = member.number(protocol, name) {
                numbers.entry(number).or_default().extend(addresses);
            }
        }
        for (number, addresses) in numbers {
            let ids = with(&self.ids(Some(at.direction)), "gress-index", &at.index.to_string());
            let ids = with(&ids, "port-name", &format!("{}/{name}/{number}", protocol.name()));
            let names = self.insert_set(&ids, addresses);
            let end = expression::in_sets(at.direction, &BTreeSet::from([names]));
            let port = expression::to_port(protocol, number);
            self.allow(group, at, &end, Some(&port), protocol.name());
        }
    }

    /// Pods of the network that a rule means, with the addresses by which it means them.
    fn peers<'b>(&'b self, rule: &'b Rule) -> Vec<(&'b Member, Vec<IpAddr>)> {
        let (world, network) = (self.world, self.network);
        let all = |member: &'b Member| (member, member.addresses.clone());
        let Some(peers) = &rule.peers else { return world.everybody(network).map(all).collect() };
        let namespace = &self.policy.namespace;
        let mut found: Vec<_> =
            peers.selected.iter().flat_map(|peer| world.selected(namespace, peer, network)).map(all).collect();
        for member in world.everybody(network) {
            let inside = |address: &&IpAddr| peers.blocks.iter().any(|block| block.contains(address));
            let addresses: Vec<IpAddr> = member.addresses.iter().filter(inside).copied().collect();
            if !addresses.is_empty() {
                found.push((member, addresses));
            }
        }
        found
    }

    /// The sets of the addresses that a peer selects, shared by all policies that select alike; their names for IPv4 and
    /// IPv6.
    fn set(&mut self, peer: &Selected) -> [String; 2] {
        let text = |selector| serde_json::to_string(&selector).unwrap_or_default();
        let namespaces = peer.namespaces.as_ref().map(text);
        let own = format!("={}", self.policy.namespace);
        let selects = format!("{}|{}", namespaces.unwrap_or(own), text(&peer.pods));
        let ids = ids(self.network, "PodSelector", &selects, None);
        let members = self.world.selected(&self.policy.namespace, peer, self.network);
        let addresses = members.flat_map(|member| member.addresses.iter().copied()).collect();
        self.insert_set(&ids, addresses)
    }

    fn insert_set(&mut self, ids: &Ids, addresses: BTreeSet<IpAddr>) -> [String; 2] {
        [false, true].map(|ipv6| {
            let ids = with(ids, "ip-family", if ipv6 { "v6" } else { "v4" });
            let name = row_name(&ids);
            let addresses = addresses.iter().copied().filter(|address| address.is_ipv6() == ipv6).collect();
            self.plan.sets.insert(name.clone(), Set { ids, addresses });
            name
        })
    }

    fn ids(&self, direction: Option<Direction>) -> Ids {
        let name = format!("{}:{}", self.policy.namespace, self.policy.name);
        ids(self.network, "NetworkPolicy", &name, direction)
    }
}

/// Key of the kind of object that a row belongs to, and the kinds of this module.
pub(crate) const OWNER_TYPE: &str = "k8s.ovn.org/owner-type";
pub(crate) const OWNER_TYPES: [&str; 3] = ["NetpolNamespace", "NetworkPolicy", "PodSelector"];

fn ids(network: &str, kind: &str, name: &str, direction: Option<Direction>) -> Ids {
    let mut ids = vec![
        ("k8s.ovn.org/owner-controller", format!("{network}-network-controller")),
        (OWNER_TYPE, kind.to_owned()),
        ("k8s.ovn.org/name", name.to_owned()),
    ];
    ids.extend(direction.map(|direction| ("direction", direction.name().to_owned())));
    ids
}

fn with(ids: &Ids, key: &'static str, value: &str) -> Ids {
    let mut ids = ids.clone();
    ids.push((key, value.to_owned()));
    ids
}

/// The name of a group or set: a hash of all that tells it from others.
fn row_name(ids: &Ids) -> String {
    identifier(&ids.iter().map(|(_, value)| value.as_str()).collect::<Vec<_>>().join(":"))
}

fn cut(name: &str) -> String {
    // Names of Kubernetes are ASCII.
    name.chars().take(LONGEST_NAME).collect()
}

#[cfg(test)]
mod tests;
