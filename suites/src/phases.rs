//! Shorthand for what suites say often.

use udn_model::cell::{AddressOn, Claim, ObjectRef, Target, VantagePoint};
use udn_model::flow::FlowKind;
use udn_model::rule::RuleName;
use udn_model::scenario::{Action, Assertion, Flows, FullMatrix, Phase, Probing, Scenario, Targets, WorldSpec};
use udn_model::words::{Family, Transport};
use udn_model::world::PodRef;

/// TCP and UDP to the agent's port, and ICMP.
pub(crate) const ALL_TRANSPORTS: [(Transport, Option<u16>); 3] =
    [(Transport::Tcp, Some(8080)), (Transport::Udp, Some(8080)), (Transport::Icmp, None)];

/// `apiVersion` of networks.
pub(crate) const NETWORKS: &str = "k8s.ovn.org/v1";

/// A phase that is judged once its actions are done.
pub(crate) fn phase(name: &str, actions: Vec<Action>, matrix: Vec<Assertion>) -> Phase {
    Phase { name: name.into(), actions, matrix, probing: Probing::AfterActions, settle_within_s: 0, open_as: None }
}

/// The first phase of most scenarios: the world as it was provisioned.
pub(crate) fn steady(matrix: Vec<Assertion>) -> Vec<Phase> {
    vec![phase("steady", Vec::new(), matrix)]
}

/// A scenario of one full matrix in a world that it leaves as it is.
pub(crate) fn full(name: &str, title: &str, world: WorldSpec, matrix: FullMatrix) -> Scenario {
    let phases = steady(vec![Assertion::Full(matrix)]);
    Scenario { name: name.into(), title: title.into(), world, exclusive: false, phases }
}

/// Every vantage point, nodes and the external client included, to every target, all transports, both families.
pub(crate) fn everything() -> FullMatrix {
    FullMatrix {
        targets: Targets::Pods,
        ports: ALL_TRANSPORTS.to_vec(),
        families: Family::ALL.to_vec(),
        rules: Vec::new(),
        pods: Vec::new(),
        outsiders: true,
    }
}

/// Every pod asks the cluster's DNS service for names; only what these rules promise.
pub(crate) fn names(promises: &[&str]) -> Assertion {
    Assertion::Full(FullMatrix { targets: Targets::Names, rules: rules(promises), ..everything() })
}

/// Every pod to every address of a pod: for worlds without default-network pods, where a node or an external client
/// would have nothing that it may reach, and so no control.
pub(crate) fn among_pods() -> FullMatrix {
    FullMatrix { outsiders: false, ..everything() }
}

/// Flows between these pods, on their primary networks (those of the namespace `plain` have the default one): they go on from phase to phase.
pub(crate) fn flows(rule: &str, pairs: &[[(&str, &str); 2]]) -> Assertion {
    let pod = |(namespace, name): (&str, &str)| PodRef::new(namespace, name);
    let on = |pod: &PodRef| if pod.namespace == "plain" { AddressOn::Default } else { AddressOn::Primary };
    let target = |pod: PodRef| Target::Pod { on: on(&pod), pod };
    let pairs = pairs.iter().map(|[from, to]| (VantagePoint::Pod(pod(*from)), target(pod(*to)))).collect();
    Assertion::Flows(Flows {
        rule: RuleName::new(rule),
        pairs,
        transports: vec![Transport::Tcp, Transport::Udp],
        families: Family::ALL.to_vec(),
        kind: FlowKind::Frames,
        figures: false,
    })
}

/// Rules by name.
pub(crate) fn rules(names: &[&str]) -> Vec<RuleName> {
    names.iter().map(|name| RuleName::new(name)).collect()
}

/// A claim about an object.
pub(crate) fn claim(rule: &str, object: &ObjectRef, claim: Claim) -> Assertion {
    Assertion::Object { rule: RuleName::new(rule), object: object.clone(), claim }
}

/// A `UserDefinedNetwork`.
pub(crate) fn udn(namespace: &str, name: &str) -> ObjectRef {
    ObjectRef::namespaced(NETWORKS, "UserDefinedNetwork", namespace, name)
}

/// A `ClusterUserDefinedNetwork`.
pub(crate) fn cudn(name: &str) -> ObjectRef {
    ObjectRef::cluster(NETWORKS, "ClusterUserDefinedNetwork", name)
}

/// A pod as an object.
pub(crate) fn pod(namespace: &str, name: &str) -> ObjectRef {
    ObjectRef::pod(&PodRef::new(namespace, name))
}

/// A condition with this status; older releases call `NetworkCreated` `NetworkReady`.
pub(crate) fn condition(kind: &str, status: &str, message_contains: &[&str]) -> Claim {
    let mut any_of = vec![kind.to_owned()];
    if kind == "NetworkCreated" {
        any_of.push("NetworkReady".into());
    }
    let message_contains = message_contains.iter().map(|text| (*text).to_owned()).collect();
    Claim::Condition { any_of, status: status.into(), reason: None, message_contains }
}
