//! Who reaches which service, by which of its addresses, and what its name means.

use udn_fixtures::{FixtureError, Fixtures};
use udn_model::scenario::{FullMatrix, Scenario, Suite, Targets};

use crate::backends;
use crate::isolation::tenants;
use crate::phases::{everything, full, names, steady};

/// The suite.
pub(crate) fn suite(fixtures: &Fixtures) -> Result<Suite, FixtureError> {
    let mut scenarios = Vec::new();
    for layer in ["layer2", "layer3"] {
        let title =
            format!("every vantage point to every address of every service of {layer} networks and of the default one");
        let matrix = FullMatrix { targets: Targets::Services, ..everything() };
        scenarios.push(full(layer, &title, tenants(fixtures, layer)?, matrix));
    }
    for layer in ["layer2", "layer3"] {
        scenarios.extend(backends::scenarios(fixtures, layer)?);
        scenarios.push(Scenario {
            name: format!("dns-{layer}"),
            title: format!("what names of services and of their members mean to pods of {layer} networks"),
            world: tenants(fixtures, layer)?,
            exclusive: false,
            phases: steady(vec![names(&["services/dns"])]),
        });
    }
    Ok(Suite { name: "services", title: "who reaches which service, by which of its addresses and names", scenarios })
}
