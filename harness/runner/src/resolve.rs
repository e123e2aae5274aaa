//! Turns a cell's names into addresses and its expectation into what is wanted.

use std::net::IpAddr;

use udn_model::cell::{Cell, Check, Expectation, Reach, Target, VantagePoint};
use udn_model::observation::ResolvedProbe;
use udn_model::words::{Family, Transport};
use udn_model::world::{NetworkId, PodRef};

use crate::cluster::{AddressBook, node_identity};
use crate::judge::Wanted;

/// A probe cell with its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resolved {
    pub(crate) from: VantagePoint,
    pub(crate) transport: Transport,
    pub(crate) family: Family,
    pub(crate) to: IpAddr,
    pub(crate) port: Option<u16>,
    pub(crate) wanted: Wanted,
    /// Who is reached if all is well.
    pub(crate) reach: Option<Target>,
    /// Where arrivals have to be looked at: at the target of a negative cell; of an echo at whom it must reach.
    pub(crate) witness: Option<Target>,
}

impl Resolved {
    /// For evidence.
    pub(crate) fn told(&self) -> ResolvedProbe {
        let reach = match &self.reach {
            Some(Target::Pod { pod, .. }) => Some(pod.clone()),
            _ => None,
        };
        ResolvedProbe { from: self.from.to_string(), to: self.to, port: self.port, reach }
    }

    /// Whether the vantage point is to reach itself.
    pub(crate) fn is_to_itself(&self) -> bool {
        matches!((&self.from, &self.reach), (VantagePoint::Pod(from), Some(Target::Pod { pod, .. })) if from == pod)
    }
}

/// The probe of a cell; `None` where its check is not a probe.
///
/// # Errors
/// The address that is not known (yet).
pub(crate) fn resolve(cell: &Cell, book: &AddressBook) -> Option<Result<Resolved, String>> {
    let Check::Probe { from, to, transport, port, family, .. } = &cell.check else { return None };
    Some(probe(cell, book, from, to, (*transport, *port, *family)))
}

fn probe(
    cell: &Cell,
    book: &AddressBook,
    from: &VantagePoint,
    to: &Target,
    (transport, port, family): (Transport, Option<u16>, Family),
) -> Result<Resolved, String> {
    let address = address(book, to, family)?;
    let port = match to {
        Target::Node(slot) => {
            port.map(|port| book.nodes.get(slot).and_then(|node| node.ports.get(&transport)).copied().unwrap_or(port))
        }
        Target::Pod { .. } => port,
    };
    let reach = match &cell.expectation {
        Expectation::Open { reach: Reach::Pod(pod) } => match to {
            Target::Pod { pod: target, .. } if target == pod => Some(to.clone()),
            _ => Some(holder(book, pod, address)),
        },
        Expectation::Open { reach: Reach::Node(slot) } => Some(Target::Node(*slot)),
        Expectation::Open { reach: Reach::HolderIn(network) } => holder_in(book, network, address),
        _ => None,
    };
    let wanted = match (&reach, Wanted::of(&cell.expectation)) {
        (_, Some(wanted)) => wanted,
        (Some(reach), None) => Wanted::Reach { peer: identity(reach), introduces: transport.has_ports() },
        (None, None) => Wanted::Closed,
    };
    let mut resolved =
        Resolved { from: from.clone(), transport, family, to: address, port, wanted, reach, witness: None };
    resolved.witness = match &resolved.wanted {
        Wanted::Closed | Wanted::Dropped => Some(to.clone()),
        // An echo to itself does not leave the pod, and a node's capture also sees what only passes.
        Wanted::Reach { introduces: false, .. } if !resolved.is_to_itself() => {
            resolved.reach.clone().filter(|reach| matches!(reach, Target::Pod { .. }))
        }
        _ => None,
    };
    Ok(resolved)
}

fn address(book: &AddressBook, to: &Target, family: Family) -> Result<IpAddr, String> {
    match to {
        Target::Pod { pod, on } => {
            let addresses = book.pods.get(pod).ok_or_else(|| format!("pod {pod} has no addresses"))?;
            addresses.on(on, family).ok_or_else(|| format!("pod {pod} has no {family} address on its {on} network"))
        }
        Target::Node(slot) => {
            let node = book.nodes.get(slot).ok_or_else(|| format!("there is no node for slot {slot}"))?;
            let found = node.addresses.iter().copied().find(|address| Family::of(*address) == family);
            found.ok_or_else(|| format!("node{slot} has no {family} address"))
        }
    }
}

/// The pod as a target on whichever of its networks has the address.
fn holder(book: &AddressBook, pod: &PodRef, address: IpAddr) -> Target {
    use udn_model::cell::AddressOn;
    let on = book.pods.get(pod).map_or(AddressOn::Primary, |addresses| {
        if addresses.primary.contains(&address) {
            AddressOn::Primary
        } else if let Some((network, _)) = addresses.secondary.iter().find(|(_, list)| list.contains(&address)) {
            AddressOn::Secondary(network.clone())
        } else {
            AddressOn::Default
        }
    });
    Target::Pod { pod: pod.clone(), on }
}

/// The pod that holds the address in this network.
fn holder_in(book: &AddressBook, network: &NetworkId, address: IpAddr) -> Option<Target> {
    let holds = |addresses: &crate::cluster::PodAddresses| {
        (addresses.network.as_ref() == Some(network) && addresses.primary.contains(&address))
            || addresses.secondary.get(network).is_some_and(|list| list.contains(&address))
    };
    let (pod, _) = book.pods.iter().find(|(_, addresses)| holds(addresses))?;
    Some(holder(book, pod, address))
}

/// How the agent at a target calls itself.
pub(crate) fn identity(target: &Target) -> String {
    match target {
        Target::Pod { pod, .. } => pod.to_string(),
        Target::Node(slot) => node_identity(*slot),
    }
}

#[cfg(test)]
mod tests {
    use udn_model::cell::{AddressOn, CellId};
    use udn_model::rule::RuleName;
    use udn_model::words::Placement;

    use super::*;
    use crate::cluster::PodAddresses;

    fn pod(name: &str) -> PodRef {
        let (namespace, name) = name.split_once('/').unwrap();
        PodRef::new(namespace, name)
    }

    fn network(namespace: &str) -> NetworkId {
        NetworkId::Udn { namespace: namespace.into(), name: "net".into() }
    }

    /// blue/a and green/a have the same address; green/b has one that nobody of blue has.
    fn book() -> AddressBook {
        let mut book = AddressBook::default();
        for (name, address) in
            [("blue/a", "10.0.0.5"), ("blue/b", "10.0.0.6"), ("green/a", "10.0.0.5"), ("green/b", "10.0.0.7")]
        {
            let pod = pod(name);
            let addresses = PodAddresses {
                network: Some(network(&pod.namespace)),
                default: vec![],
                primary: vec![address.parse().unwrap()],
                ..PodAddresses::default()
            };
            book.pods.insert(pod, addresses);
        }
        let ports = [(Transport::Tcp, 21_000)].into_iter().collect();
        book.nodes.insert(
            0,
            crate::cluster::NodeAddresses { addresses: vec!["172.18.0.3".parse().unwrap()], ports, life: None },
        );
        book
    }

    fn cell(to: Target, transport: Transport, expectation: Expectation) -> Cell {
        Cell {
            id: CellId("c".into()),
            suite: "s".into(),
            scenario: "s".into(),
            phase: "p".into(),
            rule: RuleName::new("isolation/overlap-coexists"),
            check: Check::Probe {
                from: VantagePoint::Pod(pod("blue/b")),
                to,
                placement: Placement::SameNode,
                transport,
                port: transport.has_ports().then_some(8080),
                family: Family::V4,
            },
            expectation,
            topology: None,
            requires: vec![],
        }
    }

    fn on_primary(name: &str) -> Target {
        Target::Pod { pod: pod(name), on: AddressOn::Primary }
    }

    fn holder_cell(name: &str, transport: Transport) -> Resolved {
        let expectation = Expectation::Open { reach: Reach::HolderIn(network("blue")) };
        resolve(&cell(on_primary(name), transport, expectation), &book()).unwrap().unwrap()
    }

    #[test]
    fn an_overlapping_address_reaches_the_callers_own_pod() {
        let resolved = holder_cell("green/a", Transport::Tcp);
        assert_eq!(resolved.wanted, Wanted::Reach { peer: "blue/a".into(), introduces: true });
        assert_eq!(resolved.witness, None);
        let echo = holder_cell("green/a", Transport::Icmp);
        assert_eq!(echo.wanted, Wanted::Reach { peer: "blue/a".into(), introduces: false });
        assert_eq!(echo.witness, Some(on_primary("blue/a")));
    }

    #[test]
    fn an_address_that_nobody_of_the_own_network_has_is_closed() {
        let resolved = holder_cell("green/b", Transport::Udp);
        assert_eq!(resolved.wanted, Wanted::Closed);
        assert_eq!(resolved.witness, Some(on_primary("green/b")));
    }

    #[test]
    fn negative_cells_are_witnessed_at_their_target() {
        let resolved =
            resolve(&cell(on_primary("green/b"), Transport::Tcp, Expectation::Closed), &book()).unwrap().unwrap();
        assert_eq!((resolved.wanted, resolved.witness), (Wanted::Closed, Some(on_primary("green/b"))));
    }

    #[test]
    fn an_echo_to_itself_needs_no_witness() {
        let expectation = Expectation::Open { reach: Reach::Pod(pod("blue/b")) };
        let resolved = resolve(&cell(on_primary("blue/b"), Transport::Icmp, expectation), &book()).unwrap().unwrap();
        assert!(resolved.is_to_itself());
        assert_eq!(resolved.witness, None);
    }

    #[test]
    fn a_node_is_reached_on_the_runs_own_port() {
        let expectation = Expectation::Open { reach: Reach::Node(0) };
        let resolved = resolve(&cell(Target::Node(0), Transport::Tcp, expectation), &book()).unwrap().unwrap();
        assert_eq!(
            (resolved.port, resolved.wanted),
            (Some(21_000), Wanted::Reach { peer: "node0".into(), introduces: true })
        );
    }

    #[test]
    fn what_is_missing_is_said() {
        let gone = resolve(&cell(on_primary("red/a"), Transport::Tcp, Expectation::Closed), &book()).unwrap();
        assert_eq!(gone.unwrap_err(), "pod red/a has no addresses");
        let to = Target::Pod { pod: pod("blue/a"), on: AddressOn::Default };
        let unaddressed = resolve(&cell(to, Transport::Tcp, Expectation::Closed), &book()).unwrap();
        assert_eq!(unaddressed.unwrap_err(), "pod blue/a has no v4 address on its default network");
    }
}
