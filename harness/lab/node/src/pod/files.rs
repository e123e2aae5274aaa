//! The files of `/etc` that every container gets: names, resolvers, users.

use std::fmt::Write;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use k8s_openapi::api::core::v1::Pod;
use udn_lab_sys::site::ROUTER_V4;

use super::record::PodCell;
use super::sandbox::{external, host_network};
use crate::container::job::Step;
use crate::kubelet::Host;
use crate::volumes;

/// The cluster's DNS service.
const CLUSTER_DNS: &str = "10.96.0.10";
/// The cluster's domain.
const CLUSTER_DOMAIN: &str = "cluster.local";
/// The longest host name, characters.
const HOSTNAME_LENGTH: usize = 63;

/// What every container of a pod gets.
pub(super) struct Files {
    pub hostname: String,
    pub steps: Vec<Step>,
}

/// Writes the files that the pod's containers share, and says how a container gets them and its own.
pub(super) fn write(host: &Host, pod: &PodCell) -> io::Result<Files> {
    let directory = volumes::directory(host, pod);
    fs::create_dir_all(&directory)?;
    let hostname = hostname(&pod.arrival);
    let ips = pod.record().ips;
    let shared = |name: &str, content: String| -> io::Result<Step> {
        let source = directory.join(name);
        // Containers may have changed it: a restart does not take that back.
        if !source.exists() {
            fs::write(&source, content)?;
        }
        Ok(Step::Bind { source, path: Path::new("/etc").join(name), read_only: false })
    };
    let own = |name: &str, content: &str| Step::File {
        path: Path::new("/etc").join(name),
        mode: 0o644,
        content: content.to_owned(),
    };
    let steps = vec![
        shared("hosts", hosts(&pod.arrival, &hostname, &ips))?,
        shared("resolv.conf", resolvers(&pod.arrival))?,
        own("hostname", &format!("{hostname}\n")),
        own("passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
        own("group", "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n"),
        own("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
    ];
    Ok(Files { hostname, steps })
}

fn hostname(pod: &Pod) -> String {
    let asked = pod.spec.as_ref().and_then(|spec| spec.hostname.clone());
    let name = asked.or_else(|| pod.metadata.name.clone()).unwrap_or_default();
    let cut: String = name.chars().take(HOSTNAME_LENGTH).collect();
    cut.trim_end_matches(['-', '.']).to_owned()
}

fn hosts(pod: &Pod, hostname: &str, ips: &[IpAddr]) -> String {
    let mut text = String::from(
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
    );
    let spec = pod.spec.as_ref();
    let domain = spec.and_then(|spec| spec.subdomain.as_deref()).map(|subdomain| {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        format!("{hostname}.{subdomain}.{namespace}.svc.{CLUSTER_DOMAIN}\t")
    });
    if !host_network(pod) {
        for ip in ips {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{ip}\t{}{hostname}", domain.as_deref().unwrap_or_default());
        }
    }
    for alias in spec.and_then(|spec| spec.host_aliases.as_ref()).into_iter().flatten() {
        let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
        let _ = writeln!(text, "{}\t{names}", alias.ip);
    }
    text
}

fn resolvers(pod: &Pod) -> String {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let spec = pod.spec.as_ref();
    let policy = spec.and_then(|spec| spec.dns_policy.as_deref()).unwrap_or("ClusterFirst");
    let cluster = match policy {
        "ClusterFirstWithHostNet" => !external(pod),
        "Default" | "None" => false,
        _ => !host_network(pod),
    };
    let mut servers = Vec::new();
    let mut searches = Vec::new();
    let mut options = Vec::new();
    if cluster {
        servers.push(CLUSTER_DNS.to_owned());
        searches.extend([
            format!("{namespace}.svc.{CLUSTER_DOMAIN}"),
            format!("svc.{CLUSTER_DOMAIN}"),
            CLUSTER_DOMAIN.to_owned(),
        ]);
        options.push("ndots:5".to_owned());
    } else if policy != "None" {
        servers.push(ROUTER_V4.to_string());
    }
    if let Some(config) = spec.and_then(|spec| spec.dns_config.as_ref()) {
        servers.extend(config.nameservers.iter().flatten().cloned());
        searches.extend(config.searches.iter().flatten().cloned());
        for option in config.options.iter().flatten() {
            let name = option.name.as_deref().unwrap_or_default();
            options.retain(|known: &String| known.split(':').next() != Some(name));
            options.push(option.value.as_ref().map_or_else(|| name.to_owned(), |value| format!("{name}:{value}")));
        }
    }
    let mut text = String::new();
    if !searches.is_empty() {
        let _ = writeln!(text, "search {}", searches.join(" "));
    }
    for server in servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    if !options.is_empty() {
        let _ = writeln!(text, "options {}", options.join(" "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(spec: serde_json::Value) -> Pod {
        let pod = serde_json::json!({ "metadata": { "name": "web-0", "namespace": "blue" }, "spec": spec });
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn a_pod_asks_the_cluster_and_a_host_network_pod_the_node() {
        let ordinary = resolvers(&pod(serde_json::json!({ "containers": [] })));
        assert_eq!(
            ordinary,
            "search blue.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n"
        );
        let on_host = resolvers(&pod(serde_json::json!({ "containers": [], "hostNetwork": true })));
        assert_eq!(on_host, "nameserver 172.18.0.1\n");
    }

    #[test]
    fn own_resolvers_replace_and_options_override() {
        let none = resolvers(&pod(serde_json::json!({
            "containers": [], "dnsPolicy": "None", "dnsConfig": { "nameservers": ["192.0.2.1"] },
        })));
        assert_eq!(none, "nameserver 192.0.2.1\n");
        let options = resolvers(&pod(serde_json::json!({
            "containers": [], "dnsConfig": { "options": [{ "name": "ndots", "value": "2" }] },
        })));
        assert!(options.ends_with("options ndots:2\n"), "{options}");
    }

    #[test]
    fn hosts_know_the_pod_by_its_addresses() {
        let text = hosts(
            &pod(serde_json::json!({ "containers": [], "subdomain": "web" })),
            "web-0",
            &["10.244.1.5".parse().unwrap(), "fd00:10:244:1::5".parse().unwrap()],
        );
        assert!(text.contains("\n10.244.1.5\tweb-0.web.blue.svc.cluster.local\tweb-0\n"), "{text}");
        assert!(text.contains("\nfd00:10:244:1::5\tweb-0.web"), "{text}");
    }
}
