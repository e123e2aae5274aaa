//! Who reaches which address of a service, and whom he must meet there.
//!
//! The source is `reference/measured.md`'s table of a real cluster, which upstream's tests and documents agree with except
//! where the rule says so.

use super::{Expected, Undefined, Wire, primary};
use crate::cell::{Expectation, Exposure, Reach, SeenAs, VantagePoint};
use crate::rule::RuleName;
use crate::words::Family;
use crate::world::{Pod, PodRef, Service, ServiceRef, World};

/// What a client is to a service.
#[derive(Clone, Copy, Debug)]
enum Client<'a> {
    /// A pod of the service's own network.
    Own(&'a Pod),
    /// A pod of another user defined network.
    Tenant(&'a Pod),
    /// A pod of the default network; the service is another network's.
    Plain(&'a Pod),
    /// A node's host network.
    Node,
    /// Outside of the cluster.
    External,
}

/// A service's port, and who stands behind it.
struct Behind<'a> {
    service: &'a Service,
    /// Whether it belongs to the default network.
    is_default: bool,
    backends: Vec<&'a Pod>,
}

impl Behind<'_> {
    fn names(&self) -> Vec<PodRef> {
        self.backends.iter().map(|pod| pod.pod.clone()).collect()
    }

    fn names_on(&self, slot: u8) -> Vec<PodRef> {
        self.backends.iter().filter(|pod| pod.node == slot).map(|pod| pod.pod.clone()).collect()
    }

    /// A rule of user defined networks, or what it is for the default network.
    fn rule(&self, rule: &'static str) -> &'static str {
        if self.is_default { "services/default-untouched" } else { rule }
    }
}

/// What comes of a probe of a service.
pub(super) fn expect(
    world: &World,
    from: &VantagePoint,
    service: &ServiceRef,
    via: Exposure,
    wire: Wire,
) -> Result<Expected, Undefined> {
    let service = world.service(service).ok_or(Undefined("the world has no such service"))?;
    let number = wire.port.ok_or(Undefined("services have ports; an echo request has none"))?;
    let port = service.port(wire.transport, number).ok_or(Undefined("the service has no such port"))?;
    if service.headless {
        return Err(Undefined("a headless service has no address"));
    }
    if !service.families.contains(&wire.family) {
        return Err(Undefined("the service has no addresses of this family"));
    }
    let network = world.primary_of(&service.service.namespace);
    if network.is_some_and(|network| !network.has_family(wire.family)) {
        return Err(Undefined("the service's network has no addresses of this family"));
    }
    let client = client(world, from, network.map(|network| &network.id), wire.family)?;
    let behind = Behind { service, is_default: network.is_none(), backends: service.backends(world, port) };
    let expected = match via {
        Exposure::ClusterIp => cluster_ip(&behind, client),
        Exposure::NodePort(slot) => node_port(&behind, client, slot, wire.family),
        Exposure::LoadBalancer if !service.load_balancer => Err(Undefined("the service asks for no such address")),
        Exposure::ExternalIp if !service.external_ips.iter().any(|ip| Family::of(*ip) == wire.family) => {
            Err(Undefined("the service has no external address of this family"))
        }
        Exposure::LoadBalancer | Exposure::ExternalIp => announced(&behind, client),
    };
    expected.map(|expected| hairpin(expected, client, via))
}

/// A backend that reaches itself, being the only one whom the load balancer of its own node can mean. (Another node's NodePort
/// is balanced there: then it is that node whom it sees.)
fn hairpin(expected: Expected, client: Client<'_>, via: Exposure) -> Expected {
    let Client::Own(pod) = client else { return expected };
    let balanced_here = !matches!(via, Exposure::NodePort(slot) if slot != pod.node);
    match &expected.expectation {
        Expectation::Open { reach: Reach::AnyOf(backends), .. }
            if balanced_here && pod.primary.is_some() && *backends == [pod.pod.clone()] =>
        {
            let expectation =
                Expectation::Open { reach: Reach::AnyOf(backends.clone()), seen_as: Some(SeenAs::Hairpin) };
            Expected { expectation, ..expected }
        }
        _ => expected,
    }
}

fn client<'a>(
    world: &'a World,
    from: &VantagePoint,
    network: Option<&crate::world::NetworkId>,
    family: Family,
) -> Result<Client<'a>, Undefined> {
    let VantagePoint::Pod(pod) = from else {
        return Ok(if matches!(from, VantagePoint::External) { Client::External } else { Client::Node });
    };
    let pod = world.pod(pod).ok_or(Undefined("the world has no such vantage point"))?;
    if primary(world, pod).is_some_and(|network| !network.has_family(family)) {
        return Err(Undefined("the vantage point's network has no addresses of this family"));
    }
    Ok(if pod.primary.as_ref() == network {
        Client::Own(pod)
    } else if pod.primary.is_some() {
        Client::Tenant(pod)
    } else {
        Client::Plain(pod)
    })
}

fn cluster_ip(behind: &Behind<'_>, client: Client<'_>) -> Result<Expected, Undefined> {
    match client {
        Client::External => Err(Undefined("no rule speaks of ClusterIPs and external clients")),
        Client::Own(_) if behind.backends.is_empty() => Ok(rejected("services/variants")),
        Client::Own(pod) if behind.service.internal_local => {
            let rule = "services/traffic-policy-local";
            let local = behind.names_on(pod.node);
            Ok(if local.is_empty() { rejected(rule) } else { open(rule, local) })
        }
        Client::Own(_) => Ok(open(behind.rule("services/cluster-ip-own"), behind.names())),
        _ if behind.backends.is_empty() => Err(Undefined("nobody is behind the service")),
        Client::Node if behind.is_default && behind.service.internal_local => {
            Err(Undefined("no rule speaks of nodes and internalTrafficPolicy"))
        }
        Client::Node if behind.is_default => Ok(open("services/default-untouched", behind.names())),
        Client::Tenant(_) if behind.is_default => Ok(Expected::closed("services/cluster-ip-default")),
        _ => Ok(Expected::closed("services/cluster-ip-foreign")),
    }
}

fn node_port(behind: &Behind<'_>, client: Client<'_>, slot: u8, family: Family) -> Result<Expected, Undefined> {
    if !behind.service.node_ports {
        return Err(Undefined("the service has no NodePorts"));
    }
    let rule = if behind.is_default { "services/node-port-default" } else { "services/node-port" };
    let local_rule = "services/traffic-policy-local";
    let through_wire = |keeps_source: bool| {
        if behind.backends.is_empty() {
            return rejected("services/variants");
        }
        if !behind.service.external_local {
            return open(rule, behind.names());
        }
        match behind.names_on(slot) {
            local if local.is_empty() => rejected(local_rule),
            local => Expected { expectation: seen(local, keeps_source), rule: RuleName::new(local_rule) },
        }
    };
    match client {
        Client::External => Ok(through_wire(true)),
        Client::Node => Err(Undefined("no rule speaks of nodes as clients of NodePorts")),
        Client::Own(pod) if behind.service.external_local && !behind.backends.is_empty() => {
            if pod.node == slot {
                // Inside its own network the own node answers even without a backend of its own.
                Ok(open(local_rule, behind.names()))
            } else if behind.names_on(slot).is_empty() {
                Err(Undefined("no rule speaks of the own network and another node without a backend"))
            } else {
                Ok(open(local_rule, behind.names_on(slot)))
            }
        }
        Client::Own(_) if behind.backends.is_empty() => Ok(rejected("services/variants")),
        Client::Own(_) => Ok(open(behind.rule(rule), behind.names())),
        _ if behind.backends.is_empty() => Err(Undefined("nobody is behind the service")),
        Client::Tenant(pod) | Client::Plain(pod) if pod.node != slot => Ok(through_wire(false)),
        Client::Tenant(_) if family == Family::V6 && behind.service.external_local => {
            Err(Undefined("no rule speaks of the own node's NodePort over IPv6 under externalTrafficPolicy Local"))
        }
        // Upstream issue 5419: over IPv6 the own node lets another tenant through.
        Client::Tenant(_) if family == Family::V6 && !behind.is_default => Ok(open(rule, behind.names())),
        Client::Tenant(_) | Client::Plain(_) => Ok(Expected::closed(rule)),
    }
}

/// A load-balancer address or an ExternalIP: one node answers for it on the underlay.
fn announced(behind: &Behind<'_>, client: Client<'_>) -> Result<Expected, Undefined> {
    if behind.backends.is_empty() {
        return Err(Undefined("nobody is behind the service"));
    }
    if behind.service.external_local && !matches!(client, Client::Own(_)) {
        return Err(Undefined(
            "which node announces the address decides, and moves, under externalTrafficPolicy Local",
        ));
    }
    let rule = behind.rule("services/load-balancer");
    match client {
        Client::Node => Err(Undefined("no rule speaks of nodes as clients of load-balancer addresses")),
        Client::Own(_) | Client::External => Ok(open(rule, behind.names())),
        Client::Tenant(_) | Client::Plain(_) => Ok(Expected {
            expectation: Expectation::open(Reach::ThroughAnnouncer(behind.names())),
            rule: RuleName::new("services/load-balancer"),
        }),
    }
}

fn open(rule: &str, backends: Vec<PodRef>) -> Expected {
    Expected { expectation: seen(backends, false), rule: RuleName::new(rule) }
}

fn seen(backends: Vec<PodRef>, keeps_source: bool) -> Expectation {
    Expectation::Open { reach: Reach::AnyOf(backends), seen_as: keeps_source.then_some(SeenAs::Sender) }
}

fn rejected(rule: &str) -> Expected {
    Expected { expectation: Expectation::Rejected, rule: RuleName::new(rule) }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;
    use crate::words::Transport;

    /// Tenants blue and green, and the default network's plain: a pod `a` on node 0 each, and a service of it.
    fn world(change: impl Fn(&mut Value)) -> World {
        let mut manifests = Vec::new();
        for (namespace, tenant) in [("blue", true), ("green", true), ("plain", false)] {
            let labels = if tenant { json!({ "k8s.ovn.org/primary-user-defined-network": "" }) } else { json!({}) };
            manifests.push(json!({ "kind": "Namespace", "metadata": { "name": namespace, "labels": labels } }));
            if tenant {
                manifests.push(json!({ "kind": "UserDefinedNetwork", "metadata": { "name": "net", "namespace": namespace },
                    "spec": { "topology": "Layer2", "layer2": { "role": "Primary", "subnets": ["10.0.0.0/16", "fd00::/64"] } } }));
            }
            for (pod, node, app) in [("a", "0", "server"), ("b", "0", "client"), ("c", "1", "client")] {
                manifests.push(json!({ "kind": "Pod", "metadata": { "name": pod, "namespace": namespace,
                    "labels": { "app": app, "udn-conformance.io/node": node } },
                    "spec": { "containers": [{ "name": "probe", "ports": [{ "containerPort": 8080 }] }] } }));
            }
            manifests.push(json!({ "kind": "Service", "metadata": { "name": "web", "namespace": namespace },
                "spec": { "type": "LoadBalancer", "selector": { "app": "server" }, "ports": [{ "port": 80, "targetPort": 8080 }],
                    "ipFamilyPolicy": "PreferDualStack" } }));
        }
        manifests.iter_mut().filter(|manifest| manifest["kind"] == "Service").for_each(change);
        World::from_manifests(&manifests).unwrap()
    }

    fn word(world: &World, from: &str, to: &str, via: Exposure, family: Family) -> String {
        let from = match from.split_once('/') {
            Some((namespace, name)) => VantagePoint::Pod(PodRef::new(namespace, name)),
            None if from == "external" => VantagePoint::External,
            None => VantagePoint::Node(0),
        };
        let wire = Wire { transport: Transport::Tcp, port: Some(80), family };
        match expect(world, &from, &ServiceRef::new(to, "web"), via, wire) {
            Ok(Expected { expectation: Expectation::Open { reach: Reach::ThroughAnnouncer(_), .. }, .. }) => {
                "by-announcer".into()
            }
            Ok(Expected { expectation: Expectation::Open { seen_as: Some(SeenAs::Sender), .. }, .. }) => {
                "untranslated".into()
            }
            Ok(expected) => expected.expectation.word().into(),
            Err(_) => "undefined".into(),
        }
    }

    /// The table of the measured cluster: ClusterIP, own node's NodePort, another node's, load balancer.
    #[rstest]
    #[case::own("blue/b", "blue", "open open open open", "open")]
    #[case::own_from_elsewhere("blue/c", "blue", "open open open open", "open")]
    #[case::hairpin("blue/a", "blue", "open open open open", "open")]
    #[case::another_tenant("green/b", "blue", "closed closed open by-announcer", "open")]
    #[case::a_default_pod("plain/b", "blue", "closed closed open by-announcer", "closed")]
    #[case::a_node("node0", "blue", "closed undefined undefined undefined", "undefined")]
    #[case::external("external", "blue", "undefined open open open", "open")]
    #[case::tenant_to_default("blue/b", "plain", "closed closed open by-announcer", "closed")]
    #[case::default_to_default("plain/b", "plain", "open open open open", "open")]
    #[case::node_to_default("node0", "plain", "open undefined undefined undefined", "undefined")]
    fn as_measured(#[case] from: &str, #[case] to: &str, #[case] expected: &str, #[case] own_node_v6: &str) {
        let world = world(|_| ());
        let own = u8::from(from.ends_with("/c"));
        let via = [Exposure::ClusterIp, Exposure::NodePort(own), Exposure::NodePort(1 - own), Exposure::LoadBalancer];
        let words: Vec<String> = via.iter().map(|via| word(&world, from, to, *via, Family::V4)).collect();
        assert_eq!(words.join(" "), expected);
        assert_eq!(word(&world, from, to, Exposure::NodePort(own), Family::V6), own_node_v6);
    }

    /// ClusterIP, NodePort of the backend's node, NodePort of the other node.
    #[rstest]
    #[case::own_beside_the_backend("blue/b", "open open undefined")]
    #[case::own_on_the_other_node("blue/c", "rejected open open")]
    #[case::external("external", "undefined untranslated rejected")]
    #[case::another_tenant_on_the_other_node("green/c", "closed open closed")]
    fn policies_local(#[case] from: &str, #[case] expected: &str) {
        let world = world(|service| {
            service["spec"]["externalTrafficPolicy"] = json!("Local");
            service["spec"]["internalTrafficPolicy"] = json!("Local");
        });
        let via = [Exposure::ClusterIp, Exposure::NodePort(0), Exposure::NodePort(1)];
        let words: Vec<String> = via.iter().map(|via| word(&world, from, "blue", *via, Family::V4)).collect();
        assert_eq!(words.join(" "), expected);
    }

    #[test]
    fn without_endpoints_it_is_rejected() {
        let world = world(|service| service["spec"]["selector"]["app"] = json!("nobody"));
        for (from, via, expected) in [
            ("blue/b", Exposure::ClusterIp, "rejected"),
            ("blue/b", Exposure::NodePort(1), "rejected"),
            ("external", Exposure::NodePort(0), "rejected"),
            ("green/b", Exposure::ClusterIp, "undefined"),
        ] {
            assert_eq!(word(&world, from, "blue", via, Family::V4), expected, "{from} {via}");
        }
    }
}
