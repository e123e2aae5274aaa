//! NetworkPolicies, as declared.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use super::selector::Selector;
use super::{WorldError, problem, text, transport};
use crate::words::Transport;

/// A `NetworkPolicy` of `networking.k8s.io/v1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Its namespace: the only one whose pods it selects.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Which pods it isolates.
    pub pods: Selector,
    /// What may come in; `None`: it does not isolate in this direction.
    pub ingress: Option<Vec<PolicyRule>>,
    /// What may go out; `None`: it does not isolate in this direction.
    pub egress: Option<Vec<PolicyRule>>,
}

/// One allowance: these peers on these ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyRule {
    /// Whom; empty: everybody.
    pub peers: Vec<Peer>,
    /// On which ports; empty: everything, ICMP included.
    pub ports: Vec<PolicyPort>,
}

/// A peer of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Pods by labels.
    Pods {
        /// In which namespaces; `None`: in the policy's own.
        namespaces: Option<Selector>,
        /// Which of their pods.
        pods: Selector,
    },
    /// Addresses.
    Block {
        /// The addresses.
        cidr: IpNet,
        /// Those of them that are not meant.
        except: Vec<IpNet>,
    },
}

/// A port of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyPort {
    /// The protocol.
    pub transport: Transport,
    /// Which; `None`: every port of the protocol.
    pub ports: Option<Ports>,
}

/// Ports of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ports {
    /// From the first to the last, both included.
    Range(u16, u16),
    /// The container port of this name, whatever number it has in the pod that is reached.
    Name(String),
}

/// Whether a block means an address, as far as that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Membership {
    /// It does.
    Inside,
    /// It does not.
    Outside,
    /// It depends on which address is given.
    Unknown,
}

impl Peer {
    /// Whether a block means an address of which this is known: the address itself, or nets that it may be in. Selectors
    /// mean no addresses.
    #[must_use]
    pub fn block_has(&self, address: &Whereabouts) -> Membership {
        let Self::Block { cidr, except } = self else { return Membership::Outside };
        let each = address.nets.iter().map(|net| {
            if !overlap(cidr, net) || except.iter().any(|except| except.contains(net)) {
                Membership::Outside
            } else if cidr.contains(net) && !except.iter().any(|except| overlap(except, net)) {
                Membership::Inside
            } else {
                Membership::Unknown
            }
        });
        each.reduce(|a, b| if a == b { a } else { Membership::Unknown }).unwrap_or(Membership::Unknown)
    }
}

/// What is known of an address: nets, in one of which it is. A known address is a net of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Whereabouts {
    /// The nets; none: nothing is known.
    pub nets: Vec<IpNet>,
}

impl From<IpAddr> for Whereabouts {
    fn from(address: IpAddr) -> Self {
        Self { nets: vec![IpNet::from(address)] }
    }
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

/// Reads a `NetworkPolicy`.
pub(super) fn read(manifest: &Value) -> Result<Policy, WorldError> {
    let spec = &manifest["spec"];
    let rules = |field: &str, peers: &str| -> Result<Option<Vec<PolicyRule>>, WorldError> {
        match spec[field].as_array() {
            Some(rules) => rules.iter().map(|entry| rule(manifest, entry, peers)).collect::<Result<_, _>>().map(Some),
            None => Ok(None),
        }
    };
    let (ingress, egress) = (rules("ingress", "from")?, rules("egress", "to")?);
    let types: Option<Vec<&str>> =
        spec["policyTypes"].as_array().map(|types| types.iter().filter_map(Value::as_str).collect());
    // Without types, Kubernetes takes Ingress, and Egress where there are rules for it.
    let types = types.unwrap_or_else(|| if egress.is_some() { vec!["Ingress", "Egress"] } else { vec!["Ingress"] });
    if let Some(other) = types.iter().find(|kind| !matches!(**kind, "Ingress" | "Egress")) {
        return Err(problem(manifest, format!("policyTypes has {other}; it must be Ingress or Egress")));
    }
    let of = |kind: &str, rules: Option<Vec<PolicyRule>>| types.contains(&kind).then(|| rules.unwrap_or_default());
    Ok(Policy {
        namespace: text(manifest, "/metadata/namespace")?.to_owned(),
        name: text(manifest, "/metadata/name")?.to_owned(),
        pods: Selector::read(&spec["podSelector"]).map_err(|why| problem(manifest, why))?,
        ingress: of("Ingress", ingress),
        egress: of("Egress", egress),
    })
}

fn rule(manifest: &Value, entry: &Value, peers: &str) -> Result<PolicyRule, WorldError> {
    let mut rule = PolicyRule { peers: Vec::new(), ports: Vec::new() };
    for peer in entry[peers].as_array().into_iter().flatten() {
        let selector = |field: &str| match &peer[field] {
            Value::Null => Ok(None),
            selector => Selector::read(selector).map(Some).map_err(|why| problem(manifest, why)),
        };
        let net = |text: &Value| {
            let text = text.as_str().unwrap_or_default();
            text.parse::<IpNet>().map_err(|_| problem(manifest, format!("`{text}` is not a CIDR")))
        };
        rule.peers.push(if peer["ipBlock"].is_object() {
            let except = peer["ipBlock"]["except"].as_array().into_iter().flatten();
            Peer::Block { cidr: net(&peer["ipBlock"]["cidr"])?, except: except.map(net).collect::<Result<_, _>>()? }
        } else {
            Peer::Pods {
                namespaces: selector("namespaceSelector")?,
                pods: selector("podSelector")?.unwrap_or_default(),
            }
        });
    }
    for port in entry["ports"].as_array().into_iter().flatten() {
        let transport = transport(manifest, port)?;
        let number = |value: &Value| value.as_u64().and_then(|number| u16::try_from(number).ok());
        let ports = match &port["port"] {
            Value::Null => None,
            Value::String(name) => Some(Ports::Name(name.clone())),
            first => {
                let first = number(first).ok_or_else(|| problem(manifest, "port must be a port number or a name"))?;
                Some(Ports::Range(first, number(&port["endPort"]).unwrap_or(first)))
            }
        };
        rule.ports.push(PolicyPort { transport, ports });
    }
    Ok(rule)
}
