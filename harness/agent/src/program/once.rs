//! A single probe, or the facts, printed: the command that repeats what a report says.

use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use rustix::io::Errno;

use super::{Error, print_json};
use crate::clock::wall_us;
use crate::facts as view;
use crate::probe::Probes;
use crate::protocol::{Identify, Probe, Transport};
use crate::reactor::{Event, Kind, Reactor};

/// Timeout unless told otherwise, milliseconds.
const TIMEOUT_MS: u32 = 3_000;

/// Prints the agent's view of its network.
pub(super) fn facts() -> Result<(), Error> {
    print_json(&view::collect().map_err(Error::Failed)?)
}

/// Probes once and prints the result.
pub(super) fn probe(arguments: &[&str]) -> Result<(), Error> {
    let probe = parse(arguments)?;
    let waiting = |errno: Errno| Error::system("wait for the probe", errno, "raise the limit of open files");
    let mut reactor = Reactor::new().map_err(waiting)?;
    let mut probes = Probes::new(1);
    probes.take(1, probe);
    probes.start_some(&mut reactor);
    let mut events = Vec::new();
    loop {
        if let Some((_, result)) = probes.take_ended().pop() {
            return print_json(&result);
        }
        reactor.wait(&mut events, false).map_err(waiting)?;
        for event in events.drain(..) {
            match event {
                Event::Due(token) => probes.due(&mut reactor, token.key()),
                Event::Ready(token, _) if token.kind() == Kind::Echo => probes.echo_ready(&mut reactor, token.key()),
                Event::Ready(token, _) => probes.ready(&mut reactor, token.key()),
            }
        }
    }
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
