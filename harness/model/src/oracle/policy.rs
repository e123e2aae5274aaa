//! NetworkPolicy: what policies take from, and leave of, what isolation opens.
//!
//! A pod is isolated in a direction by the policies of its namespace that select it. An isolated pod's traffic in that
//! direction needs one rule of one of them that allows it; both ends have their say. Peers are evaluated inside the network:
//! a selector that also selects pods of another network opens nothing there, because the other rules keep it closed.

use super::{Expected, Undefined, Wire, primary};
use crate::cell::{AddressOn, Expectation, Exposure, Reach, Target, VantagePoint};
use crate::rule::RuleName;
use crate::words::Transport;
use crate::world::{
    Membership, Peer, Pod, PodRef, Policy, PolicyPort, PolicyRule, Ports, ServicePort, Whereabouts, World,
};

const DENY_INGRESS: &str = "policy/deny-ingress";
pub(super) const DENY_EGRESS: &str = "policy/deny-egress";
pub(super) const ALLOW: &str = "policy/allow-rules";
pub(super) const NO_CROSS: &str = "policy/no-cross-network";

/// What policies make of a probe in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Say {
    /// No policy isolates the pod in this direction.
    Nothing,
    /// A rule allows it.
    Allow,
    /// The pod is isolated by policies without any rule.
    Deny,
    /// The pod is isolated, and no rule allows it.
    NotAllowed,
    /// It depends on addresses that are not known.
    Unknown,
}

/// One end of a connection, as a policy at the other end sees it.
#[derive(Clone, Copy, Debug)]
pub(super) enum End<'a> {
    /// A pod, under its address on the network of the policy.
    Pod(&'a Pod),
    /// Anything else, of whose address this is known.
    Address(&'a Whereabouts),
}

/// Applies the world's policies to what is expected without them.
pub(super) fn apply(
    world: &World,
    from: &VantagePoint,
    to: &Target,
    wire: Wire,
    expected: Expected,
) -> Result<Expected, Undefined> {
    // Policies do not concern secondary networks.
    let secondary = matches!(to, Target::Pod { on: AddressOn::Secondary(_), .. });
    if world.policies.is_empty() || secondary {
        return Ok(expected);
    }
    let source = match from {
        VantagePoint::Pod(pod) => world.pod(pod),
        _ => None,
    };
    let Expectation::Open { reach, .. } = &expected.expectation else {
        return Ok(crossing(world, source, to, wire, expected));
    };
    match (to, reach) {
        (Target::Service { via, .. }, Reach::AnyOf(backends) | Reach::ThroughAnnouncer(backends)) => {
            let port = service_port(world, to, wire).ok_or(Undefined("the service has no such port"))?;
            to_service(world, (from, source), *via, (port, backends), wire, &expected)
        }
        (_, Reach::Pod(pod)) => {
            let target = world.pod(pod).ok_or(Undefined("the world has no such pod"))?;
            // What a pod sends to itself does not leave it.
            if source.is_some_and(|source| source.pod == *pod) {
                return Ok(expected);
            }
            decide(out_of(world, source, End::Pod(target), wire), into(world, from, source, target, wire)?, expected)
        }
        (_, Reach::HolderIn(_)) => {
            let isolated = |pod: &Pod| world.policies.iter().any(|policy| policy.selects(pod));
            let source = source.ok_or(Undefined("not a pod"))?;
            let network = &source.primary;
            if world.pods.iter().filter(|pod| pod.primary == *network).any(isolated) {
                return Err(Undefined("whom the address means is not known, and policies isolate some of them"));
            }
            Ok(expected)
        }
        _ => {
            let nowhere = Whereabouts::default();
            let before = super::dns::say_before(world, source, to, wire);
            match before {
                Say::Deny | Say::NotAllowed | Say::Unknown => decide(before, Say::Nothing, expected),
                Say::Nothing | Say::Allow => {
                    decide(out_of(world, source, End::Address(&nowhere), wire), Say::Nothing, expected)
                }
            }
        }
    }
}

/// What is closed between networks in any case, under the name of the policy that has a say in it: one that cuts the way
/// out of the source's own network as well, or one that would have it open if peers were not evaluated inside the network.
fn crossing(world: &World, source: Option<&Pod>, to: &Target, wire: Wire, expected: Expected) -> Expected {
    let (Some(source), Target::Pod { pod, on: AddressOn::Primary }) = (source, to) else { return expected };
    let Some(target) = world.pod(pod) else { return expected };
    let out = out_of(world, Some(source), End::Pod(target), wire);
    let named = out == Say::Allow || ingress(world, target, End::Pod(source), wire) == Say::Allow;
    let rule = match out {
        Say::Deny => DENY_EGRESS,
        Say::NotAllowed => ALLOW,
        _ if named && source.primary != target.primary => NO_CROSS,
        _ => return expected,
    };
    Expected { rule: RuleName::new(rule), ..expected }
}

fn decide(out: Say, into: Say, expected: Expected) -> Result<Expected, Undefined> {
    let closed = |rule: &str| Ok(Expected::closed(rule));
    match (out, into) {
        (Say::Deny, _) => closed(DENY_EGRESS),
        (_, Say::Deny) => closed(DENY_INGRESS),
        (Say::NotAllowed, _) | (_, Say::NotAllowed) => closed(ALLOW),
        (Say::Unknown, _) | (_, Say::Unknown) => Err(Undefined("whether a block means the address is not known")),
        (Say::Nothing, Say::Nothing) => Ok(expected),
        _ => Ok(Expected { rule: RuleName::new(ALLOW), ..expected }),
    }
}

/// Through a service: policies see the backend, not the service.
fn to_service(
    world: &World,
    (from, source): (&VantagePoint, Option<&Pod>),
    via: Exposure,
    (port, backends): (&ServicePort, &[PodRef]),
    wire: Wire,
    expected: &Expected,
) -> Result<Expected, Undefined> {
    let backends: Vec<&Pod> = backends.iter().filter_map(|pod| world.pod(pod)).collect();
    let touched = |pod: &Pod| world.policies.iter().any(|policy| policy.selects(pod));
    if !backends.iter().copied().chain(source).any(touched) {
        return Ok(expected.clone());
    }
    if via != Exposure::ClusterIp {
        return Err(Undefined("no rule speaks of policies and the addresses that a node translates"));
    }
    let mut all: Option<Expected> = None;
    for backend in backends {
        if source.is_some_and(|source| source.pod == backend.pod) {
            return Err(Undefined("no rule speaks of policies and pods that reach themselves through a service"));
        }
        let wire = Wire { port: port.number_at(backend), ..wire };
        let say = into(world, from, source, backend, wire)?;
        let one = decide(out_of(world, source, End::Pod(backend), wire), say, expected.clone())?;
        match &all {
            Some(other) if other.expectation != one.expectation => {
                return Err(Undefined("policies let the client reach some backends, and some not"));
            }
            _ => all = Some(one),
        }
    }
    Ok(all.unwrap_or_else(|| expected.clone()))
}

fn service_port<'a>(world: &'a World, to: &Target, wire: Wire) -> Option<&'a ServicePort> {
    let Target::Service { service, .. } = to else { return None };
    world.service(service)?.port(wire.transport, wire.port?)
}

/// What the policies at the source say.
fn out_of(world: &World, source: Option<&Pod>, to: End<'_>, wire: Wire) -> Say {
    source.map_or(Say::Nothing, |source| egress(world, source, to, wire))
}

/// What the policies at the target say.
fn into(world: &World, from: &VantagePoint, source: Option<&Pod>, target: &Pod, wire: Wire) -> Result<Say, Undefined> {
    match (from, source) {
        (_, Some(source)) => Ok(ingress(world, target, End::Pod(source), wire)),
        (_, None) if !world.policies.iter().any(|policy| policy.isolates_ingress(target)) => Ok(Say::Nothing),
        _ => Err(Undefined("no rule speaks of policies and nodes or external clients")),
    }
}

/// What the policies that isolate `pod` say of what it sends.
pub(super) fn egress(world: &World, pod: &Pod, to: End<'_>, wire: Wire) -> Say {
    let rules: Vec<_> = world
        .policies
        .iter()
        .filter(|policy| policy.selects(pod))
        .filter_map(|policy| Some((policy, policy.egress.as_ref()?)))
        .collect();
    say(world, &rules, to, wire, if let End::Pod(target) = to { Some(target) } else { None })
}

/// What the policies that isolate `pod` say of what is sent to it.
pub(super) fn ingress(world: &World, pod: &Pod, from: End<'_>, wire: Wire) -> Say {
    let rules: Vec<_> = world
        .policies
        .iter()
        .filter(|policy| policy.selects(pod))
        .filter_map(|policy| Some((policy, policy.ingress.as_ref()?)))
        .collect();
    say(world, &rules, from, wire, Some(pod))
}

/// `reached`: whose ports are meant by name.
fn say(
    world: &World,
    policies: &[(&Policy, &Vec<PolicyRule>)],
    peer: End<'_>,
    wire: Wire,
    reached: Option<&Pod>,
) -> Say {
    if policies.is_empty() {
        return Say::Nothing;
    }
    let mut unknown = false;
    for (policy, rules) in policies {
        for rule in *rules {
            if !rule.ports.is_empty() && !rule.ports.iter().any(|port| port.has(wire, reached)) {
                continue;
            }
            match meets(world, policy, rule, peer, wire) {
                Membership::Inside => return Say::Allow,
                Membership::Unknown => unknown = true,
                Membership::Outside => {}
            }
        }
    }
    if unknown {
        Say::Unknown
    } else if policies.iter().all(|(_, rules)| rules.is_empty()) {
        Say::Deny
    } else {
        Say::NotAllowed
    }
}

/// Whether a rule would let a pod of another network than theirs ask the DNS servers, if peers were not evaluated inside
/// the network.
pub(super) fn selects_dns(world: &World, pod: &Pod, wire: Wire) -> bool {
    let [namespace, label] = Pod::of_dns().map(|(key, value)| [(key.to_owned(), value.to_owned())].into());
    let meant = |peer: &Peer| {
        matches!(peer, Peer::Pods { namespaces: Some(namespaces), pods }
            if namespaces.selects(&namespace) && pods.selects(&label))
    };
    let policies = world.policies.iter().filter(|policy| policy.selects(pod));
    let mut rules = policies.filter_map(|policy| policy.egress.as_ref()).flatten();
    rules.any(|rule| {
        let ported = rule.ports.is_empty() || rule.ports.iter().any(|port| port.has(wire, None));
        ported && rule.peers.iter().any(meant)
    })
}

/// Whether a rule's peers have this end among them.
fn meets(world: &World, policy: &Policy, rule: &PolicyRule, end: End<'_>, wire: Wire) -> Membership {
    if rule.peers.is_empty() {
        return Membership::Inside;
    }
    let address = match end {
        End::Pod(pod) => &whereabouts(world, pod, wire),
        End::Address(address) => address,
    };
    let each = rule.peers.iter().map(|peer| match (peer, end) {
        (Peer::Pods { namespaces, pods }, End::Pod(pod)) => {
            let namespace = match namespaces {
                None => pod.pod.namespace == policy.namespace,
                Some(selector) => {
                    world.namespaces.get(&pod.pod.namespace).is_some_and(|labels| selector.selects(labels))
                }
            };
            if namespace && pods.selects(&pod.labels) { Membership::Inside } else { Membership::Outside }
        }
        (Peer::Pods { .. }, End::Address(_)) => Membership::Outside,
        (Peer::Block { .. }, _) => peer.block_has(address),
    });
    each.fold(Membership::Outside, |all, one| match (all, one) {
        (Membership::Inside, _) | (_, Membership::Inside) => Membership::Inside,
        (Membership::Unknown, _) | (_, Membership::Unknown) => Membership::Unknown,
        _ => Membership::Outside,
    })
}

/// Where a pod's address on its primary network is: the one that it asks for, else somewhere in the network's subnets.
fn whereabouts(world: &World, pod: &Pod, wire: Wire) -> Whereabouts {
    let of_family = |net: &ipnet::IpNet| crate::words::Family::of_net(net) == wire.family;
    let asked: Vec<_> = pod.requested.ips.iter().filter(|ip| of_family(ip)).map(|ip| ip.addr().into()).collect();
    if !asked.is_empty() {
        return Whereabouts { nets: asked };
    }
    let network = primary(world, pod);
    let subnets = network.into_iter().flat_map(|network| &network.subnets).map(|subnet| subnet.cidr);
    Whereabouts { nets: subnets.filter(of_family).collect() }
}

impl Policy {
    fn selects(&self, pod: &Pod) -> bool {
        self.namespace == pod.pod.namespace && self.pods.selects(&pod.labels)
    }

    fn isolates_ingress(&self, pod: &Pod) -> bool {
        self.ingress.is_some() && self.selects(pod)
    }
}

impl PolicyPort {
    /// Whether the rule means what a probe speaks. `reached`: whose ports are meant by name.
    fn has(&self, wire: Wire, reached: Option<&Pod>) -> bool {
        if self.transport != wire.transport || wire.transport == Transport::Icmp {
            return false;
        }
        let Some(port) = wire.port else { return false };
        match &self.ports {
            None => true,
            Some(Ports::Range(first, last)) => (*first..=*last).contains(&port),
            Some(Ports::Name(name)) => {
                reached.and_then(|pod| pod.named_ports.get(&(self.transport, name.clone()))) == Some(&port)
            }
        }
    }
}
