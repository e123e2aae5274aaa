//! Pods of two networks with the same address send from the same source port: whoever translates their addresses must
//! not mix them up. Which cells do is told by their rule.

use std::collections::HashMap;

use udn_model::cell::{Cell, Check, VantagePoint};
use udn_model::words::{Family, Transport};

use crate::cluster::AddressBook;
use crate::ports::Ports;

/// The promise that such cells are of.
const RULE: &str = "egress/overlap";

/// The source ports of one round: the same for the same wire.
#[derive(Debug, Default)]
pub(crate) struct Twins(HashMap<(Transport, Option<u16>, Family), Option<u16>>);

impl Twins {
    /// The source port that a cell shares with its twin; `None` where it has none.
    ///
    /// # Errors
    /// Nobody in another network has the vantage point's address: nothing would be shown.
    pub(crate) fn port(&mut self, cell: &Cell, book: &AddressBook, ports: &Ports) -> Result<Option<u16>, String> {
        let Check::Probe { from: VantagePoint::Pod(from), transport, port, family, .. } = &cell.check else {
            return Ok(None);
        };
        if cell.rule.as_str() != RULE {
            return Ok(None);
        }
        let own = book.pods.get(from).ok_or_else(|| format!("the addresses of {from} are not known"))?;
        let mine = own.primary.iter().find(|address| Family::of(**address) == *family);
        let mine = mine.ok_or_else(|| format!("{from} has no {family} address on its network"))?;
        let twin = book.pods.values().any(|pod| pod.network != own.network && pod.primary.contains(mine));
        if !twin {
            return Err(format!("no pod of another network has the address {mine} of {from}: nothing overlaps"));
        }
        let shared = self.0.entry((*transport, *port, *family)).or_insert_with(|| match transport {
            Transport::Tcp => Some(ports.port()),
            Transport::Udp => Some(ports.datagram_port()),
            Transport::Icmp => Some(ports.echo()),
            Transport::Sctp => None,
        });
        Ok(*shared)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use udn_model::cell::{AddressOn, CellId, Expectation, Target};
    use udn_model::flow::FlowKind;
    use udn_model::rule::RuleName;
    use udn_model::words::Placement;
    use udn_model::world::{NetworkId, PodRef};

    use super::*;
    use crate::cluster::PodAddresses;

    fn cell(from: &PodRef, rule: &str) -> Cell {
        Cell {
            id: CellId(String::new()),
            suite: String::new(),
            scenario: String::new(),
            phase: String::new(),
            rule: RuleName::new(rule),
            check: Check::Probe {
                from: VantagePoint::Pod(from.clone()),
                to: Target::Pod { pod: from.clone(), on: AddressOn::Primary },
                placement: Placement::Outside,
                transport: Transport::Tcp,
                port: Some(8080),
                family: Family::V4,
                flow: false,
                kind: FlowKind::Frames,
            },
            expectation: Expectation::Closed,
            topology: None,
            requires: Vec::new(),
        }
    }

    #[test]
    fn twins_share_a_port_and_who_has_none_shows_nothing() {
        let [one, other, single] = ["one", "other", "single"].map(|namespace| PodRef::new(namespace, "a"));
        let addresses = |pod: &PodRef, address: &str| PodAddresses {
            network: Some(NetworkId::Udn { namespace: pod.namespace.clone(), name: "n".into() }),
            primary: vec![address.parse().unwrap()],
            ..PodAddresses::default()
        };
        let pods = [(&one, "10.0.0.3"), (&other, "10.0.0.3"), (&single, "10.0.0.4")];
        let pods: BTreeMap<_, _> = pods.into_iter().map(|(pod, at)| (pod.clone(), addresses(pod, at))).collect();
        let book = AddressBook { pods, ..AddressBook::default() };
        let ports = Ports::new(1);
        let mut twins = Twins::default();
        let first = twins.port(&cell(&one, RULE), &book, &ports).unwrap();
        assert!(first.is_some());
        assert_eq!(twins.port(&cell(&other, RULE), &book, &ports).unwrap(), first);
        assert!(twins.port(&cell(&single, RULE), &book, &ports).unwrap_err().contains("nothing overlaps"));
        assert_eq!(twins.port(&cell(&one, "egress/external"), &book, &ports), Ok(None));
        assert_ne!(Twins::default().port(&cell(&one, RULE), &book, &ports).unwrap(), first);
    }
}
