//! Which probe of a round goes before which.

use std::collections::{HashMap, VecDeque};

use udn_model::cell::VantagePoint;

use super::Planned;

/// How many probes that must not get through go for each one that must, as long as there are both: their silence is waited for
/// while the others are sent. Not all of them go first, or nothing would be learnt of how fast answers come.
const SILENT_FIRST: usize = 3;

/// The probes in an order in which vantage points take turns: no chunk is the burden of one agent.
///
/// Those that may come back to their sender through a service go together, after all others: OVN learns a flow of each of
/// them that replaces another one, whereupon Open vSwitch looks at all of its flows again (docs/architecture.md).
pub(super) fn in_turns(probes: Vec<Planned>) -> VecDeque<Planned> {
    let mut turns: HashMap<(bool, bool, VantagePoint), usize> = HashMap::new();
    let mut ordered: Vec<((bool, usize), Planned)> = probes
        .into_iter()
        .map(|probe| {
            let (back, silent) = (probe.resolved.may_come_back(), probe.resolved.wanted.is_negative());
            let turn = turns.entry((back, silent, probe.resolved.from.clone())).or_default();
            *turn += if silent { 1 } else { SILENT_FIRST };
            ((back, *turn), probe)
        })
        .collect();
    ordered.sort_by_key(|(place, _)| *place);
    ordered.into_iter().map(|(_, probe)| probe).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use udn_model::cell::{AddressOn, Exposure, Target};
    use udn_model::words::{Family, Transport};
    use udn_model::world::{PodRef, ServiceRef};

    use super::super::planned;
    use super::*;
    use crate::cluster::Over;
    use crate::judge::Wanted;
    use crate::ports::Ports;
    use crate::resolve::Resolved;

    fn probe(cell: usize, from: &str, reach: &[&str], silent: bool) -> Planned {
        let pod = |name: &str| PodRef::new("blue", name);
        let reach = reach.iter().map(|name| Target::Pod { pod: pod(name), on: AddressOn::Primary });
        let resolved = Resolved {
            from: VantagePoint::Pod(pod(from)),
            target: Target::Service { service: ServiceRef::new("blue", "web"), via: Exposure::ClusterIp },
            transport: Transport::Udp,
            family: Family::V4,
            to: [10, 96, 0, 7].into(),
            port: Some(80),
            lookup: None,
            over: Over::New,
            wanted: if silent { Wanted::Closed } else { Wanted::NoSuchName },
            reach: reach.collect(),
            witnesses: Vec::new(),
        };
        planned(cell, Arc::new(resolved), &Ports::new(0), Duration::ZERO)
    }

    #[test]
    fn vantage_points_take_turns_and_what_may_come_back_goes_last() {
        let probes = vec![
            probe(0, "a", &["a", "c"], true),
            probe(1, "a", &["c"], true),
            probe(2, "a", &["c"], true),
            probe(3, "b", &["c"], true),
            probe(4, "b", &["b"], true),
        ];
        let order: Vec<usize> = in_turns(probes).iter().map(|probe| probe.cell).collect();
        assert_eq!(order, [1, 3, 2, 0, 4]);
    }

    #[test]
    fn silence_is_waited_for_while_others_are_sent() {
        let probes = (0..10).map(|cell| probe(cell, "a", &["c"], cell >= 5));
        let order: Vec<usize> = in_turns(probes.collect()).iter().map(|probe| probe.cell).collect();
        assert_eq!(order, [5, 6, 0, 7, 8, 9, 1, 2, 3, 4]);
    }
}
