//! Names that DNS knows, or must not know.
//!
//! Kubernetes' names mean addresses of the default network, whatever network a pod's primary one is: a service's name its
//! ClusterIPs, a headless service's name the default-network addresses of its backends. There is no DNS inside a user
//! defined network: nothing that could be asked means an address there.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::cell::Target;
use crate::naming::Naming;
use crate::world::{PodRef, ServiceRef, World};

/// The namespace and name of the DNS service, and the label of the pods behind it, as kubeadm and most others have them.
pub const DNS_SERVICE: (&str, &str) = ("kube-system", "kube-dns");
/// The label that the pods behind the DNS service carry.
pub const DNS_LABEL: (&str, &str) = ("k8s-app", "kube-dns");
/// The port of DNS.
pub const DNS_PORT: u16 = 53;
/// A service that no fixture has.
const NOBODY: &str = "no-such-service";

/// The DNS service as a target.
#[must_use]
pub fn dns_service() -> Target {
    let (namespace, name) = DNS_SERVICE;
    Target::Service { service: ServiceRef::new(namespace, name), via: crate::cell::Exposure::ClusterIp }
}

/// A name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DnsName {
    /// A service's: `<service>.<namespace>.svc.<domain>`.
    Service(ServiceRef),
    /// A pod's as a member of a headless service: `<hostname>.<service>.<namespace>.svc.<domain>`.
    Member {
        /// The pod.
        pod: PodRef,
        /// Its `spec.hostname`.
        hostname: String,
        /// The headless service: its `spec.subdomain`.
        service: String,
    },
    /// What a pod would be called if its network had a DNS: `<pod>.<namespace>.svc.<domain>`. Nobody is called so.
    Alone(PodRef),
    /// Of a service that is not there, in this namespace.
    Nobody(String),
    /// The API server's: `kubernetes.default.svc.<domain>`.
    ApiServer,
    /// A name outside of the cluster.
    External,
}

impl DnsName {
    /// The name in full, with a dot at its end. `external`: the name outside of the cluster, where one is known.
    #[must_use]
    pub fn text(&self, naming: &Naming, domain: &str, external: Option<&str>) -> Option<String> {
        let service = |name: &str, namespace: &str| format!("{name}.{}.svc.{domain}.", naming.real(namespace));
        Some(match self {
            Self::Service(it) => service(&it.name, &it.namespace),
            Self::Member { pod, hostname, service: of } => {
                format!("{hostname}.{}", service(of, &pod.namespace))
            }
            Self::Alone(pod) => service(&pod.name, &pod.namespace),
            Self::Nobody(namespace) => service(NOBODY, namespace),
            Self::ApiServer => service("kubernetes", "default"),
            Self::External => format!("{}.", external?.trim_end_matches('.')),
        })
    }
}

/// The name as the world says it, without the cluster's domain.
impl fmt::Display for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::External => f.pad("external-name"),
            name => {
                let text = name.text(&Naming::new(""), "", None).unwrap_or_default();
                f.pad(text.trim_end_matches('.'))
            }
        }
    }
}

/// The names that the pods of a namespace are asked to look up in a world: every service's, the members of their own
/// headless services, their own names, one that is not there, the API server's, and one outside of the cluster.
#[must_use]
pub fn names(world: &World, namespace: &str) -> Vec<DnsName> {
    let services = world.services.iter().map(|service| DnsName::Service(service.service.clone()));
    let own = || world.pods.iter().filter(|pod| pod.pod.namespace == namespace);
    let members = own().filter_map(|pod| {
        let (hostname, service) = (pod.hostname.clone()?, pod.subdomain.clone()?);
        Some(DnsName::Member { pod: pod.pod.clone(), hostname, service })
    });
    let alone = own().take(1).map(|pod| DnsName::Alone(pod.pod.clone()));
    let others = [DnsName::Nobody(namespace.to_owned()), DnsName::ApiServer, DnsName::External];
    services.chain(members).chain(alone).chain(others).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_runs_and_said_as_the_worlds() {
        let member = DnsName::Member { pod: PodRef::new("blue", "a"), hostname: "a".into(), service: "peers".into() };
        let text = |name: &DnsName| name.text(&Naming::new("k3v9a"), "cluster.local", Some("www.example.com"));
        assert_eq!(text(&member).unwrap(), "a.peers.k3v9a-blue.svc.cluster.local.");
        assert_eq!(member.to_string(), "a.peers.blue.svc");
        assert_eq!(text(&DnsName::ApiServer).unwrap(), "kubernetes.default.svc.cluster.local.");
        assert_eq!(text(&DnsName::External).unwrap(), "www.example.com.");
        assert_eq!(DnsName::External.text(&Naming::new("x"), "cluster.local", None), None);
        assert_eq!(DnsName::Nobody("blue".into()).to_string(), "no-such-service.blue.svc");
    }
}
