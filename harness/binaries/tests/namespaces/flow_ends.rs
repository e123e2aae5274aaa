//! How flows end, against networks and peers that end them; and the echo side's limits.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use udn_agent::protocol::{ECHOES, FlowEnd, IcmpError, Op, Outcome, Transport};

use crate::support::agent::Agent;
use crate::support::flow::flow;
use crate::support::topology::{SERVER, Topology, address, forward, ip, unfilter};

const PORT: u16 = 8080;

fn target(host: &str) -> SocketAddr {
    SocketAddr::new(address(host), PORT)
}

fn pair(topology: &Topology) -> (Agent, Agent) {
    let (client, mut server) = (Agent::start(&topology.client), Agent::start(&topology.server));
    server.listen_and_echo(PORT, "the server");
    (client, server)
}

fn living(client: &mut Agent) -> Vec<u64> {
    let flows: Vec<_> = SERVER.iter().map(|host| client.begin(flow(Transport::Tcp, target(host)))).collect();
    for flow in &flows {
        client.await_replies(*flow, 20);
    }
    flows
}

/// A plain connection to the echo port, and its banner.
fn connect(topology: &Topology, host: &str) -> (TcpStream, String) {
    let stream = topology.client.run(|| TcpStream::connect(target(host))).expect("enter the namespace");
    let mut stream = stream.expect("connect");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    let mut line = Vec::new();
    let mut byte = [0];
    while line.last() != Some(&b'\n') {
        stream.read_exact(&mut byte).expect("the banner");
        line.push(byte[0]);
    }
    (stream, String::from_utf8(line).expect("UTF-8"))
}

/// A listener that is no agent's. On a port of its own: processes that other tests are starting just then may hold the
/// last one's for a moment.
fn stranger(topology: &Topology) -> (TcpListener, SocketAddr) {
    let any = SocketAddr::new(address(SERVER[0]), 0);
    let listener = topology.server.run(|| TcpListener::bind(any)).expect("enter the namespace").expect("listen");
    let to = listener.local_addr().expect("its address");
    (listener, to)
}

#[test]
fn a_reset_ends_it() {
    let topology = Topology::new();
    let (mut client, _server) = pair(&topology);
    let flows = living(&mut client);
    forward(&topology, "meta l4proto tcp reject with tcp reset");
    for result in client.results(&flows) {
        assert_eq!(result.end, FlowEnd::Reset, "{result:?}");
        assert!(result.report.established() && result.report.received >= 20 && result.report.lost == 0, "{result:?}");
    }
}

#[test]
fn shutting_the_port_ends_it() {
    let topology = Topology::new();
    let (mut client, mut server) = pair(&topology);
    let flows = living(&mut client);
    server.ask(Op::Unlisten { transport: Transport::Tcp, port: PORT });
    for result in client.results(&flows) {
        // Reset where a frame was not read any more.
        assert!(matches!(result.end, FlowEnd::Closed | FlowEnd::Reset), "{result:?}");
        assert!(result.report.received >= 20 && result.report.lost == 0, "{result:?}");
    }
}

#[test]
fn the_kernel_giving_up_ends_it() {
    let topology = Topology::new();
    let (mut client, _server) = pair(&topology);
    // 3: about a second and a half; by default it is a quarter of an hour.
    topology.client.write_sysctl("ipv4/tcp_retries2", "3").expect("retries");
    let flows = living(&mut client);
    forward(&topology, "drop");
    for result in client.results(&flows) {
        assert_eq!(result.end, FlowEnd::TimedOut, "{result:?}");
        assert!(result.report.since_last_reply_us > 500_000, "{result:?}");
    }
}

#[test]
fn the_kernel_giving_up_after_icmp_says_so() {
    let topology = Topology::new();
    let (mut client, _server) = pair(&topology);
    topology.client.write_sysctl("ipv4/tcp_retries2", "3").expect("retries");
    let flows = living(&mut client);
    forward(&topology, "reject with icmpx type admin-prohibited");
    for result in client.results(&flows) {
        // EHOSTUNREACH, EACCES: what ICMP and ICMPv6 "administratively prohibited" become.
        assert!(matches!(&result.end, FlowEnd::Unreachable(why) if [113, 13].contains(&why.errno)), "{result:?}");
        assert!(result.report.since_last_reply_us > 500_000, "{result:?}");
    }
}

#[test]
fn what_cannot_be_established_says_why() {
    let topology = Topology::new();
    let (mut client, mut server) = pair(&topology);
    server.ask(Op::Unlisten { transport: Transport::Tcp, port: PORT });
    for (family, host) in SERVER.into_iter().enumerate() {
        let tcp = client.run_flow(flow(Transport::Tcp, target(host)));
        assert_eq!(tcp.end, FlowEnd::NotEstablished(Outcome::Refused { icmp: None }), "{tcp:?}");
        assert!(!tcp.report.established() && tcp.report.sent == 0 && tcp.report.connect_us.is_none(), "{tcp:?}");
        let udp = client.run_flow(flow(Transport::Udp, target(host)));
        let (kind, code) = [(3, 3), (1, 4)][family];
        let icmp = Some(IcmpError { kind, code, from: Some(address(host)) });
        assert_eq!(udp.end, FlowEnd::NotEstablished(Outcome::Refused { icmp }), "{udp:?}");
    }
    ip(&topology.client, "route add unreachable 10.9.9.9");
    let none = client.run_flow(flow(Transport::Tcp, SocketAddr::new(address("10.9.9.9"), PORT)));
    assert_eq!(none.end, FlowEnd::NotEstablished(Outcome::NoRoute { errno: 113 }), "{none:?}");
    forward(&topology, "drop");
    for transport in [Transport::Tcp, Transport::Udp] {
        let mut wanted = flow(transport, target(SERVER[0]));
        wanted.connect_timeout_ms = 500;
        let result = client.run_flow(wanted);
        assert_eq!(result.end, FlowEnd::NotEstablished(Outcome::TimedOut), "{result:?}");
        assert!(result.report.took_us >= 500_000 && result.report.connect_us.is_none(), "{result:?}");
    }
}

#[test]
fn a_peer_that_does_not_echo_is_told_from_a_broken_network() {
    let topology = Topology::new();
    let (mut client, mut server) = pair(&topology);
    server.listen(Transport::Tcp, PORT, "the server");
    let plain = client.run_flow(flow(Transport::Tcp, target(SERVER[0])));
    assert!(plain.end == FlowEnd::Closed && plain.report.received == 0, "{plain:?}");
    assert_eq!(plain.report.identity.as_deref(), Some("the server"));
    for (words, reads) in [("SSH-2.0-x\r\n", "SSH-2.0-x"), ("", "")] {
        let (listener, to) = stranger(&topology);
        let other = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("accept");
            stream.write_all(words.as_bytes()).expect("write");
            // Until the flow is over.
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let mut wanted = flow(Transport::Tcp, to);
        wanted.connect_timeout_ms = 500;
        let result = client.run_flow(wanted);
        assert!(!result.report.established() && result.report.connect_us.is_some(), "{result:?}");
        match result.end {
            FlowEnd::NotEstablished(Outcome::TimedOut) if reads.is_empty() => {}
            FlowEnd::NotEstablished(Outcome::AgentFailed(failure)) if !reads.is_empty() => {
                assert!(failure.attempted.ends_with("says 'SSH-2.0-x'"), "{failure}");
            }
            other => panic!("{words:?}: {other:?}"),
        }
        other.join().expect("the stranger ends");
    }
}

#[test]
fn somebody_elses_bytes_end_it() {
    let topology = Topology::new();
    let mut client = Agent::start(&topology.client);
    let number = |number: u64| [&b"udn-flow"[..], &number.to_be_bytes()].concat();
    let twice = [number(0), number(0)].concat();
    for (reply, word) in
        [(b"not what you sent".to_vec(), "no frame"), (number(1_000_000), "never sent"), (twice, "one twice")]
    {
        let (listener, to) = stranger(&topology);
        let liar = thread::spawn(move || {
            let (mut stream, peer) = listener.accept().expect("accept");
            let banner = format!("{{\"identity\":\"a liar\",\"peer\":\"{peer}\"}}\n");
            stream.write_all(banner.as_bytes()).expect("write");
            stream.read_exact(&mut [0; 32]).expect("two frames");
            stream.write_all(&reply).expect("write");
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let result = client.run_flow(flow(Transport::Tcp, to));
        let FlowEnd::Garbled { why } = &result.end else { panic!("{word}: {result:?}") };
        assert!(why.contains(word), "{why}");
        liar.join().expect("the liar ends");
    }
}

#[test]
fn who_does_not_read_is_not_read_from_and_harms_nobody() {
    let topology = Topology::new();
    let (mut client, server) = pair(&topology);
    let lively = client.begin(flow(Transport::Tcp, target(SERVER[1])));
    client.await_replies(lively, 10);
    let (mut stream, banner) = connect(&topology, SERVER[0]);
    assert!(banner.contains("the server"), "{banner}");
    stream.set_nonblocking(true).expect("nonblocking");
    let piece: Vec<u8> = (0..65_536_u32).map(|number| (number % 251) as u8).collect();
    let (mut written, mut last) = (0, Instant::now());
    // Until nothing has been taken for half a second: everybody's buffers are full.
    while last.elapsed() < Duration::from_millis(500) {
        match stream.write(&piece[written % piece.len()..]) {
            Ok(length) => (written, last) = (written + length, Instant::now()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => sleep(Duration::from_millis(5)),
            Err(error) => panic!("{error}"),
        }
        assert!(written < 200_000_000, "it is read though nobody reads what comes back");
    }
    client.await_replies(lively, 50);
    let peak = server.status("VmHWM");
    assert!(peak <= 8 * 1024, "an agent of {peak} KiB");
    stream.set_nonblocking(false).expect("blocking");
    let mut back = vec![0; written];
    stream.read_exact(&mut back).expect("everything comes back");
    let is_same = back.chunks(piece.len()).all(|chunk| chunk == &piece[..chunk.len()]);
    assert!(is_same, "and as it was sent");
    println!("{written} bytes waited; the agent's peak is {peak} KiB");
    assert_eq!(client.end(&[lively])[0].report.lost, 0);
}

#[test]
fn too_many_echoes_are_refused_in_words() {
    let topology = Topology::new();
    let (mut client, _server) = pair(&topology);
    let mut streams: Vec<_> = (0..ECHOES).map(|_| connect(&topology, SERVER[0])).collect();
    assert!(streams.iter().all(|(_, banner)| banner.contains("the server")));
    let result = client.run_flow(flow(Transport::Tcp, target(SERVER[0])));
    let FlowEnd::NotEstablished(Outcome::AgentFailed(failure)) = &result.end else { panic!("{result:?}") };
    assert!(failure.attempted.contains("as many connections as it can"), "{failure}");
    streams.pop();
    // The end of that one has to arrive.
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let mut wanted = flow(Transport::Tcp, target(SERVER[0]));
        wanted.limit_ms = 300;
        let result = client.run_flow(wanted);
        if result.end == FlowEnd::Limit && result.report.received > 0 {
            break;
        }
        assert!(Instant::now() < deadline, "no room though one has gone: {result:?}");
        sleep(Duration::from_millis(20));
    }
    for (stream, _) in &mut streams {
        stream.write_all(b"x").expect("write");
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("the others live");
    }
}

#[test]
fn a_flow_begun_in_an_outage_is_established_after_it() {
    let topology = Topology::new();
    let (mut client, _server) = pair(&topology);
    forward(&topology, "drop");
    let mut wanted = flow(Transport::Tcp, target(SERVER[0]));
    wanted.connect_timeout_ms = 20_000;
    let late = client.begin(wanted);
    sleep(Duration::from_millis(300));
    assert!(!client.state(late).established());
    unfilter(&topology.router);
    let report = client.await_replies(late, 10);
    assert!(report.connect_us.is_some_and(|connect| connect >= 300_000), "{report:?}");
    assert_eq!(client.end(&[late])[0].end, FlowEnd::Asked);
}
