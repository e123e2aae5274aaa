//! A NetworkPolicy, read: defaults filled in, addresses and ports parsed.

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// Where a rule looks, seen from the pods that the policy selects.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Direction {
    Ingress,
    Egress,
}

impl Direction {
    pub(crate) const BOTH: [Self; 2] = [Self::Ingress, Self::Egress];

    /// As `policyTypes` spells it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ingress => "Ingress",
            Self::Egress => "Egress",
        }
    }
}

/// A transport that rules can name.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// As Kubernetes spells it; TCP where nothing is said.
    pub(crate) fn parse(text: Option<&str>) -> Option<Self> {
        match text {
            None | Some("TCP") => Some(Self::Tcp),
            Some("UDP") => Some(Self::Udp),
            Some("SCTP") => Some(Self::Sctp),
            Some(_) => None,
        }
    }

    /// As OVN spells it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// A policy as it is evaluated.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// The pods of its namespace that it acts on.
    pub(crate) pods: LabelSelector,
    ingress: Option<Vec<Rule>>,
    egress: Option<Vec<Rule>>,
}

/// What is let through: from or to any of the peers, on any of the ports.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    /// Nothing: everybody.
    pub(crate) peers: Option<Peers>,
    /// Nothing: all ports of all protocols.
    pub(crate) ports: Option<Vec<Ports>>,
}

/// Peers of a rule, of both sorts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peers {
    pub(crate) selected: Vec<Selected>,
    pub(crate) blocks: Vec<Block>,
}

/// Pods by their labels and their namespaces' labels.
#[derive(Clone, Debug)]
pub(crate) struct Selected {
    pub(crate) pods: LabelSelector,
    /// Nothing: the policy's own namespace.
    pub(crate) namespaces: Option<LabelSelector>,
}

/// Addresses.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) within: IpNet,
    pub(crate) except: Vec<IpNet>,
}

/// Ports of one protocol.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Ports {
    pub(crate) protocol: Protocol,
    pub(crate) which: Which,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Which {
    All,
    /// First and last.
    Range(u16, u16),
    /// Whatever number the receiving pod's container gives to this name.
    Named(String),
}

impl Policy {
    /// Reads an object. What cannot be read (the API refuses such objects) opens nothing.
    pub(crate) fn read(object: &NetworkPolicy) -> Self {
        let spec = object.spec.clone().unwrap_or_default();
        let (ingress, egress) = directions(&spec);
        let from = |rules: Vec<_>| rules.into_iter().map(|(peers, ports)| Rule::read(peers, ports)).collect();
        let ingress = ingress.then(|| {
            from(spec.ingress.iter().flatten().map(|rule| (rule.from.as_deref(), rule.ports.as_deref())).collect())
        });
        let egress = egress.then(|| {
            from(spec.egress.iter().flatten().map(|rule| (rule.to.as_deref(), rule.ports.as_deref())).collect())
        });
        Self {
            namespace: object.metadata.namespace.clone().unwrap_or_default(),
            name: object.metadata.name.clone().unwrap_or_default(),
            pods: spec.pod_selector.clone().unwrap_or_default(),
            ingress,
            egress,
        }
    }

    /// The rules of a direction, or nothing where the policy leaves that direction alone.
    pub(crate) fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }
}

/// Which directions a policy restricts: ingress always unless types say otherwise, egress where it has egress rules.
fn directions(spec: &NetworkPolicySpec) -> (bool, bool) {
    match spec.policy_types.as_deref() {
        None | Some([]) => (true, spec.egress.as_ref().is_some_and(|rules| !rules.is_empty())),
        Some(types) => (types.iter().any(|it| it == "Ingress"), types.iter().any(|it| it == "Egress")),
    }
}

impl Rule {
    fn read(peers: Option<&[NetworkPolicyPeer]>, ports: Option<&[NetworkPolicyPort]>) -> Self {
        let peers = peers.filter(|peers| !peers.is_empty()).map(|peers| {
            let mut read = Peers::default();
            for peer in peers {
                match &peer.ip_block {
                    Some(block) => read.blocks.extend(Block::read(block)),
                    None => read.selected.push(Selected {
                        pods: peer.pod_selector.clone().unwrap_or_default(),
                        namespaces: peer.namespace_selector.clone(),
                    }),
                }
            }
            read
        });
        let ports = ports.filter(|ports| !ports.is_empty());
        Self { peers, ports: ports.map(|ports| ports.iter().filter_map(Ports::read).collect()) }
    }
}

impl Block {
    fn read(block: &IPBlock) -> Option<Self> {
        let within: IpNet = block.cidr.parse().ok()?;
        // An exception that cannot be read must not become an opening.
        let except = block.except.iter().flatten().map(|text| text.parse().ok().map(|net: IpNet| net.trunc()));
        Some(Self { within: within.trunc(), except: except.collect::<Option<_>>()? })
    }

    /// Whether an address is inside.
    pub(crate) fn contains(&self, address: &std::net::IpAddr) -> bool {
        self.within.contains(address) && !self.except.iter().any(|except| except.contains(address))
    }
}

impl Ports {
    fn read(port: &NetworkPolicyPort) -> Option<Self> {
        let number = |number: i32| u16::try_from(number).ok().filter(|number| *number > 0);
        let which = match (&port.port, port.end_port) {
            (None, _) => Which::All,
            (Some(IntOrString::String(name)), _) => Which::Named(name.clone()),
            (Some(IntOrString::Int(first)), None) => Which::Range(number(*first)?, number(*first)?),
            (Some(IntOrString::Int(first)), Some(last)) => Which::Range(number(*first)?, number(last)?),
        };
        Some(Self { protocol: Protocol::parse(port.protocol.as_deref())?, which })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(spec: serde_json::Value) -> Policy {
        let object = json!({"metadata": {"namespace": "blue", "name": "p"}, "spec": spec});
        Policy::read(&serde_json::from_value(object).unwrap())
    }

    fn restricts(spec: serde_json::Value) -> (bool, bool) {
        let policy = read(spec);
        (policy.rules(Direction::Ingress).is_some(), policy.rules(Direction::Egress).is_some())
    }

    #[test]
    fn types_default_to_ingress_and_to_what_has_rules() {
        assert_eq!(restricts(json!({"podSelector": {}})), (true, false));
        assert_eq!(restricts(json!({"podSelector": {}, "egress": [{}]})), (true, true));
        assert_eq!(restricts(json!({"podSelector": {}, "policyTypes": ["Egress"]})), (false, true));
        assert_eq!(restricts(json!({"podSelector": {}, "policyTypes": ["Egress"], "ingress": [{}]})), (false, true));
        assert_eq!(restricts(json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]})), (true, true));
    }

    #[test]
    fn an_empty_list_means_all_and_a_list_means_one_of() {
        let policy = read(json!({"podSelector": {}, "ingress": [
            {}, {"from": [], "ports": []},
            {"from": [{"podSelector": {}}, {"ipBlock": {"cidr": "10.0.0.1/8", "except": ["10.1.0.0/16"]}}],
             "ports": [{}, {"protocol": "UDP", "port": 53}, {"port": 1000, "endPort": 2000}, {"port": "web", "protocol": "SCTP"}]},
        ]}));
        let rules = policy.rules(Direction::Ingress).unwrap();
        assert!(rules[..2].iter().all(|rule| rule.peers.is_none() && rule.ports.is_none()));
        let peers = rules[2].peers.as_ref().unwrap();
        assert!(peers.selected[0].namespaces.is_none());
        assert_eq!(peers.blocks[0].within.to_string(), "10.0.0.0/8");
        assert!(peers.blocks[0].contains(&"10.2.0.1".parse().unwrap()));
        assert!(!peers.blocks[0].contains(&"10.1.0.1".parse().unwrap()));
        let which = |protocol, which| Ports { protocol, which };
        assert_eq!(
            rules[2].ports.as_deref().unwrap(),
            [
                which(Protocol::Tcp, Which::All),
                which(Protocol::Udp, Which::Range(53, 53)),
                which(Protocol::Tcp, Which::Range(1000, 2000)),
                which(Protocol::Sctp, Which::Named("web".into())),
            ]
        );
    }

    #[test]
    fn what_cannot_be_read_opens_nothing() {
        let policy = read(json!({"podSelector": {}, "ingress": [
            {"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["nonsense"]}}], "ports": [{"protocol": "ICMP"}, {"port": 70000}]},
        ]}));
        let rule = &policy.rules(Direction::Ingress).unwrap()[0];
        assert!(rule.peers.as_ref().unwrap().blocks.is_empty());
        assert!(rule.ports.as_ref().unwrap().is_empty());
    }
}
