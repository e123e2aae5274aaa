//! The oracle and the documents are two entries of one book.

#![allow(clippy::expect_used, clippy::panic)] // the helpers are part of the tests

use std::collections::{BTreeMap, BTreeSet};

use udn_fixtures::Fixtures;
use udn_model::cell::{Check, Expectation};
use udn_model::filter::Filter;
use udn_model::oracle::{self, Wire};
use udn_model::plan::{Environment, Plan, controls_listener, controls_vantage};
use udn_model::rule::RULES;
use udn_model::words::Family;

/// Promises under whose name phases tell what is open again: the oracle says why it is.
const RENAMED: [&str; 13] = [
    "services/endpoint-changes",
    "egress/overlap",
    "policy/removal",
    "objects/membership",
    "objects/recreate",
    "objects/controller-restart",
    "policy/established",
    "policy/vm",
    "vm/reachability",
    "vm/tcp-survives",
    "vm/outage-measured",
    "vm/failed-migration",
    "vm/restart-and-conflicts",
];

fn plan() -> Plan {
    let suites = udn_suites::all(&Fixtures::embedded()).expect("fixtures");
    Plan::new(&suites, &Filter::default(), &Environment::complete()).expect("plan")
}

#[test]
fn the_oracle_agrees_with_every_expectation_written_by_hand() {
    let plan = plan();
    let mut compared = 0;
    for phase in plan.scenarios.iter().flat_map(|scenario| &scenario.phases) {
        for planned in &phase.cells {
            let Check::Probe { from, to, transport, port, family, .. } = &planned.cell.check else {
                continue;
            };
            if planned.cell.rule.as_str() == "isolation/no-window" {
                continue; // the oracle's rule, under the name of the stricter promise
            }
            let renamed = RENAMED.contains(&planned.cell.rule.as_str());
            let wire = Wire { transport: *transport, port: *port, family: *family };
            let expected = oracle::expect(&phase.world, from, to, wire)
                .unwrap_or_else(|undefined| panic!("{}: {}", planned.cell.id, undefined.0));
            assert_eq!(expected.expectation, planned.cell.expectation, "{}", planned.cell.id);
            // What a removed policy gives back, for one, is a promise of its own.
            assert!(renamed || expected.rule == planned.cell.rule, "{}: {}", planned.cell.id, expected.rule);
            compared += usize::from(planned.cell.suite == "workshop");
        }
    }
    assert!(compared >= 100, "only {compared} cells were written by hand");
}

#[test]
fn ids_are_unique() {
    let plan = plan();
    let mut ids = BTreeSet::new();
    for planned in plan.cells() {
        assert!(ids.insert(planned.cell.id.clone()), "{} twice", planned.cell.id);
    }
}

#[test]
fn every_rule_has_cells_in_each_family_and_topology_where_it_applies() {
    let plan = plan();
    let mut seen: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for planned in plan.cells() {
        let entry = seen.entry(planned.cell.rule.as_str()).or_default();
        entry.extend(planned.cell.family().map(|family| family.to_string()));
        entry.extend(planned.cell.topology.map(|topology| topology.to_string()));
        entry.insert("any".into());
    }
    for rule in RULES {
        let cells = seen.get(rule.name).unwrap_or_else(|| panic!("no cell of {}", rule.name));
        let probes = rule.name.starts_with("isolation/") && rule.name != "isolation/name-collision";
        if probes && rule.name != "isolation/default-network-open" {
            for want in ["layer2", "layer3", "v4", "v6"] {
                assert!(cells.contains(want), "{} has no cell of {want}", rule.name);
            }
        }
    }
    for topology in ["layer2", "layer3"] {
        for rule in ["addressing/interfaces-and-roles", "addressing/subnets-and-gateways", "addressing/mac-and-mtu"] {
            assert!(seen[rule].contains(topology), "{rule} has no cell of {topology}");
        }
    }
    assert!(Family::ALL.iter().all(|family| seen["addressing/subnets-and-gateways"].contains(&family.to_string())));
}

#[test]
fn every_negative_cell_has_both_controls() {
    let plan = plan();
    for phase in plan.scenarios.iter().flat_map(|scenario| &scenario.phases) {
        let open: Vec<_> = phase
            .cells
            .iter()
            .map(|planned| &planned.cell)
            .filter(|cell| matches!(cell.expectation, Expectation::Open { .. } | Expectation::Resolves { .. }))
            .collect();
        for planned in phase.cells.iter().filter(|planned| planned.cell.expectation.needs_controls()) {
            assert!(
                open.iter().any(|control| controls_vantage(control, &planned.cell)),
                "no vantage control of {}",
                planned.cell.id
            );
            // A rejection is an answer of its own, and so is that there is no such name.
            if matches!(planned.cell.expectation, Expectation::Rejected | Expectation::NoSuchName) {
                continue;
            }
            assert!(
                open.iter().any(|control| controls_listener(control, &planned.cell)),
                "no listener control of {}",
                planned.cell.id
            );
        }
    }
}

#[test]
fn filters_select_and_keep_controls() {
    let suites = udn_suites::all(&Fixtures::embedded()).expect("fixtures");
    let select = |words: &[&str]| {
        let filter = Filter::parse(words, &udn_suites::NAMES).expect("filter");
        Plan::new(&suites, &filter, &Environment::complete()).expect("plan")
    };
    let objects = select(&["objects"]);
    assert!(objects.cells().all(|planned| planned.cell.suite == "objects") && !objects.is_empty());
    let rule = select(&["rule:isolation/udn-to-default", "not:icmp"]);
    assert!(
        rule.cells().any(|planned| planned.cell.rule.as_str() == "control/listener-works"
            || planned.cell.expectation.word() == "open")
    );
    assert!(rule.cells().all(|planned| planned.cell.transport() != Some(udn_model::words::Transport::Icmp)));
    assert!(select(&["no-such-thing-anywhere"]).is_empty());
}

#[test]
fn the_size_of_the_matrices() {
    let plan = plan();
    let mut sizes: BTreeMap<String, usize> = BTreeMap::new();
    for planned in plan.cells() {
        *sizes.entry(format!("{}::{}", planned.cell.suite, planned.cell.scenario)).or_default() += 1;
    }
    println!("{sizes:#?} total {}", sizes.values().sum::<usize>());
    assert!(sizes["isolation::layer2"] > 1000 && sizes["isolation::layer3"] > 1000);
}
