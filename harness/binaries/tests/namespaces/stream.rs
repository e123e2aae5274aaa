//! The control stream: cut, attached to again, fed nonsense, flooded.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::SocketAddr;

use udn_agent::protocol::{Body, Identify, Op, Outcome, Probe, Request, Transport, WINDOW};

use crate::support::agent::{Agent, command, probe};
use crate::support::topology::{ROUTER, SERVER, Topology, address, forward, ip};

/// Probes that end at different times: some at once, some by timeout.
fn mixture(count: usize) -> Vec<Probe> {
    (0..count)
        .map(|number| {
            let port = if number % 3 == 0 { 8080 } else { 7070 };
            let mut wanted = probe(Transport::Tcp, SocketAddr::new(address(SERVER[number % 2]), port));
            wanted.timeout_ms = 200 + (number as u32 % 10) * 100;
            wanted
        })
        .collect()
}

#[test]
fn a_cut_stream_loses_no_answer() {
    let topology = Topology::new();
    let (mut client, mut server) = (Agent::start(&topology.client), Agent::start(&topology.server));
    server.listen(Transport::Tcp, 8080, "the server");
    forward(&topology, "tcp dport 7070 drop");
    let requests = client.requests(mixture(900).into_iter().map(Op::Probe));
    let mut answered = BTreeSet::new();
    client.write(&requests);
    for read_before_the_cut in [1, 150, 300] {
        for _ in 0..read_before_the_cut {
            let message = client.message();
            assert!(answered.insert(message.id), "answered twice: {message:?}");
        }
        client.cut();
        client.attach();
        // Not knowing what the agent got, the client asks again for all that it has no answer to.
        let missing: Vec<_> = requests.iter().filter(|request| !answered.contains(&request.id)).cloned().collect();
        client.write(&missing);
    }
    while answered.len() < requests.len() {
        let message = client.message();
        assert!(matches!(message.body, Body::Probe(_)), "{message:?}");
        assert!(answered.insert(message.id), "answered twice: {message:?}");
    }
    let open = server.arrivals().list.iter().filter(|arrival| arrival.destination.port() == 8080).count();
    assert_eq!(open, 300, "each was probed once, though asked for again");
}

#[test]
fn a_cut_in_the_middle_of_a_request_is_no_request() {
    let topology = Topology::new();
    let mut client = Agent::start(&topology.client);
    client.stream.as_mut().expect("attached").input.write_all(br#"{"id":1,"op":"pi"#).expect("write");
    client.cut();
    client.attach();
    assert_eq!(client.ask(Op::Ping), Body::Done);
}

#[test]
fn the_last_attachment_wins() {
    let topology = Topology::new();
    let mut client = Agent::start(&topology.client);
    let mut first = client.stream.take().expect("attached");
    client.attach();
    assert!(first.child.wait().expect("wait").success(), "the first one ends");
    assert_eq!(client.ask(Op::Ping), Body::Done);
}

#[test]
fn another_session_starts_afresh_but_keeps_listeners() {
    let topology = Topology::new();
    let mut client = Agent::start(&topology.client);
    client.listen(Transport::Tcp, 8080, "still there");
    forward(&topology, "drop");
    let requests = client.requests(mixture(10).into_iter().map(Op::Probe));
    client.write(&requests);
    client.cut();
    client.change_session();
    client.attach();
    // Numbers go on: the hello says from where.
    client.last_seq = client.hello.last_seq;
    let local = probe(Transport::Tcp, "127.0.0.1:8080".parse().expect("an address"));
    let Outcome::Open(open) = client.probe(local).outcome else { panic!("the listener is gone") };
    assert_eq!(open.identity.as_deref(), Some("still there"));
}

#[test]
fn nonsense_is_answered_and_does_no_harm() {
    let topology = Topology::new();
    let mut client = Agent::start(&topology.client);
    let nonsense = b"\n{\"id\":77,\"op\":{\"levitate\":{}}}\nhello\n\xff\xfe\n{\"id\":\n";
    client.stream.as_mut().expect("attached").input.write_all(nonsense).expect("write");
    let mut ids: Vec<_> = (0..4)
        .map(|_| {
            let message = client.message();
            assert!(matches!(message.body, Body::Failed(_)), "{message:?}");
            message.id
        })
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, [0, 0, 0, 77]);
    assert_eq!(client.ask(Op::Ping), Body::Done);
}

#[test]
fn more_than_the_window_is_refused_until_acknowledged() {
    let topology = Topology::new();
    let mut client = Agent::start(&topology.client);
    let requests = client.requests((0..WINDOW + 10).map(|_| Op::Ping));
    client.write(&requests);
    let (mut done, mut busy) = (0, 0);
    for _ in &requests {
        match client.message().body {
            Body::Done => done += 1,
            Body::Busy => busy += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((done, busy), (WINDOW, 10));
    let up_to = client.last_seq;
    client.write(&[Request { id: 0, op: Op::Ack { up_to } }]);
    assert_eq!(client.ask(Op::Ping), Body::Done);
}

#[test]
fn thousands_at_once_stay_small() {
    let topology = Topology::new();
    let (mut client, mut server) = (Agent::start(&topology.client), Agent::start(&topology.server));
    for transport in [Transport::Tcp, Transport::Udp] {
        server.listen(transport, 8080, "the server");
    }
    forward(&topology, "tcp dport 7070 drop");
    let waiting = (0..2000).map(|_| probe(Transport::Tcp, SocketAddr::new(address(SERVER[0]), 7070)));
    let results = client.probe_all(waiting);
    assert!(results.iter().all(|result| result.outcome == Outcome::TimedOut));
    let spread =
        results.iter().map(|result| result.started_us).max().zip(results.iter().map(|result| result.started_us).min());
    assert!(spread.is_some_and(|(last, first)| last - first < 1_000_000), "all were under way at once: {spread:?}");
    for transport in [Transport::Tcp, Transport::Udp, Transport::Icmp] {
        let port = if transport == Transport::Icmp { 0 } else { 8080 };
        let mut many: Vec<_> = (0..2000).map(|_| probe(transport, SocketAddr::new(address(SERVER[1]), port))).collect();
        many.iter_mut().for_each(|wanted| wanted.timeout_ms = 10_000);
        let results = client.probe_all(many);
        let open = results.iter().filter(|result| matches!(result.outcome, Outcome::Open(_))).count();
        assert_eq!(
            open,
            2000,
            "{transport}: {:?}",
            results.iter().find(|result| !matches!(result.outcome, Outcome::Open(_)))
        );
    }
    for agent in [&client, &server] {
        let peak = agent.status("VmHWM");
        assert!(peak <= 8 * 1024, "an agent of {peak} KiB");
    }
}

#[test]
fn few_files_mean_waiting_not_failing() {
    let topology = Topology::new();
    let (mut client, mut server) = (Agent::start(&topology.client), Agent::start(&topology.server));
    server.listen(Transport::Tcp, 8080, "the server");
    let pid = client.hello.pid.to_string();
    let limited = std::process::Command::new("prlimit").args(["--pid", &pid, "--nofile=40:40"]).status();
    assert!(limited.expect("prlimit of util-linux").success());
    let results = client.probe_all((0..500).map(|_| probe(Transport::Tcp, SocketAddr::new(address(SERVER[0]), 8080))));
    assert!(results.iter().all(|result| matches!(result.outcome, Outcome::Open(_))));
}

#[test]
fn two_who_start_it_at_once_get_one_agent() {
    let topology = Topology::new();
    let client = Agent::start(&topology.client);
    let socket = client.socket().with_file_name("other.sock");
    let words = ["attach", "--socket", socket.to_str().expect("UTF-8")];
    let mut children: Vec<_> =
        (0..8).map(|_| command(&client.program(), 0, &words).spawn().expect("start the agent")).collect();
    let hellos: BTreeSet<_> = children
        .iter_mut()
        .map(|child| {
            drop(child.stdin.take());
            let mut said = String::new();
            child.stdout.take().expect("piped").read_to_string(&mut said).expect("read");
            child.wait().expect("wait");
            said
        })
        .filter_map(|said| said.split("\"boot\":").nth(1).and_then(|rest| rest.split(',').next()).map(str::to_owned))
        .collect();
    assert_eq!(hellos.len(), 1, "{hellos:?}");
    let mut last = command(&client.program(), 0, &words).spawn().expect("attach");
    let end = "{\"id\":0,\"op\":{\"attach\":{\"session\":9,\"after\":0}}}\n{\"id\":1,\"op\":\"shutdown\"}\n";
    last.stdin.take().expect("piped").write_all(end.as_bytes()).expect("write");
    assert!(last.wait().expect("wait").success());
}

#[test]
fn a_script_gets_its_answers_after_its_last_word() {
    let topology = Topology::new();
    let client = Agent::start(&topology.client);
    let socket = client.socket();
    let words = ["attach", "--socket", socket.to_str().expect("UTF-8")];
    let mut script = command(&client.program(), 0, &words);
    let mut script = topology.client.run(|| script.spawn()).expect("enter the namespace").expect("start");
    let lines = format!(
        "{{\"id\":0,\"op\":{{\"attach\":{{\"session\":9,\"after\":0}}}}}}\n{}\n",
        serde_json::to_string(&Request {
            id: 5,
            op: Op::Probe(Probe {
                identify: Identify::None,
                ..probe(Transport::Icmp, SocketAddr::new(address(ROUTER[0]), 0))
            })
        })
        .expect("JSON")
    );
    script.stdin.take().expect("piped").write_all(lines.as_bytes()).expect("write");
    let mut said = String::new();
    script.stdout.take().expect("piped").read_to_string(&mut said).expect("read");
    assert!(script.wait().expect("wait").success());
    let lines: Vec<_> = said.lines().collect();
    assert!(lines.len() == 2 && lines[0].contains("hello") && lines[1].contains("\"open\""), "{said}");
}

#[test]
fn single_commands_print_and_fail_clearly() {
    let topology = Topology::new();
    let client = Agent::start(&topology.client);
    ip(&topology.client, "route add prohibit 10.9.9.9");
    let run = |words: &[&str]| {
        let mut single = command(&client.program(), 0, words);
        single.stderr(std::process::Stdio::piped());
        let output = topology.client.run(|| single.output()).expect("enter the namespace").expect("run");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, printed, _) = run(&["probe", "udp", "10.9.9.9:53"]);
    assert!(code == Some(0) && printed.contains(r#""outcome":{"no-route":{"errno":13}}"#), "{printed}");
    assert!(run(&["facts"]).1.contains("\"name\":\"eth0\""));
    assert_eq!(run(&["version"]), (Some(0), format!("{}\n", env!("CARGO_PKG_VERSION")), String::new()));
    let (code, _, said) = run(&["probe", "tcp", "somewhere"]);
    assert!(code == Some(2) && said.starts_with("agent: the target is no ADDRESS:PORT"), "{said}");
    let (code, _, said) = run(&["attach", "--socket", "/no/such/folder/agent.sock"]);
    assert!(code == Some(1) && said.contains("/no/such/folder/agent.sock"), "{said}");
}
