//! What the objects say and when they go.

use udn_fixtures::{FixtureError, Fixtures};
use udn_model::cell::{Claim, ObjectRef};
use udn_model::scenario::{Action, Assertion, Phase, Scenario, Suite};
use udn_model::world::PRIMARY_LABEL;

use crate::isolation::tenants;
use crate::phases::{claim, condition, cudn, phase, pod, steady, udn};
use crate::{admission, membership, recreate, restart};

/// The finalizer that keeps a network while pods use it.
const FINALIZER: &str = "k8s.ovn.org/user-defined-network-protection";

/// Seconds that upstream gives a network to go after its last pod (LIFE-06).
const GONE_WITHIN_S: u32 = 65;

/// The suite.
pub(crate) fn suite(fixtures: &Fixtures) -> Result<Suite, FixtureError> {
    let mut scenarios = Vec::new();
    for layer in ["layer2", "layer3"] {
        scenarios.push(Scenario {
            name: format!("conditions-{layer}"),
            title: format!("{layer} UDNs and a CUDN say that they are created and allocated"),
            world: tenants(fixtures, layer)?,
            exclusive: false,
            phases: steady(conditions()),
        });
    }
    scenarios.push(in_use(fixtures)?);
    scenarios.push(second_primary(fixtures)?);
    scenarios.push(namespace_label(fixtures)?);
    scenarios.extend(membership::scenarios(fixtures)?);
    scenarios.extend(recreate::scenarios(fixtures)?);
    scenarios.push(restart::scenario(fixtures)?);
    scenarios.extend(admission::scenarios(fixtures)?);
    Ok(Suite { name: "objects", title: "what the objects say and when they go", scenarios })
}

fn conditions() -> Vec<Assertion> {
    const RULE: &str = "objects/conditions";
    let networks = [
        (udn("blue", "blue-network"), vec![]),
        (udn("green", "green-network"), vec![]),
        (udn("overlapping-with-blue", "overlapping-network"), vec![]),
        (cudn("colored"), vec!["{red}", "{yellow}"]),
    ];
    let mut claims = Vec::new();
    for (network, namespaces) in networks {
        claims.push(claim(RULE, &network, condition("NetworkCreated", "True", &namespaces)));
        claims.push(claim(RULE, &network, condition("NetworkAllocationSucceeded", "True", &[])));
    }
    claims
}

fn in_use(fixtures: &Fixtures) -> Result<Scenario, FixtureError> {
    const RULE: &str = "objects/in-use";
    let networks = [(udn("used", "used-network"), "{used}/user"), (cudn("used-by-all"), "{member}/user")];
    let users = [pod("used", "user"), pod("member", "user")];
    let mut held = Vec::new();
    for (network, user) in &networks {
        held.push(claim(RULE, network, Claim::HeldByFinalizer { finalizer: FINALIZER.into() }));
        held.push(claim(RULE, network, condition("NetworkCreated", "False", &["in use by the following pods", user])));
    }
    held.extend(users.iter().map(|user| claim(RULE, user, Claim::ReadyWithoutRestart)));
    let gone = networks.iter().map(|(network, _)| claim(RULE, network, Claim::Gone)).collect();
    let phases = vec![
        phase("deleted", networks.iter().map(|(network, _)| Action::Delete(network.clone())).collect(), held),
        Phase {
            settle_within_s: GONE_WITHIN_S,
            ..phase("last-pod-deleted", users.iter().map(|user| Action::DeleteAndWait(user.clone())).collect(), gone)
        },
    ];
    Ok(Scenario {
        name: "in-use".into(),
        title: "a network goes only after the last pod that uses it".into(),
        world: fixtures.world("in-use", &["objects/in-use.yaml"])?,
        exclusive: true,
        phases,
    })
}

fn second_primary(fixtures: &Fixtures) -> Result<Scenario, FixtureError> {
    const RULE: &str = "objects/second-primary";
    let refused = ["primary network already exist in namespace", "{taken}", "first"];
    let matrix = vec![
        claim(RULE, &udn("taken", "first"), condition("NetworkCreated", "True", &[])),
        claim(RULE, &udn("taken", "second"), condition("NetworkCreated", "False", &refused)),
        claim(RULE, &cudn("third"), condition("NetworkCreated", "False", &refused)),
    ];
    let submit = vec![Action::Submit(fixtures.manifests(&["objects/second-primary.yaml"])?)];
    Ok(Scenario {
        name: "second-primary".into(),
        title: "a second primary network in a namespace is refused".into(),
        world: fixtures.world("second-primary", &["objects/first-primary.yaml"])?,
        exclusive: true,
        phases: vec![phase("second", submit, matrix)],
    })
}

fn namespace_label(fixtures: &Fixtures) -> Result<Scenario, FixtureError> {
    const RULE: &str = "objects/namespace-label";
    let namespace = |name: &str| ObjectRef::cluster("v1", "Namespace", name);
    let label = |name: &str, value: Option<&str>| Action::Label {
        object: namespace(name),
        key: PRIMARY_LABEL.into(),
        value: value.map(Into::into),
    };
    let submit = |path: &str| Ok::<_, FixtureError>(vec![Action::Submit(fixtures.manifests(&[path])?)]);
    let refused = || Claim::Refused { message_contains: vec![PRIMARY_LABEL.into()] };
    let phases = vec![
        phase("added", vec![label("unlabelled", Some(""))], vec![claim(RULE, &namespace("unlabelled"), refused())]),
        phase("taken-away", vec![label("waiting", None)], vec![claim(RULE, &namespace("waiting"), refused())]),
        phase(
            "network-without-label",
            submit("objects/network-without-label.yaml")?,
            vec![
                claim(RULE, &udn("unlabelled", "unready"), Claim::Exists),
                claim(RULE, &udn("unlabelled", "unready"), Claim::NotTrue { condition: "NetworkCreated".into() }),
                claim(RULE, &pod("unlabelled", "plain"), Claim::ReadyWithoutRestart),
                claim(RULE, &pod("unlabelled", "plain"), Claim::PodNetworks { keys: vec!["default".into()] }),
            ],
        ),
        phase(
            "pod-without-network",
            submit("objects/early-pod.yaml")?,
            vec![claim(RULE, &pod("waiting", "early"), Claim::PodWaits)],
        ),
        phase(
            "network-arrives",
            submit("objects/late-network.yaml")?,
            vec![
                claim(RULE, &udn("waiting", "late"), condition("NetworkCreated", "True", &[])),
                claim(RULE, &pod("waiting", "early"), Claim::ReadyWithoutRestart),
                claim(
                    RULE,
                    &pod("waiting", "early"),
                    Claim::PodNetworks { keys: vec!["default".into(), "{waiting}/late".into()] },
                ),
            ],
        ),
    ];
    Ok(Scenario {
        name: "namespace-label".into(),
        title: "the primary-network label is fixed at a namespace's creation and decides what its pods get".into(),
        world: fixtures.world("labels", &["objects/labels.yaml"])?,
        exclusive: true,
        phases,
    })
}
