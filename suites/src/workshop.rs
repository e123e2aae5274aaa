//! The KubeCon EU 2025 UDN workshop, step by step under its own names, with expectations from its text. IPv4, as there.

mod vms;

use serde_json::Value;
use udn_fixtures::{FixtureError, Fixtures};
use udn_model::cell::{AddressOn, Claim, Expectation, Exposure, ObjectRef, Reach, SeenAs, Target, VantagePoint};
use udn_model::dns::DnsName;
use udn_model::rule::RuleName;
use udn_model::scenario::{Action, Assertion, Phase, ProbeAssertion, Scenario, Suite};
use udn_model::words::{Family, Transport};
use udn_model::world::{NetworkId, PodRef, ServiceRef};

use crate::phases::{claim, condition, cudn, phase, pod, udn};

/// Seconds that upstream gives a network to go after its last pod (LIFE-06).
const GONE_WITHIN_S: u32 = 65;
const RECREATED: &str = "objects/recreate";
const PING: (Transport, Option<u16>) = (Transport::Icmp, None);
const WEB: (Transport, Option<u16>) = (Transport::Tcp, Some(8080));
const OTHER: (Transport, Option<u16>) = (Transport::Tcp, Some(9090));
const SERVICE: (Transport, Option<u16>) = (Transport::Tcp, Some(80));
const API: (Transport, Option<u16>) = (Transport::Tcp, Some(443));

/// The suite.
pub(crate) fn suite(fixtures: &Fixtures) -> Result<Suite, FixtureError> {
    let networks = fixtures.manifests(&["networks/workshop.yaml"])?;
    let pods = fixtures.manifests(&["workloads/workshop.yaml"])?;
    let apply = |path: &str| Ok::<_, FixtureError>(vec![Action::Apply(fixtures.manifests(&[path])?)]);
    let overlapping = fixtures.manifests(&["networks/workshop-overlapping.yaml"])?;
    let storage = fixtures.manifests(&["networks/workshop-storage.yaml"])?;
    let all: Vec<&Value> = [&networks, &pods, &overlapping, &storage].into_iter().flatten().collect();
    let again = vec![Action::Apply(networks.clone()), Action::Apply(pods.clone())];
    let phases = vec![
        phase("1-networks-addresses-roles", Vec::new(), networks_and_roles()),
        phase("2-connectivity-and-isolation", Vec::new(), connectivity("isolation/same-network-open")),
        phase("3-load-balancer-services", apply("services/workshop.yaml")?, services()),
        phase("4-api-server-and-dns", Vec::new(), api_server("egress/api-server-and-dns")),
        phase("5-egress", Vec::new(), egress("egress/external", &["blue", "green"])),
        phase("6-overlapping-with-blue", apply("networks/workshop-overlapping.yaml")?, overlap()),
        phase("7-before-the-policy", Vec::new(), before_policy()),
        phase("8-network-policy", apply("policies/workshop.yaml")?, under_policy()),
        phase("9-multi-homing", apply("networks/workshop-storage.yaml")?, multi_homing()),
        Phase { settle_within_s: GONE_WITHIN_S, ..phase("10-torn-down", tear_down(&all), gone(&all)) },
        phase("11-set-up-again", again, set_up_again()),
    ];
    let pods = Scenario {
        name: "pods".into(),
        title: "the workshop's part on pods, in its order".into(),
        world: fixtures.world("workshop", &["networks/workshop.yaml", "workloads/workshop.yaml"])?,
        exclusive: true,
        phases,
    };
    Ok(Suite {
        name: "workshop",
        title: "the KubeCon EU 2025 UDN workshop, step by step",
        scenarios: vec![pods, vms::scenario(fixtures)?],
    })
}

fn networks_and_roles() -> Vec<Assertion> {
    const CONDITIONS: &str = "objects/conditions";
    const ROLES: &str = "addressing/interfaces-and-roles";
    let keys = |keys: &[&str]| Claim::PodNetworks { keys: keys.iter().map(|key| (*key).to_owned()).collect() };
    vec![
        claim(CONDITIONS, &udn("blue", "blue-network"), condition("NetworkCreated", "True", &[])),
        claim(CONDITIONS, &udn("green", "green-network"), condition("NetworkCreated", "True", &[])),
        claim(CONDITIONS, &cudn("colored-enterprise"), condition("NetworkCreated", "True", &["{red}", "{yellow}"])),
        claim(ROLES, &pod("blue", "app-blue-0"), keys(&["default", "{blue}/blue-network"])),
        claim(ROLES, &pod("green", "app-green-1"), keys(&["default", "{green}/green-network"])),
        claim(ROLES, &pod("red", "app-red-0"), keys(&["default", "{red}/{colored-enterprise}"])),
        claim(ROLES, &pod("yellow", "app-yellow-1"), keys(&["default", "{yellow}/{colored-enterprise}"])),
        claim(ROLES, &pod("default-network", "app-default-0"), keys(&["default"])),
        Assertion::Facts,
    ]
}

/// `open`: under which rule pods of one namespace reach each other.
fn connectivity(open: &str) -> Vec<Assertion> {
    let (blue, green, red) = (app("blue", 0), app("green", 0), app("red", 0));
    let (blue_1, green_1, yellow_1) = (app("blue", 1), app("green", 1), app("yellow", 1));
    let (plain, plain_1) = (app("default", 0), app("default", 1));
    let members = if open == RECREATED { RECREATED } else { "isolation/cluster-network-members" };
    let untouched = if open == RECREATED { RECREATED } else { "isolation/default-network-open" };
    let mut hand = Hand::default();
    for wire in [PING, WEB] {
        // "Pods of one network reach each other; not on their default-network addresses."
        for (from, to) in [(&blue, &blue_1), (&green, &green_1)] {
            hand.reaches(open, from, to, wire);
            hand.closed("isolation/default-address-closed", from, &to_pod(to, AddressOn::Default), wire);
            hand.listens(to, AddressOn::Default, wire);
        }
        // "blue and green are isolated from each other."
        hand.closed("isolation/other-network-closed", &blue, &to_pod(&green, AddressOn::Primary), wire);
        hand.closed("isolation/other-network-closed", &blue, &to_pod(&green_1, AddressOn::Primary), wire);
        hand.closed("isolation/other-network-closed", &green, &to_pod(&blue_1, AddressOn::Primary), wire);
        // "red and yellow share a network; blue stays outside of it."
        hand.reaches(members, &red, &yellow_1, wire);
        hand.closed("isolation/cluster-network-members", &blue, &to_pod(&yellow_1, AddressOn::Primary), wire);
        hand.closed("isolation/other-network-closed", &red, &to_pod(&blue_1, AddressOn::Primary), wire);
        // The workload on the default network is nobody's neighbour.
        hand.probe(untouched, &plain, &to_pod(&plain_1, AddressOn::Default), wire, reach(&plain_1));
        hand.closed("isolation/udn-to-default", &blue, &to_pod(&plain_1, AddressOn::Default), wire);
        hand.closed("isolation/default-to-udn", &plain, &to_pod(&blue_1, AddressOn::Primary), wire);
        for listener in [&blue_1, &green, &green_1, &yellow_1] {
            hand.listens(listener, AddressOn::Primary, wire);
        }
        hand.listens(&plain_1, AddressOn::Default, wire);
    }
    hand.0
}

fn services() -> Vec<Assertion> {
    let (blue, green) = (app("blue", 0), app("green", 0));
    let backends = |color: &str| vec![app(color, 0), app(color, 1)];
    let any = |color: &str| Expectation::open(Reach::AnyOf(backends(color)));
    let service = |color: &str, via: Exposure| Target::Service {
        service: ServiceRef { namespace: color.into(), name: format!("service-{color}") },
        via,
    };
    let outside = VantagePoint::External;
    let mut hand = Hand::default();
    for (pod, color, node) in [(&blue, "blue", 0), (&green, "green", 1)] {
        // "From inside, by ClusterIP, NodePort and the load balancer's address."
        hand.probe("services/cluster-ip-own", pod, &service(color, Exposure::ClusterIp), SERVICE, any(color));
        hand.probe("services/node-port", pod, &service(color, Exposure::NodePort(node)), SERVICE, any(color));
        hand.probe("services/load-balancer", pod, &service(color, Exposure::LoadBalancer), SERVICE, any(color));
        // "From outside, by NodePort and the load balancer's address."
        let node_port = service(color, Exposure::NodePort(node));
        hand.from("services/node-port", outside.clone(), &node_port, SERVICE, any(color));
        let load_balancer = service(color, Exposure::LoadBalancer);
        hand.from("services/load-balancer", outside.clone(), &load_balancer, SERVICE, any(color));
    }
    // "Across: blue does not reach green's ClusterIP", but what is offered to the outside it reaches as the outside does.
    hand.closed("services/cluster-ip-foreign", &blue, &service("green", Exposure::ClusterIp), SERVICE);
    hand.closed("services/cluster-ip-foreign", &green, &service("blue", Exposure::ClusterIp), SERVICE);
    hand.probe("services/node-port", &blue, &service("green", Exposure::NodePort(1)), SERVICE, any("green"));
    let announced = Expectation::open(Reach::ThroughAnnouncer(backends("green")));
    hand.probe("services/load-balancer", &blue, &service("green", Exposure::LoadBalancer), SERVICE, announced);
    // "A mirrored EndpointSlice has the pods' addresses on their own network."
    let slices = ["blue", "green"].map(|color| {
        let object = ObjectRef::namespaced("v1", "Service", color, &format!("service-{color}"));
        let mirrored = Claim::Mirrored { family: Family::V4, backends: backends(color) };
        claim("services/endpoint-slices", &object, mirrored)
    });
    hand.0.into_iter().chain(slices).collect()
}

fn api_server(rule: &str) -> Vec<Assertion> {
    let mut hand = Hand::default();
    for color in ["blue", "green", "red", "yellow"] {
        // By its ClusterIP, and by the name that DNS knows.
        for target in [Target::ApiServer, Target::Name(DnsName::ApiServer)] {
            hand.probe(rule, &app(color, 0), &target, API, Expectation::open(Reach::Server));
        }
    }
    hand.0
}

fn egress(rule: &str, colors: &[&str]) -> Vec<Assertion> {
    let seen = Expectation::Open { reach: Reach::External, seen_as: Some(SeenAs::Node(0)) };
    let mut hand = Hand::default();
    for color in colors {
        for wire in [PING, WEB] {
            hand.probe(rule, &app(color, 0), &Target::External, wire, seen.clone());
        }
    }
    hand.0
}

/// "A second network with blue's subnet: an address means the caller's own network, and both have egress."
fn overlap() -> Vec<Assertion> {
    let blue_network = NetworkId::Udn { namespace: "blue".into(), name: "blue-network".into() };
    let overlapping_1 = app("overlapping", 1);
    let mut hand = Hand(egress("egress/external", &["blue", "overlapping"]));
    for wire in [PING, WEB] {
        hand.reaches("isolation/same-network-open", &app("overlapping", 0), &overlapping_1, wire);
        hand.reaches("isolation/same-network-open", &app("blue", 0), &app("blue", 1), wire);
        let holder = Expectation::open(Reach::HolderIn(blue_network.clone()));
        let target = to_pod(&overlapping_1, AddressOn::Primary);
        hand.probe("isolation/overlap-coexists", &app("blue", 0), &target, wire, holder);
        hand.listens(&overlapping_1, AddressOn::Primary, wire);
    }
    hand.0
}

fn before_policy() -> Vec<Assertion> {
    let (red, yellow_1, blue_1) = (app("red", 0), app("yellow", 1), app("blue", 1));
    let mut hand = Hand::default();
    for wire in [WEB, OTHER] {
        hand.reaches("isolation/cluster-network-members", &red, &yellow_1, wire);
    }
    hand.closed("isolation/other-network-closed", &red, &to_pod(&blue_1, AddressOn::Primary), WEB);
    hand.listens(&blue_1, AddressOn::Primary, WEB);
    hand.0
}

/// "yellow:8080 open, yellow:9090 not, blue:8080 still closed: the networks' isolation wins."
fn under_policy() -> Vec<Assertion> {
    let (red, yellow_1, blue_1) = (app("red", 0), app("yellow", 1), app("blue", 1));
    let mut hand = Hand::default();
    hand.reaches("policy/allow-rules", &red, &yellow_1, WEB);
    hand.closed("policy/allow-rules", &red, &to_pod(&yellow_1, AddressOn::Primary), OTHER);
    hand.closed("policy/no-cross-network", &red, &to_pod(&blue_1, AddressOn::Primary), WEB);
    // What the policy does not select is as before.
    hand.reaches("isolation/same-network-open", &app("yellow", 0), &yellow_1, OTHER);
    hand.listens(&yellow_1, AddressOn::Primary, OTHER);
    hand.listens(&blue_1, AddressOn::Primary, WEB);
    hand.0
}

fn multi_homing() -> Vec<Assertion> {
    const RULE: &str = "addressing/multi-homing";
    let storage = NetworkId::Udn { namespace: "blue".into(), name: "storage".into() };
    let (first, second) = (PodRef::new("blue", "app-storage-0"), PodRef::new("blue", "app-storage-1"));
    let target = to_pod(&second, AddressOn::Secondary(storage));
    let mut hand = Hand::default();
    for wire in [PING, WEB] {
        hand.probe(RULE, &first, &target, wire, reach(&second));
        hand.closed(RULE, &app("blue", 0), &target, wire);
        hand.reaches("isolation/same-network-open", &app("blue", 0), &second, wire);
    }
    hand.0
}

/// Everything but namespaces: pods at once, then networks, services and the policy.
fn tear_down(all: &[&Value]) -> Vec<Action> {
    let of = |wanted: &dyn Fn(&str) -> bool| -> Vec<ObjectRef> {
        all.iter().filter(|it| it["kind"].as_str().is_some_and(wanted)).map(|it| ObjectRef::of(it)).collect()
    };
    let pods = of(&|kind| kind == "Pod");
    let mut actions: Vec<Action> = pods.iter().cloned().map(Action::Delete).collect();
    actions.extend(pods.into_iter().map(Action::DeleteAndWait));
    let policy = ObjectRef::namespaced("networking.k8s.io/v1", "NetworkPolicy", "red", "allow-to-kubecon-demo-pods");
    actions.push(Action::DeleteAndWait(policy));
    actions.extend(of(&is_network).into_iter().map(Action::DeleteAndWait));
    actions
}

fn gone(all: &[&Value]) -> Vec<Assertion> {
    let networks = all.iter().filter(|it| it["kind"].as_str().is_some_and(is_network));
    networks.map(|network| claim(RECREATED, &ObjectRef::of(network), Claim::Gone)).collect()
}

fn is_network(kind: &str) -> bool {
    matches!(kind, "UserDefinedNetwork" | "ClusterUserDefinedNetwork")
}

/// "And again: the API server is still reached." The workshop noted that it was not always.
fn set_up_again() -> Vec<Assertion> {
    let mut matrix = connectivity(RECREATED);
    matrix.extend(api_server(RECREATED));
    matrix.extend(egress(RECREATED, &["blue", "green"]));
    let mut hand = Hand(matrix);
    for color in ["blue", "green"] {
        let service = ServiceRef { namespace: color.into(), name: format!("service-{color}") };
        let target = Target::Service { service, via: Exposure::ClusterIp };
        let any = Expectation::open(Reach::AnyOf(vec![app(color, 0), app(color, 1)]));
        hand.probe(RECREATED, &app(color, 0), &target, SERVICE, any);
    }
    hand.0
}

/// A replica of a color's workload.
fn app(color: &str, replica: u8) -> PodRef {
    let namespace = match color {
        "overlapping" => "overlapping-with-blue",
        "default" => "default-network",
        color => color,
    };
    PodRef::new(namespace, &format!("app-{color}-{replica}"))
}

fn to_pod(pod: &PodRef, on: AddressOn) -> Target {
    Target::Pod { pod: pod.clone(), on }
}

fn reach(pod: &PodRef) -> Expectation {
    Expectation::open(Reach::Pod(pod.clone()))
}

/// Assertions written by hand.
#[derive(Default)]
struct Hand(Vec<Assertion>);

impl Hand {
    fn reaches(&mut self, rule: &str, from: &PodRef, to: &PodRef, wire: (Transport, Option<u16>)) {
        self.probe(rule, from, &to_pod(to, AddressOn::Primary), wire, reach(to));
    }

    fn closed(&mut self, rule: &str, from: &PodRef, to: &Target, wire: (Transport, Option<u16>)) {
        self.probe(rule, from, to, wire, Expectation::Closed);
    }

    /// The listener's own control: a pod reaches itself.
    fn listens(&mut self, pod: &PodRef, on: AddressOn, wire: (Transport, Option<u16>)) {
        self.probe("control/listener-works", pod, &to_pod(pod, on), wire, reach(pod));
    }

    fn probe(&mut self, rule: &str, from: &PodRef, to: &Target, wire: (Transport, Option<u16>), what: Expectation) {
        self.from(rule, VantagePoint::Pod(from.clone()), to, wire, what);
    }

    fn from(
        &mut self,
        rule: &str,
        from: VantagePoint,
        to: &Target,
        (transport, port): (Transport, Option<u16>),
        expectation: Expectation,
    ) {
        self.0.push(Assertion::Probe(ProbeAssertion {
            rule: RuleName::new(rule),
            from,
            to: to.clone(),
            transport,
            port,
            families: vec![Family::V4],
            expectation,
        }));
    }
}
