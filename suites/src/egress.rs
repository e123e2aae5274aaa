//! What leaves a network: to an external server, to hosts, to the API server.

use udn_fixtures::{FixtureError, Fixtures};
use udn_model::scenario::{Assertion, FullMatrix, Scenario, Suite, Targets};

use crate::isolation::tenants;
use crate::phases::{everything, steady};

/// The suite.
pub(crate) fn suite(fixtures: &Fixtures) -> Result<Suite, FixtureError> {
    let mut scenarios = Vec::new();
    for layer in ["layer2", "layer3"] {
        scenarios.push(Scenario {
            name: layer.into(),
            title: format!(
                "from {layer} networks, overlapping ones included, to the outside, to hosts and to the API server"
            ),
            world: tenants(fixtures, layer)?,
            exclusive: false,
            phases: steady(vec![Assertion::Full(FullMatrix { targets: Targets::Outside, ..everything() })]),
        });
    }
    Ok(Suite { name: "egress", title: "what leaves a network, and with which source address", scenarios })
}
