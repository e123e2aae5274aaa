//! Namespaces that join and leave a cluster-wide network with their labels.

use udn_fixtures::{FixtureError, Fixtures};
use udn_model::cell::{Claim, ObjectRef};
use udn_model::rule::RuleName;
use udn_model::scenario::{Action, Assertion, FullMatrix, Phase, Scenario};
use udn_model::world::PodRef;

use crate::phases::{claim, condition, cudn, everything, phase, pod, rules};

const RULE: &str = "objects/membership";
/// The label that the network selects by.
const MEMBER: &str = "udn-conformance.io/club";
/// Seconds that upstream gives a definition to go (LIFE-14 allows 300; measured: as a network's after its last pod).
const GONE_WITHIN_S: u32 = 65;

/// Layer2 and Layer3.
pub(crate) fn scenarios(fixtures: &Fixtures) -> Result<Vec<Scenario>, FixtureError> {
    ["layer2", "layer3"].into_iter().map(|layer| scenario(fixtures, layer)).collect()
}

fn scenario(fixtures: &Fixtures, layer: &str) -> Result<Scenario, FixtureError> {
    let newcomers = fixtures.manifests(&["objects/club-newcomers.yaml"])?;
    let own_network = fixtures.manifests(&[&format!("objects/club-left-{layer}.yaml")])?;
    let label = |value: Option<&str>| Action::Label {
        object: ObjectRef::cluster("v1", "Namespace", "second"),
        key: MEMBER.into(),
        value: value.map(Into::into),
    };
    let of_newcomers = || {
        let pods = vec![PodRef::new("second", "a"), PodRef::new("second", "b")];
        Assertion::Full(FullMatrix { pods, ..everything() })
    };
    let created = |namespaces: &[&str]| claim(RULE, &cudn("club"), condition("NetworkCreated", "True", namespaces));
    let before = vec![
        Assertion::Full(FullMatrix { rules: rules(&["isolation/same-network-open"]), ..everything() }),
        created(&["{first}"]),
        claim(RULE, &definition("first"), Claim::Exists),
        claim(RULE, &definition("second"), Claim::Gone),
    ];
    let joined = vec![
        of_newcomers(),
        created(&["{first}", "{second}"]),
        claim(RULE, &definition("first"), Claim::Exists),
        claim(RULE, &definition("second"), Claim::Exists),
    ];
    // As a network in use does not go, a namespace with pods does not leave: nothing is said of their connections.
    let held = condition("NetworkCreated", "False", &["in use by the following pods", "{second}/a"]);
    let leaving = vec![
        claim(RULE, &cudn("club"), held),
        claim(RULE, &definition("second"), Claim::Exists),
        claim(RULE, &pod("second", "a"), Claim::ReadyWithoutRestart),
    ];
    let left = vec![
        claim(RULE, &definition("second"), Claim::Gone),
        claim(RULE, &definition("first"), Claim::Exists),
        created(&["{first}"]),
    ];
    let leave = ["a", "b"].into_iter().map(|name| Action::DeleteAndWait(pod("second", name))).collect();
    let apart = vec![Action::Apply(own_network), Action::Apply(newcomers.clone())];
    let phases = vec![
        phase("before", Vec::new(), before),
        Phase {
            open_as: Some(RuleName::new(RULE)),
            ..phase("joined", vec![label(Some("member")), Action::Apply(newcomers)], joined)
        },
        phase("leaving", vec![label(None)], leaving),
        Phase { settle_within_s: GONE_WITHIN_S, ..phase("left", leave, left) },
        // With a network of its own, since without any its pods would wait.
        phase("apart", apart, vec![of_newcomers()]),
    ];
    let networks = format!("objects/club-{layer}.yaml");
    Ok(Scenario {
        name: format!("membership-{layer}"),
        title: format!("a namespace joins a {layer} CUDN with a label, and leaves it without"),
        world: fixtures.world(&format!("club-{layer}"), &[&networks, "objects/club-pods.yaml"])?,
        exclusive: true,
        phases,
    })
}

/// The definition of the network in a namespace.
fn definition(namespace: &str) -> ObjectRef {
    ObjectRef::namespaced("k8s.cni.cncf.io/v1", "NetworkAttachmentDefinition", namespace, "club")
}
