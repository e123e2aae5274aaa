//! What leaves a network: to the outside, to hosts, to the API server.

use super::{Expected, Undefined, Wire, primary};
use crate::cell::{Expectation, Reach, SeenAs, VantagePoint};
use crate::rule::RuleName;
use crate::words::Transport;
use crate::world::{Pod, World};

const UNTOUCHED: &str = "egress/default-untouched";
const CONTROL: &str = "control/vantage-point-works";

/// To the server outside of the cluster.
pub(super) fn to_outside(world: &World, from: &VantagePoint, wire: Wire) -> Result<Expected, Undefined> {
    match from {
        VantagePoint::External => Err(Undefined("the external client is the external server")),
        VantagePoint::Node(slot) => Ok(open(CONTROL, Reach::External, Some(SeenAs::Node(*slot)))),
        VantagePoint::Pod(_) => {
            let pod = sender(world, from, wire)?;
            let rule = if pod.primary.is_some() { "egress/external" } else { UNTOUCHED };
            Ok(open(rule, Reach::External, Some(SeenAs::Node(pod.node))))
        }
    }
}

/// To a node's underlay address, where the harness listens.
pub(super) fn to_host(world: &World, from: &VantagePoint, slot: u8, wire: Wire) -> Result<Expected, Undefined> {
    match from {
        VantagePoint::External => Ok(open(CONTROL, Reach::Node(slot), None)),
        VantagePoint::Node(own) if *own == slot => Err(Undefined("a node always reaches itself")),
        VantagePoint::Node(own) => Ok(open(CONTROL, Reach::Node(slot), Some(SeenAs::Node(*own)))),
        VantagePoint::Pod(_) => {
            let pod = sender(world, from, wire)?;
            match &pod.primary {
                None => Ok(open(UNTOUCHED, Reach::Node(slot), None)),
                Some(_) if wire.transport == Transport::Icmp => Err(Undefined("the rule speaks of host ports")),
                Some(_) if pod.node == slot => Ok(Expected::closed("egress/host-ports")),
                Some(_) => Ok(open("egress/host-ports", Reach::Node(slot), Some(SeenAs::Node(pod.node)))),
            }
        }
    }
}

/// To the API server's ClusterIP.
pub(super) fn to_api_server(world: &World, from: &VantagePoint, wire: Wire) -> Result<Expected, Undefined> {
    if wire.transport != Transport::Tcp {
        return Err(Undefined("the API server speaks TCP"));
    }
    match from {
        VantagePoint::Pod(_) => {
            let pod = sender(world, from, wire)?;
            let rule = if pod.primary.is_some() { "egress/api-server-and-dns" } else { UNTOUCHED };
            Ok(open(rule, Reach::Server, None))
        }
        _ => Err(Undefined("no rule speaks of the API server's ClusterIP from outside of pods")),
    }
}

pub(super) fn sender<'a>(world: &'a World, from: &VantagePoint, wire: Wire) -> Result<&'a Pod, Undefined> {
    let VantagePoint::Pod(pod) = from else { return Err(Undefined("not a pod")) };
    let pod = world.pod(pod).ok_or(Undefined("the world has no such vantage point"))?;
    match primary(world, pod) {
        Some(network) if !network.has_family(wire.family) => {
            Err(Undefined("the vantage point's network has no addresses of this family"))
        }
        _ => Ok(pod),
    }
}

fn open(rule: &str, reach: Reach, seen_as: Option<SeenAs>) -> Expected {
    Expected { expectation: Expectation::Open { reach, seen_as }, rule: RuleName::new(rule) }
}
