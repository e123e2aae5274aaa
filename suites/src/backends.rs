//! Services in depth: which of their backends answer, what they can be besides, and what comes of backends that come and
//! go.

use udn_fixtures::{FixtureError, Fixtures};
use udn_model::cell::{Claim, Expectation, Exposure, ObjectRef, Reach, Target, VantagePoint};
use udn_model::rule::RuleName;
use udn_model::scenario::{Action, Assertion, FullMatrix, Phase, ProbeAssertion, Scenario, Targets, WorldSpec};
use udn_model::words::{Family, Transport};
use udn_model::world::{PodRef, ServiceRef};

use crate::isolation::tenants;
use crate::phases::{claim, everything, phase, pod, rules, steady};

/// All of a layer.
pub(crate) fn scenarios(fixtures: &Fixtures, layer: &str) -> Result<Vec<Scenario>, FixtureError> {
    Ok(vec![every_backend(fixtures, layer)?, variants(fixtures, layer)?, changes(fixtures, layer)?])
}

/// Many connections to each address of the tenants' services.
fn every_backend(fixtures: &Fixtures, layer: &str) -> Result<Scenario, FixtureError> {
    Ok(Scenario {
        name: format!("every-backend-{layer}"),
        title: format!("each backend of the services of {layer} networks gets its share, and EndpointSlices name them"),
        world: tenants(fixtures, layer)?,
        exclusive: false,
        phases: steady(vec![Assertion::Series(Vec::new()), Assertion::Slices]),
    })
}

fn shop(fixtures: &Fixtures, layer: &str, services: &str) -> Result<WorldSpec, FixtureError> {
    let networks = format!("networks/shop-{layer}.yaml");
    let paths = [&networks, "workloads/shop.yaml", &format!("services/{services}.yaml")];
    fixtures.world(&format!("{services}-{layer}"), &paths)
}

fn matrix() -> Assertion {
    Assertion::Full(FullMatrix { targets: Targets::Services, ..everything() })
}

/// Named ports, several ports, affinity, hairpin, headless, external addresses.
fn variants(fixtures: &Fixtures, layer: &str) -> Result<Scenario, FixtureError> {
    let headless = ObjectRef::namespaced("v1", "Service", "shop", "headless");
    let what = vec![
        matrix(),
        Assertion::Series(Vec::new()),
        Assertion::Slices,
        claim("services/variants", &headless, Claim::NoClusterIp),
    ];
    Ok(Scenario {
        name: format!("variants-{layer}"),
        title: format!("ports by name, affinity, a backend that reaches itself, headless, external addresses, {layer}"),
        world: shop(fixtures, layer, "variants")?,
        exclusive: false,
        phases: steady(what),
    })
}

/// What changes touch: who must stay outside does so in the other scenarios.
const INSIDE: [&str; 3] = ["services/cluster-ip-own", "services/node-port", "services/variants"];

/// From outside: without backends it is rejected, while the other service goes on.
fn from_outside() -> Vec<Assertion> {
    let staying = ["p", "q"].map(|name| PodRef::new("shop", name)).to_vec();
    let services = [
        ("staying", "services/node-port", Expectation::open(Reach::AnyOf(staying))),
        ("moving", "services/variants", Expectation::Rejected),
    ];
    let mut probes = Vec::new();
    for (service, rule, expectation) in services {
        for (slot, transport) in [(0, Transport::Tcp), (0, Transport::Udp), (1, Transport::Tcp), (1, Transport::Udp)] {
            probes.push(Assertion::Probe(ProbeAssertion {
                rule: RuleName::new(rule),
                from: VantagePoint::External,
                to: Target::Service { service: ServiceRef::new("shop", service), via: Exposure::NodePort(slot) },
                transport,
                port: Some(80),
                families: Family::ALL.to_vec(),
                expectation: expectation.clone(),
            }));
        }
    }
    probes
}

/// Backends come and go, mirrored slices are deleted, in the end the service itself.
fn changes(fixtures: &Fixtures, layer: &str) -> Result<Scenario, FixtureError> {
    const SLICES: &str = "services/endpoint-slices";
    let moving = ServiceRef::new("shop", "moving");
    let service = ObjectRef::namespaced("v1", "Service", "shop", "moving");
    let ready = |names: &[&str], ready: bool| -> Vec<Action> {
        names.iter().map(|name| Action::SetReady { pod: PodRef::new("shop", name), ready }).collect()
    };
    let inside = || {
        let pods = ["a", "b", "c", "d", "p", "q"].map(|name| PodRef::new("shop", name)).to_vec();
        Assertion::Full(FullMatrix { targets: Targets::Services, rules: rules(&INSIDE), pods, ..everything() })
    };
    let all = || vec![inside(), Assertion::Series(Vec::new()), Assertion::Slices];
    let changed = |name: &str, actions: Vec<Action>| Phase {
        open_as: Some(RuleName::new("services/endpoint-changes")),
        ..phase(name, actions, all())
    };
    let newcomer = Action::Apply(fixtures.manifests(&["workloads/shop-newcomer.yaml"])?);
    let gone = vec![
        inside(),
        Assertion::Slices,
        claim(SLICES, &service, Claim::NotMirrored),
        claim(SLICES, &service, Claim::Gone),
    ];
    let phases = vec![
        phase("before", Vec::new(), all()),
        changed("one-not-ready", ready(&["b"], false)),
        Phase {
            matrix: all().into_iter().chain(from_outside()).collect(),
            ..changed("none-ready", ready(&["a", "c"], false))
        },
        changed("ready-again", ready(&["a", "b", "c"], true)),
        changed("one-deleted", vec![Action::DeleteAndWait(pod("shop", "c"))]),
        changed("one-more", vec![newcomer]),
        phase("slices-deleted", vec![Action::DeleteMirrored(moving)], all()),
        phase("service-deleted", vec![Action::DeleteAndWait(service.clone())], gone),
    ];
    Ok(Scenario {
        name: format!("endpoint-changes-{layer}"),
        title: format!("backends become ready and not ready, are deleted and added; slices and service go, {layer}"),
        world: shop(fixtures, layer, "changes")?,
        exclusive: true,
        phases,
    })
}
