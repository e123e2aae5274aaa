//! Who reaches whom, and who must not.

use udn_fixtures::{FixtureError, Fixtures};
use udn_model::cell::{AddressOn, Claim, Expectation, ObjectRef, Reach, Target, VantagePoint};
use udn_model::rule::RuleName;
use udn_model::scenario::{Action, Assertion, FullMatrix, Phase, ProbeAssertion, Probing, Scenario, Suite, WorldSpec};
use udn_model::words::{Family, Transport};
use udn_model::world::{NetworkId, OPEN_PORTS_ANNOTATION, PodRef};

use crate::phases::{among_pods, claim, everything, full, phase, pod, rules, steady};

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
    scenarios.push(workshop(fixtures)?);
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

/// The workshop's own checks, IPv4 as there, in its order.
fn workshop(fixtures: &Fixtures) -> Result<Scenario, FixtureError> {
    let world = fixtures.world("workshop", &["networks/workshop.yaml", "workloads/workshop.yaml"])?;
    let blue = PodRef::new("blue", "app-blue-0");
    let blue_1 = PodRef::new("blue", "app-blue-1");
    let green = PodRef::new("green", "app-green-0");
    let green_1 = PodRef::new("green", "app-green-1");
    let red = PodRef::new("red", "app-red-0");
    let yellow_1 = PodRef::new("yellow", "app-yellow-1");
    let overlapping_1 = PodRef::new("overlapping-with-blue", "app-overlapping-1");
    let blue_network = NetworkId::Udn { namespace: "blue".into(), name: "blue-network".into() };

    let closed = Expectation::Closed;
    let holder_in_blue = Expectation::open(Reach::HolderIn(blue_network));
    let mut hand = Hand::default();
    // "Pods of one network reach each other; not on their default-network addresses."
    hand.open("isolation/same-network-open", &blue, &blue_1);
    hand.probe("isolation/default-address-closed", &blue, &blue_1, AddressOn::Default, &closed);
    hand.open("isolation/same-network-open", &green, &green_1);
    hand.probe("isolation/default-address-closed", &green, &green_1, AddressOn::Default, &closed);
    // "blue and green are isolated from each other."
    hand.probe("isolation/other-network-closed", &blue, &green, AddressOn::Primary, &closed);
    hand.probe("isolation/other-network-closed", &blue, &green_1, AddressOn::Primary, &closed);
    hand.probe("isolation/other-network-closed", &green, &blue_1, AddressOn::Primary, &closed);
    // "red and yellow share a network; blue stays outside of it."
    hand.open("isolation/cluster-network-members", &red, &yellow_1);
    hand.probe("isolation/cluster-network-members", &blue, &yellow_1, AddressOn::Primary, &closed);
    hand.probe("isolation/other-network-closed", &red, &blue_1, AddressOn::Primary, &closed);
    // "A second network with blue's subnet: an address means the caller's own network."
    hand.probe("isolation/overlap-coexists", &blue, &overlapping_1, AddressOn::Primary, &holder_in_blue);
    for pod in [&blue_1, &green, &green_1, &yellow_1] {
        hand.open("control/listener-works", pod, pod);
    }
    for pod in [&blue_1, &green_1] {
        let itself = Expectation::open(Reach::Pod(pod.clone()));
        hand.probe("control/listener-works", pod, pod, AddressOn::Default, &itself);
    }
    Ok(Scenario {
        name: "workshop".into(),
        title: "the workshop's pods, step by step, with expectations from its text".into(),
        world,
        exclusive: false,
        phases: steady(hand.0),
    })
}

/// Assertions written by hand.
#[derive(Default)]
struct Hand(Vec<Assertion>);

impl Hand {
    fn open(&mut self, rule: &str, from: &PodRef, to: &PodRef) {
        self.probe(rule, from, to, AddressOn::Primary, &Expectation::open(Reach::Pod(to.clone())));
    }

    /// By ping and by TCP, as the workshop does.
    fn probe(&mut self, rule: &str, from: &PodRef, to: &PodRef, on: AddressOn, expectation: &Expectation) {
        for (transport, port) in [(Transport::Icmp, None), (Transport::Tcp, Some(8080))] {
            self.0.push(Assertion::Probe(ProbeAssertion {
                rule: RuleName::new(rule),
                from: VantagePoint::Pod(from.clone()),
                to: Target::Pod { pod: to.clone(), on: on.clone() },
                transport,
                port,
                families: vec![Family::V4],
                expectation: expectation.clone(),
            }));
        }
    }
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
