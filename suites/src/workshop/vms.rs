//! The workshop's second half: a VM in each namespace of a network, and one of them moves under a connection.

use udn_fixtures::{FixtureError, Fixtures};
use udn_model::cell::{AddressOn, Claim, Expectation, ObjectRef, Reach, SeenAs, Target, VantagePoint};
use udn_model::flow::FlowKind;
use udn_model::rule::RuleName;
use udn_model::scenario::{Action, Assertion, Flows, Phase, ProbeAssertion, Probing, Scenario};
use udn_model::words::{Family, Transport};
use udn_model::world::PodRef;

use crate::phases::{claim, condition, cudn, phase};

const REACHABILITY: &str = "vm/reachability";

/// `red` and `blue`, each called as its namespace.
fn vm(color: &str) -> PodRef {
    PodRef::new(color, color)
}

fn to(vm: &PodRef) -> Target {
    Target::Pod { pod: vm.clone(), on: AddressOn::Primary }
}

/// IPv4, as there.
pub(super) fn scenario(fixtures: &Fixtures) -> Result<Scenario, FixtureError> {
    let meanwhile = Phase {
        probing: Probing::Throughout,
        ..phase("3-live-migration", vec![Action::Migrate { vm: vm("red"), to: 1 }], iperf())
    };
    let mut after = vec![Assertion::Facts];
    after.extend(both_ways());
    after.extend(egress("red", 1));
    after.extend(iperf());
    let phases = vec![
        phase("1-networks-addresses", Vec::new(), addresses()),
        phase("2-connectivity-and-egress", Vec::new(), connectivity()),
        meanwhile,
        phase("4-after-the-migration", Vec::new(), after),
    ];
    Ok(Scenario {
        name: "vms".into(),
        title: "the workshop's part on VMs, in its order".into(),
        world: fixtures.world("workshop-vms", &["networks/workshop-vms.yaml", "workloads/workshop-vms.yaml"])?,
        exclusive: true,
        phases,
    })
}

/// The VMs' claims are called after the network of their template, `happy`.
fn addresses() -> Vec<Assertion> {
    let ip_claim =
        |color: &str| ObjectRef::namespaced("k8s.cni.cncf.io/v1alpha1", "IPAMClaim", color, &format!("{color}.happy"));
    let allocated = || Claim::Condition {
        any_of: vec!["IPsAllocated".into()],
        status: "True".into(),
        reason: Some("SuccessfulAllocation".into()),
        message_contains: Vec::new(),
    };
    vec![
        claim("objects/conditions", &cudn("happy-tenant"), condition("NetworkCreated", "True", &["{red}", "{blue}"])),
        claim("vm/identity-kept", &ip_claim("red"), allocated()),
        claim("vm/identity-kept", &ip_claim("blue"), allocated()),
        Assertion::Facts,
    ]
}

fn connectivity() -> Vec<Assertion> {
    let mut matrix = both_ways();
    matrix.extend(egress("red", 0));
    matrix
}

/// VM to VM, between namespaces.
fn both_ways() -> Vec<Assertion> {
    let (red, blue) = (vm("red"), vm("blue"));
    let wires = [(Transport::Icmp, None), (Transport::Tcp, Some(8080))];
    let pairs = [(&red, &blue), (&blue, &red)];
    let each = pairs.iter().flat_map(|(from, to)| wires.map(|wire| (*from, *to, wire)));
    each.map(|(from, target, (transport, port))| {
        probe(from, to(target), (transport, port), Expectation::open(Reach::Pod(target.clone())))
    })
    .collect()
}

/// Out of the cluster, as the node that the VM is on.
fn egress(color: &str, node: u8) -> Vec<Assertion> {
    let outside = Expectation::Open { reach: Reach::External, seen_as: Some(SeenAs::Node(node)) };
    vec![probe(&vm(color), Target::External, (Transport::Tcp, Some(8080)), outside)]
}

/// What iperf3 does there: a connection from red to blue that goes on.
fn iperf() -> Vec<Assertion> {
    vec![Assertion::Flows(Flows {
        rule: RuleName::new("vm/tcp-survives"),
        pairs: vec![(VantagePoint::Pod(vm("red")), to(&vm("blue")))],
        transports: vec![Transport::Tcp],
        families: vec![Family::V4],
        kind: FlowKind::Frames,
        figures: true,
    })]
}

fn probe(
    from: &PodRef,
    to: Target,
    (transport, port): (Transport, Option<u16>),
    expectation: Expectation,
) -> Assertion {
    Assertion::Probe(ProbeAssertion {
        rule: RuleName::new(REACHABILITY),
        from: VantagePoint::Pod(from.clone()),
        to,
        transport,
        port,
        families: vec![Family::V4],
        expectation,
    })
}
