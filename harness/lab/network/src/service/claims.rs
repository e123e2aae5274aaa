//! Which of two services an external address belongs to. Kubernetes lets both have it; OVN cannot: one of two load
//! balancers for the same address and port would win by chance, and one node cannot announce it for two networks.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;

use super::facts;

/// What a service claims.
#[derive(Debug)]
pub(crate) struct Claim<'a> {
    pub(crate) service: &'a Service,
    /// The network of its namespace.
    pub(crate) network: &'a str,
}

impl Claim<'_> {
    fn addresses(&self) -> Vec<IpAddr> {
        self.service.spec.as_ref().map(|spec| facts::external(self.service, spec)).unwrap_or_default()
    }

    fn ports(&self) -> impl Iterator<Item = (&str, i32)> {
        let ports = self.service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
        ports.map(|port| (port.protocol.as_deref().unwrap_or("TCP"), port.port))
    }

    /// The elder has the older right; of twins the one with the smaller UID.
    fn is_elder_than(&self, other: &Self) -> bool {
        let age = |claim: &Self| (claim.service.creation_timestamp().map(|time| time.0), claim.service.uid());
        age(self) < age(other)
    }

    /// Why `self` does not get its external addresses, if `other` has one of them.
    pub(crate) fn refused_by(&self, other: &Self) -> Option<String> {
        if !other.is_elder_than(self) || other.service.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let theirs = other.addresses();
        let address = self.addresses().into_iter().find(|address| theirs.contains(address))?;
        let owner = format!("{}/{}", other.service.namespace().unwrap_or_default(), other.service.name_any());
        let end = "none of this service's external addresses is in effect";
        if self.network != other.network {
            let network = other.network;
            return Some(format!("{address} is claimed already by {owner} of network {network}; {end}"));
        }
        let (protocol, port) = self.ports().find(|port| other.ports().any(|theirs| theirs == *port))?;
        Some(format!("{address} port {port}/{protocol} is claimed already by {owner}; {end}"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(name: &str, second: i64, port: i32, addresses: &[&str]) -> Service {
        let spec = json!({"clusterIPs": ["10.96.1.1"], "externalIPs": addresses, "ports": [{"port": port, "protocol": "TCP"}]});
        let mut service = facts::tests::service(name, spec, json!({}));
        let time = jiff::Timestamp::from_second(second).unwrap();
        service.metadata.creation_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(time));
        service.metadata.uid = Some(name.into());
        service
    }

    fn refused(one: &Service, by: &Service, networks: [&str; 2]) -> Option<String> {
        Claim { service: one, network: networks[0] }.refused_by(&Claim { service: by, network: networks[1] })
    }

    #[test]
    fn the_elder_keeps_the_address() {
        let (old, new) =
            (service("a/old", 1, 80, &["172.18.9.9"]), service("a/new", 2, 80, &["172.18.9.8", "172.18.9.9"]));
        assert!(refused(&old, &new, ["n", "n"]).is_none());
        let reason = refused(&new, &old, ["n", "n"]).unwrap();
        assert!(reason.starts_with("172.18.9.9 port 80/TCP is claimed already by a/old"), "{reason}");
    }

    #[test]
    fn ports_share_an_address_within_a_network_only() {
        let (old, new) = (service("a/old", 1, 80, &["172.18.9.9"]), service("b/new", 2, 81, &["172.18.9.9"]));
        assert!(refused(&new, &old, ["n", "n"]).is_none());
        assert!(refused(&new, &old, ["n", "m"]).unwrap().contains("of network m"));
    }

    #[test]
    fn twins_agree_on_who_is_elder() {
        let (one, two) = (service("a/one", 1, 80, &["172.18.9.9"]), service("a/two", 1, 80, &["172.18.9.9"]));
        assert!(refused(&one, &two, ["n", "n"]).is_none());
        assert!(refused(&two, &one, ["n", "n"]).is_some());
    }
}
