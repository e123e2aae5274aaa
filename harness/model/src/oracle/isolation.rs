//! Who reaches which address of a pod.

use super::{Expected, Undefined, Wire, primary};
use crate::cell::{AddressOn, Expectation, Reach, VantagePoint};
use crate::rule::RuleName;
use crate::world::{Network, NetworkId, Pod, World};

/// What comes of a probe of `pod`'s address on `on`.
pub(super) fn expect(
    world: &World,
    from: &VantagePoint,
    pod: &Pod,
    on: &AddressOn,
    wire: Wire,
) -> Result<Expected, Undefined> {
    match from {
        VantagePoint::Pod(source) if *source == pod.pod => Ok(Expected::open("control/listener-works", pod)),
        VantagePoint::Pod(source) => {
            let source = world.pod(source).ok_or(Undefined("the world has no such vantage point"))?;
            match on {
                AddressOn::Primary => to_primary(world, source, pod, wire),
                AddressOn::Default => to_default(source, pod, wire),
                AddressOn::Secondary(id) => to_secondary(source, pod, id),
            }
        }
        VantagePoint::Node(_) => from_node(pod, on, wire),
        VantagePoint::External => match (&pod.primary, on) {
            (Some(_), AddressOn::Default | AddressOn::Primary) => Ok(Expected::closed("isolation/external-to-udn")),
            _ => Err(Undefined("no rule speaks of external clients and default-network or secondary addresses")),
        },
    }
}

/// To the address on the target's primary network.
fn to_primary(world: &World, source: &Pod, pod: &Pod, wire: Wire) -> Result<Expected, Undefined> {
    let target_network = primary(world, pod).ok_or(Undefined("the pod has no primary user defined network"))?;
    let Some(source_network) = primary(world, source) else {
        return Ok(Expected::closed("isolation/default-to-udn"));
    };
    if source_network.id == target_network.id {
        let rule = if source.pod.namespace == pod.pod.namespace {
            "isolation/same-network-open"
        } else {
            "isolation/cluster-network-members"
        };
        return Ok(Expected::open(rule, pod));
    }
    if source_network.overlaps(target_network, wire.family) {
        return Ok(Expected {
            expectation: Expectation::open(Reach::HolderIn(source_network.id.clone())),
            rule: RuleName::new("isolation/overlap-coexists"),
        });
    }
    if collide(source_network, target_network) {
        return Ok(Expected::closed("isolation/name-collision"));
    }
    let outside_of_cluster_network = matches!(target_network.id, NetworkId::Cudn { .. });
    Ok(Expected::closed(if outside_of_cluster_network {
        "isolation/cluster-network-members"
    } else {
        "isolation/other-network-closed"
    }))
}

/// To the address on the default network.
fn to_default(source: &Pod, pod: &Pod, wire: Wire) -> Result<Expected, Undefined> {
    Ok(match (&source.primary, &pod.primary) {
        (None, None) => Expected::open("isolation/default-network-open", pod),
        (None, Some(_)) if opened(pod, wire) => Expected::open("isolation/open-default-ports", pod),
        (None, Some(_)) if !pod.open_default_ports.is_empty() => Expected::closed("isolation/open-default-ports"),
        (None, Some(_)) => Expected::closed("isolation/default-to-udn"),
        (Some(_), None) => Expected::closed("isolation/udn-to-default"),
        // A network's own pods are not let in by open-default-ports either: their way to the default network is cut
        // at its beginning.
        (Some(own), Some(other)) if own == other => Expected::closed("isolation/default-address-closed"),
        (Some(_), Some(_)) => Expected::closed("isolation/other-network-closed"),
    })
}

/// To an address on a secondary network.
fn to_secondary(source: &Pod, pod: &Pod, id: &NetworkId) -> Result<Expected, Undefined> {
    let attached = source.secondary.iter().any(|attachment| attachment.network == *id);
    Ok(if attached {
        Expected::open("addressing/multi-homing", pod)
    } else {
        Expected::closed("addressing/multi-homing")
    })
}

/// From a node's host network.
fn from_node(pod: &Pod, on: &AddressOn, wire: Wire) -> Result<Expected, Undefined> {
    match (&pod.primary, on) {
        (_, AddressOn::Secondary(_)) => Err(Undefined("no rule speaks of nodes and secondary networks")),
        (None, _) => Ok(Expected::open("isolation/default-network-open", pod)),
        (Some(_), AddressOn::Default) if opened(pod, wire) => Ok(Expected::open("isolation/open-default-ports", pod)),
        (Some(_), AddressOn::Default) if !pod.open_default_ports.is_empty() => {
            Ok(Expected::closed("isolation/open-default-ports"))
        }
        (Some(_), _) => Ok(Expected::closed("isolation/node-to-udn")),
    }
}

fn opened(pod: &Pod, wire: Wire) -> bool {
    pod.open_default_ports.contains(&(wire.transport, wire.port))
}

/// Whether the texts `<namespace>_<name>` of two UDNs become alike once separators are: what a careless naming of the
/// network's parts would mix up.
fn collide(a: &Network, b: &Network) -> bool {
    let flat = |id: &NetworkId| match id {
        NetworkId::Udn { namespace, name } => Some(format!("{namespace}_{name}").replace(['-', '_'], ".")),
        NetworkId::Cudn { .. } => None,
    };
    flat(&a.id).is_some_and(|a| flat(&b.id) == Some(a))
}
