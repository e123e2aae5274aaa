//! Which endpoints a service has, computed from its pods.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    ContainerPort, EndpointAddress, EndpointPort as LegacyPort, EndpointSubset, Pod, Service, ServicePort,
};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::events::reference;
use crate::pods;

/// Ports as name, protocol, number and application protocol: what must be equal for endpoints to share a slice.
pub(super) type Ports = Vec<(String, String, i32, Option<String>)>;

/// `IPv4` or `IPv6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    pub(super) fn of(address: &str) -> Option<Self> {
        address.parse().ok().map(|ip| match ip {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        })
    }
}

/// The families of a service; the first one is the primary.
pub(super) fn families(service: &Service) -> Vec<Family> {
    let spec = service.spec.as_ref();
    let declared = spec.and_then(|spec| spec.ip_families.as_ref());
    let declared: Vec<Family> = declared
        .into_iter()
        .flatten()
        .filter_map(|family| match family.as_str() {
            "IPv4" => Some(Family::V4),
            "IPv6" => Some(Family::V6),
            _ => None,
        })
        .collect();
    if !declared.is_empty() {
        return declared;
    }
    let addresses = spec.and_then(|spec| spec.cluster_ips.as_ref());
    let found: Vec<Family> = addresses.into_iter().flatten().filter_map(|ip| Family::of(ip)).collect();
    if found.is_empty() { vec![Family::V4] } else { found }
}

/// The endpoints of one family by the ports they share. Without any there is one empty group, so that the service has
/// a slice nevertheless.
pub(super) fn slices(service: &Service, pods: &[Arc<Pod>], family: Family) -> BTreeMap<Ports, Vec<Endpoint>> {
    let mut groups: BTreeMap<Ports, Vec<Endpoint>> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| !pods::is_finished(pod)) {
        let Some(address) = addresses(pod).into_iter().find(|ip| Family::of(ip) == Some(family)) else { continue };
        groups.entry(ports(service, pod)).or_default().push(endpoint(service, pod, address));
    }
    for endpoints in groups.values_mut() {
        endpoints.sort_by(|a, b| a.addresses.cmp(&b.addresses));
    }
    if groups.is_empty() {
        groups.insert(Ports::new(), Vec::new());
    }
    groups
}

pub(super) fn slice_ports(ports: &Ports) -> Vec<EndpointPort> {
    ports
        .iter()
        .map(|(name, protocol, port, application)| EndpointPort {
            name: Some(name.clone()),
            protocol: Some(protocol.clone()),
            port: Some(*port),
            app_protocol: application.clone(),
        })
        .collect()
}

/// The subsets of the old `Endpoints` object: the primary family, without pods that are terminating.
pub(super) fn subsets(service: &Service, pods: &[Arc<Pod>]) -> Vec<EndpointSubset> {
    let Some(family) = families(service).into_iter().next() else { return Vec::new() };
    let publish = publishes_unready(service);
    let present: Vec<Arc<Pod>> =
        pods.iter().filter(|pod| publish || !pods::is_terminating(pod)).map(Arc::clone).collect();
    let groups = slices(service, &present, family).into_iter().filter(|(_, endpoints)| !endpoints.is_empty());
    groups
        .map(|(ports, endpoints)| {
            let is_ready = |endpoint: &Endpoint| endpoint.conditions.as_ref().and_then(|c| c.ready) == Some(true);
            let (ready, unready): (Vec<_>, Vec<_>) = endpoints.into_iter().partition(is_ready);
            let legacy = |endpoints: Vec<Endpoint>| {
                let addresses: Vec<_> = endpoints.into_iter().filter_map(legacy_address).collect();
                (!addresses.is_empty()).then_some(addresses)
            };
            let ports: Vec<LegacyPort> = ports
                .into_iter()
                .map(|(name, protocol, port, app_protocol)| LegacyPort {
                    name: (!name.is_empty()).then_some(name),
                    protocol: Some(protocol),
                    port,
                    app_protocol,
                })
                .collect();
            EndpointSubset {
                addresses: legacy(ready),
                not_ready_addresses: legacy(unready),
                ports: (!ports.is_empty()).then_some(ports),
            }
        })
        .collect()
}

fn legacy_address(endpoint: Endpoint) -> Option<EndpointAddress> {
    Some(EndpointAddress {
        ip: endpoint.addresses.into_iter().next()?,
        hostname: endpoint.hostname,
        node_name: endpoint.node_name,
        target_ref: endpoint.target_ref,
    })
}

fn publishes_unready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses) == Some(true)
}

/// The addresses of a pod on the cluster's default network.
pub(super) fn addresses(pod: &Pod) -> Vec<String> {
    let Some(status) = pod.status.as_ref() else { return Vec::new() };
    let all: Vec<String> =
        status.pod_ips.iter().flatten().map(|ip| ip.ip.clone()).filter(|ip| !ip.is_empty()).collect();
    if all.is_empty() { status.pod_ip.clone().filter(|ip| !ip.is_empty()).into_iter().collect() } else { all }
}

fn endpoint(service: &Service, pod: &Pod, address: String) -> Endpoint {
    let serving = pods::is_ready(pod);
    let terminating = pods::is_terminating(pod);
    let spec = pod.spec.as_ref();
    let in_subdomain = spec.and_then(|spec| spec.subdomain.as_ref()) == service.metadata.name.as_ref();
    let mut target = reference(pod);
    target.api_version = None;
    target.resource_version = None;
    Endpoint {
        addresses: vec![address],
        conditions: Some(EndpointConditions {
            ready: Some(publishes_unready(service) || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: spec.and_then(|spec| spec.hostname.clone()).filter(|name| in_subdomain && !name.is_empty()),
        node_name: spec.and_then(|spec| spec.node_name.clone()),
        target_ref: Some(target),
        ..Endpoint::default()
    }
}

/// The ports of a service as this pod serves them; a named port that the pod lacks is left out.
fn ports(service: &Service, pod: &Pod) -> Ports {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let mut found: Ports = ports
        .filter_map(|port| {
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
            let number = target(port, &protocol, pod)?;
            Some((port.name.clone().unwrap_or_default(), protocol, number, port.app_protocol.clone()))
        })
        .collect();
    found.sort();
    found
}

fn target(port: &ServicePort, protocol: &str, pod: &Pod) -> Option<i32> {
    match port.target_port.as_ref() {
        None | Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => {
            let containers =
                pod.spec.iter().flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
            let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
            let fits = |candidate: &&ContainerPort| {
                candidate.name.as_ref() == Some(name) && candidate.protocol.as_deref().unwrap_or("TCP") == protocol
            };
            ports.find(fits).map(|port| port.container_port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(spec: serde_json::Value) -> Service {
        serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "a"}, "spec": spec})).unwrap()
    }

    fn pod(name: &str, ips: &[&str], ready: bool, port: i32) -> Arc<Pod> {
        let mut pod = pods::tests::pod(name, "n1", "Running", ready.then_some(1));
        let ips: Vec<_> = ips.iter().map(|ip| json!({ "ip": ip })).collect();
        pod.status.get_or_insert_default().pod_ips = serde_json::from_value(json!(ips)).unwrap();
        pod.spec = serde_json::from_value(json!({
            "hostname": name, "subdomain": "web", "nodeName": "n1",
            "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": port}]}]
        }))
        .unwrap();
        Arc::new(pod)
    }

    #[test]
    fn each_family_gets_its_addresses() {
        let service = service(json!({"ipFamilies": ["IPv4", "IPv6"], "ports": [{"port": 80}]}));
        assert_eq!(families(&service), [Family::V4, Family::V6]);
        let pods =
            [pod("p0", &["10.244.1.5", "fd00:10:244:1::5"], true, 8080), pod("p1", &["10.244.1.6"], false, 8080)];
        let v4 = slices(&service, &pods, Family::V4);
        let endpoints = v4.values().next().unwrap();
        assert_eq!(endpoints.len(), 2);
        let conditions = |index: usize| endpoints[index].conditions.clone().unwrap();
        assert_eq!(
            (conditions(0).ready, conditions(0).serving, conditions(0).terminating),
            (Some(true), Some(true), Some(false))
        );
        assert_eq!(conditions(1).ready, Some(false));
        assert_eq!(endpoints[0].hostname.as_deref(), Some("p0"));
        let v6 = slices(&service, &pods, Family::V6);
        assert_eq!(v6.values().next().unwrap()[0].addresses, ["fd00:10:244:1::5"]);
    }

    #[test]
    fn named_ports_split_slices_by_what_the_pods_call_so() {
        let service = service(json!({"ports": [{"name": "http", "port": 80, "targetPort": "http"}]}));
        let pods = [pod("p0", &["10.0.0.1"], true, 8080), pod("p1", &["10.0.0.2"], true, 9090)];
        let groups = slices(&service, &pods, Family::V4);
        let numbers: Vec<i32> = groups.keys().map(|ports| ports[0].2).collect();
        assert_eq!(numbers, [8080, 9090]);
    }

    #[test]
    fn a_service_without_pods_has_one_empty_slice() {
        let groups = slices(&service(json!({"ports": [{"port": 80}]})), &[], Family::V4);
        assert_eq!(groups, BTreeMap::from([(Ports::new(), Vec::new())]));
        assert!(subsets(&service(json!({})), &[]).is_empty());
    }

    #[test]
    fn terminating_and_published_pods() {
        let mut leaving = Pod::clone(&pod("p0", &["10.0.0.1"], true, 80));
        leaving.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::now()));
        let pods = [Arc::new(leaving), pod("p1", &["10.0.0.2"], false, 80)];
        let plain = service(json!({"ports": [{"port": 80}]}));
        let conditions = |service: &Service| -> Vec<_> {
            let groups = slices(service, &pods, Family::V4);
            groups
                .values()
                .flatten()
                .map(|e| e.conditions.clone().unwrap())
                .map(|c| (c.ready, c.serving, c.terminating))
                .collect()
        };
        assert_eq!(
            conditions(&plain),
            [(Some(false), Some(true), Some(true)), (Some(false), Some(false), Some(false))]
        );
        let legacy = subsets(&plain, &pods);
        assert_eq!(legacy[0].addresses, None);
        assert_eq!(legacy[0].not_ready_addresses.as_ref().unwrap().len(), 1);
        let published = service(json!({"publishNotReadyAddresses": true, "ports": [{"port": 80}]}));
        assert!(conditions(&published).iter().all(|(ready, ..)| *ready == Some(true)));
    }
}
