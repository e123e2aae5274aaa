//! The network's node component is restarted under everybody's connections.

use udn_fixtures::{FixtureError, Fixtures};
use udn_model::cell::Claim;
use udn_model::rule::RuleName;
use udn_model::scenario::{Action, Assertion, FullMatrix, Phase, Probing, Scenario, Targets};

use crate::phases::{claim, everything, flows, phase, pod};

const RULE: &str = "objects/controller-restart";

/// Both layers in one world: a restart is felt by all networks of a node.
pub(crate) fn scenario(fixtures: &Fixtures) -> Result<Scenario, FixtureError> {
    let newcomers = fixtures.manifests(&["objects/restart-newcomers.yaml"])?;
    let pairs = [[("even", "a"), ("even", "b")], [("odd", "b"), ("odd", "a")], [("plain", "a"), ("plain", "b")]];
    let all_flows = || flows(RULE, &pairs);
    let whole = || {
        vec![
            Assertion::Full(FullMatrix { targets: Targets::Outside, outsiders: false, ..everything() }),
            Assertion::Full(everything()),
            all_flows(),
        ]
    };
    let during = |name: &str, node: u8| Phase {
        probing: Probing::Throughout,
        open_as: Some(RuleName::new(RULE)),
        ..phase(name, vec![Action::RestartNodeComponent { node }], whole())
    };
    let mut after = whole();
    after.push(claim(RULE, &pod("even", "a"), Claim::ReadyWithoutRestart));
    after.push(claim(RULE, &pod("odd", "b"), Claim::ReadyWithoutRestart));
    let phases = vec![
        phase("before", Vec::new(), whole()),
        during("restart-node0", 0),
        during("restart-node1", 1),
        // The restarted component also does what is new.
        Phase { open_as: Some(RuleName::new(RULE)), ..phase("after", vec![Action::Apply(newcomers)], after) },
    ];
    Ok(Scenario {
        name: "controller-restart".into(),
        title: "connections are made, and flows go on, while the node component of each end is restarted".into(),
        world: fixtures.world("restart", &["objects/restart.yaml"])?,
        exclusive: true,
        phases,
    })
}
