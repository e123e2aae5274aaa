//! Services, as declared.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Pod, World, WorldError, problem, string_map, text, transport};
use crate::words::{Family, Transport};

/// A service by the names of its world.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServiceRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl ServiceRef {
    /// A service.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// `namespace.name`: for cell ids.
    #[must_use]
    pub fn dotted(&self) -> String {
        format!("{}.{}", self.namespace, self.name)
    }
}

impl fmt::Display for ServiceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.namespace, self.name))
    }
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its names.
    pub service: ServiceRef,
    /// Labels of its backends; without any it has none of its own.
    pub selector: BTreeMap<String, String>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// Families of its addresses.
    pub families: Vec<Family>,
    /// `clusterIP: None`: the name means its backends, there is no address.
    pub headless: bool,
    /// Whether it has NodePorts.
    pub node_ports: bool,
    /// Whether it asks for a load-balancer address.
    pub load_balancer: bool,
    /// `spec.externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// `externalTrafficPolicy: Local`.
    pub external_local: bool,
    /// `internalTrafficPolicy: Local`.
    pub internal_local: bool,
    /// `sessionAffinity: ClientIP`.
    pub affinity: bool,
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// What it speaks.
    pub transport: Transport,
    /// Under which number clients reach it.
    pub port: u16,
    /// Where backends listen.
    pub target: TargetPort,
}

/// Where a service's backends listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    /// A number.
    Number(u16),
    /// The name of a container's port.
    Name(String),
}

impl Service {
    /// The port of a transport and number.
    #[must_use]
    pub fn port(&self, transport: Transport, port: u16) -> Option<&ServicePort> {
        self.ports.iter().find(|candidate| candidate.transport == transport && candidate.port == port)
    }

    /// The pods that stand behind a port: selected, ready, and listening on it.
    #[must_use]
    pub fn backends<'a>(&self, world: &'a World, port: &ServicePort) -> Vec<&'a Pod> {
        self.selected(world).into_iter().filter(|pod| pod.ready && port.number_at(pod).is_some()).collect()
    }

    /// The pods that its selector means, ready or not, whatever they listen on.
    #[must_use]
    pub fn selected<'a>(&self, world: &'a World) -> Vec<&'a Pod> {
        world.pods.iter().filter(|pod| self.selects(pod)).collect()
    }

    /// Whether a pod is one of those that the service is about.
    #[must_use]
    pub fn selects(&self, pod: &Pod) -> bool {
        !self.selector.is_empty()
            && pod.pod.namespace == self.service.namespace
            && self.selector.iter().all(|(key, value)| pod.labels.get(key) == Some(value))
    }
}

impl ServicePort {
    /// On which port this pod stands behind it; `None` where the pod has no port of that name.
    #[must_use]
    pub fn number_at(&self, pod: &Pod) -> Option<u16> {
        match &self.target {
            TargetPort::Number(port) => Some(*port),
            TargetPort::Name(name) => pod.named_ports.get(&(self.transport, name.clone())).copied(),
        }
    }
}

/// Reads a `Service`.
pub(super) fn read(manifest: &Value) -> Result<Service, WorldError> {
    let service = ServiceRef::new(text(manifest, "/metadata/namespace")?, text(manifest, "/metadata/name")?);
    let spec = &manifest["spec"];
    let kind = spec["type"].as_str().unwrap_or("ClusterIP");
    if !matches!(kind, "ClusterIP" | "NodePort" | "LoadBalancer") {
        return Err(problem(manifest, format!("type {kind} is not ClusterIP, NodePort or LoadBalancer")));
    }
    let mut ports = Vec::new();
    for entry in spec["ports"].as_array().into_iter().flatten() {
        ports.push(port(manifest, entry)?);
    }
    if ports.is_empty() && spec["clusterIP"] != "None" {
        return Err(problem(manifest, "a service needs at least one port"));
    }
    let mut families = Vec::new();
    for family in spec["ipFamilies"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        families.push(match family {
            "IPv4" => Family::V4,
            "IPv6" => Family::V6,
            other => return Err(problem(manifest, format!("ipFamilies has {other}; it must be IPv4 or IPv6"))),
        });
    }
    if families.is_empty() {
        // A cluster's default is its first family; fixtures that want both say so.
        let both = matches!(spec["ipFamilyPolicy"].as_str(), Some("PreferDualStack" | "RequireDualStack"));
        families = if both { Family::ALL.to_vec() } else { vec![Family::V4] };
    }
    let mut external_ips = Vec::new();
    for ip in spec["externalIPs"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        external_ips.push(ip.parse().map_err(|_| problem(manifest, format!("externalIPs: `{ip}` is not an address")))?);
    }
    Ok(Service {
        service,
        selector: string_map(&spec["selector"]),
        ports,
        families,
        headless: spec["clusterIP"] == "None",
        node_ports: kind == "NodePort"
            || (kind == "LoadBalancer" && spec["allocateLoadBalancerNodePorts"].as_bool().unwrap_or(true)),
        load_balancer: kind == "LoadBalancer",
        external_ips,
        external_local: spec["externalTrafficPolicy"] == "Local",
        internal_local: spec["internalTrafficPolicy"] == "Local",
        affinity: spec["sessionAffinity"] == "ClientIP",
    })
}

fn port(manifest: &Value, entry: &Value) -> Result<ServicePort, WorldError> {
    let number = |value: &Value| value.as_u64().and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
    let transport = transport(manifest, entry)?;
    let port = number(&entry["port"]).ok_or_else(|| problem(manifest, "port must be a port number"))?;
    let target = match &entry["targetPort"] {
        Value::Null => TargetPort::Number(port),
        Value::String(name) => TargetPort::Name(name.clone()),
        other => TargetPort::Number(
            number(other).ok_or_else(|| problem(manifest, "targetPort must be a port number or a port's name"))?,
        ),
    };
    Ok(ServicePort { transport, port, target })
}
