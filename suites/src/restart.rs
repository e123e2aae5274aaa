//! The network's node component is restarted under everybody's connections.

use udn_fixtures::{FixtureError, Fixtures};
use udn_model::rule::RuleName;
use udn_model::scenario::{Action, Assertion, FullMatrix, Phase, Probing, Scenario, Targets};

use crate::phases::{claim, everything, phase, pod};
use udn_model::cell::Claim;
use udn_model::world::PodRef;

const RULE: &str = "objects/controller-restart";

/// Both layers in one world: a restart is felt by all networks of a node.
pub(crate) fn scenario(fixtures: &Fixtures) -> Result<Scenario, FixtureError> {
    let newcomers = fixtures.manifests(&["objects/restart-newcomers.yaml"])?;
    let whole = || {
        vec![
            Assertion::Full(FullMatrix { targets: Targets::Outside, outsiders: false, ..everything() }),
            Assertion::Full(everything()),
        ]
    };
    let during = |name: &str, node: u8| Phase {
        probing: Probing::Throughout,
        open_as: Some(RuleName::new(RULE)),
        ..phase(name, vec![Action::RestartNodeComponent { node }], whole())
    };
    let among_newcomers =
        FullMatrix { pods: vec![PodRef::new("even", "new"), PodRef::new("odd", "new")], ..everything() };
    let mut after = whole();
    after.push(claim(RULE, &pod("even", "a"), Claim::ReadyWithoutRestart));
    after.push(claim(RULE, &pod("odd", "b"), Claim::ReadyWithoutRestart));
    let renamed = |phase: Phase| Phase { open_as: Some(RuleName::new(RULE)), ..phase };
    let phases = vec![
        phase("before", Vec::new(), whole()),
        during("restart-node0", 0),
        during("restart-node1", 1),
        renamed(phase("after", Vec::new(), after)),
        // The restarted component also does what is new.
        renamed(phase("newcomers", vec![Action::Apply(newcomers)], vec![Assertion::Full(among_newcomers)])),
    ];
    Ok(Scenario {
        name: "controller-restart".into(),
        title: "connections are made while the node component of each end is restarted".into(),
        world: fixtures.world("restart", &["objects/restart.yaml"])?,
        exclusive: true,
        phases,
    })
}
