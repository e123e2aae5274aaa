use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::policy::world::{NodePort, Scope};

const BLUE: &str = "cluster_udn_blue";

/// Two namespaces of one network, a third of another, a fourth on the default network.
struct Given(World);

impl Given {
    fn new() -> Self {
        let mut world = World::default();
        for (name, network) in [("red", BLUE), ("yellow", BLUE), ("green", "green_net"), ("plain", DEFAULT_NETWORK)] {
            let labels = [("kubernetes.io/metadata.name".to_owned(), name.to_owned())].into();
            world.namespaces.insert(name.into(), Scope { labels, network: Some(network.into()) });
        }
        let addresses = ["10.244.2.2", "10.244.2.254", "fd00:10:244:2::2"].map(|text| text.parse().unwrap()).into();
        world.nodes = vec![NodePort { port: "k8s-ovn-worker".into(), addresses }];
        Self(world)
    }

    fn pod(mut self, namespace: &str, name: &str, labels: Value, addresses: [&str; 2], ports: Value) -> Self {
        let pod = json!({
            "metadata": {"namespace": namespace, "name": name, "labels": labels},
            "spec": {"containers": [{"name": "c", "ports": ports}]},
        });
        let network = self.0.namespaces[namespace].network.clone().unwrap();
        self.0.members.entry(namespace.into()).or_default().push(Member {
            pod: Arc::new(serde_json::from_value(pod).unwrap()),
            network,
            port: format!("{namespace}_{name}"),
            addresses: addresses.map(|text| text.parse().unwrap()).into(),
        });
        self
    }

    fn pods() -> Self {
        Self::new()
            .pod(
                "red",
                "a",
                json!({"app": "web"}),
                ["10.0.0.1", "fd10::1"],
                json!([{"name": "http", "containerPort": 8080}]),
            )
            .pod(
                "red",
                "b",
                json!({"app": "db"}),
                ["10.0.0.2", "fd10::2"],
                json!([{"name": "http", "containerPort": 9090}]),
            )
            .pod(
                "yellow",
                "c",
                json!({"app": "web"}),
                ["10.0.0.3", "fd10::3"],
                json!([{"name": "http", "containerPort": 8080}]),
            )
            .pod("green", "d", json!({"app": "web"}), ["10.0.0.4", "fd10::4"], json!([]))
            .pod("plain", "e", json!({"app": "web"}), ["10.244.2.9", "fd00:10:244:2::9"], json!([]))
    }

    fn policy(mut self, namespace: &str, name: &str, spec: Value) -> Self {
        let policy = json!({"metadata": {"namespace": namespace, "name": name}, "spec": spec});
        self.0.policies.push(Policy::read(&serde_json::from_value(policy).unwrap()));
        self
    }

    fn plan(&self) -> Plan {
        plan(&self.0)
    }
}

impl Plan {
    fn group(&self, kind: &str, name: &str, direction: Option<&str>) -> &Group {
        let is = |group: &&Group| {
            let has = |key: &str, value: &str| group.ids.iter().any(|(known, text)| *known == key && text == value);
            has(OWNER_TYPE, kind)
                && has("k8s.ovn.org/name", name)
                && direction.is_none_or(|direction| has("direction", direction))
                && !group.ids.iter().any(|(key, _)| *key == "port-name")
        };
        self.groups.values().find(is).unwrap_or_else(|| panic!("no group {kind} {name}: {self:#?}"))
    }

    /// Expressions of a policy's rules, sets replaced by their addresses and groups by their ports.
    fn allows(&self) -> Vec<String> {
        let acls = self.groups.values().flat_map(|group| &group.acls);
        let policies = acls.filter(|acl| acl.ids.iter().any(|(_, value)| value == "NetworkPolicy"));
        let mut texts: Vec<String> = policies.map(|acl| self.readable(&acl.expression)).collect();
        texts.sort();
        texts
    }

    fn readable(&self, expression: &str) -> String {
        let mut text = expression.to_owned();
        for (name, set) in &self.sets {
            let addresses: Vec<String> = set.addresses.iter().map(ToString::to_string).collect();
            text = text.replace(&format!("${name}"), &addresses.join(" "));
        }
        for (name, group) in &self.groups {
            let ports: Vec<&str> = group.ports.iter().map(String::as_str).collect();
            text = text.replace(&format!("@{name}"), &format!("[{}]", ports.join(" ")));
        }
        text
    }
}

#[test]
fn a_selected_pod_is_denied_in_the_directions_of_its_policies_only() {
    let plan = Given::pods()
        .policy("red", "in", json!({"podSelector": {"matchLabels": {"app": "web"}}}))
        .policy("red", "out", json!({"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Egress"]}))
        .plan();
    let ingress = plan.group("NetpolNamespace", "red", Some("Ingress"));
    let egress = plan.group("NetpolNamespace", "red", Some("Egress"));
    assert_eq!(ingress.ports, BTreeSet::from(["red_a".to_owned()]));
    assert_eq!(egress.ports, BTreeSet::from(["red_b".to_owned()]));
    let actions =
        |group: &Group| -> Vec<(u32, &str)> { group.acls.iter().map(|acl| (acl.priority, acl.action)).collect() };
    assert_eq!(actions(ingress), [(1001, "allow-related"), (1001, "allow"), (1000, "drop")]);
    assert_eq!(actions(egress), actions(ingress));
    assert!(plan.allows().is_empty());
    assert_eq!(plan.groups.len(), 4, "two of the namespace, one of each policy");
}

#[test]
fn only_the_default_network_lets_the_node_in() {
    let nobody = json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]});
    let plan = Given::pods().policy("red", "p", nobody.clone()).policy("plain", "p", nobody).plan();
    let from_node = |group: &Group| group.acls.iter().filter(|acl| acl.expression.contains("k8s-ovn-worker")).count();
    assert_eq!(from_node(plan.group("NetpolNamespace", "plain", Some("Ingress"))), 1);
    assert_eq!(from_node(plan.group("NetpolNamespace", "plain", Some("Egress"))), 0);
    assert_eq!(from_node(plan.group("NetpolNamespace", "red", Some("Ingress"))), 0);
    let acl = plan.group("NetpolNamespace", "plain", Some("Ingress")).acls.iter().find(|acl| acl.name.contains("Node"));
    let text = plan.readable(&acl.unwrap().expression);
    assert_eq!(
        text,
        "outport == [plain_e] && (inport == \"k8s-ovn-worker\" && (ip4.src == {10.244.2.2, 10.244.2.254} || ip6.src == \
         {fd00:10:244:2::2}))"
    );
}

#[test]
fn peers_are_of_the_same_network() {
    let peers = |peers: Value| {
        let plan = Given::pods().policy("red", "p", json!({"podSelector": {}, "ingress": [{"from": peers}]})).plan();
        plan.allows().remove(0)
    };
    let from = |v4: &str, v6: &str| format!("(ip4.src == {{{v4}}} || ip6.src == {{{v6}}}) && outport == [red_a red_b]");
    let web = json!({"matchLabels": {"app": "web"}});
    let yellow = json!({"matchLabels": {"kubernetes.io/metadata.name": "yellow"}});
    assert_eq!(peers(json!([{"podSelector": web}])), from("10.0.0.1", "fd10::1"));
    assert_eq!(
        peers(json!([{"namespaceSelector": {}}])),
        from("10.0.0.1 10.0.0.2 10.0.0.3", "fd10::1 fd10::2 fd10::3")
    );
    assert_eq!(peers(json!([{"namespaceSelector": yellow}])), from("10.0.0.3", "fd10::3"));
    assert_eq!(
        peers(json!([{"namespaceSelector": {}, "podSelector": web}])),
        from("10.0.0.1 10.0.0.3", "fd10::1 fd10::3")
    );
    let green = json!({"matchLabels": {"kubernetes.io/metadata.name": "green"}});
    assert_eq!(peers(json!([{"namespaceSelector": green}])), from("", ""));
}

#[test]
fn everybody_blocks_and_ports() {
    let plan = Given::pods()
        .policy(
            "red",
            "p",
            json!({"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Egress"], "egress": [
                {"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}, {"ipBlock": {"cidr": "fd10::/64"}}]},
                {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53}, {"port": 8000, "endPort": 9000}, {"protocol": "SCTP"}]},
                {},
            ]}),
        )
        .plan();
    assert_eq!(
        plan.allows(),
        [
            "((ip4.dst == 10.0.0.0/8 && ip4.dst != {10.1.0.0/16}) || ip6.dst == fd10::/64) && inport == [red_a]",
            "(ip4 || ip6) && inport == [red_a]",
            "(ip4 || ip6) && sctp && inport == [red_a]",
            "(ip4 || ip6) && tcp && (tcp.dst == {53} || 8000 <= tcp.dst <= 9000) && inport == [red_a]",
            "(ip4 || ip6) && udp && udp.dst == {53} && inport == [red_a]",
        ]
    );
}

#[test]
fn a_named_port_is_each_receiving_pods_own() {
    let plan = Given::pods()
        .policy(
            "red",
            "in",
            json!({"podSelector": {}, "ingress": [{"from": [{"namespaceSelector": {}}], "ports": [{"port": "http"}]}]}),
        )
        .plan();
    let from = "(ip4.src == {10.0.0.1 10.0.0.2 10.0.0.3} || ip6.src == {fd10::1 fd10::2 fd10::3})";
    assert_eq!(
        plan.allows(),
        [
            format!("{from} && tcp && tcp.dst == 8080 && outport == [red_a]"),
            format!("{from} && tcp && tcp.dst == 9090 && outport == [red_b]"),
        ]
    );
    let out = |rule: Value| {
        let spec = json!({"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Egress"], "egress": [rule]});
        Given::pods().policy("red", "out", spec).plan().allows()
    };
    let to = |v4: &str, v6: &str, port: u16| {
        format!("(ip4.dst == {{{v4}}} || ip6.dst == {{{v6}}}) && tcp && tcp.dst == {port} && inport == [red_a]")
    };
    let every = [to("10.0.0.1 10.0.0.3", "fd10::1 fd10::3", 8080), to("10.0.0.2", "fd10::2", 9090)];
    assert_eq!(out(json!({"ports": [{"port": "http"}]})), every);
    assert_eq!(
        out(json!({"to": [{"podSelector": {}}], "ports": [{"port": "http"}]})),
        [to("10.0.0.1", "fd10::1", 8080), to("10.0.0.2", "fd10::2", 9090)]
    );
    let block = json!([{"ipBlock": {"cidr": "10.0.0.2/31"}}]);
    assert_eq!(
        out(json!({"to": block, "ports": [{"port": "http"}]})),
        [to("10.0.0.2", "", 9090), to("10.0.0.3", "", 8080)]
    );
    assert!(out(json!({"ports": [{"port": "http", "protocol": "UDP"}]})).is_empty());
    assert!(out(json!({"ports": [{"port": "other"}]})).is_empty());
}

#[test]
fn alike_selectors_share_their_sets_but_not_across_networks_and_namespaces() {
    let rule = json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}]}]});
    let sets = |given: Given| given.plan().sets.len();
    assert_eq!(sets(Given::pods().policy("red", "one", rule.clone()).policy("red", "two", rule.clone())), 2);
    assert_eq!(sets(Given::pods().policy("red", "one", rule.clone()).policy("yellow", "two", rule.clone())), 4);
    let all = json!({"podSelector": {}, "ingress": [{"from": [{"namespaceSelector": {}}]}]});
    assert_eq!(sets(Given::pods().policy("red", "one", all.clone()).policy("yellow", "two", all.clone())), 2);
    assert_eq!(sets(Given::pods().policy("red", "one", all.clone()).policy("green", "two", all)), 4);
}

#[test]
fn a_namespace_whose_network_is_missing_has_nothing_yet() {
    let mut given = Given::pods().policy("red", "p", json!({"podSelector": {}}));
    given.0.namespaces.get_mut("red").unwrap().network = None;
    assert_eq!(given.plan(), Plan::default());
}
