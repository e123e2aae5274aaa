//! Computes every cell's expectation from the world's objects by the rules.
//!
//! Scenarios written by hand from the documents carry their own expectations; a test of the suites compares the two
//! (double entry), so a slip on either side shows.

mod dns;
mod egress;
mod isolation;
mod policy;
mod series;
mod services;
mod slices;

#[cfg(test)]
mod policy_properties;
#[cfg(test)]
mod properties;

pub use self::dns::expect_answer;
pub use self::series::{ExpectedSeries, series};
pub use self::slices::slices;
use crate::cell::{AddressOn, Expectation, Exposure, Reach, Target, VantagePoint};
use crate::fact::Fact;
use crate::rule::RuleName;
use crate::words::{Family, Placement, Topology, Transport};
use crate::world::{Network, Pod, World};

/// An expectation and the rule that it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// What must come of the probe.
    pub expectation: Expectation,
    /// Why.
    pub rule: RuleName,
}

impl Expected {
    fn open(rule: &str, pod: &Pod) -> Self {
        Self { expectation: Expectation::open(Reach::Pod(pod.pod.clone())), rule: RuleName::new(rule) }
    }

    fn closed(rule: &str) -> Self {
        Self { expectation: Expectation::Closed, rule: RuleName::new(rule) }
    }
}

/// A probe of which no rule says anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Undefined(pub &'static str);

/// What a probe speaks and where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wire {
    /// Transport.
    pub transport: Transport,
    /// Destination port; `None` for ICMP.
    pub port: Option<u16>,
    /// Address family.
    pub family: Family,
}

/// What must come of a probe.
///
/// # Errors
/// [`Undefined`] where no rule speaks of it.
pub fn expect(world: &World, from: &VantagePoint, to: &Target, wire: Wire) -> Result<Expected, Undefined> {
    policy::apply(world, from, to, wire, without_policies(world, from, to, wire)?)
}

fn without_policies(world: &World, from: &VantagePoint, to: &Target, wire: Wire) -> Result<Expected, Undefined> {
    match to {
        Target::Node(slot) => egress::to_host(world, from, *slot, wire),
        Target::External => egress::to_outside(world, from, wire),
        Target::ApiServer => egress::to_api_server(world, from, wire),
        Target::Name(name) => dns::by_name(world, from, name, wire),
        Target::Service { service, via } => services::expect(world, from, service, *via, wire),
        Target::Pod { pod, on } => {
            let pod = world.pod(pod).ok_or(Undefined("the world has no such pod"))?;
            if pod.vm.is_some() && *on == AddressOn::Default {
                return Err(Undefined(
                    "a VM has no address on the default network: that of its launcher pod is nobody's",
                ));
            }
            addressed(world, pod, on, wire)?;
            sends(world, from, pod, wire)?;
            isolation::expect(world, from, pod, on, wire)
        }
    }
}

/// Whether the probed address exists and something listens there.
fn addressed(world: &World, pod: &Pod, on: &AddressOn, wire: Wire) -> Result<(), Undefined> {
    let network = match on {
        AddressOn::Default => None,
        AddressOn::Primary => {
            Some(primary(world, pod).ok_or(Undefined("the pod has no primary user defined network"))?)
        }
        AddressOn::Secondary(id) => {
            let attached = pod.secondary.iter().any(|attachment| attachment.network == *id);
            if !attached {
                return Err(Undefined("the pod is not attached to that network"));
            }
            Some(world.network(id).ok_or(Undefined("the world has no such network"))?)
        }
    };
    if network.is_some_and(|network| !network.has_family(wire.family)) {
        return Err(Undefined("the network has no addresses of this family"));
    }
    let listens = |port| pod.listens.contains(&(wire.transport, port));
    if wire.port.is_some_and(|port| !listens(port)) {
        return Err(Undefined("nothing listens on this port"));
    }
    Ok(())
}

/// Whether the vantage point has addresses of the family on a network that may carry anything: without, it reaches
/// nobody, and nothing would tell a kept promise from a dead vantage point.
fn sends(world: &World, from: &VantagePoint, target: &Pod, wire: Wire) -> Result<(), Undefined> {
    let VantagePoint::Pod(source) = from else { return Ok(()) };
    let network = world.pod(source).and_then(|pod| primary(world, pod));
    let mute = network.is_some_and(|network| !network.has_family(wire.family)) && *source != target.pod;
    if mute { Err(Undefined("the vantage point's network has no addresses of this family")) } else { Ok(()) }
}

/// A pod's primary user defined network.
fn primary<'a>(world: &'a World, pod: &Pod) -> Option<&'a Network> {
    pod.primary.as_ref().and_then(|id| world.network(id))
}

/// How the two ends of a probe are placed.
#[must_use]
pub fn placement(world: &World, from: &VantagePoint, to: &Target) -> Placement {
    let target_node = match to {
        Target::Node(slot) | Target::Service { via: Exposure::NodePort(slot), .. } => Some(*slot),
        Target::Pod { pod, .. } => world.pod(pod).map(|pod| pod.node),
        Target::External => return Placement::Outside,
        Target::Service { .. } | Target::ApiServer | Target::Name(_) => None,
    };
    let source_node = match (from, to) {
        (VantagePoint::External, _) => return Placement::Outside,
        (_, Target::Service { via: Exposure::ClusterIp | Exposure::LoadBalancer | Exposure::ExternalIp, .. })
        | (_, Target::ApiServer | Target::Name(_)) => return Placement::Anywhere,
        (VantagePoint::Pod(from), Target::Pod { pod, .. }) if from == pod => {
            return Placement::Itself;
        }
        (VantagePoint::Pod(from), _) => world.pod(from).map(|pod| pod.node),
        (VantagePoint::Node(slot), _) => Some(*slot),
    };
    if source_node == target_node { Placement::SameNode } else { Placement::OtherNode }
}

/// Topology of the user defined network that a probe is about: the target's, else the source's.
#[must_use]
pub fn topology(world: &World, from: &VantagePoint, to: &Target) -> Option<Topology> {
    let target = match to {
        Target::Pod { on: AddressOn::Secondary(id), .. } => world.network(id),
        Target::Pod { pod, .. } => world.pod(pod).and_then(|pod| primary(world, pod)),
        Target::Service { service, .. } => world.primary_of(&service.namespace),
        Target::Node(_) | Target::External | Target::ApiServer | Target::Name(_) => None,
    };
    let source = match from {
        VantagePoint::Pod(pod) => world.pod(pod).and_then(|pod| primary(world, pod)),
        _ => None,
    };
    target.or(source).map(|network| network.topology)
}

/// The rule that a fact comes from.
#[must_use]
pub fn rule_of(fact: &Fact) -> RuleName {
    RuleName::new(match fact {
        Fact::Interfaces | Fact::Roles | Fact::NetworkStatus | Fact::DefaultRoute => "addressing/interfaces-and-roles",
        Fact::Subnet | Fact::Gateway => "addressing/subnets-and-gateways",
        Fact::Mac | Fact::Mtu => "addressing/mac-and-mtu",
        Fact::NotReserved => "addressing/reserved",
        Fact::Secondary(_) => "addressing/multi-homing",
        Fact::AsRequested => "addressing/static-requests",
        Fact::GuestAddress
        | Fact::GuestRoute
        | Fact::GuestMac
        | Fact::GuestMtu
        | Fact::GuestResolvers
        | Fact::GuestHostname => "vm/guest-configuration",
        Fact::Claimed | Fact::AsBefore => "vm/identity-kept",
        Fact::AnnouncedAt(_) | Fact::GatewayAnnounced | Fact::GatewayEntry => "vm/announced",
    })
}
