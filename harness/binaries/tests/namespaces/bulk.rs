//! Bulk transfers, and announcements on the wire.

use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use udn_agent::protocol::{
    AnnouncementKind, Body, Bulk, BulkReport, BulkResult, Direction, Failure, FlowEnd, Op, Outcome, Transport,
};

use crate::support::agent::Agent;
use crate::support::topology::{CLIENT, SERVER, Topology, address, forward, ip, unfilter};

const PORT: u16 = 8080;

fn bulk(host: &str, direction: Direction) -> Bulk {
    let to = SocketAddr::new(address(host), PORT);
    Bulk {
        to,
        from: None,
        source_port: None,
        direction,
        bytes_per_second: None,
        connect_timeout_ms: 5_000,
        limit_ms: 60_000,
    }
}

fn begin(agent: &mut Agent, bulk: Bulk) -> u64 {
    let requests = agent.requests([Op::Bulk(bulk)]);
    agent.write(&requests);
    requests[0].id
}

fn state(agent: &mut Agent, flow: u64) -> BulkReport {
    match agent.ask(Op::FlowState { flow }) {
        Body::BulkState(report) => *report,
        other => panic!("the transfer does not run: {other:?}"),
    }
}

fn await_more(agent: &mut Agent, flow: u64, bytes: u64) {
    let deadline = Instant::now() + Duration::from_secs(30);
    let before = state(agent, flow).bytes;
    while state(agent, flow).bytes < before + bytes {
        assert!(Instant::now() < deadline, "nothing moves: {:?}", state(agent, flow));
        sleep(Duration::from_millis(10));
    }
}

fn end(agent: &mut Agent, flow: u64) -> BulkResult {
    let requests = agent.requests([Op::EndFlow { flow }]);
    agent.write(&requests);
    let mut result = None;
    let mut done = false;
    while result.is_none() || !done {
        match agent.message().body {
            Body::Bulk(ended) => result = Some(ended),
            Body::Done => done = true,
            other => panic!("not the end of a transfer: {other:?}"),
        }
    }
    result.expect("ended")
}

#[test]
fn bytes_are_counted_one_way_and_an_outage_is_a_gap() {
    let topology = Topology::new();
    let (mut client, mut server) = (Agent::start(&topology.client), Agent::start(&topology.server));
    server.listen_and_echo(PORT, "the server");
    for host in SERVER {
        for direction in [Direction::Send, Direction::Receive] {
            let flow = begin(&mut client, bulk(host, direction));
            let deadline = Instant::now() + Duration::from_secs(10);
            while state(&mut client, flow).bytes == 0 {
                assert!(Instant::now() < deadline, "nothing moves");
            }
            await_more(&mut client, flow, 4 << 20);
            forward(&topology, "drop");
            sleep(Duration::from_millis(700));
            unfilter(&topology.router);
            await_more(&mut client, flow, 1 << 20);
            let result = end(&mut client, flow);
            let report = *result.report;
            assert_eq!((result.end, report.identity.as_deref()), (FlowEnd::Asked, Some("the server")));
            assert_eq!(report.buckets.iter().sum::<u64>(), report.bytes, "{direction:?}");
            let longest = report.gaps.iter().map(|gap| gap.took_us).max().expect("a gap");
            assert!(longest >= 600_000, "{direction:?}: {report:?}");
            assert!(report.buckets.contains(&0), "{direction:?}: {report:?}");
            let retransmits = report.tcp.expect("figures").retransmits;
            assert_eq!(retransmits > 0, direction == Direction::Send, "{direction:?}: {report:?}");
        }
    }
    // An echo port still echoes.
    let flow = client.begin(crate::support::flow::flow(Transport::Tcp, SocketAddr::new(address(SERVER[0]), PORT)));
    client.await_replies(flow, 20);
    client.end(&[flow]);
}

#[test]
fn a_pace_is_kept_and_an_outage_is_not_made_up_for() {
    let topology = Topology::new();
    let (mut client, mut server) = (Agent::start(&topology.client), Agent::start(&topology.server));
    server.listen_and_echo(PORT, "the server");
    let paced = |direction| Bulk { bytes_per_second: Some(1_000_000), ..bulk(SERVER[0], direction) };
    let flow = begin(&mut client, paced(Direction::Send));
    sleep(Duration::from_secs(1));
    forward(&topology, "drop");
    sleep(Duration::from_millis(700));
    unfilter(&topology.router);
    sleep(Duration::from_secs(2));
    let result = end(&mut client, flow);
    let report = *result.report;
    // In a tenth of a second 100,000; a busy machine may be late for one and then has two.
    let most = report.buckets.iter().copied().max().expect("buckets");
    let mut busy: Vec<u64> = report.buckets.iter().copied().filter(|bytes| *bytes > 0).collect();
    busy.sort_unstable();
    let median = busy[busy.len() / 2];
    assert!((80_000..120_000).contains(&median) && most < 300_000, "{median}, {most}: {report:?}");
    assert!(report.buckets.contains(&0), "no outage: {report:?}");

    begin(&mut client, paced(Direction::Receive));
    let Body::Failed(failure) = client.message().body else { panic!("the peer cannot be paced") };
    assert!(failure.attempted.contains("pace"), "{failure:?}");
}

#[test]
fn a_peer_that_cannot_is_quoted() {
    let topology = Topology::new();
    let (mut client, mut server) = (Agent::start(&topology.client), Agent::start(&topology.server));
    server.listen(Transport::Tcp, PORT, "no echo");
    let flow = begin(&mut client, bulk(SERVER[0], Direction::Send));
    let Body::Bulk(result) = client.message().body else { panic!("flow {flow} goes on") };
    // Its banner is whole, then it closes.
    assert!(matches!(result.end, FlowEnd::Closed | FlowEnd::NotEstablished(_)), "{:?}", result.end);
    let mut nowhere = bulk(SERVER[1], Direction::Receive);
    nowhere.to.set_port(9);
    begin(&mut client, nowhere);
    let Body::Bulk(result) = client.message().body else { panic!("a transfer to a closed port") };
    assert!(matches!(result.end, FlowEnd::NotEstablished(Outcome::Refused { .. })), "{:?}", result.end);
}

#[test]
fn announcements_are_kept_once_asked_for() {
    let topology = Topology::new();
    let mut client = Agent::start(&topology.client);
    let told = |client: &mut Agent| match client.ask(Op::Announcements { after: 0 }) {
        Body::Announcements(told) => told.list,
        other => panic!("no announcements: {other:?}"),
    };
    // Whoever gets a new address announces it, where the kernel is asked to.
    topology.router.write_sysctl("ipv4/conf/all/arp_notify", "1").expect("ARP announcements");
    topology.router.write_sysctl("ipv6/conf/all/ndisc_notify", "1").expect("ND announcements");
    let announce = || {
        for state in ["down", "up"] {
            ip(&topology.router, &format!("link set eth1 {state}"));
        }
    };
    announce();
    sleep(Duration::from_millis(300));
    assert_eq!(told(&mut client), [], "nobody asked");
    let Body::Facts(facts) = client.ask(Op::Facts) else { panic!("no facts") };
    let eth = facts.interfaces.iter().find(|own| own.addresses.iter().any(|own| own.address == address(CLIENT[0])));
    let interfaces = vec![eth.expect("the interface").index];
    assert_eq!(client.ask(Op::WatchAnnouncements { interfaces }), Body::Done);
    announce();
    let deadline = Instant::now() + Duration::from_secs(10);
    let gratuitous = loop {
        let list = told(&mut client);
        if let Some(seen) = list.iter().find(|seen| seen.unsolicited && seen.kind == AnnouncementKind::ArpRequest) {
            break seen.clone();
        }
        assert!(Instant::now() < deadline, "not announced: {list:?}");
        sleep(Duration::from_millis(20));
    };
    assert_eq!((gratuitous.sender, gratuitous.target), ("10.0.1.1".parse().ok(), "10.0.1.1".parse().ok()));
    assert_eq!(gratuitous.source, gratuitous.mac);
    assert!(gratuitous.at_us > 0 && gratuitous.monotonic_us > 0);

    let mut powerless = Agent::start_powerless(&topology.client);
    let refused = powerless.ask(Op::WatchAnnouncements { interfaces: vec![1] });
    assert!(matches!(refused, Body::Failed(Failure { errno: 1, .. })), "{refused:?}");
}
