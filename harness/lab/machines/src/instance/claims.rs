//! Addresses that outlive launcher pods: what KubeVirt's IPAM extension does for primary networks with persistent IPAM.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, PostParams};
use serde_json::{Value, json};
use udn_api::kubevirt::{Interface, VirtualMachineInstance, names};
use udn_api::{IpamClaim, IpamClaimSpec, NetworkAttachmentDefinition};

use crate::context::Context;
use crate::emulator::network::PRIMARY;
use crate::error::Error;

/// The namespace of the attachment definition that requests on a primary network name.
const DEFAULT_NETWORK_NAMESPACE: &str = "ovn-kubernetes";
const DEFAULT_NETWORK: &str = "v1.multus-cni.io/default-network";
const CLAIM: &str = "k8s.ovn.org/primary-udn-ipamclaim";

/// Makes the instance's claim where its namespace has a primary network with persistent addresses; the annotations that its
/// launcher pods get for it.
pub(crate) async fn ensure(context: &Context, instance: &VirtualMachineInstance) -> Result<Vec<(String, String)>, Error> {
    let namespace = instance.namespace().unwrap_or_default();
    let Some(interface) = pod_interface(instance) else { return Ok(Vec::new()) };
    let Some(network) = persistent_network(context, &namespace).await? else { return Ok(Vec::new()) };
    let name = claim_name(&instance.name_any(), &interface.name);
    let claims = Api::<IpamClaim>::namespaced(context.client.clone(), &namespace);
    let mut claim = IpamClaim::new(&name, IpamClaimSpec { network, interface: PRIMARY.into() });
    claim.metadata = ObjectMeta {
        name: Some(name.clone()),
        namespace: Some(namespace.clone()),
        labels: Some([(names::VM.to_owned(), instance.name_any())].into()),
        finalizers: Some(vec![names::CLAIM_FINALIZER.into()]),
        owner_references: Some(vec![owner(instance)]),
        ..ObjectMeta::default()
    };
    match claims.create(&PostParams::default(), &claim).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        Err(error) => return Err(Error::request(format!("create IPAMClaim {namespace}/{name}"))(error)),
    }
    let mut annotations = vec![(CLAIM.to_owned(), name.clone())];
    annotations.extend(request(instance, interface, &name).map(|text| (DEFAULT_NETWORK.to_owned(), text)));
    Ok(annotations)
}

/// Lets go of the claims of a machine, or of an instance without one, that is gone.
pub(crate) async fn release(context: &Context, namespace: &str, machine: &str) -> Result<(), Error> {
    let claims = Api::<IpamClaim>::namespaced(context.client.clone(), namespace);
    let action = || format!("release the IPAMClaims of {namespace}/{machine}");
    let mine = ListParams::default().labels(&format!("{}={machine}", names::VM));
    for claim in claims.list(&mine).await.map_err(Error::request(action()))? {
        crate::objects::finalize(&context.client, &claim, names::CLAIM_FINALIZER, false).await?;
        // Its owner is gone: the garbage collector would do the same.
        let deleted = claims.delete(&claim.name_any(), &DeleteParams::default()).await;
        match deleted {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            result => {
                result.map_err(Error::request(action()))?;
            }
        }
    }
    Ok(())
}

/// The machine, or the instance where there is none.
fn owner(instance: &VirtualMachineInstance) -> OwnerReference {
    instance.owner_references().first().cloned().unwrap_or_else(|| OwnerReference {
        api_version: "kubevirt.io/v1".into(),
        kind: "VirtualMachineInstance".into(),
        name: instance.name_any(),
        uid: instance.uid().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    })
}

/// The interface on the pod's network.
pub(crate) fn pod_interface(instance: &VirtualMachineInstance) -> Option<&Interface> {
    let network = instance.spec.networks.iter().find(|network| network.pod.is_some())?;
    instance.spec.domain.devices.interfaces.iter().find(|interface| interface.name == network.name)
}

/// `<machine>.<interface>`, in lower case.
fn claim_name(machine: &str, interface: &str) -> String {
    format!("{machine}.{interface}").to_lowercase()
}

/// Name of the namespace's primary network, if it keeps addresses.
async fn persistent_network(context: &Context, namespace: &str) -> Result<Option<String>, Error> {
    let definitions = Api::<NetworkAttachmentDefinition>::namespaced(context.client.clone(), namespace);
    let all = definitions.list(&ListParams::default()).await;
    let all = all.map_err(Error::request(format!("list the attachment definitions of {namespace}")))?;
    let configurations = all.iter().filter_map(|one| {
        let text = serde_json::to_value(&one.spec).ok()?["config"].as_str()?.to_owned();
        serde_json::from_str::<Value>(&text).ok()
    });
    let primary = configurations.into_iter().find(|config| config["role"] == "primary");
    Ok(primary.filter(|config| config["allowPersistentIPs"] == true).and_then(|config| config["name"].as_str().map(str::to_owned)))
}

/// What the machine asks of its primary network: addresses, a MAC.
fn request(instance: &VirtualMachineInstance, interface: &Interface, claim: &str) -> Option<String> {
    let asked = instance.annotations().get(names::ADDRESSES);
    let asked: Option<Value> = asked.and_then(|text| serde_json::from_str(text).ok());
    let addresses = asked.as_ref().and_then(|all| all.get(&interface.name)).filter(|all| all.as_array().is_some_and(|all| !all.is_empty()));
    if addresses.is_none() && interface.mac_address.is_none() {
        return None;
    }
    let mut element = json!({
        "name": "default", "namespace": DEFAULT_NETWORK_NAMESPACE, "ipam-claim-reference": claim,
    });
    if let Some(addresses) = addresses {
        element["ips"] = addresses.clone();
    }
    if let Some(mac) = &interface.mac_address {
        element["mac"] = mac.clone().into();
    }
    Some(json!([element]).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_name_addresses_mac_and_claim() {
        let mut instance: VirtualMachineInstance = serde_json::from_value(json!({
            "metadata": {"name": "db", "annotations": {"network.kubevirt.io/addresses": "{\"default\": [\"10.1.0.5/16\"]}"}},
            "spec": {
                "domain": {"devices": {"interfaces": [{"name": "default", "macAddress": "0a:58:0a:01:00:05"}]}},
                "networks": [{"name": "default", "pod": {}}],
            },
        }))
        .unwrap();
        let interface = pod_interface(&instance).unwrap().clone();
        let text = request(&instance, &interface, "db.default").unwrap();
        let element: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(element[0]["ips"], json!(["10.1.0.5/16"]));
        assert_eq!(element[0]["mac"], "0a:58:0a:01:00:05");
        assert_eq!(element[0]["ipam-claim-reference"], "db.default");
        instance.metadata.annotations = None;
        let plain = Interface { mac_address: None, ..interface };
        assert_eq!(request(&instance, &plain, "db.default"), None);
    }
}
