//! NetworkPolicies: what they cut, what they let through, and what they give back when they go.

use udn_fixtures::{FixtureError, Fixtures};
use udn_model::cell::ObjectRef;
use udn_model::rule::RuleName;
use udn_model::scenario::{Action, Assertion, FullMatrix, Phase, Probing, Scenario, Suite, Targets};
use udn_model::words::Transport;
use udn_model::world::PodRef;

use crate::isolation::gate;
use crate::phases::{among_pods, everything, flows, names, phase, rules};

/// What is probed: the ports that policies speak of, and what they do not name.
const PORTS: [(Transport, Option<u16>); 4] =
    [(Transport::Tcp, Some(8080)), (Transport::Tcp, Some(9090)), (Transport::Udp, Some(8080)), (Transport::Icmp, None)];

/// The suite.
pub(crate) fn suite(fixtures: &Fixtures) -> Result<Suite, FixtureError> {
    let mut scenarios = Vec::new();
    for layer in ["layer2", "layer3"] {
        scenarios.push(inside(fixtures, layer)?);
        scenarios.push(no_window(fixtures, layer)?);
        scenarios.push(established(fixtures, layer)?);
    }
    Ok(Suite { name: "policy", title: "what NetworkPolicies cut, let through and give back", scenarios })
}

/// Policies of tenants, one after the other, each judged by everything that could be touched by it.
fn inside(fixtures: &Fixtures, layer: &str) -> Result<Scenario, FixtureError> {
    let apply = |path: &str| Ok::<_, FixtureError>(vec![Action::Apply(fixtures.manifests(&[path])?)]);
    let remove = |namespace: &str, name: &str| {
        Action::DeleteAndWait(ObjectRef::namespaced("networking.k8s.io/v1", "NetworkPolicy", namespace, name))
    };
    let all = || vec![Assertion::Full(matrix())];
    let dns = || names(&["policy/deny-egress", "policy/allow-rules", "policy/no-cross-network"]);
    let all_and_outside = || vec![Assertion::Full(matrix()), Assertion::Full(outside()), dns()];
    // What the policy cut, and nobody else's.
    let dns_again = Assertion::Full(FullMatrix {
        targets: Targets::Names,
        rules: rules(&["egress/api-server-and-dns"]),
        pods: vec![PodRef::new("blue", "a")],
        ..everything()
    });
    let gone = vec![remove("yellow", "web"), remove("red", "databases"), remove("blue", "outwards")];
    let phases = vec![
        phase("before", Vec::new(), all()),
        phase("ingress-denied", apply("policies/deny-ingress.yaml")?, all()),
        phase("ingress-allowed", apply("policies/allow-ingress.yaml")?, all()),
        phase("egress-denied", apply("policies/deny-egress.yaml")?, all_and_outside()),
        phase("egress-allowed", apply("policies/allow-egress.yaml")?, all_and_outside()),
        phase("dns-allowed", apply("policies/allow-dns.yaml")?, all_and_outside()),
        Phase {
            open_as: Some(RuleName::new("policy/removal")),
            ..phase("removed", gone, vec![Assertion::Full(matrix()), dns_again])
        },
    ];
    let networks = format!("networks/policy-{layer}.yaml");
    Ok(Scenario {
        name: layer.into(),
        title: format!("policies on {layer} networks, applied, changed and removed"),
        world: fixtures.world(&format!("policy-{layer}"), &[&networks, "workloads/policy.yaml"])?,
        exclusive: true,
        phases,
    })
}

/// A pod that a policy selects appears while those whom it shuts out try.
fn no_window(fixtures: &Fixtures, layer: &str) -> Result<Scenario, FixtureError> {
    let apply = |path: &str| Ok::<_, FixtureError>(Action::Apply(fixtures.manifests(&[path])?));
    let of = |pod: &str| {
        vec![Assertion::Full(FullMatrix {
            pods: vec![PodRef::new("gate", pod)],
            rules: rules(&["isolation/same-network-open", "policy/deny-ingress", "policy/allow-rules"]),
            ..among_pods()
        })]
    };
    // That the policy is in force is known before its next pod appears.
    let applied = vec![apply("policies/guard.yaml")?, apply("workloads/guarded-early.yaml")?];
    let appears = Phase {
        probing: Probing::FromFirstPacket,
        ..phase("appears", vec![apply("workloads/guarded-newcomer.yaml")?], of("newcomer"))
    };
    Ok(Scenario {
        name: format!("no-window-{layer}"),
        title: format!("a policy guards a new pod from its first packet, {layer}"),
        world: gate(fixtures, layer)?,
        exclusive: true,
        phases: vec![phase("applied", applied, of("early")), appears],
    })
}

/// Connections that are there when a policy comes.
fn established(fixtures: &Fixtures, layer: &str) -> Result<Scenario, FixtureError> {
    let pairs = [("near", "shop"), ("far", "shop"), ("friend", "shop"), ("shop", "far"), ("near", "far")];
    let pairs = pairs.map(|(from, to)| [("gate", from), ("gate", to)]);
    let all = || vec![flows("policy/established", &pairs)];
    let apply = |path: &str| Ok::<_, FixtureError>(vec![Action::Apply(fixtures.manifests(&[path])?)]);
    let networks = format!("networks/gate-{layer}.yaml");
    Ok(Scenario {
        name: format!("established-{layer}"),
        title: format!("connections that a further policy finds are cut where it forbids them, {layer}"),
        world: fixtures.world(&format!("flows-{layer}"), &[&networks, "workloads/flows.yaml"])?,
        exclusive: true,
        phases: vec![
            phase("before", apply("policies/tracked.yaml")?, all()),
            phase("guarded", apply("policies/guard.yaml")?, all()),
        ],
    })
}

/// Every pod to every other's network address: what is closed in any case is probed elsewhere.
fn matrix() -> FullMatrix {
    FullMatrix {
        ports: PORTS.to_vec(),
        rules: rules(&[
            "isolation/same-network-open",
            "isolation/cluster-network-members",
            "policy/deny-ingress",
            "policy/deny-egress",
            "policy/allow-rules",
            "policy/no-cross-network",
        ]),
        ..among_pods()
    }
}

/// What is outside of the network is cut by an egress policy as well, the API server and DNS included.
fn outside() -> FullMatrix {
    FullMatrix {
        targets: Targets::Outside,
        rules: rules(&["policy/deny-egress", "policy/allow-rules"]),
        ports: vec![(Transport::Tcp, Some(8080)), (Transport::Udp, Some(8080))],
        ..everything()
    }
}
