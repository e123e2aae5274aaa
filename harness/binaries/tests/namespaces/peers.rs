//! Who answered: agents, other agents than expected, strangers, stock servers.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use udn_agent::protocol::{Identify, Open, Outcome, Probe, Transport};

use crate::support::agent::{Agent, Guarded, install, probe};
use crate::support::topology::{CLIENT, SERVER, Topology, address, ip, nft};

fn opened(client: &mut Agent, wanted: Probe) -> Open {
    match client.probe(wanted).outcome {
        Outcome::Open(open) => open,
        other => panic!("not open: {other:?}"),
    }
}

#[test]
fn a_wrong_peer_names_itself() {
    let topology = Topology::new();
    let (mut client, mut server) = (Agent::start(&topology.client), Agent::start(&topology.server));
    let mut router = Agent::start(&topology.router);
    for transport in [Transport::Tcp, Transport::Udp] {
        server.listen(transport, 8080, "the right one");
        router.listen(transport, 8080, "the wrong one");
    }
    let to = |family: usize| SocketAddr::new(address(SERVER[family]), 8080);
    for (expected, redirected) in [("the right one", false), ("the wrong one", true)] {
        if redirected {
            let rules = "tcp dport 8080 redirect; udp dport 8080 redirect";
            nft(&topology.router, "nat hook prerouting priority -100", rules);
        }
        for transport in [Transport::Tcp, Transport::Udp] {
            for family in [0, 1] {
                let open = opened(&mut client, probe(transport, to(family)));
                assert_eq!(open.identity.as_deref(), Some(expected), "{transport} {}", SERVER[family]);
            }
        }
    }
}

#[test]
fn a_translated_source_is_seen() {
    let topology = Topology::new();
    let (mut client, mut server) = (Agent::start(&topology.client), Agent::start(&topology.server));
    nft(&topology.router, "nat hook postrouting priority 100", "oifname eth2 masquerade");
    for transport in [Transport::Tcp, Transport::Udp] {
        server.listen(transport, 8080, "the server");
        for (host, router) in SERVER.into_iter().zip(["10.0.2.1", "fd00:2::1"]) {
            let wanted = probe(transport, SocketAddr::new(address(host), 8080));
            let result = client.probe(wanted);
            let Outcome::Open(open) = result.outcome else { panic!("{transport} {host}: {:?}", result.outcome) };
            assert_eq!(open.seen_as.map(|seen| seen.ip()), Some(address(router)));
            assert_ne!(open.seen_as, result.local);
        }
    }
}

#[test]
fn the_answer_comes_from_the_address_that_was_asked() {
    let topology = Topology::new();
    let (mut client, mut server) = (Agent::start(&topology.client), Agent::start(&topology.server));
    server.listen(Transport::Udp, 8080, "the server");
    for (host, gateway) in [("10.0.3.9", SERVER[0]), ("fd00:3::9", SERVER[1])] {
        ip(&topology.server, &format!("address add {host} dev lo"));
        ip(&topology.router, &format!("route add {host} via {gateway}"));
        let to = SocketAddr::new(address(host), 8080);
        // The kernel makes an IPv6 address's own route in the background.
        let deadline = Instant::now() + Duration::from_secs(10);
        while !matches!(client.probe(probe(Transport::Udp, to)).outcome, Outcome::Open(_)) {
            assert!(Instant::now() < deadline, "{host} is not in use in time");
        }
        let open = opened(&mut client, probe(Transport::Udp, to));
        assert_eq!(open.identity.as_deref(), Some("the server"));
    }
}

#[test]
fn a_probe_starts_where_it_is_told_to() {
    let topology = Topology::new();
    let (mut client, mut server) = (Agent::start(&topology.client), Agent::start(&topology.server));
    for transport in [Transport::Tcp, Transport::Udp] {
        server.listen(transport, 8080, "the server");
    }
    ip(&topology.client, "address add 10.0.1.3/24 dev eth0");
    for transport in [Transport::Tcp, Transport::Udp, Transport::Icmp] {
        let port = if transport == Transport::Icmp { 0 } else { 8080 };
        let mut wanted = probe(transport, SocketAddr::new(address(SERVER[0]), port));
        wanted.from = Some(address("10.0.1.3"));
        wanted.source_port = (transport != Transport::Icmp).then_some(31_000);
        let open = opened(&mut client, wanted);
        let arrivals = server.arrivals_at(transport, SocketAddr::new(address(SERVER[0]), port));
        assert_eq!(arrivals[0].source.ip(), address("10.0.1.3"), "{transport}");
        if transport != Transport::Icmp {
            assert_eq!(open.seen_as, "10.0.1.3:31000".parse().ok());
        }
    }
    let mut foreign = probe(Transport::Tcp, SocketAddr::new(address(SERVER[0]), 8080));
    foreign.from = Some(address("192.0.2.1"));
    let outcome = client.probe(foreign).outcome;
    assert!(matches!(&outcome, Outcome::AgentFailed(failure) if failure.errno == 99), "{outcome:?}");
}

#[test]
fn the_silent_the_rude_and_the_strange() {
    let topology = Topology::new();
    let mut client = Agent::start(&topology.client);
    let bind = || TcpListener::bind((SERVER[0], 0)).expect("listen");
    let listen = || topology.server.run(bind).expect("enter the namespace");
    let (silent, rude, strange) = (listen(), listen(), listen());
    let tcp = |listener: &TcpListener| {
        let mut wanted = probe(Transport::Tcp, listener.local_addr().expect("own address"));
        wanted.timeout_ms = 500;
        wanted
    };

    let open = opened(&mut client, tcp(&silent));
    assert_eq!(open.identity, None, "it completed the handshake and said nothing");

    let wanted = tcp(&rude);
    let rude = std::thread::spawn(move || {
        let (stream, _) = rude.accept().expect("a connection");
        // Closing with this set sends a reset.
        setsockopt(&stream, sockopt::Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 }).expect("linger");
    });
    assert_eq!(client.probe(wanted).outcome, Outcome::Reset);
    rude.join().expect("the rude one");

    let wanted = tcp(&strange);
    let strange = std::thread::spawn(move || {
        let (mut stream, _) = strange.accept().expect("a connection");
        stream.write_all(b"SSH-2.0-somebody\r\n").expect("write");
    });
    assert_eq!(opened(&mut client, wanted).identity.as_deref(), Some("SSH-2.0-somebody"));
    strange.join().expect("the strange one");
}

#[test]
fn a_stock_server_is_known_by_its_hostname() {
    let topology = Topology::new();
    let mut client = Agent::start(&topology.client);
    let directory = tempfile::tempdir().expect("a folder");
    let program = directory.path().join("agnhost");
    install(udn_binaries::AGNHOST, &program);
    let mut netexec = Command::new(&program);
    netexec.args(["netexec", "--http-port=8080", "--udp-port", "8081"]).stdout(Stdio::null());
    let _netexec = Guarded(topology.server.run(|| netexec.spawn()).expect("enter the namespace").expect("start"));
    let hostname = nix::unistd::gethostname().expect("the name of this machine").to_string_lossy().into_owned();
    for (transport, port) in [(Transport::Tcp, 8080), (Transport::Udp, 8081)] {
        for (family, host) in SERVER.into_iter().enumerate() {
            let mut wanted = probe(transport, SocketAddr::new(address(host), port));
            wanted.identify = Identify::Agnhost;
            let open = (0..100)
                .find_map(|_| match client.probe(wanted.clone()).outcome {
                    Outcome::Open(open) => Some(open),
                    Outcome::Refused { .. } => {
                        // It is still starting.
                        std::thread::sleep(Duration::from_millis(20));
                        None
                    }
                    other => panic!("{transport} {host}: {other:?}"),
                })
                .expect("netexec listens within two seconds");
            assert_eq!(open.identity.as_ref(), Some(&hostname), "{transport} {} -> {host}", CLIENT[family]);
        }
    }
}
