//! Every promise that cells come from: a stable name, one sentence, and where it is made.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Who makes a promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The KubeCon EU 2025 UDN workshop.
    Workshop,
    /// OVN-Kubernetes' own end-to-end tests, on a plain UDN.
    Tested,
    /// Those tests, but only for networks advertised by BGP.
    TestedAdvertised,
    /// OVN-Kubernetes' documents.
    Documented,
    /// Nobody asserts it: inferred from the design, first measured here.
    Inferred,
    /// This harness: a control that makes a negative result worth something.
    Harness,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Workshop => "KubeCon EU 2025 UDN workshop",
            Self::Tested => "OVN-Kubernetes end-to-end tests",
            Self::TestedAdvertised => "OVN-Kubernetes end-to-end tests of BGP-advertised networks",
            Self::Documented => "OVN-Kubernetes documents",
            Self::Inferred => "inferred from the design; nobody asserts it",
            Self::Harness => "this harness: a control",
        })
    }
}

/// A promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// Stable name: `<area>/<promise>`.
    pub name: &'static str,
    /// The promise in one sentence.
    pub promise: &'static str,
    /// Who makes it.
    pub sources: &'static [Source],
    /// Where upstream asserts it: rows of OVN-Kubernetes' own tests, workshop steps.
    pub upstream: &'static str,
}

/// The name of a rule of [`RULES`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RuleName(String);

impl RuleName {
    /// A rule's name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part behind the area: `same-network-open` of `isolation/same-network-open`.
    #[must_use]
    pub fn short(&self) -> &str {
        self.0.split_once('/').map_or(self.0.as_str(), |(_, short)| short)
    }

    /// The rule itself; `None` where a report names a rule that this version does not know.
    #[must_use]
    pub fn rule(&self) -> Option<&'static Rule> {
        find(&self.0)
    }

    /// Whether the rule forbids a connection, so that a single success is a violation.
    #[must_use]
    pub fn is_isolation(&self) -> bool {
        self.0.starts_with("isolation/")
            || matches!(self.0.as_str(), "services/cluster-ip-foreign" | "services/cluster-ip-default")
    }

    /// Whether the rule is about policies, which may leave a vantage point nobody to send to.
    #[must_use]
    pub fn is_policy(&self) -> bool {
        self.0.starts_with("policy/")
    }

    /// Whether cells of this rule exist only as controls of others.
    #[must_use]
    pub fn is_control(&self) -> bool {
        self.0.starts_with("control/")
    }
}

impl fmt::Display for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Finds a rule by name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.name == name)
}

use Source::{Documented, Harness, Inferred, Tested, TestedAdvertised, Workshop};

/// Declares the table without a line of noise per rule.
macro_rules! rules {
    ($($name:literal [$($source:ident),+] $upstream:literal: $promise:literal)+) => {
        /// All rules, area by area.
        pub const RULES: &[Rule] = &[$(
            Rule { name: $name, promise: $promise, sources: &[$($source),+], upstream: $upstream }
        ),+];
    };
}

rules! {
    "isolation/same-network-open" [Workshop, Tested] "ISO-04..06, WKS-02, WKS-04":
        "Pods of one primary network reach each other on their network addresses, on any node."
    "isolation/default-address-closed" [Workshop] "WKS-03, WKS-05":
        "Pods of one primary network do not reach each other on their default-network addresses."
    "isolation/other-network-closed" [Workshop, TestedAdvertised] "WKS-06, ISO-10, ISO-11, BGP table":
        "Pods of different primary networks do not reach each other, and nothing of the attempt arrives."
    "isolation/overlap-coexists" [Tested, Workshop] "ISO-10, ISO-11, WKS-18":
        "Networks with the same subnet coexist: an address reaches the pod of the caller's own network only."
    "isolation/udn-to-default" [Tested] "ISO-07c":
        "A UDN pod does not reach a default-network pod."
    "isolation/default-to-udn" [Tested, TestedAdvertised] "ISO-07a, BGP-24, BGP-25":
        "A default-network pod does not reach a UDN pod, on either of its addresses."
    "isolation/node-to-udn" [Tested, TestedAdvertised] "ISO-07d, ISO-07f, BGP-32, BGP-33":
        "A node does not reach a UDN pod, on either address; the kubelet's probes do reach its default-network address."
    "isolation/open-default-ports" [Tested] "ISO-13":
        "k8s.ovn.org/open-default-ports opens exactly the listed ports of the default-network address, follows changes, and a malformed value opens nothing and raises an event."
    "isolation/cluster-network-members" [Workshop, Tested] "WKS-07, POL-06":
        "A CUDN's namespaces share one network; namespaces that it does not select stay outside."
    "isolation/no-window" [Inferred] "":
        "Isolation holds from the first packet: neither a new pod nor a restarted node component opens a window."
    "isolation/name-collision" [Tested] "ISO-12":
        "Networks whose <namespace>_<name> texts concatenate alike are different networks."
    "isolation/external-to-udn" [Inferred] "":
        "An external client does not reach a UDN pod's address."
    "isolation/default-network-open" [Tested] "ISO-07b":
        "Pods and nodes of the default network reach default-network pods: user defined networks take nothing from them."

    "addressing/interfaces-and-roles" [Workshop, Tested] "WKS-01, ISO-01..03":
        "A primary-UDN pod has eth0 (default network, infrastructure-locked) and ovn-udn1 (primary, default route); the annotations say what the pod really has."
    "addressing/subnets-and-gateways" [Tested] "IPAM-04..06":
        "Layer3: each node has its own subnet, gateway .1. Layer2: one subnet, gateway .1 or as configured, on every node."
    "addressing/mac-and-mtu" [Tested, Workshop] "WKS-23, IPAM-01":
        "The MAC is 0a:58: and the IPv4 address; the MTU is the overlay's."
    "addressing/reserved" [Tested] "IPAM-05":
        "Reserved, excluded and infrastructure addresses are never given to a pod."
    "addressing/multi-homing" [Workshop, Tested] "MH-26 ff.":
        "Secondary networks add net1…: reachable over that interface, no default route, no isolation change on the primary."
    "addressing/static-requests" [Tested] "IPAM-01, IPAM-11, IPAM-12":
        "Requested static addresses and MACs are honoured; a duplicate is refused with an event."

    "services/cluster-ip-own" [Workshop, Tested] "SVC-01..03, BGP-27, WKS-09, WKS-10":
        "A UDN's ClusterIP is reached from that UDN, from any node; only its backends answer, each its share, and a backend reaches itself through it."
    "services/cluster-ip-foreign" [Workshop, Tested, TestedAdvertised] "SVC-01..03, BGP-26, BGP-31, WKS-11":
        "A UDN's ClusterIP is not reached from another UDN, from the default network or from a node."
    "services/cluster-ip-default" [Tested, Workshop, TestedAdvertised] "BGP-28":
        "A default-network ClusterIP is not reached from a UDN, except the API server's and kube-dns'."
    "services/node-port" [Workshop, Tested, TestedAdvertised] "SVC-01..03, BGP-38..43, WKS-12, WKS-13, issue 5419":
        "A UDN's NodePort is reached from the same UDN and from outside through any node; from other networks through every node except the client's own (over IPv6 from another UDN through that as well)."
    "services/node-port-default" [Tested, TestedAdvertised] "BGP-36, BGP-37":
        "A default-network NodePort is reached from outside, and from a UDN pod through other nodes but not through its own."
    "services/load-balancer" [Workshop, Tested, Documented] "SVC-01..03, WKS-14, WKS-15; documents say open and upstream's tests closed from other networks: measured, it depends on the announcing node":
        "A UDN's load-balancer address is reached from the same UDN and from outside; from other networks as through the node that announces it: yes, except from pods on that node."
    "services/traffic-policy-local" [Inferred] "BGP-45..52 for advertised networks":
        "externalTrafficPolicy Local keeps the client's source address and answers only where a backend runs, rejecting elsewhere (inside the own network the own node answers anyway); internalTrafficPolicy Local likewise inside."
    "services/variants" [Inferred] "":
        "Session affinity ClientIP sticks; a headless service has no ClusterIP; a service without endpoints is rejected, by its ClusterIP inside its network and by its NodePorts, from outside too."
    "services/endpoint-slices" [Tested, Workshop] "SVC-04, WKS-08":
        "Every service of a user defined network has a mirrored EndpointSlice per family with its backends' addresses there; it is recreated when deleted and goes with the service; services of other namespaces have none."
    "services/endpoint-changes" [Inferred] "":
        "Backends that become ready, not ready, or are deleted take effect: after the change each of the backends answers, and nobody else."
    "services/dns" [Workshop, Documented] "LIM-DNS, WKS-16":
        "Names of services resolve from every network, and to default-network semantics: there is no DNS inside a UDN for its pods' addresses."
    "services/default-untouched" [Inferred] "":
        "Pods and nodes of the default network reach default-network services by every address: user defined networks take nothing from them."

    "policy/deny-ingress" [Tested] "POL-01..03":
        "Deny-all ingress cuts every path to the selected pods on their network addresses, and only those."
    "policy/deny-egress" [Inferred] "":
        "Deny-all egress cuts every path from the selected pods, to pods, hosts, the outside, the API server and DNS."
    "policy/allow-rules" [Tested, Inferred] "POL-06, POL-07, WKS-20":
        "Allow rules by podSelector, namespaceSelector, ipBlock with except, port, named port, port range and protocol do exactly what they say."
    "policy/established" [Inferred] "":
        "A connection that a further policy forbids is cut, and one that it allows goes on: OVN asks its rules about every packet (Kubernetes leaves it to the implementation)."
    "policy/no-cross-network" [Workshop] "WKS-20, POL-X-01":
        "Peers are evaluated inside the network: a rule that selects pods of another network opens nothing."
    "policy/removal" [Inferred] "":
        "Removing a policy restores what it cut; the time to enforce and to restore is measured."

    "egress/default-untouched" [Inferred] "":
        "Default-network pods reach an external server, hosts, the API server and DNS as ever: user defined networks take nothing from them."
    "egress/external" [Workshop, Tested] "EGR-01..03, WKS-17":
        "A UDN pod reaches an external server; the server sees the address of the pod's node."
    "egress/overlap" [Workshop] "WKS-18":
        "Pods of networks with the same subnet, and of the same address, reach an external server at once from the same source port; it sees the addresses of their nodes."
    "egress/host-ports" [TestedAdvertised] "BGP-34, BGP-35":
        "A UDN pod reaches host ports of other nodes, which see its node's address, but not of its own node."
    "egress/api-server-and-dns" [Workshop, Tested] "WKS-16, BGP-29, BGP-30":
        "The API server is reached from every UDN by its ClusterIP and by its name; its name and names outside of the cluster are resolved there."

    "objects/conditions" [Tested, Workshop] "LIFE-04, LIFE-09":
        "UDN and CUDN conditions say created and allocated, naming namespaces."
    "objects/in-use" [Tested] "LIFE-06, LIFE-15":
        "A network in use is not deleted: the finalizer holds and the condition names the pods; after the last pod it goes, within 65 s."
    "objects/namespace-label" [Tested] "LIFE-01..03, POL-06":
        "The primary-network label cannot be added to or removed from a namespace; without it a primary UDN is not ready; with it but no network, pods wait."
    "objects/second-primary" [Tested] "LIFE-08, LIFE-17":
        "A second primary network in a namespace is refused."
    "objects/membership" [Tested] "LIFE-09, LIFE-12..14":
        "Namespaces join and leave a CUDN with their labels; the NetworkAttachmentDefinition follows, and so does who reaches whom."
    "objects/recreate" [Workshop] "WKS-26":
        "A network that is deleted and made again, pods and all, works again: its pods, the outside and the API server are reached."
    "objects/controller-restart" [Tested] "ISO-18..20, LIFE-24":
        "Pods of a network reach each other, the outside and the API server while the network's node component is restarted, and after."
    "objects/admission" [Tested] "API-01..21, CNC-38, CNC-39":
        "Invalid objects are refused at admission with the reason, valid ones are accepted."

    "vm/guest-configuration" [Tested, Workshop] "VM-22, WKS-22, WKS-23":
        "A guest has by DHCPv4, DHCPv6 and router advertisements what its network says: addresses, gateways, resolvers, MTU, hostname and MAC."
    "vm/reachability" [Workshop, Tested] "VM-06, VM-09, WKS-21":
        "A VM is reached by VMs and pods of its network, and from outside by NodePort and load-balancer address; it reaches them, services and the outside."
    "vm/tcp-survives" [Workshop, Tested] "VM-07..VM-10, WKS-25":
        "Established TCP connections survive live migration, in both directions and both families, inside the network and across its edge, with no byte lost."
    "vm/outage-measured" [Inferred] "KubeVirt aims at 900 ms of pause; nobody says how long the network may take":
        "The outage of each flow over a migration is measured and reported, and is within the budget: no reset, at most 2 s where nothing else is said."
    "vm/identity-kept" [Workshop, Tested] "VM-04..VM-11, WKS-24":
        "Addresses, MAC, routes, resolvers, MTU and hostname of a guest are the same before and after; the IPAMClaim holds the addresses through migration and restart."
    "vm/announced" [Workshop, Tested] "VM-09, catalog 2.7":
        "After the switch the network is told where the VM is (RARP, ARP or neighbour advertisement), and the VM who its gateway is: by ARP within 10 s, by router advertisement within 5 s."
    "vm/failed-migration" [Tested] "VM-03, VM-19..21, VM-25":
        "A migration that fails leaves the VM's connections working on the source."
    "vm/restart-and-conflicts" [Tested] "VM-06, VM-11, VM-26..33":
        "A VM that is restarted keeps its addresses; a duplicate address or MAC, an exhausted subnet and families that do not match are refused with the documented condition."
    "vm/loss-counted" [Workshop] "WKS-25":
        "What is lost of UDP and ICMP flows during a migration is counted and reported."

    "policy/vm" [Inferred] "":
        "A policy about a VM means the same before, during and after its migration."

    "control/vantage-point-works" [Harness] "":
        "A vantage point that is refused something reaches something else over the same transport and family."
    "control/listener-works" [Harness] "":
        "A listener that somebody must not reach answers its own pod."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_have_an_area() {
        let mut names: Vec<_> = RULES.iter().map(|rule| rule.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), RULES.len());
        assert!(RULES.iter().all(|rule| rule.name.split('/').count() == 2 && rule.promise.ends_with('.')));
    }
}
