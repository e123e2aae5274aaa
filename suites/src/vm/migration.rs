//! Live migrations that succeed and that fail, policies meanwhile, and restarts.

use udn_fixtures::{FixtureError, Fixtures};
use udn_model::cell::{Claim, Exposure, ObjectRef, VantagePoint};
use udn_model::scenario::{Action, Assertion, FullMatrix, MigrationFailure, Scenario, Targets};
use udn_model::words::{Family, Transport};
use udn_model::world::PodRef;

use super::{
    around, as_rule, bulk, by_service, db, from, inside, ip_claim, kept, measured, migrate, small, throughout, to,
    world,
};
use crate::phases::{claim, condition, phase};

/// Connections between the VM and everybody that there is: inside the network, across namespaces, and in from outside. (What a
/// VM sends out of the cluster leaves in the name of its node: such a connection cannot outlive a move, and nobody says so.)
/// Few, since the guest may be emulated: each is a hundred frames a second for it.
fn flows() -> Vec<Assertion> {
    let inside = [(from(("red", "db")), to(("red", "far"))), (from(("red", "near")), to(("red", "db")))];
    let outside = [(VantagePoint::External, by_service(("red", "db"), Exposure::NodePort(0)))];
    let others = [
        (from(("blue", "web")), to(("red", "db"))),
        (VantagePoint::External, by_service(("red", "db"), Exposure::LoadBalancer)),
    ];
    let (v4, both) = ([Family::V4], Family::ALL);
    vec![
        measured("vm/tcp-survives", &[Transport::Tcp], &both, &inside),
        measured("vm/tcp-survives", &[Transport::Tcp], &both, &outside),
        measured("vm/tcp-survives", &[Transport::Tcp], &v4, &others),
        measured("vm/tcp-survives", &[Transport::Udp], &v4, &inside),
        measured("vm/tcp-survives", &[Transport::Icmp], &both, &inside[1..]),
    ]
}

/// There, back, and there and back again.
pub(super) fn migration(fixtures: &Fixtures) -> Result<Scenario, FixtureError> {
    let settled = || {
        // Under probing, what an emulated guest's flows count says of the guest.
        let inside = [(from(("red", "db")), to(("red", "far"))), (from(("red", "near")), to(("red", "db")))];
        let mut matrix = vec![kept(&inside)];
        matrix.push(Assertion::Full(web(around(&[db()]))));
        matrix.push(Assertion::Full(web(FullMatrix {
            targets: Targets::Outside,
            outsiders: false,
            ..around(&[db()])
        })));
        matrix.push(Assertion::Facts);
        matrix
    };
    let announced = || {
        let mut matrix = settled();
        matrix.push(Assertion::Announced { vm: db(), at: PodRef::new("red", "near") });
        matrix
    };
    let phases = vec![
        as_rule("vm/reachability", phase("before", Vec::new(), settled())),
        throughout(phase("there", vec![migrate(&db(), 1)], flows())),
        as_rule("vm/reachability", phase("there-settled", Vec::new(), announced())),
        throughout(phase("back", vec![migrate(&db(), 0)], flows())),
        as_rule("vm/reachability", phase("back-settled", Vec::new(), announced())),
        throughout(phase("in-a-row", vec![migrate(&db(), 1), migrate(&db(), 0)], flows())),
    ];
    Ok(Scenario {
        name: "migration".into(),
        title: "connections go on while a VM migrates, and it stays who it is".into(),
        world: world(fixtures)?,
        exclusive: true,
        phases,
    })
}

/// There and back under a bulk transfer, with a flow of the same pods beside it. By itself: what an emulated guest receives of
/// one makes the outages of its other flows longer.
pub(super) fn throughput(fixtures: &Fixtures) -> Result<Scenario, FixtureError> {
    let flows = || {
        let pair = (from(("red", "near")), to(("red", "db")));
        let frames = measured("vm/tcp-survives", &[Transport::Tcp], &[Family::V4], std::slice::from_ref(&pair));
        vec![frames, bulk("vm/tcp-survives", pair)]
    };
    let phases = vec![
        throughout(phase("there", vec![migrate(&db(), 1)], flows())),
        throughout(phase("back", vec![migrate(&db(), 0)], flows())),
    ];
    Ok(Scenario {
        name: "throughput".into(),
        title: "a bulk transfer goes on while the VM that receives it migrates".into(),
        world: small(fixtures)?,
        exclusive: true,
        phases,
    })
}

/// Migrations that fail in several ways, then one that does not.
pub(super) fn failed(fixtures: &Fixtures) -> Result<Scenario, FixtureError> {
    let flows = |rule| {
        let pairs = [(from(("red", "near")), to(("red", "db"))), (from(("red", "db")), to(("red", "far")))];
        measured(rule, &[Transport::Tcp], &Family::ALL, &pairs)
    };
    let fails = |name: &str, how: MigrationFailure| {
        let actions = vec![Action::FailMigration { vm: db(), how }];
        throughout(as_rule("vm/failed-migration", phase(name, actions, vec![flows("vm/failed-migration")])))
    };
    let settled = || vec![Assertion::Full(web(inside(&[db()]))), Assertion::Facts];
    let phases = vec![
        as_rule("vm/reachability", phase("before", Vec::new(), settled())),
        fails("no-node", MigrationFailure::NoNode),
        fails("launcher-fails", MigrationFailure::Launcher),
        as_rule("vm/failed-migration", phase("settled", Vec::new(), settled())),
        throughout(phase("succeeds", vec![migrate(&db(), 1)], vec![flows("vm/tcp-survives")])),
    ];
    Ok(Scenario {
        name: "failed-migration".into(),
        title: "connections go on at the source when a migration fails".into(),
        world: small(fixtures)?,
        exclusive: true,
        phases,
    })
}

/// A policy about a VM.
pub(super) fn policy(fixtures: &Fixtures) -> Result<Scenario, FixtureError> {
    let apply = vec![Action::Apply(fixtures.manifests(&["policies/vm.yaml"])?)];
    let remove =
        Action::DeleteAndWait(ObjectRef::namespaced("networking.k8s.io/v1", "NetworkPolicy", "red", "friends-only"));
    let all = || vec![Assertion::Full(inside(&[]))];
    let phases = vec![
        as_rule("policy/vm", phase("before", apply, all())),
        throughout(as_rule("policy/vm", phase("meanwhile", vec![migrate(&db(), 1)], all()))),
        as_rule("policy/vm", phase("after", Vec::new(), all())),
        as_rule("policy/vm", phase("removed", vec![remove], all())),
    ];
    Ok(Scenario {
        name: "policy".into(),
        title: "a policy about a VM means the same before, during and after its migration".into(),
        world: small(fixtures)?,
        exclusive: true,
        phases,
    })
}

/// Off and on again.
pub(super) fn restart(fixtures: &Fixtures) -> Result<Scenario, FixtureError> {
    const RULE: &str = "vm/restart-and-conflicts";
    let claimed = || claim(RULE, &ip_claim("red", "db"), condition("IPsAllocated", "True", &[]));
    let all = || vec![Assertion::Full(inside(&[db()])), Assertion::Facts, claimed()];
    let phases = vec![
        as_rule("vm/reachability", phase("before", Vec::new(), all())),
        phase(
            "stopped",
            vec![Action::StopVm(db())],
            vec![claim(RULE, &ip_claim("red", "db"), Claim::Exists), claim(RULE, &instance(), Claim::Gone)],
        ),
        as_rule(RULE, phase("started", vec![Action::StartVm(db())], all())),
        as_rule(RULE, phase("restarted", vec![Action::RestartVm(db())], all())),
    ];
    Ok(Scenario {
        name: "restart".into(),
        title: "a VM that is stopped and started keeps its addresses".into(),
        world: small(fixtures)?,
        exclusive: true,
        phases,
    })
}

/// Over TCP alone.
fn web(matrix: FullMatrix) -> FullMatrix {
    FullMatrix { ports: vec![(Transport::Tcp, Some(8080))], ..matrix }
}

fn instance() -> ObjectRef {
    ObjectRef::namespaced("kubevirt.io/v1", "VirtualMachineInstance", "red", "db")
}
