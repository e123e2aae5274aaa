//! NetworkPolicy against an independent evaluation: by enumeration, from the manifests themselves.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Wire, expect};
use crate::cell::{AddressOn, Expectation, Target, VantagePoint};
use crate::words::{Family, Transport};
use crate::world::{PodRef, World};

/// Namespaces of one network, and their teams.
const NAMESPACES: [(&str, &str); 2] = [("red", "x"), ("yellow", "y")];
/// Pods of each: name, app, address' last byte.
const PODS: [(&str, &str, u8); 3] = [("a", "web", 10), ("b", "web", 20), ("c", "db", 30)];
/// What is probed: protocol, port; the last is ICMP.
const WIRES: [(&str, u64); 4] = [("TCP", 8080), ("TCP", 9090), ("UDP", 8080), ("ICMP", 0)];

fn address(namespace: &str, byte: u8) -> String {
    format!("10.0.{}.{byte}", u8::from(namespace == "yellow"))
}

fn selector(key: &'static str, values: [&'static str; 2]) -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!({})),
        Just(json!({ "matchLabels": { key: values[0] } })),
        Just(json!({ "matchLabels": { key: values[1] } })),
        Just(json!({ "matchExpressions": [{ "key": key, "operator": "NotIn", "values": [values[0]] }] })),
    ]
}

fn peer() -> impl Strategy<Value = Value> {
    let pods = || selector("app", ["web", "db"]);
    let namespaces = || selector("team", ["x", "y"]);
    let blocks = prop_oneof![
        Just(json!({ "ipBlock": { "cidr": "10.0.0.0/16" } })),
        Just(json!({ "ipBlock": { "cidr": "10.0.0.0/24", "except": ["10.0.0.16/28"] } })),
        Just(json!({ "ipBlock": { "cidr": "10.0.1.10/32" } })),
        Just(json!({ "ipBlock": { "cidr": "fd00::/64" } })),
    ];
    prop_oneof![
        pods().prop_map(|pods| json!({ "podSelector": pods })),
        namespaces().prop_map(|namespaces| json!({ "namespaceSelector": namespaces })),
        (pods(), namespaces())
            .prop_map(|(pods, namespaces)| json!({ "podSelector": pods, "namespaceSelector": namespaces })),
        blocks,
    ]
}

fn port() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!({ "port": 8080 })),
        Just(json!({ "protocol": "UDP", "port": 8080 })),
        Just(json!({ "protocol": "TCP", "port": 8000, "endPort": 9000 })),
        Just(json!({ "port": "alternative" })),
        Just(json!({ "protocol": "TCP" })),
        Just(json!({})),
    ]
}

fn rules(peers: &'static str) -> impl Strategy<Value = Value> {
    let rule =
        (prop::collection::vec(peer(), 0..3), prop::collection::vec(port(), 0..3)).prop_map(move |(who, ports)| {
            let mut rule = json!({});
            if !who.is_empty() {
                rule[peers] = json!(who);
            }
            if !ports.is_empty() {
                rule["ports"] = json!(ports);
            }
            rule
        });
    prop::collection::vec(rule, 0..3).prop_map(Value::from)
}

fn policy() -> impl Strategy<Value = Value> {
    let types = prop_oneof![
        Just(None),
        Just(Some(json!(["Ingress"]))),
        Just(Some(json!(["Egress"]))),
        Just(Some(json!(["Ingress", "Egress"]))),
    ];
    let some = (prop::option::of(rules("from")), prop::option::of(rules("to")), types);
    (0..2_usize, selector("app", ["web", "db"]), some).prop_map(|(namespace, pods, (ingress, egress, types))| {
        let mut spec = json!({ "podSelector": pods });
        for (field, value) in [("ingress", ingress), ("egress", egress), ("policyTypes", types)] {
            if let Some(value) = value {
                spec[field] = value;
            }
        }
        json!({ "kind": "NetworkPolicy", "metadata": { "namespace": NAMESPACES[namespace].0 }, "spec": spec })
    })
}

fn manifests(policies: &[Value]) -> Vec<Value> {
    let mut all = Vec::new();
    for (namespace, team) in NAMESPACES {
        all.push(json!({ "kind": "Namespace", "metadata": { "name": namespace,
            "labels": { "team": team, "k8s.ovn.org/primary-user-defined-network": "" } } }));
        for (pod, app, byte) in PODS {
            let asked = json!([{ "name": "default", "ips": [format!("{}/16", address(namespace, byte))] }]).to_string();
            all.push(json!({ "kind": "Pod", "metadata": { "name": pod, "namespace": namespace,
                "annotations": { "v1.multus-cni.io/default-network": asked },
                "labels": { "app": app, "udn-conformance.io/node": "0" } },
                "spec": { "containers": [{ "name": "probe", "ports": [
                    { "containerPort": 8080 }, { "containerPort": 9090, "name": "alternative" },
                    { "containerPort": 8080, "protocol": "UDP" }] }] } }));
        }
    }
    all.push(json!({ "kind": "ClusterUserDefinedNetwork", "metadata": { "name": "colored" },
        "spec": { "namespaceSelector": {}, "network": { "topology": "Layer2",
            "layer2": { "role": "Primary", "subnets": ["10.0.0.0/16"] } } } }));
    for (number, policy) in policies.iter().enumerate() {
        let mut policy = policy.clone();
        policy["metadata"]["name"] = json!(format!("p{number}"));
        all.push(policy);
    }
    all
}

/// A pod's place in [`NAMESPACES`] and [`PODS`].
type Place = (usize, usize);

fn places() -> Vec<Place> {
    (0..NAMESPACES.len()).flat_map(|n| (0..PODS.len()).map(move |p| (n, p))).collect()
}

/// Every pod that a selector on one label means, of these.
fn chosen(selector: &Value, key: &str, label: impl Fn(&Place) -> &'static str, among: Vec<Place>) -> Vec<Place> {
    let fits = |place: &Place| {
        let label = label(place);
        if let Some(value) = selector["matchLabels"].get(key) {
            return value == label;
        }
        let excluded = selector["matchExpressions"][0]["values"][0].as_str();
        excluded != Some(label)
    };
    among.into_iter().filter(fits).collect()
}

fn app(place: &Place) -> &'static str {
    PODS[place.1].1
}

fn team(place: &Place) -> &'static str {
    NAMESPACES[place.0].1
}

/// All connections that the policies leave: none is left that starts or ends at an isolated pod, but those that a rule
/// names, found by writing every rule out.
fn left(policies: &[Value]) -> BTreeSet<(Place, Place, usize)> {
    let all = || places().into_iter().flat_map(|a| places().into_iter().map(move |b| (a, b)));
    let every: BTreeSet<_> = all().flat_map(|(a, b)| (0..WIRES.len()).map(move |w| (a, b, w))).collect();
    let mut result = every.clone();
    for outwards in [false, true] {
        let (field, peers) = if outwards { ("egress", "to") } else { ("ingress", "from") };
        let mut isolated = BTreeSet::new();
        let mut allowed = BTreeSet::new();
        for policy in policies {
            let spec = &policy["spec"];
            let applies = match spec.get("policyTypes") {
                Some(types) => {
                    types.as_array().unwrap().iter().any(|kind| kind.as_str().unwrap().to_lowercase() == field)
                }
                None => !outwards || spec.get("egress").is_some(),
            };
            if !applies {
                continue;
            }
            let own: Vec<Place> =
                places().into_iter().filter(|place| policy["metadata"]["namespace"] == NAMESPACES[place.0].0).collect();
            let selected = chosen(&spec["podSelector"], "app", app, own.clone());
            isolated.extend(selected.iter().copied());
            for rule in spec.get(field).and_then(Value::as_array).into_iter().flatten() {
                let mut who = BTreeSet::new();
                for peer in rule.get(peers).and_then(Value::as_array).into_iter().flatten() {
                    if let Some(block) = peer.get("ipBlock") {
                        let net = |text: &Value| text.as_str().unwrap().parse::<IpNet>().unwrap();
                        who.extend(places().into_iter().filter(|place| {
                            let ip: IpAddr = address(NAMESPACES[place.0].0, PODS[place.1].2).parse().unwrap();
                            let except = block.get("except").and_then(Value::as_array);
                            net(&block["cidr"]).contains(&ip)
                                && !except.into_iter().flatten().any(|except| net(except).contains(&ip))
                        }));
                        continue;
                    }
                    let namespaces = match peer.get("namespaceSelector") {
                        Some(selector) => chosen(selector, "team", team, places()),
                        None => own.clone(),
                    };
                    who.extend(match peer.get("podSelector") {
                        Some(selector) => chosen(selector, "app", app, namespaces),
                        None => namespaces,
                    });
                }
                if rule.get(peers).is_none() {
                    who.extend(places());
                }
                let mut on = BTreeSet::new();
                for port in rule.get("ports").and_then(Value::as_array).into_iter().flatten() {
                    let protocol = port.get("protocol").and_then(Value::as_str).unwrap_or("TCP");
                    for (index, (its, number)) in WIRES.iter().enumerate() {
                        let meant = match &port["port"] {
                            Value::Null => true,
                            Value::String(_) => *number == 9090,
                            first => {
                                let first = first.as_u64().unwrap();
                                (first..=port["endPort"].as_u64().unwrap_or(first)).contains(number)
                            }
                        };
                        if *its == protocol && meant {
                            on.insert(index);
                        }
                    }
                }
                if rule.get("ports").is_none() {
                    on.extend(0..WIRES.len());
                }
                for own in &selected {
                    for peer in &who {
                        let ends = if outwards { (*own, *peer) } else { (*peer, *own) };
                        allowed.extend(on.iter().map(|wire| (ends.0, ends.1, *wire)));
                    }
                }
            }
        }
        result.retain(|(from, to, wire)| {
            !isolated.contains(if outwards { from } else { to }) || allowed.contains(&(*from, *to, *wire))
        });
    }
    result
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn the_oracle_agrees_with_an_enumeration(policies in prop::collection::vec(policy(), 1..4)) {
        let world = World::from_manifests(&manifests(&policies)).unwrap();
        let left = left(&policies);
        let pod = |place: Place| PodRef::new(NAMESPACES[place.0].0, PODS[place.1].0);
        for from in places() {
            for to in places().into_iter().filter(|to| *to != from) {
                for (index, (protocol, port)) in WIRES.iter().enumerate() {
                    let (transport, port) = match *protocol {
                        "TCP" => (Transport::Tcp, Some(*port)),
                        "UDP" => (Transport::Udp, Some(*port)),
                        _ => (Transport::Icmp, None),
                    };
                    let wire = Wire { transport, port: port.map(|port| port as u16), family: Family::V4 };
                    let target = Target::Pod { pod: pod(to), on: AddressOn::Primary };
                    let expected = expect(&world, &VantagePoint::Pod(pod(from)), &target, wire);
                    let open = matches!(expected.as_ref().map(|e| &e.expectation), Ok(Expectation::Open { .. }));
                    prop_assert!(expected.is_ok(), "{from:?} {to:?} {protocol}: {expected:?}");
                    prop_assert_eq!(open, left.contains(&(from, to, index)), "{:?} to {:?}, {} {:?}: {:?}", from, to, protocol, port, expected);
                }
            }
        }
    }
}
