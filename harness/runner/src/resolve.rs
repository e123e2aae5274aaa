//! Turns a cell's names into addresses and its expectation into what is wanted.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use udn_model::cell::{AddressOn, Cell, Check, Expectation, Exposure, Reach, SeenAs, Target, VantagePoint};
use udn_model::flow::{FLOW_PORT, FlowKind};
use udn_model::observation::ResolvedProbe;
use udn_model::words::{Family, Transport};
use udn_model::world::{NetworkId, Pod, PodRef, World as Declared};

use crate::cluster::{AddressBook, EXTERNAL_IDENTITY, Lookup, NodeAddresses, Over, node_identity};
use crate::judge::Wanted;
use crate::question;

/// A probe cell with its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resolved {
    pub(crate) from: VantagePoint,
    pub(crate) target: Target,
    pub(crate) transport: Transport,
    pub(crate) family: Family,
    pub(crate) to: IpAddr,
    pub(crate) port: Option<u16>,
    /// What has to be looked up.
    pub(crate) lookup: Option<Lookup>,
    pub(crate) over: Over,
    pub(crate) wanted: Wanted,
    /// Who may be reached if all is well.
    pub(crate) reach: Vec<Target>,
    /// Where arrivals have to be looked at: at everybody whom a negative cell must not reach; of an echo at whom it must.
    pub(crate) witnesses: Vec<Lookout>,
}

/// Where a probe would arrive.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Lookout {
    pub(crate) at: Target,
    /// On which port, `None` for ICMP: behind a service it is not the one that was probed.
    pub(crate) port: Option<u16>,
}

impl Resolved {
    /// For evidence.
    pub(crate) fn told(&self) -> ResolvedProbe {
        let reach = match &self.reach[..] {
            [Target::Pod { pod, .. }] => Some(pod.clone()),
            _ => None,
        };
        let question = match &self.lookup {
            Some(Lookup::Question(name, Family::V4)) => Some(format!("A {name}")),
            Some(Lookup::Question(name, Family::V6)) => Some(format!("AAAA {name}")),
            Some(Lookup::First(..)) | None => None,
        };
        ResolvedProbe { from: self.from.to_string(), to: self.to, port: self.port, question, reach }
    }

    /// Whether whoever listens there says who he is.
    pub(crate) const fn introduces(&self) -> bool {
        self.transport.has_ports()
            && !matches!(self.target, Target::ApiServer | Target::Name(_))
            && self.lookup.is_none()
    }

    /// Whether the vantage point is to reach itself.
    pub(crate) fn is_to_itself(&self) -> bool {
        !self.reach.is_empty() && self.reach.iter().all(|reach| self.is_sender(reach))
    }

    /// Whether a service may send the probe back to where it comes from.
    pub(crate) fn may_come_back(&self) -> bool {
        matches!(self.target, Target::Service { .. }) && self.reach.iter().any(|reach| self.is_sender(reach))
    }

    fn is_sender(&self, reach: &Target) -> bool {
        matches!((&self.from, reach), (VantagePoint::Pod(from), Target::Pod { pod, .. }) if from == pod)
    }
}

/// What cells resolved to the last time. Rounds of a matrix overlap, and mostly they ask the same: they share it.
#[derive(Debug, Default)]
pub(crate) struct Last(HashMap<usize, Arc<Resolved>>);

impl Last {
    /// What a cell resolved to, together with earlier rounds as long as it is the same.
    pub(crate) fn share(&mut self, cell: usize, resolved: Resolved) -> Arc<Resolved> {
        match self.0.get(&cell) {
            Some(last) if **last == resolved => last.clone(),
            _ => {
                let resolved = Arc::new(resolved);
                self.0.insert(cell, resolved.clone());
                resolved
            }
        }
    }
}

/// The probe of a cell, or its question; `None` where its check is neither.
///
/// # Errors
/// The address that is not known (yet).
pub(crate) fn resolve(cell: &Cell, book: &AddressBook, declared: &Declared) -> Option<Result<Resolved, String>> {
    if let Check::Resolve { from, name, transport, family } = &cell.check {
        return Some(question::question(cell, book, from, name, (*transport, *family)));
    }
    let Check::Probe { from, to, transport, port, family, flow, kind, .. } = &cell.check else { return None };
    let resolved = probe(cell, book, declared, from, to, (*transport, *port, *family));
    Some(resolved.map(|resolved| if *flow { of_flow(resolved, *kind) } else { resolved }))
}

/// A look at a flow. Its frames are no arrivals: whether they come through is seen from what comes back.
fn of_flow(resolved: Resolved, kind: FlowKind) -> Resolved {
    Resolved { over: Over::Flow(kind), witnesses: Vec::new(), ..resolved }
}

fn probe(
    cell: &Cell,
    book: &AddressBook,
    declared: &Declared,
    from: &VantagePoint,
    to: &Target,
    (transport, port, family): (Transport, Option<u16>, Family),
) -> Result<Resolved, String> {
    let address = address(book, to, family)?;
    let (reach, seen_as) = match &cell.expectation {
        Expectation::Open { reach, seen_as } => (whom(book, declared, from, to, address, reach)?, *seen_as),
        _ => (Vec::new(), None),
    };
    let server = matches!(&cell.expectation, Expectation::Open { reach: Reach::Server, .. });
    let wanted = match Wanted::of(&cell.expectation) {
        Some(wanted) => wanted,
        None if reach.is_empty() && !server => Wanted::Closed,
        None => Wanted::Reach {
            peers: reach.iter().map(identity).collect(),
            introduces: transport.has_ports() && !matches!(to, Target::ApiServer | Target::Name(_)),
            seen_as: sources(book, from, seen_as, family)?,
        },
    };
    let mut resolved = Resolved {
        from: from.clone(),
        target: to.clone(),
        transport,
        family,
        to: address,
        port: number(book, to, transport, port)?,
        lookup: match to {
            Target::Name(name) => Some(Lookup::First(name.clone(), question::server(book, family)?)),
            _ => None,
        },
        over: Over::New,
        wanted,
        reach,
        witnesses: Vec::new(),
    };
    resolved.witnesses = witnesses(&resolved, declared, port);
    Ok(resolved)
}

/// Who may answer; nobody where the cell turns out to be closed.
fn whom(
    book: &AddressBook,
    declared: &Declared,
    from: &VantagePoint,
    to: &Target,
    address: IpAddr,
    reach: &Reach,
) -> Result<Vec<Target>, String> {
    let all = |pods: &[PodRef]| pods.iter().map(|pod| holder(book, pod, address)).collect();
    Ok(match reach {
        Reach::Pod(pod) => match to {
            Target::Pod { pod: target, .. } if target == pod => vec![to.clone()],
            _ => vec![holder(book, pod, address)],
        },
        Reach::Node(slot) => vec![Target::Node(*slot)],
        Reach::HolderIn(network) => holder_in(book, network, address).into_iter().collect(),
        Reach::AnyOf(pods) => all(pods),
        Reach::ThroughAnnouncer(pods) => {
            let Target::Service { service, .. } = to else { return Ok(all(pods)) };
            let announcer = book.services.get(service).and_then(|service| service.announcer);
            let announcer = announcer
                .ok_or_else(|| format!("no event `nodeAssigned` says which node announces the address of {service}"))?;
            let own = match from {
                VantagePoint::Pod(pod) => declared.pod(pod).map(|pod| pod.node),
                VantagePoint::Node(slot) => Some(*slot),
                VantagePoint::External => None,
            };
            if own.is_some_and(|own| announcer == Some(own)) { Vec::new() } else { all(pods) }
        }
        Reach::External => vec![Target::External],
        Reach::Server => Vec::new(),
    })
}

/// The source addresses of which the peer must see one.
fn sources(
    book: &AddressBook,
    from: &VantagePoint,
    seen_as: Option<SeenAs>,
    family: Family,
) -> Result<Vec<IpAddr>, String> {
    let of_family = |addresses: &[IpAddr]| -> Vec<IpAddr> {
        addresses.iter().copied().filter(|address| Family::of(*address) == family).collect()
    };
    let of_node = |slot: u8| (book.nodes.get(&slot).map(|node| of_family(&node.addresses)), format!("node{slot}"));
    let (found, whose) = match (seen_as, from) {
        (None, _) => return Ok(Vec::new()),
        (Some(SeenAs::Node(slot)), _) => of_node(slot),
        (Some(SeenAs::Hairpin), _) => return Ok(hairpin(family)),
        (Some(SeenAs::Sender), VantagePoint::Node(slot)) => of_node(*slot),
        (Some(SeenAs::Sender), VantagePoint::External) => {
            (book.external.as_ref().map(|external| of_family(&external.addresses)), "the external client".into())
        }
        (Some(SeenAs::Sender), VantagePoint::Pod(pod)) => {
            (book.pods.get(pod).map(|pod| of_family(&pod.all().collect::<Vec<_>>())), pod.to_string())
        }
    };
    match found {
        Some(found) if !found.is_empty() => Ok(found),
        _ => Err(format!("no {family} address of {whose} is known")),
    }
}

/// As whom a pod sees itself that reaches itself by way of a service: the fifth address of the subnet of masquerade
/// addresses, by which OVN-Kubernetes sets `hairpin_snat_ip`; the second IPv4 one where a cluster was made when that
/// subnet was another.
fn hairpin(family: Family) -> Vec<IpAddr> {
    use std::net::{Ipv4Addr, Ipv6Addr};
    match family {
        Family::V4 => vec![Ipv4Addr::new(169, 254, 0, 5).into(), Ipv4Addr::new(169, 254, 169, 5).into()],
        Family::V6 => vec![Ipv6Addr::new(0xfd69, 0, 0, 0, 0, 0, 0, 5).into()],
    }
}

/// The port that is really probed.
fn number(book: &AddressBook, to: &Target, transport: Transport, port: Option<u16>) -> Result<Option<u16>, String> {
    let Some(port) = port else { return Ok(None) };
    let own = |host: Option<&NodeAddresses>| {
        let flows = host.and_then(|host| host.flow_port).filter(|_| transport == Transport::Tcp && port == FLOW_PORT);
        flows.or_else(|| host.and_then(|host| host.ports.get(&transport)).copied()).unwrap_or(port)
    };
    Ok(Some(match to {
        Target::Node(slot) => own(book.nodes.get(slot)),
        Target::External => own(book.external.as_ref()),
        Target::Service { service, via: Exposure::NodePort(_) } => {
            let ports = book.services.get(service).map(|service| &service.node_ports);
            let found = ports.and_then(|ports| ports.get(&(transport, port)));
            *found.ok_or_else(|| format!("service {service} has no NodePort for {transport} {port}"))?
        }
        Target::Pod { .. } | Target::Service { .. } | Target::ApiServer | Target::Name(_) => port,
    }))
}

/// Where arrivals have to be looked at. `port`: as the cell names it.
fn witnesses(resolved: &Resolved, declared: &Declared, port: Option<u16>) -> Vec<Lookout> {
    let at = |at: &Target| Lookout { at: at.clone(), port: resolved.port };
    match &resolved.wanted {
        Wanted::Closed | Wanted::Dropped => match &resolved.target {
            Target::Service { service, .. } => {
                let service = declared.service(service);
                let served = service
                    .zip(port)
                    .and_then(|(service, port)| Some((service, service.port(resolved.transport, port)?)));
                let Some((service, served)) = served else { return Vec::new() };
                let backends = service.backends(declared, served);
                let on = |pod: &Pod| if pod.primary.is_some() { AddressOn::Primary } else { AddressOn::Default };
                let at = |pod: &Pod| Target::Pod { pod: pod.pod.clone(), on: on(pod) };
                backends.iter().map(|pod| Lookout { at: at(pod), port: served.number_at(pod) }).collect()
            }
            // The server is not ours: nobody there can be asked.
            Target::ApiServer | Target::Name(_) => Vec::new(),
            target => vec![at(target)],
        },
        // An echo to itself does not leave the pod, and a node's capture also sees what only passes.
        Wanted::Reach { introduces: false, .. } if !resolved.is_to_itself() => {
            resolved.reach.iter().filter(|reach| matches!(reach, Target::Pod { .. })).map(at).collect()
        }
        _ => Vec::new(),
    }
}

/// The address of a target; of a name, the one that it must mean.
pub(crate) fn address(book: &AddressBook, to: &Target, family: Family) -> Result<IpAddr, String> {
    let of_family = |addresses: &[IpAddr]| addresses.iter().copied().find(|address| Family::of(*address) == family);
    let on_node = |slot: &u8| {
        let node = book.nodes.get(slot).ok_or_else(|| format!("there is no node for slot {slot}"))?;
        of_family(&node.addresses).ok_or_else(|| format!("node{slot} has no {family} address"))
    };
    match to {
        Target::Pod { pod, on } => {
            let addresses = book.pods.get(pod).ok_or_else(|| format!("pod {pod} has no addresses"))?;
            addresses.on(on, family).ok_or_else(|| format!("pod {pod} has no {family} address on its {on} network"))
        }
        Target::Node(slot) | Target::Service { via: Exposure::NodePort(slot), .. } => on_node(slot),
        Target::External => {
            let external = book.external.as_ref().ok_or("the server outside of the cluster does not listen")?;
            of_family(&external.addresses)
                .ok_or_else(|| format!("the server outside of the cluster has no {family} address"))
        }
        Target::Name(name) if *name != udn_model::dns::DnsName::ApiServer => {
            Err(format!("it is not known what {name} must mean"))
        }
        Target::ApiServer | Target::Name(_) => {
            of_family(&book.api_server).ok_or_else(|| format!("service default/kubernetes has no {family} ClusterIP"))
        }
        Target::Service { service, via } => {
            let known = book.services.get(service).ok_or_else(|| format!("service {service} is not there"))?;
            let addresses = match via {
                Exposure::ClusterIp | Exposure::NodePort(_) => &known.cluster,
                Exposure::LoadBalancer => &known.load_balancer,
                Exposure::ExternalIp => &known.external,
            };
            of_family(addresses).ok_or_else(|| format!("service {service} has no {family} {via} address"))
        }
    }
}

/// The pod as a target on whichever of its networks has the address.
fn holder(book: &AddressBook, pod: &PodRef, address: IpAddr) -> Target {
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
        Target::External => EXTERNAL_IDENTITY.into(),
        Target::Service { .. } | Target::ApiServer | Target::Name(_) => target.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use udn_model::cell::CellId;
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
            crate::cluster::NodeAddresses {
                addresses: vec!["172.18.0.3".parse().unwrap()],
                ports,
                flow_port: None,
                life: None,
            },
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
                flow: false,
                kind: FlowKind::Frames,
            },
            expectation,
            topology: None,
            requires: vec![],
        }
    }

    fn reached(peer: &str, introduces: bool) -> Wanted {
        Wanted::Reach { peers: vec![peer.into()], introduces, seen_as: vec![] }
    }

    fn looked_at(resolved: &Resolved) -> Vec<Target> {
        resolved.witnesses.iter().map(|lookout| lookout.at.clone()).collect()
    }

    fn on_primary(name: &str) -> Target {
        Target::Pod { pod: pod(name), on: AddressOn::Primary }
    }

    fn holder_cell(name: &str, transport: Transport) -> Resolved {
        let expectation = Expectation::open(Reach::HolderIn(network("blue")));
        resolve(&cell(on_primary(name), transport, expectation), &book(), &Declared::default()).unwrap().unwrap()
    }

    #[test]
    fn an_overlapping_address_reaches_the_callers_own_pod() {
        let resolved = holder_cell("green/a", Transport::Tcp);
        assert_eq!(resolved.wanted, reached("blue/a", true));
        assert_eq!(resolved.witnesses, []);
        let echo = holder_cell("green/a", Transport::Icmp);
        assert_eq!(echo.wanted, reached("blue/a", false));
        assert_eq!(looked_at(&echo), [on_primary("blue/a")]);
    }

    #[test]
    fn an_address_that_nobody_of_the_own_network_has_is_closed() {
        let resolved = holder_cell("green/b", Transport::Udp);
        assert_eq!(resolved.wanted, Wanted::Closed);
        assert_eq!(looked_at(&resolved), [on_primary("green/b")]);
    }

    #[test]
    fn negative_cells_are_witnessed_at_their_target() {
        let resolved =
            resolve(&cell(on_primary("green/b"), Transport::Tcp, Expectation::Closed), &book(), &Declared::default())
                .unwrap()
                .unwrap();
        assert_eq!(looked_at(&resolved), [on_primary("green/b")]);
        assert_eq!(resolved.wanted, Wanted::Closed);
    }

    #[test]
    fn an_echo_to_itself_needs_no_witness() {
        let expectation = Expectation::open(Reach::Pod(pod("blue/b")));
        let resolved =
            resolve(&cell(on_primary("blue/b"), Transport::Icmp, expectation), &book(), &Declared::default())
                .unwrap()
                .unwrap();
        assert!(resolved.is_to_itself());
        assert_eq!(resolved.witnesses, []);
    }

    #[test]
    fn a_node_is_reached_on_the_runs_own_port() {
        let expectation = Expectation::open(Reach::Node(0));
        let resolved = resolve(&cell(Target::Node(0), Transport::Tcp, expectation), &book(), &Declared::default())
            .unwrap()
            .unwrap();
        assert_eq!((resolved.port, resolved.wanted), (Some(21_000), reached("node0", true)));
    }

    #[test]
    fn what_is_missing_is_said() {
        let gone =
            resolve(&cell(on_primary("red/a"), Transport::Tcp, Expectation::Closed), &book(), &Declared::default())
                .unwrap();
        assert_eq!(gone.unwrap_err(), "pod red/a has no addresses");
        let to = Target::Pod { pod: pod("blue/a"), on: AddressOn::Default };
        let unaddressed =
            resolve(&cell(to, Transport::Tcp, Expectation::Closed), &book(), &Declared::default()).unwrap();
        assert_eq!(unaddressed.unwrap_err(), "pod blue/a has no v4 address on its default network");
    }
}
