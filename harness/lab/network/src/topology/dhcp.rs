//! What OVN answers to the DHCP requests of virtual machines, with OVN-Kubernetes' options: the rows, and which port uses
//! them. OVN answers on the guest's own node, in nobody's name: a link-local server stands for all of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde_json::{Value, json};

use crate::address::Mac;
use crate::layout::Layout;
use crate::ovsdb::Transaction;
use crate::ovsdb::transaction::{map, set};

/// Who answers, in each family.
const SERVER: (Ipv4Addr, Ipv6Addr) = (Ipv4Addr::new(169, 254, 1, 1), Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));
/// How long a lease is, in seconds.
const LEASE: u32 = 3500;
/// What marks a row as the one of a port, whose name follows.
const PORT: &str = "k8s.ovn.org/logical-port";

/// A guest behind a port.
#[derive(Clone, Debug)]
pub(crate) struct Guest<'a> {
    /// The logical switch port.
    pub(crate) port: &'a str,
    /// `<namespace>/<name>` of the virtual machine.
    pub(crate) vm: &'a str,
    pub(crate) addresses: &'a [IpNet],
    pub(crate) gateways: &'a [IpAddr],
    /// The cluster's DNS servers.
    pub(crate) resolvers: &'a [IpAddr],
}

/// Makes OVN answer the guest. The port must be in the transaction, or in the database.
pub(crate) fn answer(transaction: &mut Transaction, layout: &Layout, guest: &Guest<'_>) {
    let mut columns = serde_json::Map::new();
    for address in guest.addresses {
        let (column, options) = match address {
            IpNet::V4(_) => ("dhcpv4_options", v4(layout, guest)),
            IpNet::V6(_) => ("dhcpv6_options", v6(guest)),
        };
        let row = transaction.insert(
            "DHCP_Options",
            json!({
                "cidr": address.trunc().to_string(), "options": map(options),
                "external_ids": map([
                    ("k8s.ovn.org/network", layout.name()), ("k8s.ovn.org/owner-type", "VirtualMachineDHCPOptions"),
                    ("k8s.ovn.org/name", guest.vm), (PORT, guest.port),
                ]),
            }),
        );
        columns.insert(column.into(), set([row]));
    }
    transaction.push(json!({
        "op": "update", "table": "Logical_Switch_Port", "where": [["name", "==", guest.port]],
        "row": Value::Object(columns),
    }));
}

/// Removes the rows of a port.
pub(crate) fn silence(transaction: &mut Transaction, port: &str) {
    transaction.delete_where("DHCP_Options", "external_ids", "includes", map([(PORT, port)]));
}

fn name(guest: &Guest<'_>) -> String {
    // OVN parses options: text needs quotes of its own, or there is no answer at all.
    format!("\"{}\"", guest.vm.rsplit('/').next().unwrap_or_default())
}

fn of_family(addresses: &[IpAddr], ipv6: bool) -> Option<String> {
    addresses.iter().find(|address| address.is_ipv6() == ipv6).map(ToString::to_string)
}

fn v4(layout: &Layout, guest: &Guest<'_>) -> Vec<(&'static str, String)> {
    let mut options = vec![
        ("server_id", SERVER.0.to_string()),
        ("server_mac", Mac::of(SERVER.0.into()).to_string()),
        ("lease_time", LEASE.to_string()),
        ("hostname", name(guest)),
        ("mtu", layout.definition.mtu.to_string()),
    ];
    options.extend(of_family(guest.gateways, false).map(|router| ("router", router)));
    options.extend(of_family(guest.resolvers, false).map(|server| ("dns_server", server)));
    options
}

fn v6(guest: &Guest<'_>) -> Vec<(&'static str, String)> {
    let mut options = vec![("server_id", Mac::of(SERVER.1.into()).to_string()), ("fqdn", name(guest))];
    options.extend(of_family(guest.resolvers, true).map(|server| ("dns_server", server)));
    options
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::tests::{LAYER2, layout};

    #[test]
    fn options_are_those_of_ovn_kubernetes() {
        let mut transaction = Transaction::default();
        let addresses = ["172.16.0.5/16".parse().unwrap(), "2014:100:200::5/60".parse().unwrap()];
        let gateways = ["172.16.0.2".parse().unwrap(), "2014:100:200::2".parse().unwrap()];
        let resolvers = ["fd00:10:96::a".parse().unwrap(), "10.96.0.10".parse().unwrap()];
        let guest =
            Guest { port: "p", vm: "blue/db", addresses: &addresses, gateways: &gateways, resolvers: &resolvers };
        answer(&mut transaction, &layout(LAYER2, 1), &guest);
        let operations = transaction.into_operations();
        let options: Vec<String> = operations.iter().map(|it| it["row"]["options"].to_string()).collect();
        for wanted in [
            r#"["server_id","169.254.1.1"]"#,
            r#"["server_mac","0a:58:a9:fe:01:01"]"#,
            r#"["lease_time","3500"]"#,
            r#"["hostname","\"db\""]"#,
            r#"["mtu","1400"]"#,
            r#"["router","172.16.0.2"]"#,
            r#"["dns_server","10.96.0.10"]"#,
        ] {
            assert!(options[0].contains(wanted), "{wanted} is not in {}", options[0]);
        }
        for wanted in [r#"["fqdn","\"db\""]"#, r#"["dns_server","fd00:10:96::a"]"#] {
            assert!(options[1].contains(wanted), "{wanted} is not in {}", options[1]);
        }
        assert_eq!(operations[0]["row"]["cidr"], "172.16.0.0/16");
        let uses = json!({"dhcpv4_options": ["set", [["named-uuid", "row0"]]],
            "dhcpv6_options": ["set", [["named-uuid", "row1"]]]});
        assert_eq!(operations[2]["row"], uses);
    }
}
