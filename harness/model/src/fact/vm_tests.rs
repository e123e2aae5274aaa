use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::fact::{Fact, NetworkEntry, Route, Scene, judge, promised};
use crate::naming::Naming;
use crate::world::World;

fn world() -> World {
    World::from_manifests(&[
        json!({ "kind": "Namespace", "metadata": { "name": "red", "labels": { "k8s.ovn.org/primary-user-defined-network": "" } } }),
        json!({ "kind": "UserDefinedNetwork", "metadata": { "name": "net", "namespace": "red" }, "spec": { "topology": "Layer2",
            "layer2": { "role": "Primary", "mtu": 1300, "subnets": ["10.1.0.0/16", "fd01::/64"], "ipam": { "lifecycle": "Persistent" } } } }),
        json!({ "kind": "VirtualMachine", "metadata": { "name": "db", "namespace": "red" }, "spec": { "template": {
            "metadata": { "labels": { "udn-conformance.io/node": "0" }, "annotations": { "udn-conformance.io/listens": "8080/TCP" } },
            "spec": { "domain": { "devices": { "interfaces": [{ "name": "default" }] } }, "networks": [{ "name": "default", "pod": {} }] } } } }),
    ])
    .unwrap()
}

/// A guest as it must be; its migration ended at second 100.
fn right() -> PodView {
    let ips: Vec<IpNet> = vec!["10.1.0.5/16".parse().unwrap(), "fd01::5/64".parse().unwrap()];
    let entry = NetworkEntry {
        ips: ips.clone(),
        mac: "0a:58:0a:01:00:05".into(),
        gateways: vec!["10.1.0.1".parse().unwrap(), "fd01::1".parse().unwrap()],
        role: Some("primary".into()),
    };
    let default = NetworkEntry { role: Some("infrastructure-locked".into()), ..NetworkEntry::default() };
    let route = |via: &str| {
        let via: IpAddr = via.parse().unwrap();
        Route { family: Family::of(via), to: None, via: Some(via), dev: "eth0".into() }
    };
    let said = |at_ms: i64, said, mac: &str, address: Option<&str>| Announcement {
        at_us: at_ms * 1000,
        said,
        mac: mac.into(),
        address: address.map(|address| address.parse().unwrap()),
    };
    let guest = Guest {
        hostname: Some("db".into()),
        resolvers: vec!["10.96.0.10".parse().unwrap()],
        neighbours: vec![("10.1.0.1".parse().unwrap(), "0a:58:0a:01:00:01".into())],
        dns: vec!["10.96.0.10".parse().unwrap(), "fd00:96::a".parse().unwrap()],
        claim: Some(ips),
        switched_us: Some(100_000_000),
        ..Guest::default()
    };
    let mut view = PodView {
        pod_networks: [("default".to_owned(), default), ("red/net".to_owned(), entry)].into(),
        interfaces: vec![Interface {
            name: "eth0".into(),
            mac: "0a:58:0a:01:00:05".into(),
            mtu: 1300,
            addresses: ["10.1.0.5/16", "fd01::5/128", "fe80::5/64"].map(|ip| ip.parse().unwrap()).to_vec(),
            up: true,
        }],
        routes: vec![route("10.1.0.1"), route("fe80::1")],
        heard: vec![
            said(20_000, Said::Arp, "0a:58:0a:01:00:01", Some("10.1.0.1")),
            said(100_030, Said::Arp, "0a:58:0a:01:00:01", Some("10.1.0.1")),
            said(100_050, Said::RouterAdvertisement, "0a:58:0a:01:00:01", Some("fe80::1")),
            said(100_001, Said::Rarp, "0a:58:0a:01:00:05", None),
        ],
        guest: Some(Box::new(guest)),
        ..PodView::default()
    };
    let before = Identity::of(&view, "0a:58:0a:01:00:05");
    view.guest.as_mut().unwrap().before = before;
    view
}

fn holds(view: PodView, fact: &Fact, family: Option<Family>) -> Result<String, String> {
    let (world, naming) = (world(), Naming::new(""));
    let views: BTreeMap<PodRef, PodView> = [(world.pods[0].pod.clone(), view)].into();
    judge(fact, family, &world.pods[0], Scene { world: &world, naming: &naming, views: &views })
}

fn everything() -> Vec<(Fact, Option<Family>)> {
    let world = world();
    let vm = &world.pods[0];
    let mut facts = promised(&world, vm);
    facts.extend(crate::fact::announced(world.network(vm.primary.as_ref().unwrap()), &vm.pod));
    facts
}

#[test]
fn a_guest_as_it_must_be() {
    for (fact, family) in everything() {
        holds(right(), &fact, family).unwrap_or_else(|why| panic!("{fact} {family:?}: {why}"));
    }
    assert_eq!(
        holds(right(), &Fact::AnnouncedAt(PodRef::new("red", "db")), None).unwrap(),
        "red/db heard RARP from 0a:58:0a:01:00:05 at +1 ms"
    );
}

/// Each change is found by these facts and by no other.
#[test]
fn what_is_wrong_is_found_by_the_fact_that_says_so() {
    type Change = fn(&mut PodView);
    let cases: [(&str, Change); 9] = [
        ("guest-address as-before", |view| view.interfaces[0].addresses[0] = "10.1.0.6/16".parse().unwrap()),
        ("guest-route as-before", |view| view.routes[0].via = Some("10.1.0.9".parse().unwrap())),
        ("guest-route as-before", |view| drop(view.routes.remove(1))),
        ("guest-mtu as-before", |view| view.interfaces[0].mtu = 1500),
        ("guest-resolvers as-before", |view| view.guest.as_mut().unwrap().resolvers = vec!["8.8.8.8".parse().unwrap()]),
        ("guest-hostname as-before", |view| view.guest.as_mut().unwrap().hostname = None),
        ("claimed as-before", |view| view.guest.as_mut().unwrap().claim = None),
        ("announced-at-red.db gateway-announced gateway-announced", |view| view.heard.truncate(1)),
        ("gateway-entry", |view| view.guest.as_mut().unwrap().neighbours[0].1 = "0a:58:0a:01:00:02".into()),
    ];
    for (expected, change) in cases {
        let mut view = right();
        change(&mut view);
        let mut found: Vec<String> = Vec::new();
        for (fact, family) in everything() {
            if holds(view.clone(), &fact, family).is_err() {
                found.push(fact.to_string());
            }
        }
        assert_eq!(found.join(" "), expected);
    }
}

#[test]
fn late_announcements_are_late() {
    let mut view = right();
    view.heard[2].at_us += 6_000_000;
    let why = holds(view, &Fact::GatewayAnnounced, Some(Family::V6)).unwrap_err();
    assert!(why.contains("at +6050 ms; it may take 5000 ms"), "{why}");
}

#[test]
fn an_identity_is_complete_with_addresses_routes_and_resolvers() {
    let mut view = right();
    let complete = |view: &PodView| Identity::of(view, "0a:58:0a:01:00:05").unwrap().is_complete(&Family::ALL);
    assert!(complete(&view));
    view.routes.remove(1);
    assert!(!complete(&view));
}
