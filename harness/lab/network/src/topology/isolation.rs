//! What keeps the default-network address of a pod with another primary network closed: a port group that drops all but
//! the kubelet's probes, and the ports that a pod opens by annotation.

use std::net::IpAddr;

use serde_json::{Value, json};

use crate::layout::{Layout, identifier, probe_address};
use crate::ovsdb::Transaction;
use crate::ovsdb::transaction::{map, set};

/// OVN-Kubernetes' priorities.
const ALLOW: u32 = 1001;
const DENY: u32 = 1000;

/// The port group's name; OVN-Kubernetes still calls its object `SecondaryPods`.
pub(crate) fn port_group() -> String {
    identifier("default-network-controller:UDN:SecondaryPods")
}

/// The port group with its rules.
pub(crate) fn create(default_network: &Layout) -> Transaction {
    let group = port_group();
    let probes: Vec<IpAddr> = default_network
        .nodes
        .iter()
        .flat_map(|node| default_network.subnets(node).unwrap_or_default())
        .filter_map(probe_address)
        .collect();
    let either =
        |term: &dyn Fn(&IpAddr) -> String| format!("({})", probes.iter().map(term).collect::<Vec<_>>().join(" || "));
    let neighbour = |direction: &str| {
        either(&|probe| match probe {
            IpAddr::V4(_) => format!("( arp && arp.{direction}pa == {probe} )"),
            IpAddr::V6(_) => format!("( nd && nd.target == {probe} )"),
        })
    };
    let source = either(&|probe| format!("{}.src=={probe}", if probe.is_ipv6() { "ip6" } else { "ip4" }));
    let (into, out_of) = (format!("outport == @{group}"), format!("inport == @{group}"));
    let mut transaction = Transaction::default();
    let acls: Vec<Value> = [
        ("DenyPrimaryUDN", "from-lport", DENY, out_of.clone(), "drop"),
        ("AllowHostARPPrimaryUDN", "from-lport", ALLOW, format!("{out_of} && {}", neighbour("t")), "allow"),
        ("DenyPrimaryUDN", "to-lport", DENY, into.clone(), "drop"),
        ("AllowHostARPPrimaryUDN", "to-lport", ALLOW, format!("{into} && {}", neighbour("s")), "allow"),
        ("AllowHostPrimaryUDN", "to-lport", ALLOW, format!("{into} && {source}"), "allow-related"),
    ]
    .into_iter()
    .map(|(name, direction, priority, expression, action)| {
        acl(&mut transaction, name, direction, priority, &expression, action)
    })
    .collect();
    transaction
        .insert("Port_Group", json!({"name": group, "acls": set(acls), "external_ids": marks("SecondaryPods", "")}));
    transaction
}

/// Opens `ports` of the logical switch port `port` of `pod` (`<namespace>/<name>`).
pub(crate) fn open_ports(pod: &str, port: &str, ports: &[OpenPort]) -> Transaction {
    let mut transaction = Transaction::default();
    let terms: Vec<String> = ports.iter().map(OpenPort::expression).collect();
    let into = format!("outport == \"{port}\" && (arp || nd || ({}))", terms.join(" || "));
    let out_of = format!("inport == \"{port}\" && (arp || nd)");
    let name = format!("OpenPort-{pod}");
    let acls = [
        acl(&mut transaction, &name, "to-lport", ALLOW, &into, "allow-related"),
        acl(&mut transaction, &name, "from-lport", ALLOW, &out_of, "allow"),
    ];
    transaction.add("Port_Group", &port_group(), "acls", set(acls));
    transaction
}

/// Takes away the rules with these UUIDs.
pub(crate) fn close_ports(acls: &[String]) -> Transaction {
    let mut transaction = Transaction::default();
    transaction.remove("Port_Group", &port_group(), "acls", set(acls.iter().map(|uuid| json!(["uuid", uuid]))));
    transaction
}

fn acl(
    transaction: &mut Transaction,
    name: &str,
    direction: &str,
    priority: u32,
    expression: &str,
    action: &str,
) -> Value {
    transaction.insert(
        "ACL",
        json!({
            "direction": direction, "priority": priority, "match": expression, "action": action,
            "external_ids": marks(name, if direction == "to-lport" { "Ingress" } else { "Egress" }),
        }),
    )
}

fn marks(name: &str, direction: &str) -> Value {
    map([
        ("k8s.ovn.org/owner-controller", "default-network-controller"),
        ("k8s.ovn.org/owner-type", "UDNIsolation"),
        ("k8s.ovn.org/name", name),
        ("direction", direction),
    ])
}

/// An entry of the `k8s.ovn.org/open-default-ports` annotation.
#[derive(Clone, Debug, Eq, PartialEq, serde::Deserialize)]
pub(crate) struct OpenPort {
    #[serde(default)]
    protocol: String,
    #[serde(default)]
    port: Option<i64>,
}

impl OpenPort {
    fn expression(&self) -> String {
        match self.port {
            Some(port) => format!("{}.dst == {port}", self.protocol),
            // The lab is dual stack: ping is open in both families.
            None => "icmp".to_owned(),
        }
    }
}

/// Reads the annotation. Errors are in OVN-Kubernetes' words.
pub(crate) fn parse_open_ports(text: &str) -> Result<Vec<OpenPort>, String> {
    let ports: Vec<OpenPort> = serde_saphyr::from_str(text)
        .map_err(|error| format!("failed to unmarshal UDN open ports annotation {text}: {error}"))?;
    for entry in &ports {
        match (entry.protocol.as_str(), entry.port) {
            ("icmp", Some(port)) => return Err(format!("invalid port {port} for icmp protocol, should be empty")),
            ("icmp", None) => {}
            ("tcp" | "udp" | "sctp", None) => return Err(format!("port is required for {} protocol", entry.protocol)),
            ("tcp" | "udp" | "sctp", Some(port)) if !(0..=65535).contains(&port) => {
                return Err(format!("invalid port {port}"));
            }
            ("tcp" | "udp" | "sctp", Some(_)) => {}
            (other, _) => return Err(format!("invalid protocol {other}")),
        }
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::tests::nodes;

    #[test]
    fn annotations_open_what_they_say_or_nothing() {
        let ports = parse_open_ports("- protocol: tcp\n  port: 80\n- protocol: icmp\n").unwrap();
        assert_eq!(ports.iter().map(OpenPort::expression).collect::<Vec<_>>(), ["tcp.dst == 80", "icmp"]);
        assert_eq!(parse_open_ports("- protocol: ppp\n  port: 80").unwrap_err(), "invalid protocol ppp");
        assert_eq!(parse_open_ports("- protocol: udp").unwrap_err(), "port is required for udp protocol");
        assert!(parse_open_ports("nonsense").is_err());
    }

    #[test]
    fn only_probes_pass() {
        let operations = create(&Layout::default_network(nodes())).into_operations();
        let acls: Vec<&Value> = operations
            .iter()
            .filter(|operation| operation["table"] == "ACL")
            .map(|operation| &operation["row"])
            .collect();
        assert_eq!(acls.len(), 5);
        assert_eq!(acls.iter().filter(|acl| acl["action"] == "drop" && acl["priority"] == DENY).count(), 2);
        let allowed = acls.iter().find(|acl| acl["action"] == "allow-related").unwrap()["match"].as_str().unwrap();
        assert!(
            allowed.contains("ip4.src==10.244.2.254") && allowed.contains("ip6.src==fd00:10:244:3::fe"),
            "{allowed}"
        );
        assert!(!allowed.contains("10.244.2.2 "), "the node's common address must not pass");
    }
}
