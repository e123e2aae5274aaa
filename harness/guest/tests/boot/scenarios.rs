//! What a guest does.

use std::net::{IpAddr, SocketAddr};

use udn_agent::protocol::{Body, Facts, Identify, Op, Outcome, Probe, Transport};

use super::console::Console;
use super::machine::{MAC, Machine, Port};
use super::server::{Served, Server, TAP};

fn probe(to: &str) -> Probe {
    Probe {
        transport: Transport::Icmp,
        to: SocketAddr::new(to.parse().expect("an address"), 0),
        from: None,
        source_port: None,
        timeout_ms: 5000,
        identify: Identify::None,
        nonce: 77,
    }
}

fn has(facts: &Facts, address: &str) -> bool {
    let address: IpAddr = address.parse().expect("an address");
    facts
        .interfaces
        .iter()
        .flat_map(|interface| &interface.addresses)
        .any(|own| own.address == address && !own.tentative)
}

fn has_v6(facts: &Facts) -> bool {
    facts.guest.as_ref().and_then(|guest| guest.dhcpv6.as_ref()).and_then(|lease| lease.address).is_some()
}

fn assert_reaches(console: &mut Console, to: &str) {
    let Body::Probe(result) = console.ask(Op::Probe(probe(to))) else { panic!("no result") };
    assert!(matches!(result.outcome, Outcome::Open(_)), "{to}: {:?}", result.outcome);
}

/// Boots with a console of this kind and looks at everything once.
fn boots(port: Port) {
    let server = Server::start(Served::Both);
    let machine = Machine::start(&server.netns, TAP, port);
    let mut console = Console::connect(&machine.console());
    let hello = console.attach(1, 0);
    eprintln!("{port:?}: hello after {:?}", machine.started.elapsed());
    let facts = console.await_facts("configured", |facts| has(facts, "10.77.0.50") && has_v6(facts));
    eprintln!("{port:?}: configured after {:?}", machine.started.elapsed());

    assert_eq!((facts.hostname.as_str(), hello.pid), ("db", 1));
    let eth0 = facts.interfaces.iter().find(|interface| interface.name == "eth0").expect("eth0");
    assert_eq!((eth0.mtu, eth0.mac.as_str(), eth0.up), (1400, MAC, true));
    assert!(has(&facts, "fe80::858:aff:fe4d:32"), "by EUI-64: {:?}", eth0.addresses);
    let defaults: Vec<_> = facts.routes.iter().filter(|route| route.prefix == 0 && route.kind == "unicast").collect();
    assert!(defaults.iter().any(|route| route.next_hops[0].gateway == "10.77.0.1".parse().ok()), "{defaults:?}");
    let router: IpAddr = "fe80::858:aff:fe4d:1".parse().expect("an address");
    assert!(defaults.iter().any(|route| route.next_hops[0].gateway == Some(router)), "{defaults:?}");
    assert_eq!(facts.resolvers.nameservers[..2], ["10.77.0.53", "fd77::53"]);
    assert_eq!(facts.resolvers.search, ["red.example"]);

    let guest = facts.guest.expect("a guest");
    let lease = guest.dhcpv4.expect("a lease");
    assert_eq!((lease.lease_s, lease.mtu, lease.hostname.as_deref()), (3500, Some(1400), Some("db")));
    assert_eq!((lease.server.to_string().as_str(), lease.prefix), ("10.77.0.1", 24));
    let advertised = &guest.routers[0];
    assert!(advertised.managed && IpAddr::V6(advertised.router) == router, "{advertised:?}");
    assert_eq!((advertised.mtu, advertised.mac.as_str()), (Some(1400), "0a:58:0a:4d:00:01"));
    assert_eq!(guest.troubles, Vec::<String>::new());

    assert_reaches(&mut console, "10.77.0.1");
    assert_reaches(&mut console, "fd77::1");
    let facts = console.facts();
    let gateway = facts.neighbours.iter().find(|entry| entry.address == "10.77.0.1".parse::<IpAddr>().expect("one"));
    assert_eq!(gateway.map(|entry| entry.mac.as_str()), Some("0a:58:0a:4d:00:01"));

    console.ask_later(Op::Shutdown);
    machine.await_end();
}

#[test]
#[ignore = "needs root, QEMU, dnsmasq and a kernel package: see tests/boot/main.rs"]
fn a_guest_configures_itself_and_is_controlled_by_its_serial_port() {
    boots(Port::Serial);
}

#[test]
#[ignore = "needs root, QEMU, dnsmasq and a kernel package: see tests/boot/main.rs"]
fn a_guest_configures_itself_and_is_controlled_by_a_virtio_console() {
    boots(Port::VirtioConsole);
}

#[test]
#[ignore = "needs root, QEMU, dnsmasq and a kernel package: see tests/boot/main.rs"]
fn a_guest_configures_itself_and_is_controlled_by_a_virtio_port() {
    boots(Port::VirtioPort);
}
