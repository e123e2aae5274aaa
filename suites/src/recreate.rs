//! A network that is deleted and made again: the workshop noted that the API server was lost on the way.

use serde_json::Value;
use udn_fixtures::{FixtureError, Fixtures};
use udn_model::cell::{Claim, ObjectRef};
use udn_model::rule::RuleName;
use udn_model::scenario::{Action, Assertion, FullMatrix, Phase, Scenario, Targets};
use udn_model::world::PodRef;

use crate::isolation::gate;
use crate::phases::{claim, everything, phase, pod, udn};

const RULE: &str = "objects/recreate";
/// Seconds that upstream gives a network to go after its last pod (LIFE-06).
const GONE_WITHIN_S: u32 = 65;

/// Layer2 and Layer3.
pub(crate) fn scenarios(fixtures: &Fixtures) -> Result<Vec<Scenario>, FixtureError> {
    ["layer2", "layer3"].into_iter().map(|layer| scenario(fixtures, layer)).collect()
}

fn scenario(fixtures: &Fixtures, layer: &str) -> Result<Scenario, FixtureError> {
    let networks = of(fixtures, &format!("networks/gate-{layer}.yaml"), "UserDefinedNetwork")?;
    let pods = of(fixtures, "workloads/gate.yaml", "Pod")?;
    let network = udn("gate", "gate-network");
    let definition = ObjectRef::namespaced("k8s.cni.cncf.io/v1", "NetworkAttachmentDefinition", "gate", "gate-network");
    let mut demolish: Vec<Action> = ["a", "b"].map(|name| Action::DeleteAndWait(pod("gate", name))).into();
    demolish.push(Action::DeleteAndWait(network.clone()));
    let whole = || {
        let pods = vec![PodRef::new("gate", "a"), PodRef::new("gate", "b")];
        let among = FullMatrix { pods, ..everything() };
        vec![
            Assertion::Full(FullMatrix { targets: Targets::Outside, outsiders: false, ..among.clone() }),
            Assertion::Full(among),
        ]
    };
    let gone = vec![claim(RULE, &network, Claim::Gone), claim(RULE, &definition, Claim::Gone)];
    let phases = vec![
        phase("before", Vec::new(), whole()),
        Phase { settle_within_s: GONE_WITHIN_S, ..phase("deleted", demolish, gone) },
        Phase {
            open_as: Some(RuleName::new(RULE)),
            ..phase("made-again", vec![Action::Apply(networks), Action::Apply(pods)], whole())
        },
    ];
    Ok(Scenario {
        name: format!("recreate-{layer}"),
        title: format!("a {layer} network deleted and made again reaches everything that it reached before"),
        world: gate(fixtures, layer)?,
        exclusive: true,
        phases,
    })
}

/// The objects of a kind in the namespace `gate`.
fn of(fixtures: &Fixtures, path: &str, kind: &str) -> Result<Vec<Value>, FixtureError> {
    let mut manifests = fixtures.manifests(&[path])?;
    manifests.retain(|manifest| manifest["kind"] == kind && manifest["metadata"]["namespace"] == "gate");
    Ok(manifests)
}
