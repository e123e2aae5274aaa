//! Cells of bulk transfers.

#![allow(clippy::expect_used)] // the helpers are part of the tests

use udn_fixtures::Fixtures;
use udn_model::cell::Target;
use udn_model::filter::Filter;
use udn_model::plan::{Environment, Plan};
use udn_model::scenario::{Assertion, Suite};
use udn_model::words::Transport;

fn suites() -> Vec<Suite> {
    udn_suites::all(&Fixtures::embedded()).expect("fixtures")
}

fn cells(filter: &str) -> Vec<String> {
    let filter = Filter::parse(&[filter], &["vm"]).expect("a filter");
    let plan = Plan::new(&suites(), &filter, &Environment::complete()).expect("plan");
    let phases = plan.scenarios.iter().flat_map(|scenario| &scenario.phases);
    phases.flat_map(|phase| &phase.cells).map(|planned| planned.cell.id.to_string()).collect()
}

#[test]
fn a_bulk_transfer_has_cells_of_its_own_beside_the_flow_of_the_same_pods() {
    let pair = "red.near::red.db@primary::other-node::tcp-7007::v4::";
    let all: Vec<String> = cells("vm::throughput::there::*").into_iter().filter(|id| id.contains(pair)).collect();
    let of = |rule: &str, what: &str| format!("vm::throughput::there::{rule}::{pair}{what}");
    assert_eq!(
        all,
        [
            of("tcp-survives", "flow"),
            of("tcp-survives", "intact"),
            of("outage-measured", "outage"),
            of("tcp-survives", "bulk"),
            of("tcp-survives", "bulk::intact"),
            of("outage-measured", "bulk::outage"),
        ]
    );
    assert_eq!(
        cells("vm::throughput::there::*::bulk::outage"),
        all[3..=5].iter().step_by(2).cloned().collect::<Vec<_>>()
    );
}

#[test]
fn there_is_none_of_datagrams() {
    let mut suites = suites();
    let phases = suites.iter_mut().flat_map(|suite| &mut suite.scenarios).flat_map(|scenario| &mut scenario.phases);
    let mut bulk = phases.flat_map(|phase| &mut phase.matrix).filter_map(|assertion| match assertion {
        Assertion::Flows(flows) if !flows.kind.is_frames() => Some(flows),
        _ => None,
    });
    let flows = bulk.next().expect("a bulk transfer");
    assert!(matches!(flows.pairs[0].1, Target::Pod { .. }));
    flows.transports = vec![Transport::Udp];
    drop(bulk);
    let refused = Plan::new(&suites, &Filter::default(), &Environment::complete()).expect_err("no such thing");
    assert!(refused.to_string().contains("only over TCP"), "{refused}");
}
