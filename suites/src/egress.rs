//! What leaves a network: to an external server, to hosts, to the API server.

use udn_fixtures::{FixtureError, Fixtures};
use udn_model::rule::RuleName;
use udn_model::scenario::{Assertion, FullMatrix, Phase, Scenario, Suite, Targets};

use crate::isolation::tenants;
use crate::phases::{everything, names, phase, rules, steady};

/// The suite.
pub(crate) fn suite(fixtures: &Fixtures) -> Result<Suite, FixtureError> {
    let mut scenarios = Vec::new();
    for layer in ["layer2", "layer3"] {
        let title = format!(
            "from {layer} networks, overlapping ones included, to the outside, to hosts, to the API server and to DNS"
        );
        let outside = Assertion::Full(FullMatrix { targets: Targets::Outside, ..everything() });
        let names = names(&["egress/api-server-and-dns", "egress/default-untouched"]);
        scenarios.push(Scenario {
            name: layer.into(),
            title,
            world: tenants(fixtures, layer)?,
            exclusive: false,
            phases: steady(vec![outside, names]),
        });
    }
    for layer in ["layer2", "layer3"] {
        scenarios.push(overlap(fixtures, layer)?);
    }
    Ok(Suite { name: "egress", title: "what leaves a network, and with which source address", scenarios })
}

/// One pod a network and node, so that the networks give the same addresses.
fn overlap(fixtures: &Fixtures, layer: &str) -> Result<Scenario, FixtureError> {
    let networks = format!("networks/twins-{layer}.yaml");
    let matrix =
        FullMatrix { targets: Targets::Outside, rules: rules(&["egress/external"]), outsiders: false, ..everything() };
    let together = Phase {
        open_as: Some(RuleName::new("egress/overlap")),
        ..phase("together", Vec::new(), vec![Assertion::Full(matrix)])
    };
    Ok(Scenario {
        name: format!("overlap-{layer}"),
        title: format!("pods of two {layer} networks with the same address leave at once from the same source port"),
        world: fixtures.world(&format!("twins-{layer}"), &[&networks])?,
        exclusive: false,
        phases: vec![together],
    })
}
