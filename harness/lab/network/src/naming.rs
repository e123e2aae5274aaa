//! Names in OVN, as OVN-Kubernetes forms them, so that `ovn-nbctl show` reads as it does there.
//!
//! Kubernetes names have no `_`, so `<namespace>_<udn>` tells `x` + `tenant-blue` from `x-tenant` + `blue`. In OVN the dash
//! becomes a dot, as there; a dot, which OVN-Kubernetes leaves alone, becomes a colon, so that no two networks meet.

/// Name of the cluster default network.
pub(crate) const DEFAULT_NETWORK: &str = "default";
/// Its router.
pub(crate) const CLUSTER_ROUTER: &str = "ovn_cluster_router";
/// Its join switch.
pub(crate) const JOIN_SWITCH: &str = "join";

/// `<namespace>_<udn>`.
pub(crate) fn udn_network(namespace: &str, name: &str) -> String {
    format!("{namespace}_{name}")
}

/// `cluster_udn_<name>`.
pub(crate) fn cudn_network(name: &str) -> String {
    format!("cluster_udn_{name}")
}

/// `<namespace>/<name>`.
pub(crate) fn nad_key(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

/// What a network's objects in OVN begin with; empty for the default network.
pub(crate) fn prefix(network: &str) -> String {
    if network == DEFAULT_NETWORK { String::new() } else { format!("{}_", network.replace('.', ":").replace('-', ".")) }
}

/// The logical switch port of a pod's attachment; `nad` is `default` or `<namespace>/<name>`. `attempt` tells a second
/// attachment to one definition from the first.
pub(crate) fn pod_port(nad: &str, namespace: &str, pod: &str, attempt: usize) -> String {
    let scope = if nad == DEFAULT_NETWORK { String::new() } else { format!("{}_", nad.replace('/', ".")) };
    let suffix = if attempt == 0 { String::new() } else { format!("/{attempt}") };
    format!("{scope}{namespace}_{pod}{suffix}")
}

/// Host side of a pod's interface: at most 15 characters, different for every pod and interface.
pub(crate) fn host_interface(uid: &str, interface: usize) -> String {
    format!("{}{interface}", host_prefix(uid))
}

/// What the host sides of a pod's interfaces begin with.
pub(crate) fn host_prefix(uid: &str) -> String {
    format!("{:012x}_", hash(uid) & 0xffff_ffff_ffff)
}

/// FNV-1a: short, stable, and good enough for the few hundred names of a lab.
pub(crate) fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_concatenate_alike_differ() {
        assert_ne!(prefix(&udn_network("x", "tenant-blue")), prefix(&udn_network("x-tenant", "blue")));
        assert_ne!(prefix(&udn_network("x", "a.b")), prefix(&udn_network("x", "a-b")));
        assert_ne!(pod_port("a-b/c", "n", "p", 0), pod_port("a/b-c", "n", "p", 0));
        assert_ne!(prefix(&udn_network("cluster", "udn")), prefix(&cudn_network("x")));
    }

    #[test]
    fn names_are_those_of_ovn_kubernetes() {
        assert_eq!(prefix("blue_blue-network"), "blue_blue.network_");
        assert_eq!(pod_port("default", "blue", "p", 0), "blue_p");
        assert_eq!(pod_port("blue/net", "blue", "p", 0), "blue.net_blue_p");
        assert!(host_interface("0a0a0a0a-1111-2222-3333-444444444444", 12).len() <= 15);
    }
}
