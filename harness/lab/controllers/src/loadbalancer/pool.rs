//! The pool of load-balancer addresses, and which of them a service gets.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;

use crate::cache::Key;

/// Annotation by which a service asks for addresses, as MetalLB has it.
pub(crate) const REQUEST: &str = "metallb.io/loadBalancerIPs";

/// Addresses for services of type LoadBalancer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Default: 172.18.255.200 to 172.18.255.250, in the lab's underlay.
    pub ipv4: RangeInclusive<Ipv4Addr>,
    /// Default: fc00:f853:ccd:e793::ff00 to fc00:f853:ccd:e793::ff32, in the lab's underlay.
    pub ipv6: RangeInclusive<Ipv6Addr>,
}

impl Default for Pool {
    fn default() -> Self {
        let ipv6 = |last| Ipv6Addr::new(0xfc00, 0xf853, 0xccd, 0xe793, 0, 0, 0, last);
        Self {
            ipv4: Ipv4Addr::new(172, 18, 255, 200)..=Ipv4Addr::new(172, 18, 255, 250),
            ipv6: ipv6(0xff00)..=ipv6(0xff32),
        }
    }
}

impl Pool {
    fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.ipv4.contains(&address),
            IpAddr::V6(address) => self.ipv6.contains(&address),
        }
    }

    fn free(&self, ipv6: bool, taken: &BTreeMap<IpAddr, Key>) -> Option<IpAddr> {
        let is_free = |address: &IpAddr| !taken.contains_key(address);
        if ipv6 {
            let (first, last) = (self.ipv6.start().to_bits(), self.ipv6.end().to_bits());
            (first..=last).map(|bits| IpAddr::from(Ipv6Addr::from_bits(bits))).find(is_free)
        } else {
            let (first, last) = (self.ipv4.start().to_bits(), self.ipv4.end().to_bits());
            (first..=last).map(|bits| IpAddr::from(Ipv4Addr::from_bits(bits))).find(is_free)
        }
    }

    /// The addresses of a service, one of each of its families: those that it asks for, else those it has, else free ones.
    /// All or none. `taken` are those of others. Errors are in MetalLB's words.
    pub(crate) fn assign(&self, service: &Service, taken: &BTreeMap<IpAddr, Key>) -> Result<Vec<IpAddr>, String> {
        let requested = requested(service)?;
        let current = current(service);
        let mut given = Vec::new();
        for ipv6 in families(service) {
            let of_family = |addresses: &[IpAddr]| addresses.iter().copied().find(|address| address.is_ipv6() == ipv6);
            if let Some(address) = of_family(&requested) {
                if !self.contains(address) {
                    return Err(format!("[\"{address}\"] is not allowed in config"));
                }
                if let Some(other) = taken.get(&address) {
                    let own = Key::of(service);
                    return Err(format!("can't change sharing key for \"{own}\", address also in use by {other}"));
                }
                given.push(address);
                continue;
            }
            let kept = of_family(&current).filter(|address| self.contains(*address) && !taken.contains_key(address));
            let address = kept.or_else(|| self.free(ipv6, taken));
            given.push(address.ok_or_else(|| "no available IPs".to_owned())?);
        }
        if requested.len() > given.len() {
            return Err("the addresses it asks for are not of its families, or two are of the same".to_owned());
        }
        Ok(given)
    }
}

fn requested(service: &Service) -> Result<Vec<IpAddr>, String> {
    let annotation = service.annotations().get(REQUEST).cloned();
    let field = service.spec.as_ref().and_then(|spec| spec.load_balancer_ip.clone());
    let text = annotation.or(field).filter(|text| !text.is_empty()).unwrap_or_default();
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts.map(|part| part.parse().map_err(|_| format!("invalid spec.loadBalancerIP \"{part}\""))).collect()
}

/// The addresses that a service has now.
pub(crate) fn current(service: &Service) -> Vec<IpAddr> {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = status.into_iter().flat_map(|status| status.ingress.iter().flatten());
    ingress.filter_map(|ingress| ingress.ip.as_ref()?.parse().ok()).collect()
}

fn families(service: &Service) -> Vec<bool> {
    let families = service.spec.as_ref().and_then(|spec| spec.ip_families.as_ref());
    families.into_iter().flatten().map(|family| family == "IPv6").collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn service(spec: Value, ingress: Value) -> Service {
        let status = json!({"loadBalancer": {"ingress": ingress}});
        serde_json::from_value(json!({"metadata": {"namespace": "a", "name": "s"}, "spec": spec, "status": status}))
            .unwrap()
    }

    fn assign(spec: Value, ingress: Value, taken: &[&str]) -> Result<Vec<String>, String> {
        let taken = taken.iter().map(|text| (text.parse().unwrap(), Key::new("a", "other"))).collect();
        let pool =
            Pool { ipv4: Ipv4Addr::new(172, 18, 255, 200)..=Ipv4Addr::new(172, 18, 255, 201), ..Pool::default() };
        let given = pool.assign(&service(spec, ingress), &taken)?;
        Ok(given.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn each_family_gets_an_address() {
        let both = json!({"ipFamilies": ["IPv6", "IPv4"]});
        let given = assign(both.clone(), json!([]), &["172.18.255.200"]).unwrap();
        assert_eq!(given, ["fc00:f853:ccd:e793::ff00", "172.18.255.201"]);
        assert_eq!(assign(json!({"ipFamilies": ["IPv4"]}), json!([]), &[]).unwrap(), ["172.18.255.200"]);
        let used_up = assign(both, json!([]), &["172.18.255.200", "172.18.255.201"]);
        assert_eq!(used_up.unwrap_err(), "no available IPs", "half of the addresses is no address");
    }

    #[test]
    fn what_a_service_has_it_keeps() {
        let v4 = json!({"ipFamilies": ["IPv4"]});
        assert_eq!(assign(v4.clone(), json!([{"ip": "172.18.255.201"}]), &[]).unwrap(), ["172.18.255.201"]);
        assert_eq!(assign(v4.clone(), json!([{"ip": "192.0.2.1"}]), &[]).unwrap(), ["172.18.255.200"]);
        assert_eq!(assign(v4, json!([{"ip": "172.18.255.200"}]), &["172.18.255.200"]).unwrap(), ["172.18.255.201"]);
    }

    #[test]
    fn requests_are_honoured_or_refused() {
        let asking = |ip: &str| json!({"ipFamilies": ["IPv4"], "loadBalancerIP": ip});
        assert_eq!(assign(asking("172.18.255.201"), json!([]), &[]).unwrap(), ["172.18.255.201"]);
        let taken = assign(asking("172.18.255.201"), json!([]), &["172.18.255.201"]).unwrap_err();
        assert_eq!(taken, "can't change sharing key for \"a/s\", address also in use by a/other");
        assert_eq!(
            assign(asking("192.0.2.1"), json!([]), &[]).unwrap_err(),
            "[\"192.0.2.1\"] is not allowed in config"
        );
        assert!(assign(asking("nonsense"), json!([]), &[]).is_err());
    }
}
