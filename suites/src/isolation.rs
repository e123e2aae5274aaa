//! Who reaches whom, and who must not.

use udn_fixtures::{FixtureError, Fixtures};
use udn_model::cell::{Claim, ObjectRef};
use udn_model::scenario::{Action, Assertion, FullMatrix, Phase, Probing, Scenario, Suite, WorldSpec};
use udn_model::words::Transport;
use udn_model::world::{OPEN_PORTS_ANNOTATION, PodRef};

use crate::phases::{among_pods, claim, everything, full, phase, pod, rules};

/// The suite.
pub(crate) fn suite(fixtures: &Fixtures) -> Result<Suite, FixtureError> {
    let mut scenarios = Vec::new();
    for layer in ["layer2", "layer3"] {
        scenarios.push(full(
            layer,
            &format!(
                "every vantage point to every address: {layer} UDNs, an overlapping one, a CUDN, the default network"
            ),
            tenants(fixtures, layer)?,
            everything(),
        ));
    }
    let collision = fixtures.world("collision", &["networks/collision.yaml", "workloads/collision.yaml"])?;
    scenarios.push(full("name-collision", "networks whose names concatenate alike", collision, among_pods()));
    for layer in ["layer2", "layer3"] {
        scenarios.push(open_default_ports(fixtures, layer)?);
        scenarios.push(no_window(fixtures, layer)?);
    }
    Ok(Suite { name: "isolation", title: "who reaches whom, and who must not", scenarios })
}

/// The world of the full matrices, shared with other suites.
pub(crate) fn tenants(fixtures: &Fixtures, layer: &str) -> Result<WorldSpec, FixtureError> {
    let networks = format!("networks/{layer}.yaml");
    fixtures.world(layer, &["networks/namespaces.yaml", &networks, "services/tenants.yaml", "workloads/tenants.yaml"])
}

pub(crate) fn gate(fixtures: &Fixtures, layer: &str) -> Result<WorldSpec, FixtureError> {
    let networks = format!("networks/gate-{layer}.yaml");
    fixtures.world(&format!("gate-{layer}"), &[&networks, "workloads/gate.yaml"])
}

/// The annotation opens exactly what it lists, follows changes, and what cannot be read opens nothing.
fn open_default_ports(fixtures: &Fixtures, layer: &str) -> Result<Scenario, FixtureError> {
    const RULE: &str = "isolation/open-default-ports";
    let target = PodRef::new("gate", "b");
    let object = ObjectRef::pod(&target);
    let annotate = |value: Option<&str>| {
        vec![Action::Annotate {
            object: object.clone(),
            key: OPEN_PORTS_ANNOTATION.into(),
            value: value.map(Into::into),
        }]
    };
    let matrix = |rule_names: &[&str]| {
        let mut matrix = FullMatrix { rules: rules(rule_names), pods: vec![target.clone()], ..everything() };
        matrix.ports.push((Transport::Tcp, Some(9090)));
        Assertion::Full(matrix)
    };
    let invalid = Claim::Event {
        kind: "Warning".into(),
        reason: "ErrorUpdatingResource".into(),
        message_contains: vec!["invalid protocol ppp".into()],
    };
    let shut = ["isolation/default-to-udn", "isolation/node-to-udn"];
    let phases = vec![
        phase(
            "shut",
            Vec::new(),
            vec![matrix(&shut), claim("isolation/node-to-udn", &pod("gate", "a"), Claim::ReadyWithoutRestart)],
        ),
        phase("one-port", annotate(Some(r#"[{"protocol":"tcp","port":8080}]"#)), vec![matrix(&[RULE])]),
        phase(
            "other-ports",
            annotate(Some(r#"[{"protocol":"udp","port":8080},{"protocol":"icmp"}]"#)),
            vec![matrix(&[RULE])],
        ),
        phase(
            "malformed",
            annotate(Some(r#"[{"protocol":"ppp","port":8080}]"#)),
            vec![matrix(&shut), claim(RULE, &object, invalid)],
        ),
        phase("opened-again", annotate(Some(r#"[{"protocol":"tcp","port":9090}]"#)), vec![matrix(&[RULE])]),
        phase("removed", annotate(None), vec![matrix(&shut)]),
    ];
    Ok(Scenario {
        name: format!("open-default-ports-{layer}"),
        title: format!("ports of the default-network address opened, changed, malformed and closed again, {layer}"),
        world: gate(fixtures, layer)?,
        exclusive: true,
        phases,
    })
}

/// A pod appears while everybody who must not reach it tries.
fn no_window(fixtures: &Fixtures, layer: &str) -> Result<Scenario, FixtureError> {
    let newcomer = fixtures.manifests(&["workloads/newcomer.yaml"])?;
    let matrix = FullMatrix { pods: vec![PodRef::new("gate", "newcomer")], ..everything() };
    let appears = Phase {
        probing: Probing::FromFirstPacket,
        ..phase("appears", vec![Action::Apply(newcomer)], vec![Assertion::Full(matrix)])
    };
    Ok(Scenario {
        name: format!("no-window-{layer}"),
        title: format!("a new pod is isolated from its first packet, {layer}"),
        world: gate(fixtures, layer)?,
        exclusive: true,
        phases: vec![appears],
    })
}
