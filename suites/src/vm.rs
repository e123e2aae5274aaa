//! VMs: what their guests are given, who reaches them, and what migration, failure and restart are to them.

mod conflicts;
mod migration;

use udn_fixtures::{FixtureError, Fixtures};
use udn_model::cell::{AddressOn, Exposure, ObjectRef, Target, VantagePoint};
use udn_model::flow::FlowKind;
use udn_model::rule::RuleName;
use udn_model::scenario::{Action, Assertion, Flows, FullMatrix, Phase, Probing, Scenario, Suite, Targets, WorldSpec};
use udn_model::words::{Family, Transport};
use udn_model::world::{PodRef, ServiceRef};

use crate::phases::{everything, phase};

/// What is probed of pods and VMs.
const PORTS: [(Transport, Option<u16>); 3] =
    [(Transport::Tcp, Some(8080)), (Transport::Udp, Some(8080)), (Transport::Icmp, None)];

/// The suite.
pub(crate) fn suite(fixtures: &Fixtures) -> Result<Suite, FixtureError> {
    let scenarios = vec![
        reachability(fixtures)?,
        guest_configuration(fixtures)?,
        migration::migration(fixtures)?,
        migration::throughput(fixtures)?,
        migration::failed(fixtures)?,
        migration::policy(fixtures)?,
        migration::restart(fixtures)?,
        conflicts::scenario(fixtures)?,
    ];
    Ok(Suite { name: "vm", title: "virtual machines: guests, reachability, live migration", scenarios })
}

/// The VM that is moved about.
fn db() -> PodRef {
    PodRef::new("red", "db")
}

/// Two VMs of a network of two namespaces, pods beside them, services and strangers.
fn world(fixtures: &Fixtures) -> Result<WorldSpec, FixtureError> {
    fixtures.world("vm", &["networks/vm.yaml", "workloads/vm.yaml", "services/vm.yaml"])
}

/// One VM and two pods.
fn small(fixtures: &Fixtures) -> Result<WorldSpec, FixtureError> {
    fixtures.world("vm-one", &["networks/vm-one.yaml", "workloads/vm-one.yaml"])
}

/// Everybody to and from these VMs, on the addresses of pods.
fn around(vms: &[PodRef]) -> FullMatrix {
    FullMatrix { ports: PORTS.to_vec(), pods: vms.to_vec(), ..everything() }
}

/// The same without nodes and the external client: where there is nobody else whom they may reach.
fn inside(vms: &[PodRef]) -> FullMatrix {
    FullMatrix { outsiders: false, ..around(vms) }
}

/// What a phase opens is told as this.
fn as_rule(rule: &str, phase: Phase) -> Phase {
    Phase { open_as: Some(RuleName::new(rule)), ..phase }
}

/// What goes on while the actions run, and is judged throughout.
fn throughout(phase: Phase) -> Phase {
    Phase { probing: Probing::Throughout, ..phase }
}

fn migrate(vm: &PodRef, to: u8) -> Action {
    Action::Migrate { vm: vm.clone(), to }
}

fn from(pod: (&str, &str)) -> VantagePoint {
    VantagePoint::Pod(PodRef::new(pod.0, pod.1))
}

fn to(pod: (&str, &str)) -> Target {
    Target::Pod { pod: PodRef::new(pod.0, pod.1), on: AddressOn::Primary }
}

fn by_service(service: (&str, &str), via: Exposure) -> Target {
    Target::Service { service: ServiceRef::new(service.0, service.1), via }
}

/// Flows whose figures are judged as well.
fn measured(rule: &str, transports: &[Transport], families: &[Family], pairs: &[(VantagePoint, Target)]) -> Assertion {
    Assertion::Flows(Flows {
        rule: RuleName::new(rule),
        pairs: pairs.to_vec(),
        transports: transports.to_vec(),
        families: families.to_vec(),
        kind: FlowKind::Frames,
        figures: true,
    })
}

/// A bulk transfer over IPv4 whose figures are judged as well.
fn bulk(rule: &str, pair: (VantagePoint, Target)) -> Assertion {
    Assertion::Flows(Flows {
        rule: RuleName::new(rule),
        pairs: vec![pair],
        transports: vec![Transport::Tcp],
        families: vec![Family::V4],
        kind: FlowKind::Bulk,
        figures: true,
    })
}

/// TCP flows that have to be there still; nothing is measured.
fn kept(pairs: &[(VantagePoint, Target)]) -> Assertion {
    Assertion::Flows(Flows {
        rule: RuleName::new("vm/tcp-survives"),
        pairs: pairs.to_vec(),
        transports: vec![Transport::Tcp],
        families: Family::ALL.to_vec(),
        kind: FlowKind::Frames,
        figures: false,
    })
}

/// A VM's IPAMClaim; its template calls the network `default`.
fn ip_claim(namespace: &str, vm: &str) -> ObjectRef {
    ObjectRef::namespaced("k8s.cni.cncf.io/v1alpha1", "IPAMClaim", namespace, &format!("{vm}.default"))
}

fn reachability(fixtures: &Fixtures) -> Result<Scenario, FixtureError> {
    let vms = [db(), PodRef::new("blue", "web")];
    let matrix = vec![
        Assertion::Full(around(&vms)),
        Assertion::Full(FullMatrix {
            targets: Targets::Services,
            ports: vec![(Transport::Tcp, Some(8080)), (Transport::Udp, Some(8080))],
            ..everything()
        }),
        Assertion::Full(FullMatrix {
            targets: Targets::Outside,
            ports: vec![(Transport::Tcp, Some(8080)), (Transport::Udp, Some(8080))],
            ..inside(&vms)
        }),
    ];
    Ok(Scenario {
        name: "reachability".into(),
        title: "VMs, pods, services and the outside reach each other, and strangers do not reach VMs".into(),
        world: world(fixtures)?,
        exclusive: false,
        phases: vec![as_rule("vm/reachability", phase("steady", Vec::new(), matrix))],
    })
}

fn guest_configuration(fixtures: &Fixtures) -> Result<Scenario, FixtureError> {
    Ok(Scenario {
        name: "guest-configuration".into(),
        title: "guests are configured by DHCP and router advertisements as their network says".into(),
        world: world(fixtures)?,
        exclusive: false,
        phases: vec![phase("steady", Vec::new(), vec![Assertion::Facts])],
    })
}
