//! Makes the cells of a phase: what the oracle says of every vantage point and target, or what a suite says by hand.

use super::{controls_listener, controls_vantage, is_control, targets, vantage_points};
use crate::cell::{
    AddressOn, Cell, CellId, Check, Expectation, Exposure, Feature, ObjectRef, Reach, Target, VantagePoint,
};
use crate::dns::DnsName;
use crate::fact;
use crate::flow::{FLOW_PORT, FlowKind, FlowPromise};
use crate::oracle::{self, ExpectedSeries, Wire};
use crate::rule::RuleName;
use crate::scenario::{Action, Assertion, Flows, FullMatrix, Phase, Probing, Scenario, Targets, WorldSpec};
use crate::words::{Placement, Topology, Transport};
use crate::world::{PodRef, ServicePort, World};

/// The port of the API server's service.
const API_PORT: u16 = 443;
/// Where a flow of a transport goes.
const fn flow_port(transport: Transport) -> Option<u16> {
    match transport {
        Transport::Tcp => Some(FLOW_PORT),
        Transport::Udp => Some(UDP_FLOW_PORT),
        Transport::Sctp | Transport::Icmp => None,
    }
}

/// Where flows over UDP go.
const UDP_FLOW_PORT: u16 = 8080;

/// On which ports a target is probed.
fn ports(world: &World, matrix: &FullMatrix, target: &Target) -> Vec<(Transport, Option<u16>)> {
    match target {
        Target::Service { service, .. } => {
            let of = |port: &ServicePort| (port.transport, Some(port.port));
            let ports = world.service(service).into_iter().flat_map(|service| service.ports.iter().map(of));
            ports.filter(|(transport, _)| matrix.ports.iter().any(|(wanted, _)| wanted == transport)).collect()
        }
        Target::ApiServer | Target::Name(_) => vec![(Transport::Tcp, Some(API_PORT))],
        _ => matrix.ports.clone(),
    }
}

/// Makes the cells of one phase.
pub(super) struct Maker<'a> {
    pub(super) suite: &'a str,
    pub(super) scenario: &'a Scenario,
    pub(super) phase: &'a Phase,
    pub(super) world: &'a World,
    pub(super) spec: &'a WorldSpec,
}

impl Maker<'_> {
    pub(super) fn make(&self, assertion: &Assertion, cells: &mut Vec<Cell>) -> Result<(), String> {
        match assertion {
            Assertion::Full(matrix) if matrix.targets == Targets::Names => self.names(matrix, cells),
            Assertion::Full(matrix) => self.full(matrix, cells),
            Assertion::Probe(probe) => {
                for family in &probe.families {
                    let wire = Wire { transport: probe.transport, port: probe.port, family: *family };
                    self.known(&probe.from, &probe.to)?;
                    cells.push(self.probe(probe.rule.clone(), probe.expectation.clone(), &probe.from, &probe.to, wire));
                }
            }
            Assertion::Facts => {
                for pod in &self.world.pods {
                    for (fact, family) in fact::promised(self.world, pod) {
                        let suffix = family.map_or_else(String::new, |family| format!("::{family}"));
                        let topology =
                            pod.primary.as_ref().and_then(|id| self.world.network(id)).map(|network| network.topology);
                        let what = format!("{}::{fact}{suffix}", pod.pod.dotted());
                        let mut cell = self.cell(oracle::rule_of(&fact), Expectation::Holds, &what, topology);
                        self.needs(&mut cell.0);
                        if matches!(fact, fact::Fact::Secondary(_)) {
                            cell.0.requires.push(Feature::MultiHoming);
                        }
                        if fact == fact::Fact::AsRequested
                            && pod.vm.is_none()
                            && (pod.requested.mac.is_some() || !pod.requested.ips.is_empty())
                        {
                            cell.0.requires.push(Feature::StaticPrimaryAddress);
                        }
                        cells.push(cell.check(Check::Fact { pod: pod.pod.clone(), fact, family }));
                    }
                }
            }
            Assertion::Series(services) => {
                for ExpectedSeries { from, to, wire, series, rule } in oracle::series(self.world, services) {
                    let Wire { transport, port, family } = wire;
                    let mut cell = self.probe(rule, Expectation::Holds, &from, &to, wire);
                    let placement = oracle::placement(self.world, &from, &to);
                    cell.id.0 = format!("{}::{}", cell.id, series.promise);
                    cell.check = Check::Series { from, to, placement, transport, port, family, series };
                    cells.push(cell);
                }
            }
            Assertion::Flows(flows) => self.flows(flows, cells)?,
            Assertion::Announced { vm, at } => self.announced(vm, at, cells)?,
            Assertion::Slices => {
                for (service, claim) in oracle::slices(self.world) {
                    let topology = self.world.primary_of(&service.namespace).map(|network| network.topology);
                    let object = ObjectRef::namespaced("v1", "Service", &service.namespace, &service.name);
                    let rule = RuleName::new("services/endpoint-slices");
                    let cell = self.cell(rule, Expectation::Holds, &format!("{object}::{claim}"), topology);
                    cells.push(cell.check(Check::Object { object, claim }));
                }
            }
            Assertion::Object { rule, object, claim } => {
                let mut cell = self.cell(rule.clone(), Expectation::Holds, &format!("{object}::{claim}"), None);
                self.needs(&mut cell.0);
                cells.push(cell.check(Check::Object { object: object.clone(), claim: claim.clone() }));
            }
        }
        Ok(())
    }

    fn known(&self, from: &VantagePoint, to: &Target) -> Result<(), String> {
        let pods = [
            if let VantagePoint::Pod(pod) = from { Some(pod) } else { None },
            if let Target::Pod { pod, .. } = to { Some(pod) } else { None },
        ];
        if let Target::Service { service, .. } = to
            && self.world.service(service).is_none()
        {
            return Err(format!("the world has no service {service}"));
        }
        match pods.into_iter().flatten().find(|pod| self.world.pod(pod).is_none()) {
            Some(pod) => Err(format!("the world has no pod {pod}")),
            None => Ok(()),
        }
    }

    fn full(&self, matrix: &FullMatrix, cells: &mut Vec<Cell>) {
        let touches = |from: &VantagePoint, to: &Target| {
            let source = matches!(from, VantagePoint::Pod(pod) if matrix.pods.contains(pod));
            let target = matches!(to, Target::Pod { pod, .. } if matrix.pods.contains(pod));
            matrix.pods.is_empty() || source || target
        };
        let mut made = Vec::new();
        for from in vantage_points(self.world, matrix.outsiders) {
            for to in targets(self.world, matrix.targets, matrix.outsiders) {
                // Among pods a node is there only for those who have nothing else that they may reach.
                if matrix.targets == Targets::Pods && matches!(to, Target::Node(_)) && from != VantagePoint::External {
                    continue;
                }
                for (transport, port) in ports(self.world, matrix, &to) {
                    for family in &matrix.families {
                        let wire = Wire { transport, port, family: *family };
                        let Ok(expected) = oracle::expect(self.world, &from, &to, wire) else {
                            continue;
                        };
                        let wanted =
                            (matrix.rules.is_empty() || matrix.rules.contains(&expected.rule)) && touches(&from, &to);
                        made.push((wanted, self.probe(expected.rule, expected.expectation, &from, &to, wire)));
                    }
                }
            }
        }
        // What is not wanted may still be a control of what is.
        let wanted: Vec<Cell> = made.iter().filter(|(wanted, _)| *wanted).map(|(_, cell)| cell.clone()).collect();
        let needed = |candidate: &Cell| {
            is_control(candidate)
                && wanted.iter().any(|cell| {
                    cell.expectation.is_negative()
                        && (controls_vantage(candidate, cell) || controls_listener(candidate, cell))
                })
        };
        cells.extend(made.iter().filter(|(wanted, cell)| *wanted || needed(cell)).map(|(_, cell)| cell.clone()));
    }

    fn probe(&self, rule: RuleName, expectation: Expectation, from: &VantagePoint, to: &Target, wire: Wire) -> Cell {
        self.probe_as(self.promise(rule, &expectation), expectation, from, to, wire)
    }

    /// Under this rule, whatever the phase is about.
    fn probe_as(&self, rule: RuleName, expectation: Expectation, from: &VantagePoint, to: &Target, wire: Wire) -> Cell {
        let placement = oracle::placement(self.world, from, to);
        let port = wire.port.map_or_else(String::new, |port| format!("-{port}"));
        let what = format!("{from}::{to}::{placement}::{}{port}::{}", wire.transport, wire.family);
        let mut cell = self.cell(rule, expectation, &what, oracle::topology(self.world, from, to));
        if *from == VantagePoint::External || *to == Target::External {
            cell.0.requires.push(Feature::ExternalVantagePoint);
        }
        if matches!(from, VantagePoint::Node(_)) || matches!(to, Target::Node(_)) {
            cell.0.requires.push(Feature::HostNetworkPods);
        }
        if placement == Placement::OtherNode {
            cell.0.requires.push(Feature::TwoNodes);
        }
        if matches!(to, Target::Service { via: Exposure::ExternalIp, .. }) {
            cell.0.requires.push(Feature::ExternalIps);
        }
        // Who announces an address is told by whoever balances loads, too.
        let by_announcer = matches!(cell.0.expectation, Expectation::Open { reach: Reach::ThroughAnnouncer(_), .. });
        if by_announcer || matches!(to, Target::Service { via: Exposure::LoadBalancer, .. }) {
            cell.0.requires.push(Feature::LoadBalancers);
        }
        if matches!(to, Target::ApiServer | Target::Name(DnsName::ApiServer)) {
            cell.0.requires.push(Feature::api_server(wire.family));
        }
        if matches!(to, Target::Name(_)) {
            cell.0.requires.push(Feature::ClusterDns);
        }
        self.needs(&mut cell.0);
        if matches!(to, Target::Pod { on: AddressOn::Secondary(_), .. }) {
            cell.0.requires.push(Feature::MultiHoming);
        }
        let Wire { transport, port, family } = wire;
        cell.check(Check::Probe {
            from: from.clone(),
            to: to.clone(),
            placement,
            transport,
            port,
            family,
            flow: false,
            kind: FlowKind::Frames,
        })
    }

    /// Over UDP as well: there it is seen how long a connection was out, and over TCP what that was to it.
    fn flows(&self, flows: &Flows, cells: &mut Vec<Cell>) -> Result<(), String> {
        for (from, to) in &flows.pairs {
            self.known(from, to)?;
            for (transport, family) in flows
                .transports
                .iter()
                .flat_map(|transport| flows.families.iter().map(move |family| (*transport, *family)))
            {
                // An echo request goes to an address, and a service's is nobody's.
                if transport == Transport::Icmp && matches!(to, Target::Service { .. }) {
                    continue;
                }
                if flows.kind == FlowKind::Bulk && transport != Transport::Tcp {
                    return Err(format!("no bulk transfer from {from} to {to} over {transport}: only over TCP"));
                }
                let wire = Wire { transport, port: flow_port(transport), family };
                let expected = oracle::expect(self.world, from, to, wire)
                    .map_err(|why| format!("no flow from {from} to {to}: {}", why.0))?;
                // Of a datagram flow there is nothing that could be cut: only how long it was out.
                let rule = match transport {
                    _ if !flows.figures => flows.rule.clone(),
                    Transport::Tcp => flows.rule.clone(),
                    _ => RuleName::new("vm/outage-measured"),
                };
                let mut cell = if flows.figures {
                    self.probe_as(rule, expected.expectation, from, to, wire)
                } else {
                    self.probe(rule, expected.expectation, from, to, wire)
                };
                let what = cell.id.0.clone();
                cell.id.0 = format!("{what}::{}", flows.kind);
                if let Check::Probe { flow, kind, .. } = &mut cell.check {
                    (*flow, *kind) = (true, flows.kind);
                }
                let made = cell.clone();
                cells.push(cell);
                if flows.figures {
                    cells.extend(self.figures(&flows.rule, &made));
                }
            }
        }
        Ok(())
    }

    /// What is promised of what a flow counts.
    fn figures(&self, rule: &RuleName, flow: &Cell) -> Vec<Cell> {
        let Check::Probe { from, to, placement, transport, port, family, kind, .. } = &flow.check else {
            return Vec::new();
        };
        let promises = match transport {
            Transport::Tcp => [FlowPromise::Intact, FlowPromise::Outage],
            _ => [FlowPromise::Outage, FlowPromise::Loss],
        };
        let number = port.map_or_else(String::new, |port| format!("-{port}"));
        let make = |promise: FlowPromise| {
            let rule = match promise {
                FlowPromise::Intact => rule.clone(),
                FlowPromise::Outage => RuleName::new("vm/outage-measured"),
                FlowPromise::Loss => RuleName::new("vm/loss-counted"),
            };
            // Flows were frames before there was anything else: their ids stay.
            let carries = if kind.is_frames() { String::new() } else { format!("{kind}::") };
            let what = format!("{from}::{to}::{placement}::{transport}{number}::{family}::{carries}{promise}");
            let mut cell = self.cell(rule, Expectation::Holds, &what, flow.topology);
            cell.0.requires.clone_from(&flow.requires);
            cell.check(Check::Figure {
                from: from.clone(),
                to: to.clone(),
                placement: *placement,
                transport: *transport,
                port: *port,
                family: *family,
                kind: *kind,
                promise,
            })
        };
        promises.map(make).to_vec()
    }

    /// What is promised of a VM's announcements.
    fn announced(&self, vm: &PodRef, at: &PodRef, cells: &mut Vec<Cell>) -> Result<(), String> {
        for pod in [vm, at] {
            self.world.pod(pod).ok_or_else(|| format!("the world has no pod {pod}"))?;
        }
        let network = self.world.pod(vm).and_then(|pod| pod.primary.as_ref()).and_then(|id| self.world.network(id));
        for (fact, family) in fact::announced(network, at) {
            let suffix = family.map_or_else(String::new, |family| format!("::{family}"));
            let what = format!("{}::{fact}{suffix}", vm.dotted());
            let mut cell =
                self.cell(oracle::rule_of(&fact), Expectation::Holds, &what, network.map(|network| network.topology));
            self.needs(&mut cell.0);
            cells.push(cell.check(Check::Fact { pod: vm.clone(), fact, family }));
        }
        Ok(())
    }

    /// What the phase's actions need.
    fn needs(&self, cell: &mut Cell) {
        if self.phase.actions.iter().any(|action| matches!(action, Action::RestartNodeComponent { .. })) {
            cell.requires.push(Feature::NodeComponentPods);
        }
        if self.phase.actions.iter().any(Action::migrates) {
            cell.requires.push(Feature::TwoNodes);
        }
    }

    /// The rule under which the phase has it.
    pub(super) fn promise(&self, rule: RuleName, expectation: &Expectation) -> RuleName {
        // What is forbidden from the first packet on is a promise of its own.
        let from_first_packet = self.phase.probing != Probing::AfterActions && expectation.is_negative();
        match &self.phase.open_as {
            // What a policy does to a VM has one name, whichever way it goes.
            Some(promise) if promise.as_str() == "policy/vm" && rule.is_policy() => promise.clone(),
            _ if from_first_packet => RuleName::new("isolation/no-window"),
            Some(promise) if !expectation.is_negative() && !rule.is_control() => promise.clone(),
            _ => rule,
        }
    }

    pub(super) fn cell(
        &self,
        rule: RuleName,
        expectation: Expectation,
        what: &str,
        topology: Option<Topology>,
    ) -> Unfinished {
        let mut id = format!("{}::{}::{}::{}::{what}", self.suite, self.scenario.name, self.phase.name, rule.short());
        // There are tens of thousands of them.
        id.shrink_to_fit();
        Unfinished(Cell {
            id: CellId(id),
            suite: self.suite.into(),
            scenario: self.scenario.name.clone(),
            phase: self.phase.name.clone(),
            rule,
            // Replaced by `check`: every way to a finished cell leads through it.
            check: Check::Object {
                object: crate::cell::ObjectRef::cluster("", "", ""),
                claim: crate::cell::Claim::Exists,
            },
            expectation,
            topology,
            requires: self.spec.requires.clone(),
        })
    }
}

/// A cell that still lacks its check.
pub(super) struct Unfinished(pub(super) Cell);

impl Unfinished {
    pub(super) fn check(self, check: Check) -> Cell {
        Cell { check, ..self.0 }
    }
}
