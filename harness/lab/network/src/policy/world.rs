//! What policies are evaluated against.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::rules::{Direction, Policy, Protocol, Selected};
use super::selector::{self, Labels};

/// Pods with their place in a network, namespaces, nodes.
#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) policies: Vec<Policy>,
    pub(crate) namespaces: BTreeMap<String, Scope>,
    /// By namespace.
    pub(crate) members: BTreeMap<String, Vec<Member>>,
    pub(crate) nodes: Vec<NodePort>,
}

/// A namespace.
#[derive(Debug)]
pub(crate) struct Scope {
    pub(crate) labels: Labels,
    /// Its pods' primary network; nothing where the namespace asks for one that is not there.
    pub(crate) network: Option<String>,
}

/// A pod on its primary network.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) pod: Arc<Pod>,
    pub(crate) network: String,
    /// The logical switch port there.
    pub(crate) port: String,
    pub(crate) addresses: Vec<IpAddr>,
}

/// Where a node's own packets enter its switch of the default network.
#[derive(Debug)]
pub(crate) struct NodePort {
    pub(crate) port: String,
    pub(crate) addresses: Vec<IpAddr>,
}

impl World {
    /// The pods that a policy acts on, on `network`.
    pub(crate) fn targets<'a>(&'a self, policy: &'a Policy, network: &'a str) -> impl Iterator<Item = &'a Member> {
        self.of(&policy.namespace, &policy.pods, network)
    }

    /// The pods of `network` that a peer of a policy of `namespace` selects.
    pub(crate) fn selected<'a>(
        &'a self,
        namespace: &'a str,
        peer: &'a Selected,
        network: &'a str,
    ) -> impl Iterator<Item = &'a Member> {
        let chosen = move |(name, scope): &(&String, &Scope)| match &peer.namespaces {
            Some(selector) => selector::matches(selector, &scope.labels),
            None => *name == namespace,
        };
        self.namespaces.iter().filter(chosen).flat_map(move |(name, _)| self.of(name, &peer.pods, network))
    }

    /// All pods of `network`.
    pub(crate) fn everybody<'a>(&'a self, network: &'a str) -> impl Iterator<Item = &'a Member> {
        self.members.values().flatten().filter(move |member| member.network == network)
    }

    /// Whether any policy restricts `direction` in `namespace`.
    pub(crate) fn restricted(&self, namespace: &str, direction: Direction) -> bool {
        self.policies.iter().any(|policy| policy.namespace == namespace && policy.rules(direction).is_some())
    }

    fn of<'a>(
        &'a self,
        namespace: &str,
        selector: &'a LabelSelector,
        network: &'a str,
    ) -> impl Iterator<Item = &'a Member> {
        let members = self.members.get(namespace).map(Vec::as_slice).unwrap_or_default();
        members.iter().filter(move |member| member.network == network && selector::matches(selector, member.labels()))
    }
}

impl Member {
    fn labels(&self) -> &Labels {
        static NONE: Labels = Labels::new();
        self.pod.metadata.labels.as_ref().unwrap_or(&NONE)
    }

    /// The number that the pod's containers give to a port's name; the first, where two containers use one name.
    pub(crate) fn number(&self, protocol: Protocol, name: &str) -> Option<u16> {
        let spec = self.pod.spec.as_ref()?;
        // Init containers that keep running (sidecars) have ports like any other.
        let containers = spec
            .containers
            .iter()
            .chain(spec.init_containers.iter().flatten().filter(|it| it.restart_policy.as_deref() == Some("Always")));
        let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
        let port = ports.find(|port| {
            port.name.as_deref() == Some(name) && Protocol::parse(port.protocol.as_deref()) == Some(protocol)
        })?;
        u16::try_from(port.container_port).ok()
    }
}
