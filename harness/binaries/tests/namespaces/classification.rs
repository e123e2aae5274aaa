//! What a probe says it saw, against a network that does it.

use std::net::SocketAddr;
use std::time::Duration;

use udn_agent::protocol::{IcmpError, Outcome, Transport, Unreachable};

use crate::support::agent::{Agent, probe};
use crate::support::topology::{CLIENT, ROUTER, SERVER, Topology, address, forward, ip, nft};

const ALL: [Transport; 3] = [Transport::Tcp, Transport::Udp, Transport::Icmp];
const PORT: u16 = 8080;

fn target(transport: Transport, host: &str) -> SocketAddr {
    SocketAddr::new(address(host), if transport == Transport::Icmp { 0 } else { PORT })
}

fn listening(topology: &Topology) -> Agent {
    let mut server = Agent::start(&topology.server);
    server.listen(Transport::Tcp, PORT, "the server");
    server.listen(Transport::Udp, PORT, "the server");
    server
}

/// Probes over every transport and family; gives the outcome and whether it arrived, with a name for messages.
fn probe_everything(client: &mut Agent, server: &mut Agent) -> Vec<(Transport, usize, Outcome, bool)> {
    let kinds: Vec<_> = ALL.into_iter().flat_map(|transport| [0, 1].map(|family| (transport, family))).collect();
    let probes = kinds.iter().map(|(transport, family)| probe(*transport, target(*transport, SERVER[*family])));
    let results = client.probe_all(probes);
    kinds
        .into_iter()
        .zip(results)
        .map(|((transport, family), result)| {
            let arrived = !server.arrivals_at(transport, target(transport, SERVER[family])).is_empty();
            (transport, family, result.outcome, arrived)
        })
        .collect()
}

#[test]
fn open_says_who_answered_and_what_it_saw() {
    let topology = Topology::new();
    let (mut client, mut server) = (Agent::start(&topology.client), listening(&topology));
    for transport in ALL {
        for (family, host) in SERVER.into_iter().enumerate() {
            let to = target(transport, host);
            let wanted = probe(transport, to);
            let result = client.probe(wanted.clone());
            let Outcome::Open(open) = result.outcome else { panic!("{transport} {host}: {:?}", result.outcome) };
            assert!(open.rtt_us > 0 && open.rtt_us <= result.took_us && result.took_us < 1_000_000);
            let arrivals = server.arrivals_at(transport, to);
            assert_eq!(arrivals.len(), 1, "{transport} {host}: {arrivals:?}");
            assert_eq!(arrivals[0].source.ip(), address(CLIENT[family]));
            if transport == Transport::Icmp {
                assert_eq!(open.identity, None);
            } else {
                assert_eq!(open.identity.as_deref(), Some("the server"));
                assert_eq!(open.seen_as, result.local, "nothing translates addresses here");
                assert_eq!(Some(arrivals[0].source), result.local);
            }
            if transport != Transport::Tcp {
                assert_eq!(arrivals[0].nonce, Some(wanted.nonce));
            }
        }
    }
}

#[test]
fn no_listener_is_refused_by_the_target_and_arrives() {
    let topology = Topology::new();
    let (mut client, mut server) = (Agent::start(&topology.client), Agent::start(&topology.server));
    for (family, host) in SERVER.into_iter().enumerate() {
        let tcp = client.probe(probe(Transport::Tcp, target(Transport::Tcp, host)));
        assert_eq!(tcp.outcome, Outcome::Refused { icmp: None });
        let udp = client.probe(probe(Transport::Udp, target(Transport::Udp, host)));
        let (kind, code) = [(3, 3), (1, 4)][family];
        let icmp = Some(IcmpError { kind, code, from: Some(address(host)) });
        assert_eq!(udp.outcome, Outcome::Refused { icmp });
        for transport in [Transport::Tcp, Transport::Udp] {
            assert_eq!(server.arrivals_at(transport, target(transport, host)).len(), 1);
        }
    }
}

#[test]
fn dropped_on_the_way_times_out_and_does_not_arrive() {
    let topology = Topology::new();
    let (mut client, mut server) = (Agent::start(&topology.client), listening(&topology));
    forward(&topology, "drop");
    for (transport, family, outcome, arrived) in probe_everything(&mut client, &mut server) {
        assert_eq!((outcome, arrived), (Outcome::TimedOut, false), "{transport} {}", SERVER[family]);
    }
}

#[test]
fn half_open_times_out_but_arrives() {
    let topology = Topology::new();
    let (mut client, mut server) = (Agent::start(&topology.client), listening(&topology));
    forward(&topology, "iifname eth2 drop");
    for (transport, family, outcome, arrived) in probe_everything(&mut client, &mut server) {
        assert_eq!((outcome, arrived), (Outcome::TimedOut, true), "{transport} {}", SERVER[family]);
    }
}

#[test]
fn what_the_target_drops_itself_has_arrived_all_the_same() {
    let topology = Topology::new();
    let (mut client, mut server) = (Agent::start(&topology.client), listening(&topology));
    let rules = "tcp dport 8080 drop; udp dport 8080 drop; icmp type echo-request drop; icmpv6 type echo-request drop";
    nft(&topology.server, "filter hook input priority 0", rules);
    for (transport, family, outcome, arrived) in probe_everything(&mut client, &mut server) {
        assert_eq!((outcome, arrived), (Outcome::TimedOut, true), "{transport} {}", SERVER[family]);
    }
}

#[test]
fn reset_on_the_way_is_refused_but_does_not_arrive() {
    let topology = Topology::new();
    let (mut client, mut server) = (Agent::start(&topology.client), listening(&topology));
    forward(&topology, "meta l4proto tcp reject with tcp reset");
    for (transport, family, outcome, arrived) in probe_everything(&mut client, &mut server) {
        if transport == Transport::Tcp {
            assert_eq!((outcome, arrived), (Outcome::Refused { icmp: None }, false), "{}", SERVER[family]);
        } else {
            assert!(matches!(outcome, Outcome::Open(_)) && arrived, "{transport} is not reset: {outcome:?}");
        }
    }
}

#[test]
fn rejected_by_icmp_says_which_and_by_whom() {
    let topology = Topology::new();
    let (mut client, mut server) = (Agent::start(&topology.client), listening(&topology));
    forward(&topology, "reject with icmpx type admin-prohibited");
    for (transport, family, outcome, arrived) in probe_everything(&mut client, &mut server) {
        let (kind, code) = [(3, 13), (1, 1)][family];
        let Outcome::Unreachable(Unreachable { icmp, .. }) = outcome else {
            panic!("{transport} {}: {outcome:?}", SERVER[family])
        };
        let expected = IcmpError { kind, code, from: Some(address(ROUTER[family])) };
        assert_eq!((icmp, arrived), (Some(expected), false), "{transport} {}", SERVER[family]);
    }
}

#[test]
fn port_unreachable_from_somebody_else_is_refused_by_name() {
    let topology = Topology::new();
    let (mut client, mut server) = (Agent::start(&topology.client), listening(&topology));
    forward(&topology, "reject with icmpx type port-unreachable");
    for (transport, family, outcome, arrived) in probe_everything(&mut client, &mut server) {
        let (kind, code) = [(3, 3), (1, 4)][family];
        let icmp = Some(IcmpError { kind, code, from: Some(address(ROUTER[family])) });
        assert!(!arrived);
        match outcome {
            Outcome::Refused { icmp: found } if transport != Transport::Icmp => assert_eq!(found, icmp),
            Outcome::Unreachable(Unreachable { icmp: found, .. }) if transport == Transport::Icmp => {
                assert_eq!(found, icmp)
            }
            other => panic!("{transport} {}: {other:?}", SERVER[family]),
        }
    }
}

#[test]
fn no_route_here_is_told_from_no_route_on_the_way() {
    let topology = Topology::new();
    let (mut client, mut server) = (Agent::start(&topology.client), listening(&topology));
    for behind in ["10.0.2.0/24", "fd00:2::/64"] {
        ip(&topology.router, &format!("route del {behind} dev eth2"));
    }
    for (transport, family, outcome, _) in probe_everything(&mut client, &mut server) {
        let Outcome::Unreachable(Unreachable { icmp: Some(icmp), .. }) = outcome else {
            panic!("{transport} {}: {outcome:?}", SERVER[family])
        };
        // Network unreachable; ICMPv6: no route.
        assert_eq!((icmp.kind, icmp.code), [(3, 0), (1, 0)][family]);
        assert_eq!(icmp.from, Some(address(ROUTER[family])));
    }
    for default in ["route del default", "-6 route del default"] {
        ip(&topology.client, default);
    }
    for (transport, family, outcome, _) in probe_everything(&mut client, &mut server) {
        assert_eq!(outcome, Outcome::NoRoute { errno: 101 }, "{transport} {}", SERVER[family]);
    }
    for (kind, errno) in [("unreachable", 113), ("prohibit", 13), ("blackhole", 22)] {
        for host in SERVER {
            ip(&topology.client, &format!("route add {kind} {host}"));
        }
        for (transport, family, outcome, _) in probe_everything(&mut client, &mut server) {
            assert_eq!(outcome, Outcome::NoRoute { errno }, "{kind} {transport} {}", SERVER[family]);
        }
        for host in SERVER {
            ip(&topology.client, &format!("route del {kind} {host}"));
        }
    }
}

#[test]
fn a_neighbour_that_is_not_there_is_unreachable_by_our_own_word() {
    let topology = Topology::new();
    let mut client = Agent::start(&topology.client);
    for transport in ALL {
        for (family, host) in ["10.0.1.77", "fd00:1::77"].into_iter().enumerate() {
            let result = client.probe(probe(transport, target(transport, host)));
            let Outcome::Unreachable(Unreachable { icmp: Some(icmp), .. }) = result.outcome else {
                panic!("{transport} {host}: {:?}", result.outcome)
            };
            assert_eq!(icmp.from, Some(address(CLIENT[family])), "{transport} {host}");
        }
    }
}

#[test]
fn the_timeout_is_kept() {
    let topology = Topology::new();
    let (mut client, _server) = (Agent::start(&topology.client), listening(&topology));
    forward(&topology, "drop");
    for timeout_ms in [100, 700] {
        for transport in ALL {
            let mut wanted = probe(transport, target(transport, SERVER[0]));
            wanted.timeout_ms = timeout_ms;
            let result = client.probe(wanted);
            assert_eq!(result.outcome, Outcome::TimedOut);
            let (took, timeout) = (Duration::from_micros(result.took_us), Duration::from_millis(timeout_ms.into()));
            assert!(took >= timeout && took < timeout + Duration::from_millis(300), "{transport}: {took:?}");
        }
    }
}
