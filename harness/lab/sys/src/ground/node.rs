//! A node's Open vSwitch and ovn-controller.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::daemon::{Daemon, Start};
use super::links::Links;
use super::{central, queues, threads, underlay};
use crate::error::Error;
use crate::netns::Netns;
use crate::ovsdb::Client;
use crate::site::{NodeSite, OvnSite, ROUTER_V4, ROUTER_V6, Tools, UNDERLAY_PREFIX_V4, UNDERLAY_PREFIX_V6};

const DEADLINE: Duration = Duration::from_secs(10);
/// The switch forwards every packet by itself: where it waits for the processor, all connections of the node stall.
const SWITCH_NICE: i32 = -10;

/// Plugs the node into the underlay.
pub(super) async fn wire(node: &NodeSite, underlay_netns: &Netns, bridge: u32) -> Result<(), Error> {
    let links = Links::open(underlay_netns)?;
    // The wire's end has a MAC of its own: the node's is br-ex'.
    let mac = [0x02, 0x42, 0xac, 0x12, 0x01, node.index];
    links.add_pair(&node.name.replace("ovn-", ""), bridge, &node.netns, "eth0", mac).await?;
    let inside = Links::open(&node.netns)?;
    underlay::set(
        &node.netns,
        &[
            ("ipv6/conf/eth0/disable_ipv6", "1"),
            // Else the kernel answers for br-ex' address on the wire's end, too, with the wrong MAC.
            ("ipv4/conf/eth0/arp_ignore", "8"),
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/all/forwarding", "1"),
        ],
    )?;
    inside.set_up(inside.index("eth0").await?).await
}

/// Starts the node's database and switch; returns when its bridges are there and the node has its addresses.
pub(super) async fn switch(tools: &Tools, node: &NodeSite, ovn: &OvnSite) -> Result<Vec<Daemon>, Error> {
    let run = &node.ovs_run;
    let file = run.join("conf.db");
    let socket = run.join("db.sock");
    central::create_database(tools, run, &file, "openvswitch/vswitch.ovsschema").await?;
    let netns = &node.netns;
    let start =
        |program, nice| Start { tools, program, name: program, place: &node.name, run, switch: run, netns, nice };
    let mut server =
        start("ovsdb-server", 0).run(&[file.display().to_string(), format!("--remote=punix:{}", socket.display())])?;
    let mut client = server.brings(Client::connect(&socket, DEADLINE)).await?;
    client.transact("Open_vSwitch", &configuration(node, ovn)).await?;
    let mut switch =
        start("ovs-vswitchd", SWITCH_NICE).run(&[format!("unix:{}", socket.display()), "--disable-system".into()])?;
    let configured = client.wait("Open_vSwitch", "Open_vSwitch", &["cur_cfg"], json!([{"cur_cfg": 1}]), DEADLINE);
    switch.brings(configured).await?;
    match queues::deepen(switch.pid()) {
        Ok(0) => return Err(switch.error("reads no uplink".into())),
        Ok(_) => {}
        // It forwards all the same, and loses packets of large rounds.
        Err(error) => tracing::warn!(node = %node.name, %error, "the uplink's queue stays short"),
    }
    if let Err(error) = threads::revalidators_wait(switch.pid()).await {
        tracing::warn!(node = %node.name, %error, "the switch looks at its flows before others go on");
    }
    addresses(node).await?;
    Ok(vec![server, switch])
}

/// Starts ovn-controller. The southbound database must answer already, else it waits a second before its next try.
pub(super) fn controller(tools: &Tools, node: &NodeSite) -> Result<Daemon, Error> {
    let start = Start {
        tools,
        program: "ovn-controller",
        name: "ovn-controller",
        place: &node.name,
        run: &node.ovn_run,
        switch: &node.ovs_run,
        netns: &node.netns,
        nice: 0,
    };
    start.run(&[format!("unix:{}", node.ovs_run.join("db.sock").display())])
}

/// The node's whole configuration in one transaction: both bridges, and what ovn-controller reads.
fn configuration(node: &NodeSite, ovn: &OvnSite) -> Vec<Value> {
    let map = |pairs: &[(&str, &str)]| json!(["map", pairs]);
    let mac = node.mac.map(|byte| format!("{byte:02x}")).join(":");
    let remote = format!("unix:{}", ovn.southbound().display());
    let (ipv4, name) = (node.ipv4.to_string(), node.name.as_str());
    let port = |uuid: &str, name: &str, kind: &str| {
        [
            json!({"op": "insert", "table": "Interface", "uuid-name": format!("{uuid}_if"), "row": {"name": name, "type": kind}}),
            json!({"op": "insert", "table": "Port", "uuid-name": uuid,
                   "row": {"name": name, "interfaces": ["named-uuid", format!("{uuid}_if")]}}),
        ]
    };
    let bridge = |uuid: &str, name: &str, ports: &[&str], fail_mode: &str, other_config: Value| {
        let ports: Vec<_> = ports.iter().map(|port| json!(["named-uuid", port])).collect();
        json!({"op": "insert", "table": "Bridge", "uuid-name": uuid, "row": {
            "name": name, "ports": ["set", ports], "datapath_type": "netdev", "fail_mode": fail_mode, "other_config": other_config,
        }})
    };
    let mut operations = Vec::new();
    operations.extend(port("ex", "br-ex", "internal"));
    operations.extend(port("uplink", "eth0", "system"));
    operations.extend(port("int", "br-int", "internal"));
    operations.push(bridge("b_ex", "br-ex", &["ex", "uplink"], "standalone", map(&[("hwaddr", &mac)])));
    operations.push(bridge("b_int", "br-int", &["int"], "secure", map(&[("disable-in-band", "true")])));
    operations.push(json!({"op": "insert", "table": "Open_vSwitch", "row": {
        "next_cfg": 1,
        "bridges": ["set", [["named-uuid", "b_ex"], ["named-uuid", "b_int"]]],
        // One core forwards for all; more threads would only wait for it.
        "other_config": map(&[("n-revalidator-threads", "1"), ("n-handler-threads", "1")]),
        "external_ids": map(&[
            ("system-id", name),
            ("hostname", name),
            ("ovn-remote", &remote),
            ("ovn-encap-type", "geneve"),
            ("ovn-encap-ip", &ipv4),
            ("ovn-monitor-all", "true"),
            ("ovn-remote-probe-interval", "0"),
            ("ovn-openflow-probe-interval", "0"),
            ("ovn-bridge-datapath-type", "netdev"),
            ("ovn-bridge-mappings", "physnet:br-ex"),
        ]),
    }}));
    operations
}

/// The node's addresses are br-ex': so its userspace tunnels find their way.
async fn addresses(node: &NodeSite) -> Result<(), Error> {
    let links = Links::open(&node.netns)?;
    let index = links.await_index("br-ex", DEADLINE).await?;
    links.set_up(index).await?;
    links.add_address(index, node.ipv4, UNDERLAY_PREFIX_V4).await?;
    links.add_address(index, node.ipv6, UNDERLAY_PREFIX_V6).await?;
    links.add_default_routes(index, ROUTER_V4, ROUTER_V6).await
}

/// The central's sockets by their usual names beside the node's own, so that tools in a pod of the node find both.
pub(super) fn link_central(node: &NodeSite, ovn: &OvnSite) -> Result<(), Error> {
    let mut names = vec!["ovnnb_db.sock", "ovnsb_db.sock"];
    if node.index == 1 {
        names.extend(["ovnnb_db.ctl", "ovnsb_db.ctl"]);
    }
    for name in names {
        let link: &Path = &node.ovn_run.join(name);
        std::fs::hard_link(ovn.run.join(name), link).map_err(Error::file("link", link))?;
    }
    Ok(())
}
