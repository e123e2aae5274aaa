//! Two machines with a router between them: client - router - server, both families.

use std::io::{ErrorKind, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use udn_lab_sys::netns::Netns;

/// The client's addresses, IPv4 and IPv6.
pub(crate) const CLIENT: [&str; 2] = ["10.0.1.2", "fd00:1::2"];
/// The router's addresses on the client's side.
pub(crate) const ROUTER: [&str; 2] = ["10.0.1.1", "fd00:1::1"];
/// The router's addresses on the server's side.
pub(crate) const ROUTER_BEHIND: [&str; 2] = ["10.0.2.1", "fd00:2::1"];
/// The server's addresses.
pub(crate) const SERVER: [&str; 2] = ["10.0.2.2", "fd00:2::2"];

/// The namespaces. They vanish with this value and the processes in them.
pub(crate) struct Topology {
    pub(crate) client: Netns,
    pub(crate) router: Netns,
    pub(crate) server: Netns,
}

impl Topology {
    pub(crate) fn new() -> Self {
        let make = |name| Netns::create(name).expect("a network namespace: run this as root");
        let topology = Self { client: make("client"), router: make("router"), server: make("server") };
        join(&topology.client, "10.0.1.2/24", "fd00:1::2/64", &topology.router, "10.0.1.1/24", "fd00:1::1/64", "eth1");
        join(&topology.server, "10.0.2.2/24", "fd00:2::2/64", &topology.router, "10.0.2.1/24", "fd00:2::1/64", "eth2");
        for (netns, gateways) in [(&topology.client, ROUTER), (&topology.server, ROUTER_BEHIND)] {
            for gateway in gateways {
                ip(netns, &format!("route add default via {gateway}"));
            }
        }
        for forwarding in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            topology.router.write_sysctl(forwarding, "1").expect("forwarding");
        }
        // The kernel sends few ICMP errors per second; a test must not depend on how many the last one had.
        for limit in ["ipv4/icmp_ratelimit", "ipv6/icmp/ratelimit"] {
            for netns in [&topology.client, &topology.router, &topology.server] {
                netns.write_sysctl(limit, "0").expect("ICMP rate limit");
            }
        }
        topology.await_paths();
        topology
    }

    /// Waits until packets get through both ways: interfaces come up in the background.
    fn await_paths(&self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        for host in SERVER {
            let target = SocketAddr::new(address(host), 1);
            let connect = || TcpStream::connect_timeout(&target, Duration::from_millis(100));
            // Nobody listens: being refused means that the server answered.
            while !self
                .client
                .run(connect)
                .expect("enter the namespace")
                .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
            {
                assert!(Instant::now() < deadline, "no path to {host} within ten seconds");
            }
        }
    }
}

/// Joins a machine's `eth0` to an interface of the router.
fn join(machine: &Netns, v4: &str, v6: &str, router: &Netns, router_v4: &str, router_v6: &str, router_end: &str) {
    let fd = router.as_fd().as_raw_fd();
    let router_path = format!("/proc/{}/fd/{fd}", std::process::id());
    ip(machine, &format!("link add eth0 type veth peer name {router_end} netns {router_path}"));
    for (netns, interface, v4, v6) in [(machine, "eth0", v4, v6), (router, router_end, router_v4, router_v6)] {
        for family in ["ipv4", "ipv6"] {
            // The first question of address resolution is asked before the interface is quite up, and lost.
            let pace = format!("{family}/neigh/{interface}/retrans_time_ms");
            netns.write_sysctl(&pace, "50").expect("set the pace of address resolution");
        }
        ip(netns, "link set lo up");
        ip(netns, &format!("address add {v4} dev {interface}"));
        ip(netns, &format!("address add {v6} dev {interface} nodad"));
        ip(netns, &format!("link set {interface} up"));
    }
}

/// Runs `ip` with these words in a namespace.
pub(crate) fn ip(netns: &Netns, words: &str) {
    let mut command = Command::new("ip");
    command.args(words.split_whitespace());
    run(netns, command, "iproute2", None);
}

/// Adds a chain of rules (`;` between them) at a hook of a namespace's packet filter, for both families.
/// `kind` is the chain's type, hook and priority.
pub(crate) fn nft(netns: &Netns, kind: &str, rules: &str) {
    let mut command = Command::new("nft");
    command.args(["-f", "-"]);
    let text = format!("table inet test {{\nchain rules {{\ntype {kind};\n{rules}\n}}\n}}\n");
    run(netns, command, "nftables", Some(&text));
}

/// Takes back what [`nft`] added.
pub(crate) fn unfilter(netns: &Netns) {
    let mut command = Command::new("nft");
    command.args(["delete", "table", "inet", "test"]);
    run(netns, command, "nftables", None);
}

/// Filters what the router forwards.
pub(crate) fn forward(topology: &Topology, rule: &str) {
    nft(&topology.router, "filter hook forward priority 0", rule);
}

fn run(netns: &Netns, mut command: Command, package: &str, input: Option<&str>) {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let started = netns.run(|| command.spawn()).expect("enter the namespace");
    let mut child = started.unwrap_or_else(|error| panic!("cannot run {command:?}: {error}; install {package}"));
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.unwrap_or_default().as_bytes()).expect("write");
    }
    let output = child.wait_with_output().expect("wait");
    assert!(
        output.status.success(),
        "{command:?} {input:?} in {}: {}",
        netns.name(),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// An address.
pub(crate) fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}
