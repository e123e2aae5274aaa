//! VMs that ask for what they cannot have.

use udn_fixtures::{FixtureError, Fixtures};
use udn_model::cell::{Claim, ObjectRef};
use udn_model::scenario::{Action, Assertion, Phase, Scenario};
use udn_model::world::PodRef;

use super::{as_rule, ip_claim};
use crate::phases::{claim, phase};

const RULE: &str = "vm/restart-and-conflicts";
/// What OVN-Kubernetes says of requests that do not have one address for each of the network's families.
const MISMATCH: &str = "requested IPs family types must match network's IP family configuration";

/// One after the other; the VM that they collide with goes on.
pub(super) fn scenario(fixtures: &Fixtures) -> Result<Scenario, FixtureError> {
    let refused = |name: &str, file: &str, vm: (&str, &str), reason: &str, message: &[&str]| {
        let submit = vec![Action::Submit(fixtures.manifests(&[&format!("objects/{file}.yaml")])?)];
        Ok::<Phase, FixtureError>(phase(name, submit, not_allocated(vm, Some(reason), message)))
    };
    let mut phases = vec![as_rule("vm/reachability", phase("first", Vec::new(), first()))];
    phases.push(refused(
        "duplicate-address",
        "vm-duplicate-address",
        ("red", "same-address"),
        "IPAddressConflict",
        &[],
    )?);
    phases.push(refused("duplicate-mac", "vm-duplicate-mac", ("red", "same-mac"), "MACAddressConflict", &[])?);
    phases.push(refused("exhausted", "vm-exhausted", ("tiny", "late"), "SubnetExhausted", &["exhausted"])?);
    for (name, file, vm) in [
        ("half-of-the-families", "vm-half-families", ("red", "half")),
        ("two-of-one-family", "vm-two-addresses", ("single", "two")),
    ] {
        let submit = vec![Action::Submit(fixtures.manifests(&[&format!("objects/{file}.yaml")])?)];
        phases.push(phase(name, submit, not_allocated(vm, None, &[MISMATCH])));
    }
    phases.push(as_rule("vm/reachability", phase("first-goes-on", Vec::new(), first())));
    Ok(Scenario {
        name: "conflicts".into(),
        title: "duplicate addresses and MACs, exhausted subnets and families that do not match are refused".into(),
        world: fixtures.world("vm-conflicts", &["networks/vm-conflicts.yaml", "workloads/vm-conflicts.yaml"])?,
        exclusive: true,
        phases,
    })
}

/// The VM that has what the others ask for.
fn first() -> Vec<Assertion> {
    vec![Assertion::Full(super::inside(&[PodRef::new("red", "first")])), Assertion::Facts]
}

/// The claim says why; that the VM is not ready alone would be true of any that has just been made.
fn not_allocated(vm: (&str, &str), reason: Option<&str>, message: &[&str]) -> Vec<Assertion> {
    let condition = Claim::Condition {
        any_of: vec!["IPsAllocated".into()],
        status: "False".into(),
        reason: reason.map(Into::into),
        message_contains: message.iter().map(|text| (*text).to_owned()).collect(),
    };
    vec![claim(RULE, &ip_claim(vm.0, vm.1), condition), not_ready(vm)]
}

fn not_ready((namespace, name): (&str, &str)) -> Assertion {
    let vm = ObjectRef::vm(&PodRef::new(namespace, name));
    claim(RULE, &vm, Claim::NotTrue { condition: "Ready".into() })
}
