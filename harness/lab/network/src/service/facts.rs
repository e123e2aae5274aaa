//! A Service and its EndpointSlices, reduced to what the network needs of them.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint as SliceEndpoint, EndpointSlice};
use kube::ResourceExt;

/// TCP, UDP, SCTP; in the order of their names.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) enum Protocol {
    Sctp,
    Tcp,
    Udp,
}

impl Protocol {
    fn parse(text: Option<&str>) -> Option<Self> {
        match text {
            None | Some("TCP") => Some(Self::Tcp),
            Some("UDP") => Some(Self::Udp),
            Some("SCTP") => Some(Self::Sctp),
            Some(_) => None,
        }
    }

    /// As OVN and Open vSwitch write it.
    pub(crate) fn lower(self) -> &'static str {
        match self {
            Self::Sctp => "sctp",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    /// As Kubernetes writes it.
    pub(crate) fn upper(self) -> &'static str {
        match self {
            Self::Sctp => "SCTP",
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        }
    }
}

/// What of a service matters.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Facts {
    /// `<namespace>/<name>`.
    pub(crate) key: String,
    pub(crate) cluster_ips: Vec<IpAddr>,
    /// Load-balancer addresses and ExternalIPs, sorted.
    pub(crate) external: Vec<IpAddr>,
    pub(crate) ports: Vec<Port>,
    /// `externalTrafficPolicy: Local`.
    pub(crate) external_local: bool,
    /// `internalTrafficPolicy: Local`.
    pub(crate) internal_local: bool,
    /// `sessionAffinity: ClientIP`.
    pub(crate) affinity: bool,
}

/// A port with the endpoints that serve it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Port {
    pub(crate) protocol: Protocol,
    pub(crate) number: u16,
    pub(crate) node_port: Option<u16>,
    pub(crate) endpoints: Vec<Endpoint>,
}

/// An endpoint that takes connections.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    pub(crate) node: Option<String>,
}

impl Facts {
    /// Nothing where there is nothing to balance: headless services and names of other hosts.
    pub(crate) fn of(service: &Service, slices: &[Arc<EndpointSlice>]) -> Option<Self> {
        let spec = service.spec.as_ref()?;
        let cluster_ips = addresses(spec.cluster_ips.iter().flatten());
        if cluster_ips.is_empty() || spec.type_.as_deref() == Some("ExternalName") {
            return None;
        }
        let ports = spec.ports.iter().flatten().filter_map(|port| {
            let protocol = Protocol::parse(port.protocol.as_deref())?;
            let endpoints =
                [false, true].into_iter().flat_map(|ipv6| endpoints(port, protocol, slices, ipv6)).collect();
            Some(Port { protocol, number: number(port.port)?, node_port: port.node_port.and_then(number), endpoints })
        });
        let is_local = |policy: &Option<String>| policy.as_deref() == Some("Local");
        Some(Self {
            key: format!("{}/{}", service.namespace().unwrap_or_default(), service.name_any()),
            external: external(service, spec),
            ports: ports.collect(),
            cluster_ips,
            external_local: is_local(&spec.external_traffic_policy),
            internal_local: is_local(&spec.internal_traffic_policy),
            affinity: spec.session_affinity.as_deref() == Some("ClientIP"),
        })
    }

    /// Replaces the endpoints of all ports.
    pub(crate) fn lead_to(&mut self, addresses: &[SocketAddr]) {
        for port in &mut self.ports {
            port.endpoints = addresses.iter().map(|address| Endpoint { address: *address, node: None }).collect();
        }
    }

    /// Whether the service has an address of the family.
    pub(crate) fn has_family(&self, ipv6: bool) -> bool {
        self.cluster_ips.iter().any(|address| address.is_ipv6() == ipv6)
    }

    /// Nodes with an endpoint.
    pub(crate) fn nodes(&self) -> BTreeSet<&str> {
        let endpoints = self.ports.iter().flat_map(|port| &port.endpoints);
        endpoints.filter_map(|endpoint| endpoint.node.as_deref()).collect()
    }
}

fn number(port: i32) -> Option<u16> {
    u16::try_from(port).ok().filter(|port| *port > 0)
}

fn addresses<'a>(texts: impl IntoIterator<Item = &'a String>) -> Vec<IpAddr> {
    texts.into_iter().filter_map(|text| text.parse().ok()).collect()
}

/// Addresses by which a service can be reached from outside, sorted.
pub(crate) fn external(service: &Service, spec: &ServiceSpec) -> Vec<IpAddr> {
    let balancer = service.status.iter().flat_map(|status| status.load_balancer.iter());
    let ingress =
        balancer.flat_map(|balancer| balancer.ingress.iter().flatten()).filter_map(|ingress| ingress.ip.as_ref());
    let ingress = ingress.filter(|_| spec.type_.as_deref() == Some("LoadBalancer"));
    let all: BTreeSet<IpAddr> = addresses(ingress.chain(spec.external_ips.iter().flatten())).into_iter().collect();
    all.into_iter().collect()
}

/// The endpoints of one family that take connections for a port: those that are ready; where none is, those that still
/// serve while they end, as kube-proxy does.
fn endpoints(port: &ServicePort, protocol: Protocol, slices: &[Arc<EndpointSlice>], ipv6: bool) -> Vec<Endpoint> {
    let wanted = if ipv6 { "IPv6" } else { "IPv4" };
    let name = port.name.as_deref().unwrap_or_default();
    let (mut ready, mut ending) = (BTreeSet::new(), BTreeSet::new());
    for slice in slices.iter().filter(|slice| slice.address_type == wanted) {
        let target = slice.ports.iter().flatten().find(|candidate| {
            candidate.name.as_deref().unwrap_or_default() == name
                && Protocol::parse(candidate.protocol.as_deref()) == Some(protocol)
        });
        let Some(target) = target.and_then(|target| number(target.port?)) else { continue };
        for endpoint in &slice.endpoints {
            let into = match state(endpoint) {
                (true, _, _) => &mut ready,
                (false, true, true) => &mut ending,
                _ => continue,
            };
            into.extend(addresses(&endpoint.addresses).into_iter().filter(|address| address.is_ipv6() == ipv6).map(
                |address| Endpoint { address: SocketAddr::new(address, target), node: endpoint.node_name.clone() },
            ));
        }
    }
    if ready.is_empty() { ending.into_iter().collect() } else { ready.into_iter().collect() }
}

/// Ready, serving, terminating; what is unknown counts as it does for kube-proxy.
fn state(endpoint: &SliceEndpoint) -> (bool, bool, bool) {
    let conditions = endpoint.conditions.as_ref();
    let ready = conditions.and_then(|it| it.ready).unwrap_or(true);
    let serving = conditions.and_then(|it| it.serving).unwrap_or(ready);
    (ready, serving, conditions.and_then(|it| it.terminating).unwrap_or(false))
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::{Value, json};

    use super::*;

    pub(crate) fn service(name: &str, spec: Value, status: Value) -> Service {
        let (namespace, name) = name.split_once('/').unwrap();
        let meta = json!({"namespace": namespace, "name": name});
        serde_json::from_value(json!({"metadata": meta, "spec": spec, "status": status})).unwrap()
    }

    fn slice(family: &str, ports: Value, endpoints: Value) -> Arc<EndpointSlice> {
        let slice = json!({"metadata": {"name": "s"}, "addressType": family, "ports": ports, "endpoints": endpoints});
        Arc::new(serde_json::from_value(slice).unwrap())
    }

    fn spec() -> Value {
        json!({"clusterIPs": ["10.96.1.1", "fd00:10:96::11"], "ports": [{"name": "web", "port": 80, "nodePort": 30080}]})
    }

    #[test]
    fn ports_meet_by_name_and_protocol() {
        let service = service("blue/web", spec(), json!({}));
        let one = json!([{"addresses": ["103.103.0.3"], "conditions": {"ready": true}, "nodeName": "n1"}]);
        let slices = [
            slice("IPv4", json!([{"name": "web", "protocol": "TCP", "port": 8080}]), one.clone()),
            slice("IPv4", json!([{"name": "other", "protocol": "TCP", "port": 8081}]), one.clone()),
            slice("IPv4", json!([{"name": "web", "protocol": "UDP", "port": 8082}]), one),
        ];
        let facts = Facts::of(&service, &slices).unwrap();
        let found: Vec<String> = facts.ports[0].endpoints.iter().map(|it| it.address.to_string()).collect();
        assert_eq!(found, ["103.103.0.3:8080"]);
        assert_eq!(facts.nodes().into_iter().collect::<Vec<_>>(), ["n1"]);
        assert_eq!((facts.ports[0].number, facts.ports[0].node_port), (80, Some(30080)));
    }

    #[test]
    fn endpoints_that_end_serve_only_where_no_other_does() {
        let service = service("blue/web", spec(), json!({}));
        let ports = json!([{"name": "web", "protocol": "TCP", "port": 8080}]);
        let ending =
            json!({"addresses": ["10.0.0.1"], "conditions": {"ready": false, "serving": true, "terminating": true}});
        let unready = json!({"addresses": ["10.0.0.2"], "conditions": {"ready": false, "serving": false}});
        let ready = json!({"addresses": ["10.0.0.3"], "conditions": {"ready": true}});
        let of = |endpoints: Value| {
            let facts = Facts::of(&service, &[slice("IPv4", ports.clone(), endpoints)]).unwrap();
            facts.ports[0].endpoints.iter().map(|it| it.address.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(of(json!([ending, unready])), ["10.0.0.1:8080"]);
        assert_eq!(of(json!([ending, unready, ready])), ["10.0.0.3:8080"]);
        assert!(of(json!([unready])).is_empty());
    }

    #[test]
    fn headless_services_have_no_load_balancer() {
        assert!(Facts::of(&service("a/b", json!({"clusterIPs": ["None"]}), json!({})), &[]).is_none());
        assert!(Facts::of(&service("a/b", json!({"type": "ExternalName"}), json!({})), &[]).is_none());
    }

    #[test]
    fn external_addresses_are_both_kinds() {
        let mut spec = spec();
        spec["externalIPs"] = json!(["172.18.255.9"]);
        let status = json!({"loadBalancer": {"ingress": [{"ip": "172.18.255.1"}]}});
        let plain = Facts::of(&service("a/b", spec.clone(), status.clone()), &[]).unwrap();
        assert_eq!(plain.external.len(), 1, "a status left from another type is nobody's address");
        spec["type"] = json!("LoadBalancer");
        let both = Facts::of(&service("a/b", spec, status), &[]).unwrap();
        assert_eq!(both.external.iter().map(ToString::to_string).collect::<Vec<_>>(), ["172.18.255.1", "172.18.255.9"]);
    }
}
