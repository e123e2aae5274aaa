//! The other end of the guest's network: a DHCP server and router in a namespace of its own.

use std::process::{Child, Command};

use udn_lab_sys::netns::Netns;

use super::machine::{MAC, command};

/// The interface that the guest is behind.
pub(crate) const TAP: &str = "tap0";

/// What is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Served {
    /// DHCPv4, and a router that sends to DHCPv6.
    Both,
    /// DHCPv4 only.
    V4,
    /// A router that sends to DHCPv6 only.
    V6,
}

/// A namespace with the guest's tap, and the server in it.
pub(crate) struct Server {
    pub(crate) netns: Netns,
    process: Child,
}

impl Server {
    pub(crate) fn start(served: Served) -> Self {
        let netns = Netns::create("guest").expect("a network namespace: run this as root");
        for words in [
            "link set lo up",
            "tuntap add dev tap0 mode tap",
            "link set tap0 address 0a:58:0a:4d:00:01",
            "link set tap0 up",
            "address add 10.77.0.1/24 dev tap0",
            "address add fd77::1/64 dev tap0 nodad",
        ] {
            let done = netns.run(|| Command::new("ip").args(words.split(' ')).status()).expect("enter the namespace");
            assert!(done.expect("ip").success(), "ip {words}");
        }
        netns.write_sysctl("ipv6/conf/all/forwarding", "1").expect("forwarding");
        let mut dnsmasq = command("UDN_TEST_DNSMASQ");
        dnsmasq.args(["--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root", "--pid-file="]);
        dnsmasq.args(["--leasefile-ro", "--interface=tap0", "--log-facility=-", "--log-dhcp", "--domain=red.example"]);
        if served != Served::V6 {
            dnsmasq.arg("--dhcp-range=10.77.0.50,10.77.0.60,255.255.255.0,3500s").args([
                &format!("--dhcp-host={MAC},10.77.0.50,db"),
                "--dhcp-option=option:router,10.77.0.1",
                "--dhcp-option=option:mtu,1400",
                "--dhcp-option=option:dns-server,10.77.0.53",
                // Soon, so that a test sees it.
                "--dhcp-option-force=option:T1,8",
            ]);
        }
        if served != Served::V4 {
            dnsmasq.args([
                "--enable-ra",
                "--ra-param=tap0,mtu:1400,10",
                "--dhcp-range=fd77::50,fd77::60,64,3500s",
                "--dhcp-option=option6:dns-server,[fd77::53]",
            ]);
        }
        let process = netns.run(|| dnsmasq.spawn()).expect("enter the namespace").expect("start dnsmasq");
        Self { netns, process }
    }

    /// Runs a command at the router's end; gives what it prints.
    pub(crate) fn run(&self, words: &str) -> String {
        let mut words = words.split(' ');
        let mut command = Command::new(words.next().expect("a command"));
        command.args(words);
        let output = self.netns.run(|| command.output()).expect("enter the namespace").expect("run");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
