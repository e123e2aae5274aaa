//! The object that says that there are virtual machines: clients look for it to learn whether, and which version.

use k8s_openapi::api::core::v1::Namespace;
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use udn_api::kubevirt::{KubeVirt, KubeVirtSpec, names};
use udn_lab_sys::site::LAB_LABEL;

use crate::error::Error;

const NAME: &str = "kubevirt";

/// Creates namespace and object, and says that it is deployed.
pub(crate) async fn create(client: &Client) -> Result<(), Error> {
    let existing = |result: Result<(), kube::Error>, action: &str| match result {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        result => result.map_err(Error::request(action)),
    };
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some(NAME.into());
    namespace.metadata.labels = Some([(LAB_LABEL.into(), String::new())].into());
    let namespaces = Api::<Namespace>::all(client.clone());
    existing(namespaces.create(&PostParams::default(), &namespace).await.map(drop), "create namespace kubevirt")?;
    let installations = Api::<KubeVirt>::namespaced(client.clone(), NAME);
    // The binding that primary networks need: clients look for it here.
    let binding =
        json!({"configuration": {"network": {"binding": {"l2bridge": {"domainAttachmentType": "managedTap"}}}}});
    let spec = KubeVirtSpec { other: binding.as_object().cloned().unwrap_or_default() };
    let object = KubeVirt::new(NAME, spec);
    existing(
        installations.create(&PostParams::default(), &object).await.map(drop),
        "create KubeVirt kubevirt/kubevirt",
    )?;
    let status = json!({"status": {
        "phase": "Deployed", "observedKubeVirtVersion": names::VERSION, "targetKubeVirtVersion": names::VERSION,
        "operatorVersion": names::VERSION,
        "conditions": [
            {"type": "Available", "status": "True", "reason": "AllComponentsReady", "message": "All components are ready."},
        ],
    }});
    let written = installations.patch_status(NAME, &PatchParams::default(), &Patch::Merge(status)).await;
    written.map(drop).map_err(Error::request("write the status of KubeVirt kubevirt/kubevirt"))
}
