//! `NetworkAttachmentDefinition` (`net-attach-def`): what a pod attaches to.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A CNI configuration under a name.
#[derive(Clone, CustomResource, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "k8s.cni.cncf.io",
    version = "v1",
    kind = "NetworkAttachmentDefinition",
    plural = "network-attachment-definitions",
    singular = "network-attachment-definition",
    shortname = "net-attach-def",
    namespaced,
    printcolumn = r#"{"name":"Age", "type":"date", "jsonPath":".metadata.creationTimestamp"}"#
)]
pub struct NetworkAttachmentDefinitionSpec {
    /// CNI configuration as JSON text; the lab carries type `ovn-k8s-cni-overlay`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
}
