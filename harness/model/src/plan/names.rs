//! Cells about names: every pod asks for every name that concerns it.

use super::maker::Maker;
use crate::cell::{Cell, Check, Expectation, Feature, VantagePoint};
use crate::dns::{self, DNS_PORT, DnsName};
use crate::oracle::{self, Expected};
use crate::scenario::FullMatrix;
use crate::words::{Family, Transport};
use crate::world::Pod;

impl Maker<'_> {
    /// Every pod to the cluster's DNS service, over UDP, and over TCP as well where the name is of its own namespace or of
    /// nobody's.
    pub(super) fn names(&self, matrix: &FullMatrix, cells: &mut Vec<Cell>) {
        let mut made = Vec::new();
        for pod in &self.world.pods {
            for name in dns::names(self.world, &pod.pod.namespace) {
                // What is somebody else's is asked for as resolvers do.
                let foreign = matches!(&name, DnsName::Service(service) if service.namespace != pod.pod.namespace);
                let transports: &[Transport] =
                    if foreign { &[Transport::Udp] } else { &[Transport::Udp, Transport::Tcp] };
                for transport in transports.iter().copied() {
                    for family in &matrix.families {
                        let from = VantagePoint::Pod(pod.pod.clone());
                        let expected = oracle::expect_answer(self.world, &from, &name, transport, *family);
                        let Ok(expected) = expected else { continue };
                        let wanted = (matrix.rules.is_empty() || matrix.rules.contains(&expected.rule))
                            && (matrix.pods.is_empty() || matrix.pods.contains(&pod.pod));
                        made.push((wanted, self.answer(pod, expected, &name, transport, *family)));
                    }
                }
            }
        }
        let wanted: Vec<Cell> = made.iter().filter(|(wanted, _)| *wanted).map(|(_, cell)| cell.clone()).collect();
        let needed = |candidate: &Cell| {
            super::is_control(candidate)
                && wanted.iter().any(|cell| {
                    cell.expectation.needs_controls()
                        && (super::controls_vantage(candidate, cell) || super::controls_listener(candidate, cell))
                })
        };
        cells.extend(made.iter().filter(|(wanted, cell)| *wanted || needed(cell)).map(|(_, cell)| cell.clone()));
    }

    fn answer(&self, pod: &Pod, expected: Expected, name: &DnsName, transport: Transport, family: Family) -> Cell {
        let from = VantagePoint::Pod(pod.pod.clone());
        let what = format!("{from}::dns.{name}::anywhere::{transport}-{DNS_PORT}::{family}");
        let rule = self.promise(expected.rule, &expected.expectation);
        let topology = pod.primary.as_ref().and_then(|id| self.world.network(id)).map(|network| network.topology);
        let mut cell = self.cell(rule, expected.expectation, &what, topology);
        cell.0.requires.push(Feature::ClusterDns);
        if *name == DnsName::ApiServer {
            cell.0.requires.push(Feature::api_server(family));
        }
        if *name == DnsName::External {
            cell.0.requires.push(match family {
                Family::V4 => Feature::ExternalNameV4,
                Family::V6 => Feature::ExternalNameV6,
            });
        }
        cell.check(Check::Resolve { from, name: name.clone(), transport, family })
    }
}

/// Whether a name that is found shows that the vantage point of `cell` works: the same one got an answer from the same
/// server. What must not be answered at all can be controlled by any that is.
pub(super) fn controls_vantage(control: &Cell, cell: &Cell) -> bool {
    match (&control.check, &cell.check) {
        (
            Check::Resolve { from: f1, transport: t1, family: v1, .. },
            Check::Resolve { from: f2, transport: t2, family: v2, .. },
        ) => f1 == f2 && t1 == t2 && v1 == v2,
        // Where a policy lets a pod ask nobody, what else it reaches shows that it works, or who reaches it.
        (
            Check::Probe { from: f1, to, transport: t1, family: v1, placement, .. },
            Check::Resolve { from: f2, transport: t2, family: v2, .. },
        ) => {
            let answers = cell.rule.is_policy()
                && matches!((to, f2), (crate::cell::Target::Pod { pod: to, .. }, VantagePoint::Pod(from)) if to == from);
            cell.expectation.is_negative()
                && (f1 == f2 || answers)
                && t1 == t2
                && v1 == v2
                && *placement != crate::words::Placement::Itself
        }
        _ => false,
    }
}

/// Whether a name that is found shows that the DNS service answers: somebody else's question over the same transport to
/// the same address. Of a name that must not exist, the answer itself does.
pub(super) fn controls_listener(control: &Cell, cell: &Cell) -> bool {
    match (&control.check, &cell.check) {
        (Check::Resolve { transport: t1, family: v1, .. }, Check::Resolve { transport: t2, family: v2, .. }) => {
            cell.expectation != Expectation::NoSuchName && t1 == t2 && v1 == v2
        }
        _ => false,
    }
}
