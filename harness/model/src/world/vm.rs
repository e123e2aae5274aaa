//! VMs: pods whose agent is in a guest. Stock KubeVirt manifests, of which a world needs little.

use super::{
    BTreeMap, NODE_LABEL, Pod, PodRef, Requested, Transport, Value, World, WorldError, problem, string_map, text,
};

/// The kind of a VM's object.
pub const VM_KIND: &str = "VirtualMachine";
/// The annotation of a VM's template that says what its agent listens on, as `7007/TCP,8080/UDP`: a VM declares no ports.
pub const LISTENS_ANNOTATION: &str = "udn-conformance.io/listens";
/// The annotation that asks for addresses: per interface of the VM a list of them.
pub const ADDRESSES_ANNOTATION: &str = "network.kubevirt.io/addresses";
/// The label by which KubeVirt tells whose a launcher pod is.
pub const VM_NAME_LABEL: &str = "vm.kubevirt.io/name";

/// What makes a pod of a world a VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vm {
    /// How its template calls the network that is its pod's primary one.
    pub interface: String,
}

impl Vm {
    /// The name of the IPAMClaim that keeps the addresses of the VM of this name.
    #[must_use]
    pub fn claim(&self, vm: &str) -> String {
        format!("{vm}.{}", self.interface)
    }
}

pub(super) fn read(manifest: &Value, world: &World) -> Result<Pod, WorldError> {
    let pod = PodRef::new(text(manifest, "/metadata/namespace")?, text(manifest, "/metadata/name")?);
    let template = &manifest["spec"]["template"];
    let mut labels = string_map(&template["metadata"]["labels"]);
    let annotations = string_map(&template["metadata"]["annotations"]);
    let node = labels.get(NODE_LABEL).and_then(|slot| slot.parse().ok());
    let node = node.ok_or_else(|| {
        problem(manifest, format!("its template's label {NODE_LABEL} must be a node slot such as \"0\""))
    })?;
    let listens = annotations.get(LISTENS_ANNOTATION).ok_or_else(|| {
        problem(manifest, format!("its template's annotation {LISTENS_ANNOTATION} must say what its agent listens on"))
    })?;
    let listens = self::listens(listens).map_err(|why| problem(manifest, why))?;
    // What KubeVirt puts on a launcher pod, so that services and policies can mean it.
    for key in [VM_NAME_LABEL, "kubevirt.io/domain"] {
        labels.insert(key.into(), pod.name.clone());
    }
    labels.insert("kubevirt.io".into(), "virt-launcher".into());
    let networks = template["spec"]["networks"].as_array();
    let own = networks.into_iter().flatten().find(|network| network["pod"].is_object());
    let interface = own.and_then(|network| network["name"].as_str()).ok_or_else(|| {
        problem(manifest, "spec.template.spec.networks must have a network `pod: {}`: the primary one is its pod's")
    })?;
    let interfaces = template["spec"]["domain"]["devices"]["interfaces"].as_array();
    let device = interfaces.into_iter().flatten().find(|device| device["name"] == interface);
    let device = device.ok_or_else(|| problem(manifest, format!("it has no interface for its network {interface}")))?;
    let own_annotations = string_map(&manifest["metadata"]["annotations"]);
    let asked = annotations.get(ADDRESSES_ANNOTATION).or_else(|| own_annotations.get(ADDRESSES_ANNOTATION));
    let ips = asked.map(|text| addresses(manifest, interface, text)).transpose()?.unwrap_or_default();
    let mac = device["macAddress"].as_str().map(str::to_lowercase);
    let primary = world.primary_of(&pod.namespace).map(|network| network.id.clone());
    Ok(Pod {
        vm: Some(Vm { interface: interface.to_owned() }),
        pod,
        node,
        ready: true,
        labels,
        hostname: None,
        subdomain: None,
        listens,
        named_ports: BTreeMap::new(),
        primary,
        secondary: Vec::new(),
        open_default_ports: Vec::new(),
        requested: Requested { ips, mac },
    })
}

/// Reads `7007/TCP,8080/UDP`.
///
/// # Errors
/// What is no port.
pub fn listens(text: &str) -> Result<Vec<(Transport, u16)>, String> {
    let read = |entry: &str| {
        let (port, protocol) = entry.trim().split_once('/')?;
        let port = port.parse().ok().filter(|port: &u16| *port > 0)?;
        Some((Transport::of_protocol(Some(protocol))?, port))
    };
    let each = text.split(',').map(|entry| {
        read(entry).ok_or_else(|| format!("annotation {LISTENS_ANNOTATION}: `{entry}` is not a port such as 8080/TCP"))
    });
    each.collect()
}

/// The addresses that are asked for on one interface, with or without a prefix length.
fn addresses(manifest: &Value, interface: &str, text: &str) -> Result<Vec<ipnet::IpNet>, WorldError> {
    let bad = |what: &str| problem(manifest, format!("annotation {ADDRESSES_ANNOTATION}: {what}"));
    let value: Value = serde_json::from_str(text).map_err(|error| bad(&error.to_string()))?;
    let list = value[interface].as_array().ok_or_else(|| bad(&format!("no list of addresses for {interface}")))?;
    let read = |entry: &Value| {
        let entry = entry.as_str().unwrap_or_default();
        let address = entry.parse::<ipnet::IpNet>().or_else(|_| entry.parse::<std::net::IpAddr>().map(Into::into));
        address.map_err(|_| bad(&format!("`{entry}` is not an address")))
    };
    list.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::world::NetworkId;

    fn manifests(change: impl Fn(&mut Value)) -> Vec<Value> {
        let mut vm = json!({ "apiVersion": "kubevirt.io/v1", "kind": VM_KIND, "metadata": { "name": "db", "namespace": "red" },
            "spec": { "runStrategy": "Always", "template": {
                "metadata": { "labels": { "app": "db", NODE_LABEL: "1" },
                    "annotations": { LISTENS_ANNOTATION: "7007/TCP, 8080/UDP",
                        ADDRESSES_ANNOTATION: r#"{"default":["10.1.0.5/16","fd01::5"]}"# } },
                "spec": { "domain": { "devices": { "interfaces": [
                        { "name": "default", "binding": { "name": "l2bridge" }, "macAddress": "02:0A:00:00:00:01" }] } },
                    "networks": [{ "name": "default", "pod": {} }] } } } });
        change(&mut vm);
        vec![
            json!({ "kind": "Namespace", "metadata": { "name": "red", "labels": { "k8s.ovn.org/primary-user-defined-network": "" } } }),
            json!({ "kind": "UserDefinedNetwork", "metadata": { "name": "net", "namespace": "red" }, "spec": { "topology": "Layer2",
                "layer2": { "role": "Primary", "subnets": ["10.1.0.0/16"], "ipam": { "lifecycle": "Persistent" } } } }),
            vm,
        ]
    }

    #[test]
    fn a_vm_is_a_pod_of_its_network() {
        let world = World::from_manifests(&manifests(|_| ())).unwrap();
        let vm = &world.pods[0];
        assert_eq!((vm.pod.to_string(), vm.node), ("red/db".into(), 1));
        assert_eq!(vm.listens, [(Transport::Tcp, 7007), (Transport::Udp, 8080)]);
        assert_eq!(vm.primary, Some(NetworkId::Udn { namespace: "red".into(), name: "net".into() }));
        assert_eq!(vm.requested.mac.as_deref(), Some("02:0a:00:00:00:01"));
        assert_eq!(vm.requested.ips.len(), 2);
        assert_eq!((vm.labels[VM_NAME_LABEL].as_str(), vm.labels["kubevirt.io"].as_str()), ("db", "virt-launcher"));
        assert_eq!(vm.vm.as_ref().unwrap().claim("db"), "db.default");
        assert!(world.networks[0].persistent);
    }

    #[test]
    fn what_is_missing_is_said() {
        let error = |change: fn(&mut Value)| World::from_manifests(&manifests(change)).unwrap_err().to_string();
        let annotations = |vm: &mut Value| vm["spec"]["template"]["metadata"]["annotations"] = json!({});
        assert!(
            error(annotations)
                .starts_with("VirtualMachine red/db: its template's annotation udn-conformance.io/listens")
        );
        let networks = |vm: &mut Value| vm["spec"]["template"]["spec"]["networks"] = json!([]);
        assert!(error(networks).contains("must have a network `pod: {}`"));
        let port = |vm: &mut Value| vm["spec"]["template"]["metadata"]["annotations"][LISTENS_ANNOTATION] = json!("80");
        assert!(error(port).contains("`80` is not a port such as 8080/TCP"));
    }
}
