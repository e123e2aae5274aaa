//! Who gets what.

use super::*;
use crate::controller::denied::Cause;
use crate::controller::state::NetworkState;
use crate::definition;
use crate::layout::tests::{LAYER2, LAYER3, nodes};

fn state(configs: &[(&str, &str)]) -> State {
    let mut state = State::default();
    let mut default = NetworkState::new(Layout::default_network(nodes()));
    default.ready = true;
    state.networks.insert(DEFAULT_NETWORK.into(), default);
    for (id, (key, config)) in (1..).zip(configs) {
        let definition = definition::parse(key, config).unwrap().unwrap();
        let layout = Layout { definition: definition.clone().into(), id, nodes: nodes() };
        let mut network = NetworkState::new(layout);
        network.ready = true;
        state.networks.insert(definition.name.clone(), network);
        state.definitions.insert((*key).into(), definition);
    }
    state
}

fn ask(
    state: &mut State,
    name: &str,
    labelled: bool,
    annotations: &[(&str, &str)],
) -> Result<Vec<Attachment>, Refusal> {
    ask_for(state, name, labelled, annotations, None, None)
}

fn ask_for(
    state: &mut State,
    name: &str,
    labelled: bool,
    annotations: &[(&str, &str)],
    vm: Option<&str>,
    claim: Option<&Claim>,
) -> Result<Vec<Attachment>, Refusal> {
    let annotations = annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let nodes = nodes();
    attachments(
        state,
        &Asking { namespace: "blue", name, uid: name, annotations: &annotations, labelled, node: &nodes[1], vm, claim },
    )
}

fn destinations(attachment: &Attachment) -> Vec<String> {
    attachment.routes.iter().map(|(net, _)| net.to_string()).collect()
}

#[test]
fn a_primary_layer3_pod_has_what_was_measured() {
    let mut state = state(&[("blue/blue-network", LAYER3)]);
    let made = ask(&mut state, "p", true, &[]).unwrap();
    assert_eq!((made[0].role, made[1].role), (Role::InfrastructureLocked, Role::Primary));
    assert_eq!(destinations(&made[0]), ["10.244.0.0/16", "100.64.0.0/16", "fd00:10:244::/48", "fd98::/64"]);
    assert_eq!(
        destinations(&made[1]),
        ["103.103.0.0/16", "10.96.0.0/16", "100.65.0.0/16", "2014:100:200::/60", "fd00:10:96::/112", "fd99::/64"]
    );
    assert_eq!(made[1].addresses[0].to_string(), "103.103.1.3/24");
    assert_eq!(made[1].gateways[0].to_string(), "103.103.1.1");
    assert!(made[0].gateways.is_empty());
    assert_eq!((made[0].interface.as_str(), made[1].interface.as_str()), ("eth0", "ovn-udn1"));
}

#[test]
fn layer2_has_two_routes_per_family() {
    let mut state = state(&[("blue/blue-network", LAYER2)]);
    let made = ask(&mut state, "p", true, &[]).unwrap();
    assert_eq!(destinations(&made[1]), ["10.96.0.0/16", "100.65.0.0/16", "fd00:10:96::/112", "fd99::/64"]);
    assert_eq!(made[1].link_local_gateway.unwrap().to_string(), "fe80::858:acff:fe10:2");
}

#[test]
fn label_and_network_decide_together() {
    let mut empty = state(&[]);
    assert!(
        matches!(ask(&mut empty, "p", true, &[]), Err(Refusal::Wait(reason)) if reason.contains("invalid primary network state"))
    );
    let mut with_network = state(&[("blue/blue-network", LAYER3)]);
    let made = ask(&mut with_network, "p", false, &[]).unwrap();
    assert_eq!((made.len(), made[0].role), (1, Role::Primary));
    assert_eq!(made[0].gateways.len(), 2);
}

#[test]
fn static_requests_and_duplicates() {
    let mut state = state(&[("blue/blue-network", LAYER2)]);
    let request = r#"[{"name":"default","namespace":"ovn-kubernetes","mac":"02:03:04:05:06:07","ips":["172.16.0.9/16","2014:100:200::9/60"]}]"#;
    let made = ask(&mut state, "one", true, &[(names::DEFAULT_NETWORK, request)]).unwrap();
    assert_eq!(made[1].addresses[0].to_string(), "172.16.0.9/16");
    assert_eq!(made[1].mac.to_string(), "02:03:04:05:06:07");
    let refused = ask(&mut state, "two", true, &[(names::DEFAULT_NETWORK, request)]);
    assert!(
        matches!(refused, Err(Refusal::Refuse(denied, None)) if denied.message.contains("provided IP is already allocated"))
    );
    let only_mac = r#"[{"name":"default","namespace":"ovn-kubernetes","mac":"02:03:04:05:06:07"}]"#;
    let refused = ask(&mut state, "two", true, &[(names::DEFAULT_NETWORK, only_mac)]);
    assert!(
        matches!(refused, Err(Refusal::Refuse(denied, None)) if denied.message.contains("MAC address already in use"))
    );
    release(&mut state, "one", &made);
    assert!(ask(&mut state, "two", true, &[(names::DEFAULT_NETWORK, request)]).is_ok());
}

#[test]
fn secondary_attachments_count_up_and_have_no_gateway() {
    let secondary =
        LAYER2.replace("primary", "secondary").replace(r#","defaultGatewayIPs":"172.16.0.2,2014:100:200::2""#, "");
    let mut state = state(&[("blue/blue-network", &secondary)]);
    let made = ask(&mut state, "p", false, &[(names::NETWORKS, "blue-network,blue-network")]).unwrap();
    assert_eq!((made[1].interface.as_str(), made[2].interface.as_str()), ("net1", "net2"));
    assert_ne!(made[1].addresses, made[2].addresses);
    assert_ne!(made[1].port, made[2].port);
    assert!(made[1].gateways.is_empty() && made[1].routes.is_empty());
    assert!(matches!(ask(&mut state, "q", false, &[(names::NETWORKS, "missing")]), Err(Refusal::Wait(_))));
}

#[test]
fn addresses_survive_a_restart_of_the_controller() {
    let mut before = state(&[("blue/blue-network", LAYER2)]);
    ask(&mut before, "other", true, &[]).unwrap();
    let made = ask(&mut before, "p", true, &[]).unwrap();
    let mut after = state(&[("blue/blue-network", LAYER2)]);
    let again = ask(&mut after, "p", true, &[(names::POD_NETWORKS, &annotation::pod_networks(&made))]).unwrap();
    assert_eq!(made, again);
}

const PERSISTENT: &str = r#"{"type":"ovn-k8s-cni-overlay","name":"blue_blue-network","netAttachDefName":"blue/blue-network",
    "topology":"layer2","role":"primary","subnets":"172.16.0.0/16,2014:100:200::/60","allowPersistentIPs":true}"#;

fn persistent() -> State {
    state(&[("blue/blue-network", PERSISTENT)])
}

fn claim(uid: &str, addresses: &[&str]) -> Claim {
    let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
    Claim { name: format!("{uid}.default"), uid: Some(uid.into()), addresses }
}

fn addresses(made: &[Attachment]) -> Vec<String> {
    made[1].addresses.iter().map(ToString::to_string).collect()
}

/// The pod is gone, with what it had.
fn end(state: &mut State, uid: &str, made: &[Attachment]) {
    state.pods.remove(uid);
    release(state, uid, made);
}

fn run(state: &mut State, uid: &str, made: &[Attachment]) {
    let known = crate::controller::state::PodState {
        uid: uid.into(),
        pod: std::sync::Arc::default(),
        node: "ovn-worker".into(),
        attachments: made.to_vec(),
        ports: Vec::new(),
        open_ports: None,
        standing: Default::default(),
        decision: 0,
    };
    state.pods.insert(uid.into(), known);
}

#[test]
fn a_claim_keeps_addresses_pod_or_no_pod() {
    let (mut state, mut db) = (persistent(), claim("db", &[]));
    state.claims.insert("blue/db.default".into(), "db".into());
    let first = ask_for(&mut state, "first", true, &[], Some("db"), Some(&db)).unwrap();
    assert_eq!(first[1].claim.as_ref().unwrap().key, "blue/db.default");
    run(&mut state, "first", &first);
    // The claim's status is not known to say it yet.
    let target = ask_for(&mut state, "target", true, &[], Some("db"), Some(&db)).unwrap();
    assert_eq!((addresses(&first), first[1].mac), (addresses(&target), target[1].mac));
    run(&mut state, "target", &target);
    end(&mut state, "first", &first);
    end(&mut state, "target", &target);
    let other = ask(&mut state, "other", true, &[]).unwrap();
    assert_ne!(addresses(&other), addresses(&first));
    db.addresses.clone_from(&first[1].addresses);
    let again = ask_for(&mut state, "again", true, &[], Some("db"), Some(&db)).unwrap();
    assert_eq!(addresses(&again), addresses(&first));
    // The claim goes while a pod has its addresses: they go with the pod.
    run(&mut state, "again", &again);
    state.claims.clear();
    state.release_unused_claim("db");
    let wanted = addresses(&first).join(r#"",""#);
    let request = format!(r#"[{{"name":"default","ips":["{wanted}"]}}]"#);
    let taken = ask(&mut state, "thief", true, &[(names::DEFAULT_NETWORK, &request)]);
    assert!(matches!(taken, Err(Refusal::Refuse(denied, None)) if denied.cause == Cause::AddressConflict));
    end(&mut state, "again", &again);
    assert!(ask(&mut state, "heir", true, &[(names::DEFAULT_NETWORK, &request)]).is_ok());
}

#[test]
fn claims_survive_a_restart_of_the_controller() {
    let mut state = persistent();
    let held = ["172.16.0.3/16", "2014:100:200::3/60"];
    let network = state.networks.get_mut("blue_blue-network").unwrap();
    network.put_aside(&claim_owner("db"), &held.map(|text| text.parse::<IpNet>().unwrap().addr()));
    let other = ask(&mut state, "other", true, &[]).unwrap();
    assert_eq!(addresses(&other), ["172.16.0.4/16", "2014:100:200::4/60"]);
    let db = ask_for(&mut state, "db-pod", true, &[], Some("db"), Some(&claim("db", &held))).unwrap();
    assert_eq!(addresses(&db), held);
}

#[test]
fn networks_that_keep_nothing_ignore_claims() {
    let mut state = state(&[("blue/blue-network", LAYER2)]);
    let db = claim("db", &["172.16.0.77/16", "2014:100:200::77/60"]);
    let made = ask_for(&mut state, "p", true, &[], Some("db"), Some(&db)).unwrap();
    assert!(made[1].claim.is_none() && addresses(&made)[0] != "172.16.0.77/16");
    assert_eq!(made[1].guest.as_deref(), Some("blue/db"));
    let missing = Claim { name: "gone".into(), ..Claim::default() };
    assert!(ask_for(&mut state, "q", true, &[], Some("x"), Some(&missing)).is_ok());
    let waits = ask_for(&mut persistent(), "q", true, &[], Some("x"), Some(&missing));
    assert!(matches!(waits, Err(Refusal::Wait(reason)) if reason.contains("failed to get IPAMClaim")));
}

fn refused(state: &mut State, uid: &str, request: &str) -> Denied {
    let claim = claim(uid, &[]);
    match ask_for(state, uid, true, &[(names::DEFAULT_NETWORK, request)], Some(uid), Some(&claim)) {
        Err(Refusal::Refuse(denied, Some(told))) if told.uid == uid => denied,
        other => panic!("{other:?}"),
    }
}

#[test]
fn conflicts_are_told_to_the_claim_and_take_nothing() {
    let mut state = persistent();
    let request = r#"[{"name":"default","mac":"02:03:04:05:06:07","ips":["172.16.0.9/16","2014:100:200::9/60"]}]"#;
    let one = claim("one", &[]);
    ask_for(&mut state, "one", true, &[(names::DEFAULT_NETWORK, request)], Some("one"), Some(&one)).unwrap();
    let same = refused(&mut state, "two", request);
    assert_eq!(same.cause, Cause::AddressConflict);
    assert!(same.message.contains("provided IP is already allocated"), "{}", same.message);
    let other_address = request.replace("0.9/16", "0.8/16").replace("::9/60", "::8/60");
    let same_mac = refused(&mut state, "three", &other_address);
    assert_eq!(same_mac.cause, Cause::MacConflict);
    assert!(same_mac.message.contains("MAC address already in use"));
    let free = other_address.replace("06:07", "06:08");
    let four = claim("four", &[]);
    assert!(ask_for(&mut state, "four", true, &[(names::DEFAULT_NETWORK, &free)], Some("four"), Some(&four)).is_ok());
}

#[test]
fn families_of_a_request_are_those_of_the_network() {
    let mut state = persistent();
    for ips in [r#""172.16.0.9/16""#, r#""2014:100:200::9/60""#, r#""172.16.0.9/16","172.16.0.8/16""#] {
        let denied = refused(&mut state, "db", &format!(r#"[{{"name":"default","ips":[{ips}]}}]"#));
        assert_eq!(denied.cause, Cause::Internal);
        let words = "requested IPs family types must match network's IP family configuration";
        assert!(denied.message.contains(words), "{}", denied.message);
    }
}

#[test]
fn a_request_cannot_move_a_claim() {
    let mut state = persistent();
    let has = claim("db", &["172.16.0.9/16", "2014:100:200::9/60"]);
    let mut asks = |first: &str| {
        let request = format!(r#"[{{"name":"default","ips":["{first}/16","2014:100:200::9/60"]}}]"#);
        ask_for(&mut state, "db", true, &[(names::DEFAULT_NETWORK, &request)], Some("db"), Some(&has))
    };
    let words = "with IPs not containing the requested IP";
    assert!(matches!(asks("172.16.0.8"), Err(Refusal::Refuse(denied, _)) if denied.message.contains(words)));
    assert!(asks("172.16.0.9").is_ok());
}

#[test]
fn a_small_subnet_is_exhausted() {
    let small = PERSISTENT.replace("172.16.0.0/16,2014:100:200::/60", "172.16.0.0/30");
    let denied = refused(&mut state(&[("blue/blue-network", &small)]), "db", r#"[{"name":"default"}]"#);
    assert_eq!(denied.cause, Cause::Exhausted);
    assert!(denied.message.contains("subnet address pool exhausted"), "{}", denied.message);
}

#[test]
fn a_machine_keeps_its_mac_while_any_pod_runs_it() {
    let mut state = persistent();
    let request = r#"[{"name":"default","mac":"02:03:04:05:06:07"}]"#;
    let ask_mac = |state: &mut State, pod: &str, vm: &str| {
        ask_for(state, pod, true, &[(names::DEFAULT_NETWORK, request)], Some(vm), Some(&claim(vm, &[])))
    };
    let source = ask_mac(&mut state, "source", "db").unwrap();
    run(&mut state, "source", &source);
    let target = ask_mac(&mut state, "target", "db").unwrap();
    run(&mut state, "target", &target);
    end(&mut state, "source", &source);
    assert!(ask_mac(&mut state, "other", "web").is_err());
    end(&mut state, "target", &target);
    assert!(ask_mac(&mut state, "other", "web").is_ok());
}
