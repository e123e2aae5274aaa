//! What a cluster offers of VMs.

use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ListParams};
use serde_json::Value;
use udn_model::cell::Feature;

use crate::objects::{Objects, Real};
use crate::vm::{GUEST_IMAGE, KUBEVIRT};

/// The name of the network binding that l2 primary networks need.
const BINDING: &str = "l2bridge";

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Virtualization {
    pub(crate) features: Vec<Feature>,
    /// KubeVirt's.
    pub(crate) version: Option<String>,
}

/// Asks for kinds, KubeVirt's own object and nodes' images. What cannot be asked is not there.
pub(crate) async fn survey(objects: &Objects, guest_image: Option<&str>) -> Virtualization {
    let serves = async |api_version: &str, kind: &str| {
        let object = Real {
            api_version: api_version.into(),
            kind: kind.into(),
            namespace: Some("default".into()),
            name: "x".into(),
        };
        objects.api(&object).await.is_ok()
    };
    let (machines, instances, migrations, claims, lifecycle, installed, image) = tokio::join!(
        serves(KUBEVIRT, "VirtualMachine"),
        serves(KUBEVIRT, "VirtualMachineInstance"),
        serves(KUBEVIRT, "VirtualMachineInstanceMigration"),
        serves("k8s.cni.cncf.io/v1alpha1", "IPAMClaim"),
        lifecycle(objects),
        objects.list(KUBEVIRT, "KubeVirt", None, None),
        image(objects, guest_image),
    );
    let mut found = Virtualization::default();
    if machines && instances && migrations {
        found.features.push(Feature::VirtualMachines);
    }
    if claims && lifecycle {
        found.features.push(Feature::PersistentAddresses);
    }
    for kubevirt in installed.unwrap_or_default() {
        if knows_binding(&kubevirt.data) {
            found.features.push(Feature::BridgeBinding);
        }
        let version = kubevirt.data["status"]["observedKubeVirtVersion"].as_str();
        found.version = version.map(str::to_owned).or(found.version);
    }
    if image {
        found.features.push(Feature::GuestImage);
    }
    found
}

fn knows_binding(kubevirt: &Value) -> bool {
    !kubevirt["spec"]["configuration"]["network"]["binding"][BINDING].is_null()
}

/// Whether networks can keep addresses for VMs.
async fn lifecycle(objects: &Objects) -> bool {
    let definition = Real {
        api_version: "apiextensions.k8s.io/v1".into(),
        kind: "CustomResourceDefinition".into(),
        namespace: None,
        name: "clusteruserdefinednetworks.k8s.ovn.org".into(),
    };
    let Ok(Some(definition)) = objects.get(&definition).await else { return false };
    let versions = definition["spec"]["versions"].as_array();
    let served = versions.into_iter().flatten().find(|version| version["name"] == "v1");
    let field = "/schema/openAPIV3Schema/properties/spec/properties/network/properties/layer2/properties/ipam/properties/lifecycle";
    served.is_some_and(|version| version.pointer(field).is_some())
}

/// Whether nodes can have the guest's image: one that is named is pulled; the usual one is nowhere to be pulled from, and has
/// to be on a node already. Nodes that list no images say nothing against it.
async fn image(objects: &Objects, named: Option<&str>) -> bool {
    if named.is_some() {
        return true;
    }
    let Ok(nodes) = Api::<Node>::all(objects.client.clone()).list(&ListParams::default()).await else { return false };
    let names: Vec<String> = nodes
        .items
        .into_iter()
        .filter_map(|node| node.status?.images)
        .flatten()
        .filter_map(|image| image.names)
        .flatten()
        .collect();
    names.is_empty() || names.iter().any(|name| name.starts_with(GUEST_IMAGE))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_binding_has_to_be_registered() {
        let with = json!({ "spec": { "configuration": { "network": { "binding": { "l2bridge": { "domainAttachmentType": "managedTap" } } } } } });
        assert!(knows_binding(&with));
        assert!(!knows_binding(&json!({ "spec": { "configuration": {} } })));
    }
}
