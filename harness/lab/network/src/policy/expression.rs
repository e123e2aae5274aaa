//! OVN's match expressions for rules.

use std::collections::BTreeSet;
use std::fmt::Display;

use super::rules::{Block, Direction, Ports, Protocol, Which};

/// Priorities of OVN-Kubernetes.
pub(super) const ALLOW: u32 = 1001;
pub(super) const DENY: u32 = 1000;

/// Packets into (ingress) or out of (egress) the ports of a group.
pub(super) fn ports_of(direction: Direction, group: &str) -> String {
    match direction {
        Direction::Ingress => format!("outport == @{group}"),
        Direction::Egress => format!("inport == @{group}"),
    }
}

fn end(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "src",
        Direction::Egress => "dst",
    }
}

/// Packets whose other end is in one of these sets, each given by its names for IPv4 and IPv6.
pub(super) fn in_sets(direction: Direction, sets: &BTreeSet<[String; 2]>) -> String {
    let end = end(direction);
    let names = |family: usize| list(sets.iter().map(|names| format!("${}", names[family])));
    format!("(ip4.{end} == {{{}}} || ip6.{end} == {{{}}})", names(0), names(1))
}

/// Packets whose other end is in one of these blocks.
pub(super) fn in_blocks(direction: Direction, blocks: &[Block]) -> String {
    let end = end(direction);
    either(blocks.iter().map(|block| {
        let family = if block.within.addr().is_ipv6() { "ip6" } else { "ip4" };
        let within = format!("{family}.{end} == {}", block.within);
        match block.except.as_slice() {
            [] => within,
            except => format!("({within} && {family}.{end} != {{{}}})", list(except)),
        }
    }))
}

/// Packets of either family.
pub(super) fn everything() -> String {
    "(ip4 || ip6)".into()
}

/// Packets to these ports of `protocol`, names left out. Nothing if only names are left.
pub(super) fn to_ports(protocol: Protocol, ports: &[&Ports]) -> Option<String> {
    let transport = protocol.name();
    let mut single = BTreeSet::new();
    let mut terms = Vec::new();
    for port in ports {
        match port.which {
            Which::All => return Some(transport.to_owned()),
            Which::Range(first, last) if first == last => {
                single.insert(first);
            }
            Which::Range(first, last) => terms.push(format!("{first} <= {transport}.dst <= {last}")),
            Which::Named(_) => {}
        }
    }
    if !single.is_empty() {
        terms.insert(0, format!("{transport}.dst == {{{}}}", list(&single)));
    }
    (!terms.is_empty()).then(|| format!("{transport} && {}", either(terms)))
}

/// Packets to one port.
pub(super) fn to_port(protocol: Protocol, number: u16) -> String {
    let transport = protocol.name();
    format!("{transport} && {transport}.dst == {number}")
}

fn list(items: impl IntoIterator<Item = impl Display>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

/// Any of `terms`, in parentheses where there are several.
pub(super) fn either(terms: impl IntoIterator<Item = String>) -> String {
    let terms: Vec<String> = terms.into_iter().collect();
    match terms.as_slice() {
        [one] => one.clone(),
        several => format!("({})", several.join(" || ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(which: Which) -> Ports {
        Ports { protocol: Protocol::Tcp, which }
    }

    #[test]
    fn ports_are_gathered() {
        let (a, b, c) = (ports(Which::Range(443, 443)), ports(Which::Range(80, 80)), ports(Which::Range(8000, 9000)));
        assert_eq!(
            to_ports(Protocol::Tcp, &[&a, &b, &c]).unwrap(),
            "tcp && (tcp.dst == {80, 443} || 8000 <= tcp.dst <= 9000)"
        );
        assert_eq!(to_ports(Protocol::Tcp, &[&a, &ports(Which::All)]).unwrap(), "tcp");
        assert_eq!(to_ports(Protocol::Tcp, &[&ports(Which::Named("web".into()))]), None);
    }

    #[test]
    fn blocks_know_their_family_and_exceptions() {
        let block = |within: &str, except: &[&str]| Block {
            within: within.parse().unwrap(),
            except: except.iter().map(|text| text.parse().unwrap()).collect(),
        };
        let blocks = [block("10.0.0.0/8", &["10.1.0.0/16", "10.2.0.0/16"]), block("fd00::/8", &[])];
        assert_eq!(
            in_blocks(Direction::Egress, &blocks),
            "((ip4.dst == 10.0.0.0/8 && ip4.dst != {10.1.0.0/16, 10.2.0.0/16}) || ip6.dst == fd00::/8)"
        );
    }
}
