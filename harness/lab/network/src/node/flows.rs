//! Flows of br-ex. Node and gateway routers share one address and one MAC on the wire, so each connection remembers in
//! its conntrack mark the port that it came from, and its replies are sent to the port that the mark names. [`br_ex`] does
//! not depend on which networks exist; what services add is `service::exposure`, and [`keep`] writes both.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use udn_lab_sys::site::{NodeSite, Tools};

use super::NodeSide;
use crate::address::Mac;
use crate::error::Error;
use crate::layout::{DEFAULT_JOIN, HOST_MASQUERADE, SERVICE_RANGES, masquerade, masquerade_next_hop};
use crate::naming;
use crate::service::exposure::{self, Exposures};

/// Conntrack zones: connections to and from the outside, of gateway routers to the host, and of host and gateway routers to
/// other gateway routers of the node.
pub(crate) const OUTSIDE: u16 = 64000;
const TO_HOST: u16 = 64001;
pub(crate) const BETWEEN: u16 = 64002;
/// Marks: bit 16 says that the low 16 bits are the port of a gateway router.
pub(crate) const FROM_GATEWAY: &str = "move:NXM_OF_IN_PORT[]->NXM_NX_CT_MARK[0..15],load:1->NXM_NX_CT_MARK[16]";

/// A pair of interfaces, both ports of br-ex: what goes into the first comes out of the second as a packet seen for the
/// first time. Between two gateway routers it must: Open vSwitch would take the second's pipeline for a continuation of the
/// first's, with the addresses from before NAT, and loses packets that have been through conntrack too many times.
pub(crate) const AGAIN: [&str; 2] = ["again0", "again1"];

/// Actions that send a packet to a gateway router's port, as one seen for the first time. It comes from a MAC that is
/// nobody's and holds the port.
pub(crate) fn again(node: &NodeSite, port: u32) -> String {
    let mac = Mac(node.mac);
    format!("mod_dl_dst:{mac},mod_dl_src:0a:58:00:00:00:00,load:{port}->NXM_OF_ETH_SRC[0..15],output:{}", AGAIN[0])
}

/// The flows, one a line, for `ovs-ofctl --names add-flows`.
pub(crate) fn br_ex(node: &NodeSite) -> Vec<String> {
    let mac = Mac(node.mac);
    let mut flows: Vec<String> = vec![
        // Tunnels belong to the host, in both directions.
        "table=0,priority=300,in_port=eth0,udp,tp_dst=6081,actions=LOCAL".into(),
        "table=0,priority=300,in_port=eth0,udp6,tp_dst=6081,actions=LOCAL".into(),
        "table=0,priority=300,in_port=LOCAL,udp,tp_dst=6081,actions=output:eth0".into(),
        "table=0,priority=300,in_port=LOCAL,udp6,tp_dst=6081,actions=output:eth0".into(),
        // Who asks on the wire for the node's address is answered by the node; what is answered concerns all who may have asked.
        "table=0,priority=255,in_port=eth0,arp,arp_op=1,actions=LOCAL".into(),
        "table=0,priority=250,in_port=eth0,arp,actions=FLOOD".into(),
        "table=0,priority=250,in_port=eth0,icmp6,icmp_type=136,actions=FLOOD".into(),
        "table=0,priority=240,in_port=eth0,icmp6,icmp_type=135,actions=LOCAL".into(),
        "table=0,priority=250,in_port=LOCAL,arp,actions=output:eth0".into(),
        "table=0,priority=250,in_port=LOCAL,icmp6,icmp_type=135,actions=output:eth0".into(),
        "table=0,priority=250,in_port=LOCAL,icmp6,icmp_type=136,actions=output:eth0".into(),
        "table=0,priority=230,arp,actions=output:eth0".into(),
        "table=0,priority=230,icmp6,icmp_type=135,actions=output:eth0".into(),
        "table=0,priority=230,icmp6,icmp_type=136,actions=output:eth0".into(),
        format!(
            "table=0,priority=400,in_port={},dl_src=0a:58:00:00:00:00/ff:ff:ff:ff:00:00,actions=\
             move:NXM_OF_ETH_SRC[0..15]->NXM_NX_REG0[0..15],output:NXM_NX_REG0[0..15]",
            AGAIN[1]
        ),
        // Nothing else passes: a flooded frame has a MAC of somebody, and would leave by any port, again0 included, for ever.
        format!("table=0,priority=390,in_port={},actions=drop", AGAIN[0]),
        format!("table=0,priority=390,in_port={},actions=drop", AGAIN[1]),
        "table=0,priority=5,in_port=eth0,actions=LOCAL".into(),
        "table=0,priority=5,in_port=LOCAL,actions=output:eth0".into(),
        "table=0,priority=0,actions=drop".into(),
        "table=1,priority=0,actions=LOCAL".into(),
        "table=2,priority=0,actions=drop".into(),
        "table=3,priority=0,actions=drop".into(),
    ];
    for (ipv6, (join, services)) in [false, true].into_iter().zip(DEFAULT_JOIN.into_iter().zip(SERVICE_RANGES)) {
        let (protocol, field) = if ipv6 { ("ipv6", "ipv6") } else { ("ip", "nw") };
        let address = if ipv6 { node.ipv6.to_string() } else { node.ipv4.to_string() };
        let host = if ipv6 { HOST_MASQUERADE.1.to_string() } else { HOST_MASQUERADE.0.to_string() };
        let networks = masquerade(ipv6);
        // User defined networks under their masquerade addresses, load-balanced connections of the default network under
        // its gateway router's join address.
        for inner in [networks, join] {
            flows.extend([
                // A gateway router to the host itself, under its masquerade address, and back.
                format!(
                    "table=0,priority=220,{protocol},{field}_src={inner},{field}_dst={host},actions=\
                     ct(commit,zone={TO_HOST},nat(dst={address}),exec({FROM_GATEWAY})),mod_dl_dst:{mac},LOCAL"
                ),
                format!(
                    "table=0,priority=220,in_port=LOCAL,{protocol},{field}_src={address},{field}_dst={inner},actions=\
                     ct(zone={TO_HOST},nat,table=2)"
                ),
                // Gateway routers to the outside.
                format!(
                    "table=0,priority=200,{protocol},{field}_src={inner},actions=\
                     ct(commit,zone={OUTSIDE},nat(src={address}),exec({FROM_GATEWAY})),output:eth0"
                ),
            ]);
        }
        flows.extend([
            format!(
                "table=2,priority=100,{protocol},ct_mark=0x10000/0x10000,actions=mod_dl_dst:{mac},\
                 output:NXM_NX_CT_MARK[0..15]"
            ),
            // A gateway router replies to another of this node, or to the host.
            format!(
                "table=0,priority=218,{protocol},{field}_src={address},{field}_dst={networks},actions=\
                 ct(zone={BETWEEN},nat,table=3)"
            ),
            format!("table=3,priority=110,{protocol},ct_mark=0x1fffe/0x1ffff,actions=mod_dl_dst:{mac},LOCAL"),
            format!(
                "table=3,priority=100,{protocol},ct_mark=0x10000/0x10000,actions=mod_dl_dst:{mac},\
                 mod_dl_src:0a:58:00:00:00:00,move:NXM_NX_CT_MARK[0..15]->NXM_OF_ETH_SRC[0..15],output:{}",
                AGAIN[0]
            ),
            // Nobody else on the node has the host's address, and services that a network does not have it does not reach.
            format!("table=0,priority=215,in_port=LOCAL,{protocol},{field}_dst={address},actions=drop"),
            format!("table=0,priority=205,{protocol},{field}_dst={services},actions=drop"),
            // The host to the outside. NAT to its own address makes way where a gateway router has the same port already.
            format!(
                "table=0,priority=210,in_port=LOCAL,{protocol},{field}_src={address},actions=\
                 ct(commit,zone={OUTSIDE},nat(src={address}),exec(load:2->NXM_NX_CT_MARK[])),output:eth0"
            ),
            // The default network's pods leave under the node's address. Anything else would leave with a pod's own
            // address, and is dropped.
            format!(
                "table=0,priority=190,{protocol},{field}_src={address},actions=\
                 ct(commit,zone={OUTSIDE},nat(src={address}),exec({FROM_GATEWAY})),output:eth0"
            ),
            // From the wire: replies to whom they belong, the rest to the host, or to whose service it is.
            format!("table=0,priority=225,in_port=eth0,{protocol},actions=ct(zone={OUTSIDE},nat,table=1)"),
        ]);
        for state in ["+trk+est", "+trk+rel"] {
            flows.push(format!(
                "table=1,priority=100,ct_state={state},ct_mark=0x10000/0x10000,{protocol},actions=\
                 output:NXM_NX_CT_MARK[0..15]"
            ));
        }
    }
    flows
}

/// Between a change that could not be written and the next attempt.
const RETRY: Duration = Duration::from_millis(250);

/// Keeps br-ex's flows as networks and services want them, for ever.
pub(crate) async fn keep(node: NodeSide, tools: Tools, mut wanted: watch::Receiver<Arc<Exposures>>) {
    let mut interfaces = node.vswitch.interfaces();
    let mut written: Option<Vec<String>> = None;
    let mut routed = BTreeSet::new();
    let mut plugged = BTreeMap::new();
    loop {
        let exposures = wanted.borrow_and_update().clone();
        let ports = patch_ports(&node, &exposures, &interfaces.borrow_and_update());
        let mut flows = br_ex(&node.site);
        flows.extend(exposure::flows(&node.site, &exposures, &ports));
        if written.as_ref() != Some(&flows) {
            match install(&tools, &node.site, &flows).await {
                Ok(()) => written = Some(flows),
                Err(error) => {
                    tracing::warn!(node = node.site.name, %error, "flows could not be written; trying again");
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            }
        }
        let gone: BTreeSet<u32> =
            plugged.values().filter(|port| !ports.values().any(|it| it == *port)).copied().collect();
        for port in gone {
            // Connections of a network that is gone would hold on to its port when another comes along.
            if let Err(error) = forget(&tools, &node.site, port).await {
                tracing::warn!(node = node.site.name, port, %error, "connections could not be forgotten");
            }
        }
        plugged = ports;
        if let Err(error) = routes(&node, &mut routed, exposures.for_hosts()).await {
            tracing::warn!(node = node.site.name, %error, "routes could not be changed; trying again");
            tokio::time::sleep(RETRY).await;
            continue;
        }
        let changed = tokio::select! {
            changed = wanted.changed() => changed,
            changed = interfaces.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

/// Makes the host's routes to external addresses of the default network those wanted.
async fn routes(node: &NodeSide, routed: &mut BTreeSet<IpAddr>, wanted: BTreeSet<IpAddr>) -> Result<(), Error> {
    if *routed == wanted {
        return Ok(());
    }
    let index = node.links.index("br-ex").await?;
    let gone: Vec<IpAddr> = routed.difference(&wanted).copied().collect();
    for address in gone {
        if let Some(via) = masquerade_next_hop(address.is_ipv6()) {
            node.links.delete_route(address.into(), via, index).await?;
        }
        routed.remove(&address);
    }
    for address in wanted {
        if let Some(via) = masquerade_next_hop(address.is_ipv6()).filter(|_| !routed.contains(&address)) {
            node.links.add_route(address.into(), via, index).await?;
            routed.insert(address);
        }
    }
    Ok(())
}

/// The OpenFlow ports of networks' gateway routers on br-ex, as far as Open vSwitch has them.
fn patch_ports(
    node: &NodeSide,
    exposures: &Exposures,
    interfaces: &crate::ovsdb::follow::Rows,
) -> BTreeMap<String, u32> {
    let numbers: BTreeMap<&str, u32> = interfaces
        .values()
        .filter_map(|row| {
            let number = row["ofport"].as_u64().and_then(|number| u32::try_from(number).ok())?;
            Some((row["name"].as_str()?, number))
        })
        .collect();
    let networks = exposures.networks.keys().map(String::as_str).chain([naming::DEFAULT_NETWORK]);
    let port = |network: &str| {
        let name = format!("patch-br-ex_{}{}-to-br-int", naming::prefix(network), node.site.name);
        numbers.get(name.as_str()).copied()
    };
    networks.filter_map(|network| Some((network.to_owned(), port(network)?))).collect()
}

/// Forgets the connections of the gateway router that was behind a port.
async fn forget(tools: &Tools, node: &NodeSite, port: u32) -> Result<(), Error> {
    for zone in [OUTSIDE, TO_HOST, BETWEEN] {
        let mut command = tools.command("ovs-appctl");
        let mark = 0x1_0000 | port;
        command.args(["dpctl/flush-conntrack", &format!("zone={zone}"), &format!("mark={mark:#x}/0x1ffff")]);
        run("ovs-appctl", node, command, String::new()).await?;
    }
    Ok(())
}

/// Waits until the datapath has let go of what it remembers of flows that have changed: a packet may still go where its
/// like went before, for some time after the flows say otherwise.
pub(crate) async fn revalidated(tools: &Tools, node: &NodeSite) -> Result<(), Error> {
    let mut command = tools.command("ovs-appctl");
    command.arg("revalidator/wait");
    run("ovs-appctl", node, command, String::new()).await
}

/// Replaces br-ex's flows by `flows`, all at once; those that stay are not touched.
pub(crate) async fn install(tools: &Tools, node: &NodeSite, flows: &[String]) -> Result<(), Error> {
    let mut command = tools.command("ovs-ofctl");
    command
        .args(["-O", "OpenFlow14", "--bundle", "--names", "replace-flows"])
        .arg(format!("unix:{}", node.ovs_run.join("br-ex.mgmt").display()))
        .arg("-");
    run("ovs-ofctl", node, command, flows.join("\n") + "\n").await
}

/// Runs a program of the package tree with `input` for the node's Open vSwitch.
async fn run(program: &'static str, node: &NodeSite, mut command: Command, input: String) -> Result<(), Error> {
    let failed = |reason: String| Error::Program { program, node: node.name.clone(), reason };
    command.env("OVS_RUNDIR", &node.ovs_run).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let run = tokio::task::spawn_blocking(move || {
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes())?;
        }
        child.wait_with_output()
    });
    let output = run.await.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }
}
