//! What leaves a network: to an external server, to hosts, to the API server.

use udn_fixtures::{FixtureError, Fixtures};
use udn_model::scenario::{FullMatrix, Suite, Targets};

use crate::isolation::tenants;
use crate::phases::{everything, full};

/// The suite.
pub(crate) fn suite(fixtures: &Fixtures) -> Result<Suite, FixtureError> {
    let mut scenarios = Vec::new();
    for layer in ["layer2", "layer3"] {
        let title =
            format!("from {layer} networks, overlapping ones included, to the outside, to hosts and to the API server");
        let matrix = FullMatrix { targets: Targets::Outside, ..everything() };
        scenarios.push(full(layer, &title, tenants(fixtures, layer)?, matrix));
    }
    Ok(Suite { name: "egress", title: "what leaves a network, and with which source address", scenarios })
}
