//! Flows of br-ex. Node and gateway routers share one address and one MAC on the wire, so each connection remembers in
//! its conntrack mark the port that it came from, and its replies are sent to the port that the mark names. Nothing here
//! depends on which networks exist: the flows are written once.

use std::io::Write;
use std::process::Stdio;

use udn_lab_sys::site::{NodeSite, Tools};

use crate::address::Mac;
use crate::error::Error;
use crate::layout::{HOST_MASQUERADE, MASQUERADE};

/// Conntrack zones: connections to the outside, and of gateway routers to the host.
const OUTSIDE: u16 = 64000;
const TO_HOST: u16 = 64001;
/// Marks: bit 16 says that the low 16 bits are the port of a gateway router.
const FROM_GATEWAY: &str = "move:NXM_OF_IN_PORT[]->NXM_NX_CT_MARK[0..15],load:1->NXM_NX_CT_MARK[16]";

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
        "table=0,priority=250,in_port=eth0,arp,arp_op=1,actions=LOCAL".into(),
        "table=0,priority=250,in_port=eth0,arp,actions=FLOOD".into(),
        "table=0,priority=250,in_port=eth0,icmp6,icmp_type=136,actions=FLOOD".into(),
        "table=0,priority=240,in_port=eth0,icmp6,icmp_type=135,actions=LOCAL".into(),
        "table=0,priority=250,in_port=LOCAL,arp,actions=output:eth0".into(),
        "table=0,priority=250,in_port=LOCAL,icmp6,icmp_type=135,actions=output:eth0".into(),
        "table=0,priority=250,in_port=LOCAL,icmp6,icmp_type=136,actions=output:eth0".into(),
        "table=0,priority=230,arp,actions=output:eth0".into(),
        "table=0,priority=230,icmp6,icmp_type=135,actions=output:eth0".into(),
        "table=0,priority=230,icmp6,icmp_type=136,actions=output:eth0".into(),
        "table=0,priority=5,in_port=eth0,actions=LOCAL".into(),
        "table=0,priority=5,in_port=LOCAL,actions=output:eth0".into(),
        "table=0,priority=0,actions=drop".into(),
        "table=1,priority=0,actions=LOCAL".into(),
        "table=2,priority=0,actions=drop".into(),
    ];
    let families = [
        ("ip", "nw", node.ipv4.to_string(), HOST_MASQUERADE.0.to_string(), format!("{}/17", MASQUERADE.0)),
        ("ipv6", "ipv6", node.ipv6.to_string(), HOST_MASQUERADE.1.to_string(), format!("{}/112", MASQUERADE.1)),
    ];
    for (protocol, field, address, host, masquerade) in families {
        flows.extend([
            // A gateway router to the host itself, under its masquerade address, and back.
            format!(
                "table=0,priority=220,{protocol},{field}_src={masquerade},{field}_dst={host},actions=\
                 ct(commit,zone={TO_HOST},nat(dst={address}),exec({FROM_GATEWAY})),mod_dl_dst:{mac},LOCAL"
            ),
            format!(
                "table=0,priority=220,in_port=LOCAL,{protocol},{field}_src={address},{field}_dst={masquerade},actions=\
                 ct(zone={TO_HOST},nat,table=2)"
            ),
            format!("table=2,priority=100,{protocol},ct_mark=0x10000/0x10000,actions=mod_dl_dst:{mac},output:NXM_NX_CT_MARK[0..15]"),
            // The host to the outside. NAT to its own address makes way where a gateway router has the same port already.
            format!(
                "table=0,priority=210,in_port=LOCAL,{protocol},{field}_src={address},actions=\
                 ct(commit,zone={OUTSIDE},nat(src={address}),exec(load:2->NXM_NX_CT_MARK[])),output:eth0"
            ),
            // Gateway routers to the outside: user defined networks under their masquerade addresses, the default network
            // under the node's. Anything else would leave with a pod's own address, and is dropped.
            format!(
                "table=0,priority=200,{protocol},{field}_src={masquerade},actions=\
                 ct(commit,zone={OUTSIDE},nat(src={address}),exec({FROM_GATEWAY})),output:eth0"
            ),
            format!(
                "table=0,priority=190,{protocol},{field}_src={address},actions=\
                 ct(commit,zone={OUTSIDE},nat(src={address}),exec({FROM_GATEWAY})),output:eth0"
            ),
            // From the wire: replies to whom they belong, the rest to the host.
            format!("table=0,priority=225,in_port=eth0,{protocol},actions=ct(zone={OUTSIDE},nat,table=1)"),
        ]);
        for state in ["+trk+est", "+trk+rel"] {
            flows.push(format!("table=1,priority=100,ct_state={state},ct_mark=0x10000/0x10000,{protocol},actions=output:NXM_NX_CT_MARK[0..15]"));
        }
    }
    flows
}

/// Replaces br-ex's flows by [`br_ex`].
pub(crate) async fn install(tools: &Tools, node: &NodeSite) -> Result<(), Error> {
    let failed = |reason: String| Error::Program { program: "ovs-ofctl", node: node.name.clone(), reason };
    let mut command = tools.command("ovs-ofctl");
    command
        .args(["-O", "OpenFlow13", "--names", "replace-flows"])
        .arg(format!("unix:{}", node.ovs_run.join("br-ex.mgmt").display()))
        .arg("-");
    command.env("OVS_RUNDIR", &node.ovs_run).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let text = br_ex(node).join("\n") + "\n";
    let run = tokio::task::spawn_blocking(move || {
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(text.as_bytes())?;
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
