//! What exists once the lab's ground is up: nodes, underlay, OVN and the programs to talk to them.
//!
//! Addresses and names follow a kind cluster named `ovn`, so that what is typed there can be typed here.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::process::Command;

use crate::netns::Netns;

/// Underlay prefix length, IPv4 (`172.18.0.0/16`).
pub const UNDERLAY_PREFIX_V4: u8 = 16;
/// Underlay prefix length, IPv6 (`fc00:f853:ccd:e793::/64`).
pub const UNDERLAY_PREFIX_V6: u8 = 64;
/// The underlay's router: the nodes' default gateway. It answers "unreachable" for what it has no route to.
pub const ROUTER_V4: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 1);
/// The underlay's router, IPv6.
pub const ROUTER_V6: Ipv6Addr = Ipv6Addr::new(0xfc00, 0xf853, 0xccd, 0xe793, 0, 0, 0, 1);
/// The external client and server.
pub const EXTERNAL_V4: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 100);
/// The external client and server, IPv6.
pub const EXTERNAL_V6: Ipv6Addr = Ipv6Addr::new(0xfc00, 0xf853, 0xccd, 0xe793, 0, 0, 0, 0x100);
/// Overlay MTU of pod interfaces, bytes.
pub const OVERLAY_MTU: u32 = 1400;
/// Label of what the lab itself puts into its API: with an API server that was there before, this is removed at the end.
pub const LAB_LABEL: &str = "udn-conformance.io/lab";
/// The namespace of the network's own pods.
pub const OVN_NAMESPACE: &str = "ovn-kubernetes";

/// File name of the dynamic loader on this machine.
pub const LOADER: &str = if cfg!(target_arch = "aarch64") { "ld-linux-aarch64.so.1" } else { "ld-linux-x86-64.so.2" };

/// One node of the cluster.
#[derive(Clone, Debug)]
pub struct NodeSite {
    /// Kubernetes name: `ovn-control-plane`, `ovn-worker`, `ovn-worker2`.
    pub name: String,
    /// 1-based position; OVN's chassis name is the node's name.
    pub index: u8,
    /// Underlay address (on `br-ex`).
    pub ipv4: Ipv4Addr,
    /// Underlay address (on `br-ex`).
    pub ipv6: Ipv6Addr,
    /// MAC of `br-ex`, and of every gateway router's external port on this node.
    pub mac: [u8; 6],
    /// The node's network namespace. It has `lo`, `br-ex` (address, default route), `eth0` (a port of br-ex).
    pub netns: Netns,
    /// Run directory of the node's Open vSwitch: `db.sock`, `<bridge>.mgmt`, `ovs-vswitchd.log`, pid files. Mounted at
    /// `/run/openvswitch` it makes the tools' defaults work.
    pub ovs_run: PathBuf,
    /// Run directory of the node's OVN: `ovn-controller.pid`, its control socket and log, and the central's
    /// `ovnnb_db.sock` and `ovnsb_db.sock` (hard links). Mounted at `/run/ovn` it makes the tools' defaults work.
    pub ovn_run: PathBuf,
}

/// The OVN central.
#[derive(Clone, Debug)]
pub struct OvnSite {
    /// Run directory: `ovnnb_db.sock`, `ovnsb_db.sock`, logs.
    pub run: PathBuf,
}

impl OvnSite {
    /// The northbound database's unix socket.
    #[must_use]
    pub fn northbound(&self) -> PathBuf {
        self.run.join("ovnnb_db.sock")
    }

    /// The southbound database's unix socket.
    #[must_use]
    pub fn southbound(&self) -> PathBuf {
        self.run.join("ovnsb_db.sock")
    }
}

/// Where programs of the package tree are found.
#[derive(Clone, Debug)]
pub struct Tools {
    /// Root of the unpacked package tree, or `/` where the host's own programs are used.
    pub root: PathBuf,
}

/// Everything the lab's network and nodes need to know of their ground.
#[derive(Clone, Debug)]
pub struct Site {
    /// Control plane first, then the workers.
    pub nodes: Vec<NodeSite>,
    /// The underlay's network namespace: a bridge `br0` with the router's addresses, a port per node and external host.
    pub underlay: Netns,
    /// The external host's network namespace (client and server on the underlay).
    pub external: Netns,
    /// The OVN central.
    pub ovn: OvnSite,
    /// Programs.
    pub tools: Tools,
    /// A root file system for pods: busybox, iproute2, ping, curl; read-only.
    pub image_root: PathBuf,
    /// A directory on the lab's private tmpfs for pods' writable layers.
    pub scratch: PathBuf,
    /// The running program, for internal subcommands.
    pub program: PathBuf,
}

impl Site {
    /// The node of this name.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&NodeSite> {
        self.nodes.iter().find(|node| node.name == name)
    }
}

impl Tools {
    /// A command that runs `program` (such as `ovs-ofctl`) of the package tree by that tree's own loader and libraries
    /// where there is a tree, else the host's.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let directories = ["usr/sbin", "usr/bin", "usr/lib/openvswitch-switch", "sbin", "bin"];
        let found =
            directories.iter().map(|directory| self.root.join(directory).join(program)).find(|path| path.exists());
        let Some(path) = found else { return Command::new(program) };
        let libraries = self.libraries();
        let loader = libraries.join(LOADER);
        if self.root.as_os_str() == "/" || !loader.exists() {
            return Command::new(path);
        }
        let mut command = Command::new(loader);
        command.arg("--library-path").arg(&libraries).arg(path).env_remove("LD_LIBRARY_PATH");
        command
    }

    /// The directory of shared libraries, by the multi-arch name of this machine.
    #[must_use]
    pub fn libraries(&self) -> PathBuf {
        self.root.join("usr/lib").join(format!("{}-linux-gnu", std::env::consts::ARCH))
    }
}
