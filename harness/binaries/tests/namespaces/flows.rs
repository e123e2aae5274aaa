//! Flows while they live: what they count, undisturbed, through outages, through a cut control stream, many at once.

use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use udn_agent::protocol::{Body, FLOWS, FlowEnd, FlowReport, IcmpError, Op, Outcome, Request, Transport};

use crate::support::agent::{Agent, command, probe};
use crate::support::flow::{flow, wall_us};
use crate::support::topology::{ROUTER, SERVER, Topology, address, forward, unfilter};

const PORT: u16 = 8080;
const PERIOD_US: u64 = 5_000;

fn target(host: &str) -> SocketAddr {
    SocketAddr::new(address(host), PORT)
}

fn pair(topology: &Topology) -> (Agent, Agent) {
    let (client, mut server) = (Agent::start(&topology.client), Agent::start(&topology.server));
    server.listen_and_echo(PORT, "the server");
    server.listen(Transport::Udp, PORT, "the server");
    (client, server)
}

/// Begins a flow of each transport and family and waits until all live.
fn one_of_each(client: &mut Agent) -> Vec<(u64, Transport)> {
    let kinds = [Transport::Tcp, Transport::Udp].map(|transport| SERVER.map(|host| (transport, host)));
    let begun = kinds.concat().into_iter();
    let flows: Vec<_> =
        begun.map(|(transport, host)| (client.begin(flow(transport, target(host))), transport)).collect();
    for (flow, _) in &flows {
        client.await_replies(*flow, 20);
    }
    flows
}

/// What no network may do to a flow.
fn is_sound(transport: Transport, report: &FlowReport) {
    assert_eq!(report.identity.as_deref(), Some("the server"), "{report:?}");
    assert!(report.duplicated == 0 && report.garbled == 0 && report.reordered == 0, "{report:?}");
    assert!(report.received + report.lost <= report.sent, "{report:?}");
    if transport == Transport::Tcp {
        assert_eq!(report.lost, 0, "{report:?}");
        assert_eq!(report.bytes_received, 16 * report.received);
        assert!(report.bytes_sent <= 16 * report.sent && report.bytes_sent > 16 * report.sent - 16, "{report:?}");
    }
}

#[test]
fn an_undisturbed_flow_says_whom_it_reaches_and_loses_nothing() {
    let topology = Topology::new();
    let (mut client, mut server) = pair(&topology);
    let flows = one_of_each(&mut client);
    for (flow, _) in &flows {
        client.await_replies(*flow, 200);
    }
    let ids: Vec<_> = flows.iter().map(|(flow, _)| *flow).collect();
    for ((_, transport), result) in flows.iter().zip(client.end(&ids)) {
        let report = *result.report;
        assert_eq!(result.end, FlowEnd::Asked);
        is_sound(*transport, &report);
        assert!(report.lost == 0 && report.faults == 0 && report.others.is_empty(), "{report:?}");
        assert_eq!(report.seen_as, report.local, "nothing translates addresses here");
        assert!(report.local.is_some_and(|local| local.port() != 0 && !local.ip().is_unspecified()), "{report:?}");
        let rtt = report.rtt.expect("round trips");
        assert!(rtt.min_us > 0 && rtt.min_us <= rtt.median_us && rtt.median_us <= rtt.max_us, "{rtt:?}");
        assert!(report.first_reply_us.is_some_and(|first| first >= report.started_us && first <= wall_us()));
        // Every period is accounted for.
        let connect = report.connect_us.expect("connected");
        let periods = report.took_us / PERIOD_US;
        let accounted = report.sent + report.held_back + report.missed;
        let slack = (connect + report.late_us) / PERIOD_US + 20;
        assert!(accounted <= periods + 1 && accounted + slack >= periods, "{accounted} of {periods}: {report:?}");
        // The peer's evidence: one connection, one datagram that counts, and not hundreds.
        let arrivals = server.arrivals().list;
        let mine: Vec<_> = arrivals.iter().filter(|arrival| Some(arrival.source) == report.local).collect();
        let mine: Vec<_> = mine.into_iter().filter(|arrival| arrival.transport == *transport).collect();
        assert!(!mine.is_empty() && mine.len() <= 3, "{mine:?}");
        assert_eq!((mine[0].nonce, report.tcp.is_some()), (report.nonce, *transport == Transport::Tcp));
        if let Some(tcp) = report.tcp {
            assert_eq!(tcp.state, 1, "established: {tcp:?}");
        }
        println!("{transport}: {report:?}");
    }
}

#[test]
fn an_outage_is_one_gap_as_long_as_it_and_tcp_loses_nothing() {
    let topology = Topology::new();
    let (mut client, _server) = pair(&topology);
    let flows = one_of_each(&mut client);
    let (before, wall_before) = (Instant::now(), wall_us());
    forward(&topology, "drop");
    let (dropping, wall_dropping) = (Instant::now(), wall_us());
    sleep(Duration::from_millis(700));
    let shortest = dropping.elapsed().as_micros() as u64;
    let wall_ending = wall_us();
    unfilter(&topology.router);
    let longest = before.elapsed().as_micros() as u64;
    for (flow, _) in &flows {
        let sent = client.state(*flow).sent;
        client.await_state(*flow, "caught up", |report| report.received + report.lost > sent);
    }
    let ids: Vec<_> = flows.iter().map(|(flow, _)| *flow).collect();
    for ((_, transport), result) in flows.iter().zip(client.end(&ids)) {
        let report = *result.report;
        is_sound(*transport, &report);
        let gap = *report.gaps.iter().max_by_key(|gap| gap.took_us).expect("a gap");
        assert!(report.gap_count >= 1 && gap.took_us >= shortest, "at least {shortest}: {report:?}");
        // TCP sends again 200 ms after the loss at the earliest, then waits twice as long each time: after an outage of
        // L the next try is at most L + 200 ms away, L more if acknowledgements were on their way. Plus what a busy
        // machine takes.
        let bound = if *transport == Transport::Tcp { 2 * longest + 400_000 } else { longest } + 2_000_000;
        assert!(gap.took_us <= bound, "{transport}: at most {bound}: {report:?}");
        assert!(gap.started_us <= wall_dropping + 100_000 && gap.started_us + 2_000_000 >= wall_before, "{report:?}");
        assert!(gap.started_us + gap.took_us >= wall_ending, "{report:?}");
        assert!(gap.sent >= 20, "frames left all the same: {report:?}");
        if let Some(tcp) = report.tcp {
            assert!(tcp.retransmits >= 1, "{tcp:?}");
        } else {
            assert!(report.lost >= 20 && report.lost <= longest / PERIOD_US + 2, "{report:?}");
        }
        println!(
            "{transport}: {shortest} to {longest} us without a way: {gap:?}, {} lost, {:?}",
            report.lost, report.tcp
        );
    }
}

#[test]
fn an_outage_for_good_is_no_gap_but_silence() {
    let topology = Topology::new();
    let (mut client, _server) = pair(&topology);
    let flows = one_of_each(&mut client);
    forward(&topology, "drop");
    for (flow, transport) in &flows {
        let report = client.await_state(*flow, "silent", |report| report.since_last_reply_us > 1_000_000);
        assert!(report.established() && report.since_last_reply_us > report.gap_over_us);
        if *transport == Transport::Tcp {
            let tcp = report.tcp.expect("TCP");
            assert!(tcp.state == 1 && tcp.retransmits >= 1 && tcp.backoff >= 1 && tcp.unacked >= 1, "{tcp:?}");
        }
        let sent = client.state(*flow).sent;
        client.await_state(*flow, "sending", |report| report.sent > sent + 10);
    }
    let ids: Vec<_> = flows.iter().map(|(flow, _)| *flow).collect();
    for ((_, transport), result) in flows.iter().zip(client.end(&ids)) {
        is_sound(*transport, &result.report);
        assert_eq!(result.end, FlowEnd::Asked);
        assert!(result.report.since_last_reply_us > 1_000_000, "{result:?}");
        assert!(result.report.sent >= result.report.received + 100, "{result:?}");
        assert!(result.report.gaps.iter().all(|gap| gap.took_us < 1_000_000), "it has not ended: {result:?}");
    }
}

#[test]
fn icmp_on_the_way_is_told_and_survived() {
    let topology = Topology::new();
    let (mut client, _server) = pair(&topology);
    let flows = one_of_each(&mut client);
    forward(&topology, "reject with icmpx type admin-prohibited");
    for (flow, _) in &flows {
        client.await_state(*flow, "told by ICMP", |report| report.faults > 0);
    }
    unfilter(&topology.router);
    for (position, (flow, transport)) in flows.iter().enumerate() {
        let report = client.await_replies(*flow, 20);
        is_sound(*transport, &report);
        let fault = report.last_fault.expect("an error");
        let family = position % 2;
        let (kind, code, errno) = [(3, 13, 113), (1, 1, 13)][family];
        let icmp =
            (*transport == Transport::Udp).then_some(IcmpError { kind, code, from: Some(address(ROUTER[family])) });
        assert_eq!((fault.icmp, fault.errno), (icmp, errno), "{report:?}");
    }
}

#[test]
fn udp_tells_when_somebody_else_answers() {
    let topology = Topology::new();
    let (mut client, mut server) = pair(&topology);
    let udp = client.begin(flow(Transport::Udp, target(SERVER[0])));
    client.await_replies(udp, 5);
    server.listen(Transport::Udp, PORT, "another");
    let report = client.await_state(udp, "answered by another", |report| !report.others.is_empty());
    assert_eq!((report.identity.as_deref(), &report.others[..]), (Some("the server"), &["another".to_owned()][..]));
}

#[test]
fn a_cut_control_stream_costs_no_result_and_no_flow() {
    let topology = Topology::new();
    let (mut client, _server) = pair(&topology);
    let mut short = flow(Transport::Tcp, target(SERVER[0]));
    short.limit_ms = 900;
    let requests = client.requests([Op::Flow(short), Op::Flow(flow(Transport::Tcp, target(SERVER[1])))]);
    client.write(&requests);
    let [short, long] = [requests[0].id, requests[1].id];
    let first = client.await_state(short, "established", |report| report.received > 0);
    let before = client.await_state(long, "established", |report| report.received > 0);
    client.cut();
    sleep(Duration::from_millis(1_500));
    client.attach();
    // Not knowing what the agent got, the client asks again.
    client.write(&requests);
    let ended = client.results(&[short]).remove(0);
    assert!(ended.end == FlowEnd::Limit && ended.report.received > 0, "{ended:?}");
    assert!(ended.report.took_us >= 900_000);
    assert_eq!(ended.report.started_us, first.started_us, "it did not begin anew when asked for again");
    let after = client.await_replies(long, 10);
    assert_eq!(after.started_us, before.started_us, "it is the same flow");
    assert!(after.took_us > before.took_us + 1_000_000 && after.received > before.received + 50, "{after:?}");
    assert_eq!(client.end(&[long])[0].end, FlowEnd::Asked);
    let is_gone = client.ask(Op::FlowState { flow: long });
    assert!(matches!(is_gone, Body::Failed(_)), "{is_gone:?}");
    assert_eq!(client.ask(Op::EndFlow { flow: long }), Body::Done, "which is no failure");
}

#[test]
fn another_session_ends_flows() {
    let topology = Topology::new();
    let (mut client, _server) = pair(&topology);
    let old = client.begin(flow(Transport::Tcp, target(SERVER[0])));
    client.await_replies(old, 5);
    client.cut();
    client.change_session();
    client.attach();
    client.last_seq = client.hello.last_seq;
    let state = client.ask(Op::FlowState { flow: old });
    assert!(matches!(state, Body::Failed(_)), "{state:?}");
}

#[test]
fn many_flows_leave_room_for_probes() {
    let topology = Topology::new();
    let (mut client, _server) = pair(&topology);
    let kinds = [Transport::Tcp, Transport::Udp];
    let flows: Vec<_> =
        (0..32).map(|number| client.begin(flow(kinds[number % 2], target(SERVER[number / 2 % 2])))).collect();
    for flow in &flows {
        client.await_replies(*flow, 10);
    }
    let started = Instant::now();
    let probes = (0..400).map(|number| {
        let mut wanted = probe(kinds[number % 2], target(SERVER[number / 2 % 2]));
        wanted.timeout_ms = 10_000;
        wanted
    });
    let results = client.probe_all(probes);
    let took = started.elapsed();
    assert!(results.iter().all(|result| matches!(result.outcome, Outcome::Open(_))), "{results:?}");
    let ended = client.end(&flows);
    for (number, result) in ended.iter().enumerate() {
        is_sound(kinds[number % 2], &result.report);
    }
    let sum = |figure: fn(&FlowReport) -> u64| ended.iter().map(|result| figure(&result.report)).sum::<u64>();
    let late = ended.iter().map(|result| result.report.late_us).max();
    println!(
        "400 probes beside 32 flows: {took:?}; frames: {} sent, {} received, {} missed, {} held back; latest {late:?} us",
        sum(|report| report.sent),
        sum(|report| report.received),
        sum(|report| report.missed),
        sum(|report| report.held_back)
    );
    let peak = client.status("VmHWM");
    assert!(peak <= 8 * 1024, "an agent of {peak} KiB");
}

#[test]
fn what_cannot_be_begun_is_refused_in_words() {
    let topology = Topology::new();
    let (mut client, _server) = pair(&topology);
    for (transport, period_us, word) in [
        (Transport::Icmp, 999, "1000 to 10000"),
        (Transport::Tcp, 999, "1000 to 10000"),
        (Transport::Udp, 10_001, "to 10000"),
    ] {
        let mut wanted = flow(transport, target(SERVER[0]));
        wanted.period_us = period_us;
        let Body::Failed(failure) = client.ask(Op::Flow(wanted)) else { panic!("{transport} every {period_us} us") };
        assert!(failure.attempted.contains(word), "{failure}");
    }
    let mut slow = flow(Transport::Udp, target(SERVER[0]));
    slow.period_us = 10_000;
    let flows: Vec<_> = (0..FLOWS).map(|_| client.begin(slow.clone())).collect();
    let Body::Failed(failure) = client.ask(Op::Flow(slow)) else { panic!("one flow too many") };
    assert!(failure.attempted.contains("64 run here already"), "{failure}");
    assert_eq!(client.end(&flows).len(), FLOWS);
    let up_to = client.last_seq;
    client.write(&[Request { id: 0, op: Op::Ack { up_to } }]);
}

#[test]
fn a_single_flow_prints_how_it_went() {
    let topology = Topology::new();
    let (client, _server) = pair(&topology);
    for transport in ["tcp", "udp"] {
        let to = target(SERVER[1]).to_string();
        let mut single =
            command(&client.program(), 0, &["flow", transport, &to, "--period-ms", "2", "--for-ms", "500"]);
        let output = topology.client.run(|| single.output()).expect("enter the namespace").expect("run");
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let result: udn_agent::protocol::FlowResult = serde_json::from_str(&printed).expect("JSON");
        assert!(result.end == FlowEnd::Limit && result.report.received > 0, "{printed}");
        assert_eq!((result.report.gap_over_us, output.status.code()), (26_000, Some(0)));
    }
}

#[test]
fn an_agent_without_any_right_holds_and_echoes_flows_too() {
    let topology = Topology::new();
    let (mut client, mut server) = (Agent::start_powerless(&topology.client), Agent::start_powerless(&topology.server));
    server.listen_and_echo(PORT, "the server");
    server.listen(Transport::Udp, PORT, "the server");
    let flows = one_of_each(&mut client);
    forward(&topology, "drop");
    for (flow, _) in &flows {
        client.await_state(*flow, "silent", |report| report.since_last_reply_us > 2_000_000);
    }
    unfilter(&topology.router);
    for (flow, transport) in &flows {
        let report = client.await_replies(*flow, 20);
        is_sound(*transport, &report);
        // The send buffer that an ordinary process may ask for holds what leaves in a few seconds.
        assert_eq!(report.held_back, 0, "{report:?}");
    }
}
