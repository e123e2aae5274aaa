//! Who reaches which service, by which of its addresses.

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
                "every vantage point to every address of every service of {layer} networks and of the default one"
            ),
            world: tenants(fixtures, layer)?,
            exclusive: false,
            phases: steady(vec![Assertion::Full(FullMatrix { targets: Targets::Services, ..everything() })]),
        });
    }
    Ok(Suite { name: "services", title: "who reaches which service, by which of its addresses", scenarios })
}
