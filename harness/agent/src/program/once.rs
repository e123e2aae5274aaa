//! A single probe, a question to a DNS server, a flow, or the facts, printed: the command that repeats what a report says.

use alloc::string::ToString;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use rustix::io::Errno;

use super::{Error, print_json};
use crate::clock::wall_us;
use crate::facts as view;
use crate::flow::Flows;
use crate::probe::Probes;
use crate::protocol::{Body, FLOW_PERIODS_US, Flow, Identify, Probe, RecordType, Resolve, Transport};
use crate::reactor::{Event, Kind, Reactor};

/// Timeout unless told otherwise, milliseconds.
const TIMEOUT_MS: u32 = 3_000;

/// How long a flow runs unless told otherwise, milliseconds.
const FLOW_MS: u32 = 10_000;

/// How often its frames leave unless told otherwise, microseconds.
const FLOW_PERIOD_US: u32 = 5_000;

/// Prints the agent's view of its network.
pub(super) fn facts() -> Result<(), Error> {
    print_json(&view::collect().map_err(Error::Failed)?)
}

/// Probes once and prints the result.
pub(super) fn probe(arguments: &[&str]) -> Result<(), Error> {
    let probe = parse(arguments)?;
    once(|probes| probes.take(1, probe))
}

/// Asks a DNS server once and prints what came of it.
pub(super) fn resolve(arguments: &[&str]) -> Result<(), Error> {
    let question = parse_question(arguments)?;
    once(|probes| probes.take_question(1, question))
}

/// Runs a flow and prints how it went.
pub(super) fn flow(arguments: &[&str]) -> Result<(), Error> {
    let waiting = |errno: Errno| Error::system("wait for the flow", errno, "raise the limit of open files");
    let flow = parse_flow(arguments)?;
    let mut reactor = Reactor::new().map_err(waiting)?;
    let mut flows = Flows::new();
    flows.take(&mut reactor, 1, flow);
    let mut events = Vec::new();
    loop {
        match flows.take_ended().pop() {
            Some((_, Body::Flow(result))) => return print_json(&result),
            Some((_, Body::Failed(failure))) => return Err(Error::Failed(failure)),
            _ => {}
        }
        reactor.wait(&mut events, false).map_err(waiting)?;
        for event in events.drain(..) {
            match event {
                Event::Due(token) => flows.due(&mut reactor, token.key()),
                Event::Ready(token, _) => flows.ready(&mut reactor, token.key()),
            }
        }
    }
}

fn once(take: impl FnOnce(&mut Probes)) -> Result<(), Error> {
    let waiting = |errno: Errno| Error::system("wait for the probe", errno, "raise the limit of open files");
    let mut reactor = Reactor::new().map_err(waiting)?;
    let mut probes = Probes::new(1);
    take(&mut probes);
    let mut events = Vec::new();
    loop {
        probes.start_some(&mut reactor);
        match probes.take_ended().pop() {
            Some((_, Body::Probe(result))) => return print_json(&result),
            Some((_, Body::Resolved(result))) => return print_json(&result),
            _ => {}
        }
        reactor.wait(&mut events, probes.can_start()).map_err(waiting)?;
        for event in events.drain(..) {
            match event {
                Event::Due(token) => probes.due(&mut reactor, token.key()),
                Event::Ready(token, _) if token.kind() == Kind::Echo => probes.echo_ready(&mut reactor, token.key()),
                Event::Ready(token, _) => probes.ready(&mut reactor, token.key()),
            }
        }
    }
}

fn parse_question(arguments: &[&str]) -> Result<Resolve, Error> {
    let [transport, record, name, options @ ..] = arguments else {
        return Err(Error::usage("a question needs a transport, a kind of record and a name"));
    };
    let transport = match *transport {
        "tcp" => Transport::Tcp,
        "udp" => Transport::Udp,
        _ => return Err(Error::usage("the transport is none of tcp, udp")),
    };
    let record = match *record {
        "a" => RecordType::A,
        "aaaa" => RecordType::Aaaa,
        _ => return Err(Error::usage("the record is none of a, aaaa")),
    };
    let (server, source_port, timeout_ms) = (None, None, TIMEOUT_MS);
    let mut question = Resolve { name: name.to_string(), record, transport, server, source_port, timeout_ms };
    for option in options.chunks(2) {
        match *option {
            ["--timeout-ms", number] => {
                question.timeout_ms = number.parse().map_err(|_| Error::usage("--timeout-ms takes a number"))?;
            }
            ["--server", server] => {
                question.server = Some(server.parse().map_err(|_| Error::usage("--server takes ADDRESS:PORT"))?);
            }
            _ => return Err(Error::usage("unknown option of resolve, or one without its value")),
        }
    }
    Ok(question)
}

fn parse_flow(arguments: &[&str]) -> Result<Flow, Error> {
    let [transport, target, options @ ..] = arguments else {
        return Err(Error::usage("a flow needs a transport and a target"));
    };
    let transport = match *transport {
        "tcp" => Transport::Tcp,
        "udp" => Transport::Udp,
        _ => return Err(Error::usage("the transport is none of tcp, udp")),
    };
    let to = target.parse().map_err(|_| Error::usage("the target is no ADDRESS:PORT ([ADDRESS]:PORT for IPv6)"))?;
    let (from, source_port, period_us) = (None, None, FLOW_PERIOD_US);
    let (connect_timeout_ms, limit_ms) = (TIMEOUT_MS, FLOW_MS);
    let mut flow = Flow { transport, to, from, source_port, period_us, connect_timeout_ms, limit_ms };
    for option in options.chunks(2) {
        match *option {
            ["--period-ms", number] => {
                let period = number.parse::<u32>().ok().and_then(|period| period.checked_mul(1_000));
                flow.period_us = period
                    .filter(|period| FLOW_PERIODS_US.contains(period))
                    .ok_or_else(|| Error::usage("--period-ms takes a number from 1 to 10"))?;
            }
            ["--for-ms", number] => {
                flow.limit_ms = number.parse().map_err(|_| Error::usage("--for-ms takes a number"))?;
            }
            ["--timeout-ms", number] => {
                flow.connect_timeout_ms = number.parse().map_err(|_| Error::usage("--timeout-ms takes a number"))?;
            }
            _ => return Err(Error::usage("unknown option of flow, or one without its value")),
        }
    }
    Ok(flow)
}

fn parse(arguments: &[&str]) -> Result<Probe, Error> {
    let [transport, target, options @ ..] = arguments else {
        return Err(Error::usage("a probe needs a transport and a target"));
    };
    let transport = match *transport {
        "tcp" => Transport::Tcp,
        "udp" => Transport::Udp,
        "icmp" => Transport::Icmp,
        _ => return Err(Error::usage("the transport is none of tcp, udp, icmp")),
    };
    let to = match transport {
        Transport::Icmp => target.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, 0)),
        Transport::Tcp | Transport::Udp => target.parse().ok(),
    };
    let to =
        to.ok_or_else(|| Error::usage("the target is no ADDRESS:PORT ([ADDRESS]:PORT for IPv6; icmp: ADDRESS)"))?;
    let identify = if transport == Transport::Icmp { Identify::None } else { Identify::Banner };
    let (from, source_port, timeout_ms) = (None, None, TIMEOUT_MS);
    let mut probe = Probe { transport, to, from, source_port, timeout_ms, identify, nonce: wall_us() };
    for option in options.chunks(2) {
        match *option {
            ["--timeout-ms", number] => {
                probe.timeout_ms = number.parse().map_err(|_| Error::usage("--timeout-ms takes a number"))?;
            }
            ["--from", address] => {
                probe.from = Some(address.parse().map_err(|_| Error::usage("--from takes an address"))?);
            }
            ["--identify", "banner"] => probe.identify = Identify::Banner,
            ["--identify", "agnhost"] => probe.identify = Identify::Agnhost,
            ["--identify", "none"] => probe.identify = Identify::None,
            _ => return Err(Error::usage("unknown option of probe, or one without its value")),
        }
    }
    Ok(probe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_read_from_words() {
        let question = parse_question(&["udp", "aaaa", "a.b", "--server", "[fd00::1]:53"]).expect("a question");
        assert_eq!((question.record, question.server), (RecordType::Aaaa, "[fd00::1]:53".parse().ok()));
        for wrong in [&["udp", "a"][..], &["icmp", "a", "x"], &["udp", "mx", "x"], &["tcp", "a", "x", "--server", "y"]]
        {
            assert!(parse_question(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_flow_is_read_from_words() {
        let flow = parse_flow(&["udp", "[fd00::1]:80", "--period-ms", "2", "--for-ms", "700"]).expect("a flow");
        assert_eq!((flow.transport, flow.period_us, flow.limit_ms), (Transport::Udp, 2_000, 700));
        assert_eq!(parse_flow(&["tcp", "10.0.0.1:80", "--timeout-ms", "9"]).expect("a flow").connect_timeout_ms, 9);
        let wrong = [&["icmp", "10.0.0.1:1"][..], &["tcp", "10.0.0.1"], &["tcp", "10.0.0.1:1", "--period-ms", "11"]];
        for wrong in wrong {
            assert!(matches!(parse_flow(wrong), Err(Error::Usage { .. })), "{wrong:?}");
        }
    }

    #[test]
    fn a_probe_is_read_from_words() {
        let probe = parse(&["tcp", "[fd00::1]:80", "--timeout-ms", "50", "--identify", "agnhost"]).expect("a probe");
        assert_eq!(
            (probe.to, probe.timeout_ms, probe.identify),
            (([0xfd00, 0, 0, 0, 0, 0, 0, 1], 80).into(), 50, Identify::Agnhost)
        );
        assert_eq!(parse(&["icmp", "10.0.0.1"]).expect("a probe").to, ([10, 0, 0, 1], 0).into());
        for wrong in [&["tcp", "10.0.0.1"][..], &["sctp", "10.0.0.1:1"], &["tcp"], &["udp", "10.0.0.1:1", "--from"]] {
            assert!(matches!(parse(wrong), Err(Error::Usage { .. })), "{wrong:?}");
        }
    }
}
