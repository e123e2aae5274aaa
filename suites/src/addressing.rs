//! What a pod gets: interfaces, addresses, gateways, routes.

use udn_fixtures::{FixtureError, Fixtures};
use udn_model::cell::{Claim, Feature};
use udn_model::scenario::{Action, Assertion, FullMatrix, Scenario, Suite, WorldSpec};

use crate::isolation::tenants;
use crate::phases::{among_pods, claim, everything, phase, pod, steady};

/// The suite.
pub(crate) fn suite(fixtures: &Fixtures) -> Result<Suite, FixtureError> {
    let mut scenarios = Vec::new();
    for layer in ["layer2", "layer3"] {
        let title = format!("interfaces, roles, subnets, gateways, MACs, MTU and routes of {layer} pods");
        scenarios.push(facts(layer, &title, tenants(fixtures, layer)?));
    }
    let custom = fixtures.world("custom", &["networks/custom.yaml", "workloads/custom.yaml"])?;
    scenarios.push(facts_and_reachability(
        "custom",
        "a configured gateway, reserved and infrastructure subnets",
        custom,
        among_pods(),
    ));
    let single = fixtures.world("single-family", &["networks/single-family.yaml", "workloads/single-family.yaml"])?;
    scenarios.push(facts_and_reachability(
        "single-family",
        "a network with IPv4 only, and one with IPv6 only",
        single,
        among_pods(),
    ));
    let mut homes = fixtures.world("multi-homing", &["networks/multi-homing.yaml", "workloads/multi-homing.yaml"])?;
    homes.requires.push(Feature::MultiHoming);
    scenarios.push(facts_and_reachability(
        "multi-homing",
        "secondary networks beside a primary one and the default one",
        homes,
        everything(),
    ));
    scenarios.push(static_requests(fixtures)?);
    Ok(Suite { name: "addressing", title: "what a pod gets: interfaces, addresses, gateways, routes", scenarios })
}

fn facts(name: &str, title: &str, world: WorldSpec) -> Scenario {
    Scenario { name: name.into(), title: title.into(), world, exclusive: false, phases: steady(vec![Assertion::Facts]) }
}

fn facts_and_reachability(name: &str, title: &str, world: WorldSpec, matrix: FullMatrix) -> Scenario {
    let phases = steady(vec![Assertion::Facts, Assertion::Full(matrix)]);
    Scenario { phases, ..facts(name, title, world) }
}

/// What is asked for is given; what somebody holds is not given again.
fn static_requests(fixtures: &Fixtures) -> Result<Scenario, FixtureError> {
    const RULE: &str = "addressing/static-requests";
    let mut world = fixtures.world("static", &["networks/custom.yaml", "workloads/static.yaml"])?;
    world.requires.push(Feature::StaticPrimaryAddress);
    let refused = |text: &str| Claim::Event {
        kind: "Warning".into(),
        reason: "ErrorAllocatingPod".into(),
        message_contains: vec![text.into()],
    };
    let address = pod("custom", "duplicate-address");
    let mac = pod("custom", "duplicate-mac");
    let phases = vec![
        phase("requested", Vec::new(), vec![Assertion::Facts, Assertion::Full(among_pods())]),
        phase(
            "duplicate-address",
            vec![Action::Submit(fixtures.manifests(&["objects/duplicate-address.yaml"])?)],
            vec![
                claim(RULE, &address, refused("provided IP is already allocated")),
                claim(RULE, &address, Claim::PodWaits),
            ],
        ),
        phase(
            "duplicate-mac",
            vec![Action::Submit(fixtures.manifests(&["objects/duplicate-mac.yaml"])?)],
            vec![claim(RULE, &mac, refused("MAC address already in use")), claim(RULE, &mac, Claim::PodWaits)],
        ),
    ];
    Ok(Scenario {
        name: "static-requests".into(),
        title: "requested addresses and MACs are honoured, duplicates refused".into(),
        world,
        exclusive: true,
        phases,
    })
}
