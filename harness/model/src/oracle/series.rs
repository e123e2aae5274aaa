//! Which addresses of services are tried with many connections, and what must come of them.

use super::{Wire, expect};
use crate::cell::{Expectation, Exposure, Reach, Target, VantagePoint};
use crate::rule::RuleName;
use crate::series::{Promise, Series};
use crate::words::Family;
use crate::world::{Pod, PodRef, Service, ServiceRef, World};

/// Many connections from one vantage point to one address of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedSeries {
    /// Where they are made from.
    pub from: VantagePoint,
    /// The service and which of its addresses.
    pub to: Target,
    /// What they speak.
    pub wire: Wire,
    /// What is promised of them.
    pub series: Series,
    /// Why.
    pub rule: RuleName,
}

/// The series of these services, of all where none is named: to each address that is open, from inside by ClusterIP, from
/// outside by the others.
#[must_use]
pub fn series(world: &World, services: &[ServiceRef]) -> Vec<ExpectedSeries> {
    let mut all = Vec::new();
    let wanted = |service: &&Service| services.is_empty() || services.contains(&service.service);
    for service in world.services.iter().filter(wanted) {
        // The default network's own services are Kubernetes', not what user defined networks promise.
        if world.primary_of(&service.service.namespace).is_none() {
            continue;
        }
        let inside = insiders(world, service);
        let outside = [VantagePoint::External];
        let node_ports = world.nodes().into_iter().map(Exposure::NodePort);
        let addresses = node_ports.chain([Exposure::LoadBalancer, Exposure::ExternalIp]).map(|via| (via, &outside[..]));
        for (via, clients) in std::iter::once((Exposure::ClusterIp, &inside[..])).chain(addresses) {
            for from in clients {
                all.extend(of(world, service, via, from));
            }
        }
    }
    all
}

fn of(world: &World, service: &Service, via: Exposure, from: &VantagePoint) -> Vec<ExpectedSeries> {
    let to = Target::Service { service: service.service.clone(), via };
    let mut all = Vec::new();
    for port in &service.ports {
        for family in Family::ALL {
            let wire = Wire { transport: port.transport, port: Some(port.port), family };
            let Ok(expected) = expect(world, from, &to, wire) else { continue };
            let Expectation::Open { reach: Reach::AnyOf(among), .. } = expected.expectation else { continue };
            // One backend is all there is: one connection says everything.
            if among.len() < 2 {
                continue;
            }
            let (promise, rule) = if service.affinity {
                (Promise::Sticks, RuleName::new("services/variants"))
            } else {
                (Promise::Spread, expected.rule)
            };
            let series = Series::new(promise, among);
            all.push(ExpectedSeries { from: from.clone(), to: to.clone(), wire, series, rule });
        }
    }
    all
}

/// One pod of the service's network on each node, not a backend where there is another: what reaches everybody should
/// not depend on whether one reaches oneself.
fn insiders(world: &World, service: &Service) -> Vec<VantagePoint> {
    let network = world.primary_of(&service.service.namespace).map(|network| &network.id);
    let backends: Vec<&PodRef> =
        service.ports.iter().flat_map(|port| service.backends(world, port)).map(|pod| &pod.pod).collect();
    let own = |pod: &&Pod| pod.primary.as_ref() == network;
    let on = |slot: u8| {
        let mut here = world.pods.iter().filter(own).filter(|pod| pod.node == slot);
        here.clone().find(|pod| !backends.contains(&&pod.pod)).or_else(|| here.next())
    };
    world.nodes().into_iter().filter_map(on).map(|pod| VantagePoint::Pod(pod.pod.clone())).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Backends `a` and `b` on a node each, a bystander on the second; a service of them.
    fn world(change: impl Fn(&mut Value)) -> World {
        let mut manifests = vec![
            json!({ "kind": "Namespace", "metadata": { "name": "shop",
                "labels": { "k8s.ovn.org/primary-user-defined-network": "" } } }),
            json!({ "kind": "UserDefinedNetwork", "metadata": { "name": "net", "namespace": "shop" },
                "spec": { "topology": "Layer3", "layer3": { "role": "Primary", "subnets": [{ "cidr": "10.0.0.0/16" }, { "cidr": "fd00::/48" }] } } }),
        ];
        for (pod, node, app) in [("a", "0", "web"), ("b", "1", "web"), ("c", "1", "client")] {
            manifests.push(json!({ "kind": "Pod", "metadata": { "name": pod, "namespace": "shop",
                "labels": { "app": app, "udn-conformance.io/node": node } },
                "spec": { "containers": [{ "name": "probe", "ports": [{ "containerPort": 8080 }] }] } }));
        }
        let mut service = json!({ "kind": "Service", "metadata": { "name": "web", "namespace": "shop" },
            "spec": { "type": "NodePort", "selector": { "app": "web" }, "ports": [{ "port": 80, "targetPort": 8080 }],
                "ipFamilyPolicy": "PreferDualStack" } });
        change(&mut service);
        manifests.push(service);
        World::from_manifests(&manifests).unwrap()
    }

    fn told(world: &World) -> Vec<String> {
        let tell = |it: ExpectedSeries| {
            format!("{} {} {} {} {}", it.from, it.to, it.wire.family, it.series.promise, it.rule.short())
        };
        series(world, &[]).into_iter().map(tell).collect()
    }

    #[test]
    fn each_address_is_tried_from_where_it_is_open() {
        let told = told(&world(|_| ()));
        assert_eq!(told.len(), 8, "{told:#?}");
        assert!(told.contains(&"shop.a svc.shop.web@cluster-ip v4 spread cluster-ip-own".into()), "{told:#?}");
        assert!(told.contains(&"shop.c svc.shop.web@cluster-ip v6 spread cluster-ip-own".into()), "{told:#?}");
        assert!(told.contains(&"external svc.shop.web@node-port-node1 v6 spread node-port".into()), "{told:#?}");
    }

    #[test]
    fn affinity_is_another_promise() {
        let told = told(&world(|service| service["spec"]["sessionAffinity"] = json!("ClientIP")));
        assert!(told.iter().all(|line| line.ends_with("sticks variants")), "{told:#?}");
    }

    #[test]
    fn of_one_backend_there_is_nothing_to_spread() {
        let local = world(|service| service["spec"]["externalTrafficPolicy"] = json!("Local"));
        assert_eq!(told(&local).iter().filter(|line| line.starts_with("external")).count(), 0);
        let one = world(|service| service["spec"]["selector"]["udn-conformance.io/node"] = json!("0"));
        assert!(told(&one).is_empty());
    }
}
