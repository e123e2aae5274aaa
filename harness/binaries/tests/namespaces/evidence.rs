//! Arrivals, facts, and what an agent without rights can still do.

use std::net::SocketAddr;

use udn_agent::protocol::{Body, Evidence, IcmpMeans, NextHop, Op, Outcome, Transport};

use crate::support::agent::{Agent, probe};
use crate::support::topology::{CLIENT, ROUTER, SERVER, Topology, address, ip};

#[test]
fn without_rights_listeners_count_and_say_so() {
    let topology = Topology::new();
    let (mut client, mut server) = (Agent::start(&topology.client), Agent::start_powerless(&topology.server));
    assert_eq!(client.hello.evidence, Evidence::Capture);
    assert_eq!(server.hello.evidence, Evidence::Listener);
    for transport in [Transport::Tcp, Transport::Udp] {
        server.listen(transport, 8080, "the server");
        for host in SERVER {
            for port in [8080, 9090] {
                let to = SocketAddr::new(address(host), port);
                let wanted = probe(transport, to);
                let result = client.probe(wanted.clone());
                let arrivals = server.arrivals_at(transport, to);
                if port == 9090 {
                    assert!(matches!(result.outcome, Outcome::Refused { .. }), "{:?}", result.outcome);
                    assert!(arrivals.is_empty(), "nobody listened, so nobody saw it");
                    continue;
                }
                assert_eq!(arrivals.len(), 1, "{transport} {host}");
                assert_eq!(Some(arrivals[0].source), result.local);
                if transport == Transport::Udp {
                    assert_eq!(arrivals[0].nonce, Some(wanted.nonce));
                }
            }
        }
    }
    assert_eq!(server.arrivals().evidence, Evidence::Listener);
}

#[test]
fn echo_works_without_rights_where_the_system_lets_it() {
    let topology = Topology::new();
    let _server = Agent::start(&topology.server);
    let mut denied = Agent::start_powerless(&topology.client);
    assert_eq!(denied.hello.icmp, IcmpMeans::Missing);
    let outcome = denied.probe(probe(Transport::Icmp, SocketAddr::new(address(SERVER[0]), 0))).outcome;
    assert!(matches!(outcome, Outcome::AgentFailed(_)), "{outcome:?}");

    topology.client.write_sysctl("ipv4/ping_group_range", "0 65535").expect("allow ping sockets");
    let mut allowed = Agent::start_powerless(&topology.client);
    assert_eq!(allowed.hello.icmp, IcmpMeans::Ping);
    for host in SERVER {
        let open = allowed.probe(probe(Transport::Icmp, SocketAddr::new(address(host), 0)));
        assert!(matches!(open.outcome, Outcome::Open(_)), "{host}: {:?}", open.outcome);
        ip(&topology.client, &format!("route add unreachable {host}"));
        let outcome = allowed.probe(probe(Transport::Icmp, SocketAddr::new(address(host), 0))).outcome;
        assert_eq!(outcome, Outcome::NoRoute { errno: 113 }, "{host}");
    }
}

#[test]
fn only_what_is_addressed_here_and_starts_something_arrives() {
    let topology = Topology::new();
    let (mut client, mut server) = (Agent::start(&topology.client), Agent::start(&topology.server));
    let mut router = Agent::start(&topology.router);
    for transport in [Transport::Tcp, Transport::Udp] {
        server.listen(transport, 8080, "the server");
        for host in SERVER {
            client.probe(probe(transport, SocketAddr::new(address(host), 8080)));
        }
    }
    for host in SERVER {
        client.probe(probe(Transport::Icmp, SocketAddr::new(address(host), 0)));
    }
    let (here, way_back) = (server.arrivals(), client.arrivals());
    assert_eq!(here.list.len(), 6, "{:?}", here.list);
    assert_eq!((here.overwritten, here.capture_drops, here.more), (0, 0, false));
    assert!(way_back.list.is_empty(), "answers are no arrivals: {:?}", way_back.list);
    // The link layer addressed these to the router, whoever they were for: it saw them.
    assert_eq!(router.arrivals().list.len(), 6);
    // The cursor leads on.
    let Body::Arrivals(nothing) = server.ask(Op::Arrivals { after: here.cursor }) else { panic!("arrivals") };
    assert!(nothing.list.is_empty());
}

#[test]
fn what_is_for_another_machine_does_not_arrive() {
    let topology = Topology::new();
    let (mut client, mut server) = (Agent::start(&topology.client), Agent::start(&topology.server));
    for host in SERVER {
        ip(&topology.router, &format!("neighbour replace {host} lladdr 02:00:00:00:00:99 dev eth2"));
        for transport in [Transport::Tcp, Transport::Udp] {
            let result = client.probe(probe(transport, SocketAddr::new(address(host), 8080)));
            assert_eq!(result.outcome, Outcome::TimedOut, "{transport} {host}");
        }
    }
    let arrivals = server.arrivals().list;
    assert!(arrivals.is_empty(), "a cable shows them, the link layer's address does not: {arrivals:?}");
}

#[test]
fn facts_are_the_networks() {
    let topology = Topology::new();
    let mut client = Agent::start(&topology.client);
    ip(&topology.client, "link set eth0 mtu 1400 address 0a:58:0a:00:01:02");
    ip(&topology.client, "route add 10.7.0.0/16 via 10.0.1.1 metric 20 mtu lock 1300");
    client.probe(probe(Transport::Icmp, SocketAddr::new(address(ROUTER[0]), 0)));
    let Body::Facts(facts) = client.ask(Op::Facts) else { panic!("facts") };

    let eth0 = facts.interfaces.iter().find(|interface| interface.name == "eth0").expect("eth0");
    assert_eq!((eth0.mtu, eth0.mac.as_str(), eth0.up, eth0.running), (1400, "0a:58:0a:00:01:02", true, true));
    for (host, prefix) in CLIENT.into_iter().zip([24, 64]) {
        let found = eth0.addresses.iter().find(|found| found.address == address(host)).expect(host);
        assert_eq!((found.prefix, found.tentative), (prefix, false));
    }
    for (any, router) in ["0.0.0.0", "::"].into_iter().zip(ROUTER) {
        let route = facts.routes.iter().find(|route| route.destination == address(any) && route.prefix == 0);
        let route = route.expect("a default route");
        assert_eq!(route.next_hops, [NextHop { gateway: Some(address(router)), interface: eth0.index }]);
    }
    let special = facts.routes.iter().find(|route| route.destination == address("10.7.0.0")).expect("the route");
    assert_eq!((special.prefix, special.metric, special.mtu, special.kind.as_str()), (16, 20, Some(1300), "unicast"));
    let neighbour =
        facts.neighbours.iter().find(|neighbour| neighbour.address == address(ROUTER[0])).expect("the router");
    assert_eq!((neighbour.interface, neighbour.mac.len()), (eth0.index, 17));
}
