//! How exact an outage's figure is: gaps of known length, made by a router between the two ends of a flow, against what the
//! flow says of them. Prints a table; asserts nothing.
//!
//! A datagram's flow must say what was injected, within one period (a frame that was about to leave when the way was closed)
//! and 2 ms. A TCP connection says more: what it lost comes again when its retransmission timer says so, 200 ms and then
//! twice as long each time, and that is what its user feels.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)] // A benchmark has nobody to report an error to.

#[allow(dead_code)] // The tests use the rest.
#[path = "../tests/namespaces/support/mod.rs"]
mod support;

use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use support::agent::Agent;
use support::flow::flow;
use support::topology::{SERVER, Topology, address};
use udn_agent::protocol::Transport;

const PORT: u16 = 8080;
/// Lengths injected, milliseconds, and how often each.
const INJECTED: [(u64, usize); 4] = [(20, 11), (100, 11), (500, 11), (2_000, 5)];
/// Periods of the flows, microseconds.
const PERIODS_US: [u32; 2] = [5_000, 10_000];
/// What may be added to a period, microseconds.
const BESIDES_US: i64 = 2_000;

fn main() {
    let topology = Topology::new();
    let (mut client, mut server) = (Agent::start(&topology.client), Agent::start(&topology.server));
    server.listen_and_echo(PORT, "the server");
    server.listen(Transport::Udp, PORT, "the server");
    println!("transport  family  period    injected   measured − injected, ms: median [least … most]   bound");
    for transport in [Transport::Udp, Transport::Tcp] {
        for (host, family) in SERVER.into_iter().zip(["v4", "v6"]) {
            for period_us in PERIODS_US {
                for (length, times) in INJECTED {
                    let target = SocketAddr::new(address(host), PORT);
                    let mut errors: Vec<i64> = (0..times)
                        .map(|_| error_us(&topology, &mut client, transport, target, period_us, length))
                        .collect();
                    errors.sort_unstable();
                    let bound = match transport {
                        Transport::Udp => format!("{} ms", ms(i64::from(period_us) + BESIDES_US)),
                        _ => "its retransmission timer's".into(),
                    };
                    println!(
                        "{transport:<9}  {family:<6}  {:>3} ms  {length:>7} ms   {:>8} [{} … {}] of {times}   {bound}",
                        period_us / 1_000,
                        ms(errors[errors.len() / 2]),
                        ms(errors[0]),
                        ms(errors[errors.len() - 1]),
                    );
                }
            }
        }
    }
}

/// Closes the way for a time; by how much the flow's longest time without a reply differs from it, microseconds.
fn error_us(
    topology: &Topology,
    client: &mut Agent,
    transport: Transport,
    target: SocketAddr,
    period_us: u32,
    length: u64,
) -> i64 {
    let mut wanted = flow(transport, target);
    wanted.period_us = period_us;
    let flow = client.begin(wanted);
    client.await_replies(flow, 30);
    way(topology, target, "0");
    let closed = Instant::now();
    sleep(Duration::from_millis(length));
    way(topology, target, "1");
    let injected = i64::try_from(closed.elapsed().as_micros()).expect("a short time");
    client.await_replies(flow, 30);
    let result = client.end(&[flow]).remove(0);
    result.report.longest_us.cast_signed() - injected
}

/// Whether the router between the two forwards. A filter's rule would do the same, but when a command that adds or removes one
/// returns is up to ten milliseconds from when it takes effect, and not the same for both.
fn way(topology: &Topology, target: SocketAddr, open: &str) {
    let family = if target.is_ipv4() { "ipv4" } else { "ipv6" };
    topology.router.write_sysctl(&format!("{family}/conf/all/forwarding"), open).expect("the router's switch");
}

fn ms(us: i64) -> String {
    format!("{:.1}", us as f64 / 1_000.0)
}
