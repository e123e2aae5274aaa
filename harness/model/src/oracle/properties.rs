//! Properties that hold for every world, checked on generated ones.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Wire, expect};
use crate::cell::{Expectation, Exposure, Reach, Target, VantagePoint};
use crate::naming::Naming;
use crate::plan::{targets, vantage_points};
use crate::scenario::Targets;
use crate::words::{Family, Transport};
use crate::world::{PodRef, World};

/// A namespace with its network (0: default, 1: UDN, 2: one of two CUDNs) and pods on nodes.
type Tenant = (u8, bool, u8, Vec<u8>);

fn tenants() -> impl Strategy<Value = Vec<Tenant>> {
    let tenant = (0_u8..3, any::<bool>(), 0_u8..4, prop::collection::vec(0_u8..2, 1..3));
    prop::collection::vec(tenant, 1..6)
}

fn manifests(tenants: &[Tenant]) -> Vec<Value> {
    let mut all = Vec::new();
    for (n, (kind, layer3, subnet, nodes)) in tenants.iter().enumerate() {
        let namespace = format!("ns{n}");
        let labels = if *kind == 0 {
            json!({})
        } else {
            json!({ "k8s.ovn.org/primary-user-defined-network": "", "cudn": format!("{}", kind * 10 + subnet % 2) })
        };
        all.push(json!({ "kind": "Namespace", "metadata": { "name": namespace, "labels": labels } }));
        if *kind == 1 {
            let (topology, body) = spec(*layer3, *subnet);
            all.push(json!({ "kind": "UserDefinedNetwork", "metadata": { "name": "net", "namespace": namespace },
                "spec": { "topology": topology, topology.to_lowercase(): body } }));
        }
        for (p, node) in nodes.iter().enumerate() {
            all.push(json!({ "kind": "Pod", "metadata": { "name": format!("p{p}"), "namespace": namespace,
                "labels": { "app": "a", "udn-conformance.io/node": node.to_string() } },
                "spec": { "containers": [{ "name": "probe", "ports": [{ "containerPort": 8080 }] }] } }));
        }
    }
    for n in 0..tenants.len() {
        let policy = if n % 2 == 0 { "Cluster" } else { "Local" };
        all.push(json!({ "kind": "Service", "metadata": { "name": "s", "namespace": format!("ns{n}") },
            "spec": { "type": "LoadBalancer", "ipFamilyPolicy": "PreferDualStack", "selector": { "app": "a" },
                "externalTrafficPolicy": policy, "internalTrafficPolicy": policy, "ports": [{ "port": 8080 }] } }));
    }
    for group in 0..2_u8 {
        let (topology, body) = spec(false, 4 + group);
        all.push(json!({ "kind": "ClusterUserDefinedNetwork", "metadata": { "name": format!("colored{group}") },
            "spec": { "namespaceSelector": { "matchLabels": { "cudn": format!("{}", 20 + group) } },
                "network": { "topology": topology, topology.to_lowercase(): body } } }));
    }
    all
}

fn spec(layer3: bool, subnet: u8) -> (&'static str, Value) {
    let v4 = format!("10.{}.0.0/16", 100 + subnet);
    let v6 = format!("fd00:{subnet}::/48");
    if layer3 {
        (
            "Layer3",
            json!({ "role": "Primary", "subnets": [{ "cidr": v4, "hostSubnet": 24 }, { "cidr": v6, "hostSubnet": 64 }] }),
        )
    } else {
        ("Layer2", json!({ "role": "Primary", "subnets": [v4, v6] }))
    }
}

const WIRES: [Wire; 3] = [
    Wire { transport: Transport::Tcp, port: Some(8080), family: Family::V4 },
    Wire { transport: Transport::Tcp, port: Some(8080), family: Family::V6 },
    Wire { transport: Transport::Icmp, port: None, family: Family::V4 },
];

/// Every probe of the world with what is expected of it.
fn all(world: &World) -> Vec<(VantagePoint, Target, Wire, Result<Expectation, ()>)> {
    let mut cells = Vec::new();
    for from in vantage_points(world, true) {
        let kinds = [Targets::Pods, Targets::Services, Targets::Outside];
        for to in kinds.into_iter().flat_map(|kind| targets(world, kind, true)) {
            for wire in WIRES {
                let expected = expect(world, &from, &to, wire).map(|expected| expected.expectation).map_err(|_| ());
                cells.push((from.clone(), to.clone(), wire, expected));
            }
        }
    }
    cells
}

proptest! {
    #[test]
    fn renaming_namespaces_changes_no_expectation(tenants in tenants()) {
        let plain = manifests(&tenants);
        let naming = Naming::new("other").knowing(&plain);
        let renamed: Vec<Value> = plain.iter().map(|manifest| naming.manifest(manifest)).collect();
        let plain = World::from_manifests(&plain).expect("generated");
        let renamed = World::from_manifests(&renamed).expect("renamed");
        let words = |world: &World| all(world).into_iter().map(|(.., e)| e.map(|e| e.word())).collect::<Vec<_>>();
        prop_assert_eq!(words(&plain), words(&renamed));
    }

    #[test]
    fn adding_a_network_changes_no_cell_of_the_others(tenants in tenants(), layer3 in any::<bool>()) {
        let before = World::from_manifests(&manifests(&tenants)).expect("generated");
        let mut more = tenants;
        more.push((1, layer3, 9, vec![0, 1]));
        let after = World::from_manifests(&manifests(&more)).expect("generated");
        let after = all(&after);
        for cell in all(&before) {
            prop_assert!(after.contains(&cell), "{cell:?} changed");
        }
    }

    #[test]
    fn an_open_cell_has_a_rule_that_opens_it(tenants in tenants()) {
        const OPENING: [&str; 17] = [
            "isolation/same-network-open", "isolation/cluster-network-members", "isolation/overlap-coexists",
            "isolation/default-network-open", "isolation/open-default-ports", "control/listener-works",
            "control/vantage-point-works", "services/cluster-ip-own", "services/node-port",
            "services/node-port-default", "services/load-balancer", "services/traffic-policy-local",
            "services/default-untouched", "egress/external", "egress/host-ports", "egress/default-untouched",
            "egress/api-server-and-dns",
        ];
        let world = World::from_manifests(&manifests(&tenants)).expect("generated");
        for (from, to, wire, _) in all(&world) {
            if let Ok(expected) = expect(&world, &from, &to, wire) {
                prop_assert!(expected.rule.rule().is_some(), "{} is not in the table", expected.rule);
                if matches!(expected.expectation, Expectation::Open { .. }) {
                    prop_assert!(OPENING.contains(&expected.rule.as_str()), "{} opens {from} to {to}", expected.rule);
                }
            }
        }
    }

    #[test]
    fn nothing_of_another_network_is_open(tenants in tenants()) {
        let world = World::from_manifests(&manifests(&tenants)).expect("generated");
        let network = |pod: &PodRef| world.pod(pod).and_then(|pod| pod.primary.clone());
        for (from, to, _, expected) in all(&world) {
            let VantagePoint::Pod(source) = &from else { continue };
            if let (Target::Service { via: Exposure::ClusterIp, .. }, Ok(Expectation::Open { reach: Reach::AnyOf(pods), .. })) =
                (&to, &expected)
            {
                prop_assert!(pods.iter().all(|pod| network(pod) == network(source)), "{} reaches {}", from, to);
            }
            let Target::Pod { pod, .. } = &to else { continue };
            if let Ok(Expectation::Open { reach: Reach::Pod(reached), .. }) = expected {
                prop_assert_eq!(&reached, pod);
                prop_assert_eq!(network(source), network(pod), "{} reaches {}", from, to);
            }
        }
    }
}
