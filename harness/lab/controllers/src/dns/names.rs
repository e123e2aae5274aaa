//! Objects to the records of `udn-dns`, one a line, as CoreDNS' `kubernetes` plugin reads them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::ResourceExt;

use crate::endpoints::SERVICE_NAME;

const DOMAIN: &str = "cluster.local.";
/// The zones that are answered for. The last is the lab's world outside: its names are in the config map.
const ZONES: [&str; 4] = [DOMAIN, "in-addr.arpa.", "ip6.arpa.", "lab.example."];
/// The version of the naming rules.
const VERSION: &str = "1.1.0";

/// The file's text. `hosts`: lines of the config map.
pub(super) fn records(
    namespaces: &[Arc<Namespace>],
    services: &[Arc<Service>],
    slices: &[Arc<EndpointSlice>],
    hosts: &str,
) -> String {
    let mut lines = Lines::default();
    lines.add(&format!("dns-version.{DOMAIN}"), &format!("TXT {VERSION}"));
    for namespace in namespaces {
        lines.add(&format!("{}.svc.{DOMAIN}", namespace.name_any()), "NAME");
        lines.add(&format!("{}.pod.{DOMAIN}", namespace.name_any()), "PODS");
    }
    let mut by_service: BTreeMap<(String, &str), Vec<&EndpointSlice>> = BTreeMap::new();
    for slice in slices {
        // Mirrored slices (addresses on user defined networks) have another label: DNS does not know them.
        if let Some(service) = slice.labels().get(SERVICE_NAME) {
            by_service.entry((slice.namespace().unwrap_or_default(), service)).or_default().push(slice);
        }
    }
    for service in services {
        let (namespace, name) = (service.namespace().unwrap_or_default(), service.name_any());
        let slices = by_service.get(&(namespace.clone(), name.as_str())).map(Vec::as_slice).unwrap_or_default();
        lines.service(service, &format!("{name}.{namespace}.svc.{DOMAIN}"), slices);
    }
    lines.hosts(hosts);
    lines.text()
}

#[derive(Default)]
struct Lines(BTreeMap<String, BTreeSet<String>>);

impl Lines {
    fn add(&mut self, name: &str, data: &str) {
        self.0.entry(name.to_lowercase()).or_default().insert(data.to_owned());
    }

    fn address(&mut self, name: &str, address: IpAddr) {
        self.add(name, &format!("{} {address}", if address.is_ipv6() { "AAAA" } else { "A" }));
    }

    fn service(&mut self, service: &Service, name: &str, slices: &[&EndpointSlice]) {
        let Some(spec) = &service.spec else { return };
        if spec.type_.as_deref() == Some("ExternalName") {
            let target = spec.external_name.as_deref().unwrap_or_default().trim_end_matches('.');
            return self.add(name, &format!("CNAME {}.", target.to_lowercase()));
        }
        let addresses: Vec<IpAddr> = spec.cluster_ips.iter().flatten().filter_map(|text| text.parse().ok()).collect();
        let headless = spec.cluster_ip.as_deref() == Some("None");
        for address in &addresses {
            self.address(name, *address);
            self.add(&reverse(*address), &format!("PTR {name}"));
        }
        if !headless {
            for port in spec.ports.iter().flatten() {
                self.port(name, port.name.as_deref(), port.protocol.as_deref(), port.port, name);
            }
        }
        for slice in slices {
            for endpoint in slice.endpoints.iter().filter(|endpoint| is_ready(endpoint)) {
                for address in endpoint.addresses.iter().filter_map(|text| text.parse::<IpAddr>().ok()) {
                    let target = format!("{}.{name}", label(endpoint, address));
                    self.address(&target, address);
                    self.add(&reverse(address), &format!("PTR {target}"));
                    if !headless {
                        continue;
                    }
                    self.address(name, address);
                    for port in slice.ports.iter().flatten() {
                        let number = port.port.unwrap_or_default();
                        self.port(name, port.name.as_deref(), port.protocol.as_deref(), number, &target);
                    }
                }
            }
        }
    }

    fn port(&mut self, name: &str, port: Option<&str>, protocol: Option<&str>, number: i32, target: &str) {
        let data = format!("SRV {number} {target}");
        if let Some(port) = port.filter(|port| !port.is_empty()) {
            let protocol = protocol.unwrap_or("TCP").to_lowercase();
            self.add(&format!("_{port}._{protocol}.{name}"), &data);
        }
        self.add(name, &data);
    }

    fn hosts(&mut self, hosts: &str) {
        let mut given: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for line in hosts.lines() {
            let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
            let Some(first) = words.next() else { continue };
            let data = match (first, first.parse::<IpAddr>()) {
                ("-", _) => None,
                (_, Ok(address)) => Some(format!("{} {address}", if address.is_ipv6() { "AAAA" } else { "A" })),
                (_, Err(_)) => {
                    tracing::warn!(line, "no address; this line of the config map kube-system/coredns is left out");
                    continue;
                }
            };
            for name in words.filter(|name| is_name(name)) {
                let name = format!("{}.", name.trim_end_matches('.').to_lowercase());
                given.entry(name).or_default().extend(data.clone());
            }
        }
        for (name, data) in given {
            if data.is_empty() {
                self.0.remove(&name);
            } else {
                self.0.insert(name, data);
            }
        }
    }

    fn text(self) -> String {
        let zones = ZONES.iter().map(|zone| format!("{zone} ZONE\n"));
        let lines = self
            .0
            .into_iter()
            .flat_map(|(name, data)| data.into_iter().map(move |data| format!("{name} {data}\n")).collect::<Vec<_>>());
        zones.chain(lines).collect()
    }
}

fn is_name(text: &str) -> bool {
    let good = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    text.len() <= 253 && text.trim_end_matches('.').split('.').all(good)
}

fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) != Some(false)
}

/// An endpoint's own label: its host name, else its address.
fn label(endpoint: &Endpoint, address: IpAddr) -> String {
    endpoint.hostname.clone().unwrap_or_else(|| address.to_string().replace(['.', ':'], "-"))
}

/// The name under which an address' name is looked up.
fn reverse(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa.")
        }
        IpAddr::V6(address) => {
            let nibbles = address.octets().into_iter().rev().flat_map(|octet| [octet & 15, octet >> 4]);
            nibbles.map(|nibble| format!("{nibble:x}.")).collect::<String>() + "ip6.arpa."
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    use super::*;

    fn objects<K: DeserializeOwned>(values: &[Value]) -> Vec<Arc<K>> {
        values.iter().map(|value| Arc::new(serde_json::from_value(value.clone()).unwrap())).collect()
    }

    fn lines(services: &[Value], slices: &[Value], hosts: &str) -> Vec<String> {
        let namespaces = objects(&[json!({"metadata": {"name": "blue"}})]);
        let text = records(&namespaces, &objects(services), &objects(slices), hosts);
        text.lines().filter(|line| !line.ends_with(" ZONE")).map(str::to_owned).collect()
    }

    fn slice(service: &str, addresses: &[(&str, Value)]) -> Value {
        let endpoints: Vec<Value> = addresses
            .iter()
            .map(|(address, more)| {
                let mut endpoint = json!({"addresses": [address]});
                endpoint.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
                endpoint
            })
            .collect();
        json!({"metadata": {"name": "s", "namespace": "blue", "labels": {SERVICE_NAME: service}}, "addressType": "IPv4",
            "endpoints": endpoints, "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}]})
    }

    #[test]
    fn a_service_has_its_addresses_ports_and_the_way_back() {
        let web = json!({"metadata": {"name": "web", "namespace": "blue"}, "spec": {
            "clusterIP": "10.96.3.4", "clusterIPs": ["10.96.3.4", "fd00:10:96::a"],
            "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}});
        let lines = lines(&[web], &[slice("web", &[("10.244.1.5", json!({}))])], "");
        for line in [
            "web.blue.svc.cluster.local. A 10.96.3.4",
            "web.blue.svc.cluster.local. AAAA fd00:10:96::a",
            "_http._tcp.web.blue.svc.cluster.local. SRV 80 web.blue.svc.cluster.local.",
            "4.3.96.10.in-addr.arpa. PTR web.blue.svc.cluster.local.",
            "a.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.1.0.0.0.0.d.f.ip6.arpa. PTR web.blue.svc.cluster.local.",
            "10-244-1-5.web.blue.svc.cluster.local. A 10.244.1.5",
            "blue.svc.cluster.local. NAME",
            "blue.pod.cluster.local. PODS",
        ] {
            assert!(lines.contains(&line.to_owned()), "no {line} in {lines:#?}");
        }
        assert!(!lines.contains(&"web.blue.svc.cluster.local. A 10.244.1.5".to_owned()));
    }

    #[test]
    fn a_headless_service_is_its_ready_endpoints() {
        let db = json!({"metadata": {"name": "db", "namespace": "blue"}, "spec": {"clusterIP": "None", "clusterIPs": ["None"]}});
        let unready = json!({"conditions": {"ready": false}});
        let slice = slice(
            "db",
            &[("10.244.1.5", json!({"hostname": "db-0"})), ("10.244.1.6", json!({})), ("10.244.1.7", unready)],
        );
        let lines = lines(&[db], &[slice], "");
        let of = |name: &str| lines.iter().filter(|line| line.starts_with(&format!("{name} "))).collect::<Vec<_>>();
        assert_eq!(of("db.blue.svc.cluster.local.").iter().filter(|line| line.contains(" A ")).count(), 2);
        assert_eq!(of("db-0.db.blue.svc.cluster.local."), ["db-0.db.blue.svc.cluster.local. A 10.244.1.5"]);
        assert_eq!(
            of("_http._tcp.db.blue.svc.cluster.local."),
            [
                "_http._tcp.db.blue.svc.cluster.local. SRV 8080 10-244-1-6.db.blue.svc.cluster.local.",
                "_http._tcp.db.blue.svc.cluster.local. SRV 8080 db-0.db.blue.svc.cluster.local.",
            ]
        );
    }

    #[test]
    fn mirrored_slices_and_pods_of_networks_have_no_names() {
        let db = json!({"metadata": {"name": "db", "namespace": "blue"}, "spec": {"clusterIP": "None"}});
        let mut mirrored = slice("db", &[("103.103.1.5", json!({}))]);
        mirrored["metadata"]["labels"] = json!({"k8s.ovn.org/service-name": "db"});
        assert!(lines(&[db], &[mirrored], "").iter().all(|line| !line.contains("103.103")));
    }

    #[test]
    fn the_config_map_comes_first() {
        let service = |name: &str, spec: Value| json!({"metadata": {"name": name, "namespace": "blue"}, "spec": spec});
        let services = [
            service("web", json!({"clusterIP": "10.96.3.4", "clusterIPs": ["10.96.3.4"]})),
            service("gone", json!({"clusterIP": "10.96.3.5", "clusterIPs": ["10.96.3.5"]})),
            service("old", json!({"type": "ExternalName", "externalName": "External.lab.example"})),
        ];
        let hosts = "172.18.0.100 external.lab.example # outside\nfc00::100 external.lab.example\nnonsense x.y\n\
            192.0.2.1 web.blue.svc.cluster.local.\n- gone.blue.svc.cluster.local\n192.0.2.2 bad..name\n";
        let lines = lines(&services, &[], hosts);
        let of = |name: &str| lines.iter().filter(|line| line.starts_with(&format!("{name} "))).collect::<Vec<_>>();
        assert_eq!(of("external.lab.example.").len(), 2);
        assert_eq!(of("web.blue.svc.cluster.local."), ["web.blue.svc.cluster.local. A 192.0.2.1"]);
        assert!(of("gone.blue.svc.cluster.local.").is_empty());
        assert_eq!(of("old.blue.svc.cluster.local."), ["old.blue.svc.cluster.local. CNAME external.lab.example."]);
        assert!(lines.iter().all(|line| !line.contains("bad..name") && !line.contains("x.y")));
    }
}
