//! What leaves a network: to an external server, to hosts, to the API server.

use udn_fixtures::{FixtureError, Fixtures};
use udn_model::scenario::{Assertion, FullMatrix, Scenario, Suite, Targets};

use crate::isolation::tenants;
use crate::phases::{everything, names, steady};

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
    Ok(Suite { name: "egress", title: "what leaves a network, and with which source address", scenarios })
}
