//! How many probes a second one agent makes, and how much memory that takes. Prints; asserts nothing.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)] // A benchmark has nobody to report an error to.

#[allow(dead_code)] // The tests use the rest.
#[path = "../tests/namespaces/support/mod.rs"]
mod support;

use std::net::SocketAddr;
use std::time::Instant;

use support::agent::{Agent, probe};
use support::topology::{SERVER, Topology, address};
use udn_agent::protocol::{Identify, Outcome, Transport};

/// Probes per measurement.
const COUNT: usize = 20_000;

/// Probes in flight at once.
const IN_FLIGHT: usize = 1_000;

fn main() {
    let topology = Topology::new();
    let (mut client, mut server) = (Agent::start(&topology.client), Agent::start(&topology.server));
    for transport in [Transport::Tcp, Transport::Udp] {
        server.listen(transport, 8080, "the server");
    }
    println!("agent: {} bytes", udn_binaries::AGENT.len());
    for (transport, port) in [(Transport::Tcp, 8080), (Transport::Udp, 8080), (Transport::Icmp, 0)] {
        let start = Instant::now();
        let mut open = 0;
        for _ in 0..COUNT / IN_FLIGHT {
            let mut wanted = probe(transport, SocketAddr::new(address(SERVER[0]), port));
            wanted.timeout_ms = 10_000;
            if transport != Transport::Icmp {
                wanted.identify = Identify::Banner;
            }
            let round = (0..IN_FLIGHT).map(|number| {
                let mut one = wanted.clone();
                one.nonce += number as u64;
                one
            });
            let results = client.probe_all(round);
            open += results.iter().filter(|result| matches!(result.outcome, Outcome::Open(_))).count();
        }
        let rate = COUNT as f64 / start.elapsed().as_secs_f64();
        println!("{transport}: {rate:.0} probes/s ({open} of {COUNT} open, {IN_FLIGHT} in flight)");
    }
    for (name, agent) in [("client", &client), ("server", &server)] {
        println!("{name}: {} KiB resident, at most {} KiB", agent.status("VmRSS"), agent.status("VmHWM"));
    }
}
