//! What a question to a DNS server comes to, against servers and networks that do it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::thread;
use std::time::Duration;

use udn_agent::protocol::{Body, Op, Outcome, RecordType, Resolution, Resolve, Resolved, Transport};

use crate::support::agent::Agent;
use crate::support::topology::{SERVER, Topology, address, forward};

const BOTH: [Transport; 2] = [Transport::Udp, Transport::Tcp];
const PORT: u16 = 5353;

fn question(transport: Transport, host: &str, name: &str) -> Resolve {
    Resolve {
        name: name.into(),
        record: RecordType::A,
        transport,
        server: Some(SocketAddr::new(address(host), PORT)),
        source_port: None,
        timeout_ms: 1500,
    }
}

fn ask(client: &mut Agent, question: Resolve) -> Resolved {
    match client.ask(Op::Resolve(question)) {
        Body::Resolved(resolved) => resolved,
        other => panic!("not an answer: {other:?}"),
    }
}

/// A server on the server's machine, both families and transports, that answers each query with what `reply` makes of it;
/// nothing: silence.
fn serve(topology: &Topology, reply: fn(&[u8]) -> Option<Vec<u8>>) {
    let (udp, tcp) = topology
        .server
        .run(|| {
            let udp = UdpSocket::bind(("::", PORT)).expect("UDP");
            (udp, TcpListener::bind(("::", PORT)).expect("TCP"))
        })
        .expect("enter the namespace");
    thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = udp.recv_from(&mut buffer) {
            if let Some(answer) = reply(&buffer[..length]) {
                let _ = udp.send_to(&answer, from);
            }
        }
    });
    thread::spawn(move || {
        for mut stream in tcp.incoming().flatten() {
            thread::spawn(move || {
                let mut buffer = [0; 512];
                let Ok(length) = stream.read(&mut buffer) else { return };
                match reply(&buffer[2..length]) {
                    Some(answer) => {
                        let framed = [&u16::try_from(answer.len()).expect("short").to_be_bytes()[..], &answer].concat();
                        // In two pieces, as a network may deliver it.
                        let _ = stream.write_all(&framed[..1]);
                        thread::sleep(Duration::from_millis(20));
                        let _ = stream.write_all(&framed[1..]);
                    }
                    None => thread::sleep(Duration::from_secs(5)),
                }
            });
        }
    });
}

/// The query with these flags, and an address for every question that asks for one.
fn answer(query: &[u8], flags: [u8; 2], addresses: &[[u8; 4]]) -> Vec<u8> {
    let mut answer = query.to_vec();
    answer[2..4].copy_from_slice(&flags);
    answer[7] = u8::try_from(addresses.len()).expect("few");
    for address in addresses {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4]);
        answer.extend(address);
    }
    answer
}

#[test]
fn an_answer_is_told_with_who_gave_it_and_how_long_it_took() {
    let topology = Topology::new();
    let mut client = Agent::start(&topology.client);
    serve(&topology, |query| Some(answer(query, [0x84, 0], &[[10, 0, 0, 1], [10, 0, 0, 2]])));
    for host in SERVER {
        for transport in BOTH {
            let asked = question(transport, host, "web.blue.svc.cluster.local.");
            let resolved = ask(&mut client, asked.clone());
            let Resolution::Answered(answer) = &resolved.outcome else { panic!("{transport} {host}: {resolved:?}") };
            assert_eq!((answer.rcode, answer.authoritative, answer.truncated), (0, true, false));
            assert_eq!(answer.addresses, [address("10.0.0.1"), address("10.0.0.2")]);
            assert_eq!((resolved.server, resolved.asked), (asked.server, 1));
            assert!(resolved.local.is_some() && answer.rtt_us > 0 && resolved.took_us < 1_000_000, "{resolved:?}");
        }
    }
}

#[test]
fn what_a_server_says_is_told_as_it_says_it() {
    let topology = Topology::new();
    let mut client = Agent::start(&topology.client);
    serve(&topology, |query| {
        match query[13] {
            b'n' => Some(answer(query, [0x84, 3], &[])),
            b't' => Some(answer(query, [0x86, 0], &[[10, 0, 0, 1]])),
            // Lame: the question comes back; the answer to another; an answer cut off; another number.
            b'e' => Some(query.to_vec()),
            b'o' => {
                let mut other = answer(query, [0x84, 0], &[[10, 0, 0, 1]]);
                other[13] = b'x';
                Some(other)
            }
            b'c' => answer(query, [0x84, 0], &[[10, 0, 0, 1]]).get(..query.len() + 9).map(<[u8]>::to_vec),
            b'i' => {
                let mut other = answer(query, [0x84, 0], &[[10, 0, 0, 1]]);
                other[0] ^= 0xff;
                Some(other)
            }
            _ => None,
        }
    });
    for transport in BOTH {
        let mut said = |name: &str| ask(&mut client, question(transport, SERVER[0], name)).outcome;
        assert!(
            matches!(said("none"), Resolution::Answered(answer) if answer.rcode == 3 && answer.addresses.is_empty())
        );
        assert!(matches!(said("truncated"), Resolution::Answered(answer) if answer.truncated));
        for (name, about) in [("echo", "a question came back"), ("other", "another question"), ("cut", "in the middle")]
        {
            let garbled = said(name);
            assert!(matches!(&garbled, Resolution::Garbled { why } if why.contains(about)), "{name}: {garbled:?}");
        }
        let number = said("id");
        assert!(matches!(number, Resolution::Garbled { .. }), "{number:?}");
        // Whoever accepts a connection was reached, though he says nothing.
        let silent = said("silence");
        match transport {
            Transport::Tcp => assert!(matches!(&silent, Resolution::Garbled { why } if why.contains("accepted"))),
            _ => assert_eq!(silent, Resolution::Unanswered(Outcome::TimedOut)),
        }
    }
}

#[test]
fn what_is_lost_is_asked_again_and_counted() {
    let topology = Topology::new();
    let mut client = Agent::start(&topology.client);
    serve(&topology, |_| None);
    let silent = ask(&mut client, question(Transport::Udp, SERVER[0], "a"));
    assert_eq!((silent.outcome, silent.asked), (Resolution::Unanswered(Outcome::TimedOut), 2));
}

#[test]
fn who_does_not_answer_is_told_as_a_probe_tells_it() {
    let topology = Topology::new();
    let mut client = Agent::start(&topology.client);
    for host in SERVER {
        for transport in BOTH {
            let refused = ask(&mut client, question(transport, host, "a"));
            let is_refused = matches!(refused.outcome, Resolution::Unanswered(Outcome::Refused { .. }));
            assert!(is_refused, "{transport} {host}: {refused:?}");
        }
    }
    forward(&topology, "drop");
    for transport in BOTH {
        let dropped = ask(&mut client, question(transport, SERVER[1], "a"));
        assert_eq!(dropped.outcome, Resolution::Unanswered(Outcome::TimedOut), "{transport}");
    }
    for wrong in ["", "a..b"] {
        let outcome = ask(&mut client, question(Transport::Udp, SERVER[0], wrong)).outcome;
        assert!(matches!(outcome, Resolution::Unanswered(Outcome::AgentFailed(_))), "`{wrong}`: {outcome:?}");
    }
}
