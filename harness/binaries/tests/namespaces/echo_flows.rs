//! Flows over ICMP, and what a flow says of the agent that it belongs to.

use std::net::SocketAddr;
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use udn_agent::protocol::{Evidence, FlowEnd, Outcome, Transport};

use crate::support::agent::Agent;
use crate::support::flow::flow;
use crate::support::topology::{SERVER, Topology, address, forward, unfilter};

fn echo(host: &str) -> udn_agent::protocol::Flow {
    flow(Transport::Icmp, SocketAddr::new(address(host), 0))
}

#[test]
fn loss_and_gaps_are_counted_in_both_families_with_and_without_rights() {
    let topology = Topology::new();
    // Ping sockets for those without rights.
    topology.client.write_sysctl("ipv4/ping_group_range", "0 2147483647").expect("ping sockets");
    let mut server = Agent::start(&topology.server);
    assert_eq!(server.hello.evidence, Evidence::Capture);
    for mut client in [Agent::start(&topology.client), Agent::start_powerless(&topology.client)] {
        let seen_before = server.arrivals().list.len();
        let flows = SERVER.map(|host| client.begin(echo(host)));
        for flow in flows {
            client.await_replies(flow, 100);
        }
        forward(&topology, "drop");
        sleep(Duration::from_millis(500));
        unfilter(&topology.router);
        for flow in flows {
            client.await_replies(flow, 100);
        }
        for (host, result) in SERVER.iter().zip(client.end(&flows)) {
            let report = *result.report;
            assert_eq!((result.end, report.identity.as_deref()), (FlowEnd::Asked, Some(*host)));
            assert!(report.lost > 50 && report.garbled == 0 && report.duplicated == 0, "{report:?}");
            let longest = report.gaps.iter().map(|gap| gap.took_us).max().expect("a gap");
            assert!(longest >= 490_000, "{report:?}");
            let (whole, recent) = (report.rtt.expect("round trips"), report.recent_rtt.expect("round trips"));
            assert!(recent.min_us >= whole.min_us && recent.max_us <= whole.max_us, "{whole:?} {recent:?}");
        }
        let arrivals = server.arrivals().list;
        let echoes = arrivals.iter().skip(seen_before).filter(|arrival| arrival.transport == Transport::Icmp);
        assert_eq!(echoes.count(), 2, "only the first of each: the others would push everybody else out");
    }
}

#[test]
fn a_target_that_cannot_be_reached_is_said_so() {
    let topology = Topology::new();
    let mut client = Agent::start(&topology.client);
    for host in ["192.0.2.1", "2001:db8::1"] {
        let mut unreachable = echo(host);
        unreachable.connect_timeout_ms = 3000;
        let result = client.run_flow(unreachable);
        // The router has no route there.
        assert!(matches!(result.end, FlowEnd::NotEstablished(Outcome::Unreachable(_))), "{host}: {:?}", result.end);
    }
    forward(&topology, "drop");
    let mut lost = echo(SERVER[0]);
    lost.connect_timeout_ms = 300;
    assert_eq!(client.run_flow(lost).end, FlowEnd::NotEstablished(Outcome::TimedOut));
}

#[test]
fn an_agent_that_stands_still_says_so_itself() {
    let topology = Topology::new();
    let _server = Agent::start(&topology.server);
    let mut client = Agent::start(&topology.client);
    let flow = client.begin(echo(SERVER[0]));
    client.await_replies(flow, 50);
    let pid = Pid::from_raw(i32::try_from(client.hello.pid).expect("a process"));
    kill(pid, Signal::SIGSTOP).expect("stop");
    sleep(Duration::from_millis(400));
    kill(pid, Signal::SIGCONT).expect("continue");
    client.await_replies(flow, 50);
    let report = *client.end(&[flow]).remove(0).report;
    let stall = report.stalls.iter().max_by_key(|stall| stall.late_us).expect("a stall");
    let gap = report.gaps.iter().max_by_key(|gap| gap.took_us).expect("a gap");
    assert!(stall.late_us >= 380_000 && stall.late_us == report.late_us, "{report:?}");
    // The stall accounts for the gap.
    assert!(stall.at_us.abs_diff(gap.started_us + gap.took_us) < 50_000, "{report:?}");
}
