//! `ClusterNetworkConnect` (`cnc`): networks that are joined to each other. Validated here, not carried by the lab.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::shared::{Cidr, conditions, label_selector, network_cidr};

/// Which networks are joined, how far, and over which addresses.
#[derive(Clone, CustomResource, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "k8s.ovn.org",
    version = "v1",
    kind = "ClusterNetworkConnect",
    plural = "clusternetworkconnects",
    singular = "clusternetworkconnect",
    shortname = "cnc",
    status = "ClusterNetworkConnectStatus",
    printcolumn = r#"{"name":"Age", "type":"date", "jsonPath":".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name":"Status", "type":"string", "jsonPath":".status.status"}"#
)]
#[x_kube(validation = Rule::new("self.networkSelectors.all(one, one.networkSelectionType in ['ClusterUserDefinedNetworks', 'PrimaryUserDefinedNetworks'])").message("Only ClusterUserDefinedNetworks or PrimaryUserDefinedNetworks can be selected"))]
pub struct ClusterNetworkConnectSpec {
    /// What is joined; each type at most once.
    #[schemars(
        length(min = 1, max = 5),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["networkSelectionType"])
    )]
    pub network_selectors: Vec<NetworkSelector>,
    /// What the joints' addresses are cut from, one range per family.
    #[schemars(schema_with = "connect_subnets")]
    pub connect_subnets: Vec<ConnectSubnet>,
    /// What gets through.
    #[schemars(schema_with = "connectivity")]
    pub connectivity: Vec<Connectivity>,
}

/// What gets through between joined networks.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Connectivity {
    /// Pods reach pods.
    PodNetwork,
    /// Pods reach services.
    ServiceNetwork,
}

/// One range and how it is cut.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!isCIDR(self.cidr) || self.networkPrefix > cidr(self.cidr).prefixLength()").message("NetworkPrefix must be longer than the CIDR prefix length"),
    validation = Rule::new("!isCIDR(self.cidr) || cidr(self.cidr).ip().family() != 4 || self.networkPrefix < 32").message("NetworkPrefix must < 32 for ipv4 CIDR"),
)]
pub struct ConnectSubnet {
    /// The range.
    #[schemars(schema_with = "network_cidr")]
    pub cidr: Cidr,
    /// Prefix length of a network's part.
    #[schemars(range(min = 1, max = 127))]
    pub network_prefix: i32,
}

/// Kinds of networks.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum NetworkSelection {
    /// The cluster default network.
    DefaultNetwork,
    /// CUDNs by label.
    ClusterUserDefinedNetworks,
    /// Primary UDNs by their namespaces.
    PrimaryUserDefinedNetworks,
    /// Secondary UDNs by namespace and label.
    SecondaryUserDefinedNetworks,
    /// Attachment definitions by namespace and label.
    NetworkAttachmentDefinitions,
}

/// A set of networks: a type, and the selector that belongs to it.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.clusterUserDefinedNetworkSelector) == (self.networkSelectionType == 'ClusterUserDefinedNetworks')").message("Inconsistent selector: both networkSelectionType ClusterUserDefinedNetworks and clusterUserDefinedNetworkSelector have to be set or neither"),
    validation = Rule::new("has(self.primaryUserDefinedNetworkSelector) == (self.networkSelectionType == 'PrimaryUserDefinedNetworks')").message("Inconsistent selector: both networkSelectionType PrimaryUserDefinedNetworks and primaryUserDefinedNetworkSelector have to be set or neither"),
    validation = Rule::new("has(self.secondaryUserDefinedNetworkSelector) == (self.networkSelectionType == 'SecondaryUserDefinedNetworks')").message("Inconsistent selector: both networkSelectionType SecondaryUserDefinedNetworks and secondaryUserDefinedNetworkSelector have to be set or neither"),
    validation = Rule::new("has(self.networkAttachmentDefinitionSelector) == (self.networkSelectionType == 'NetworkAttachmentDefinitions')").message("Inconsistent selector: both networkSelectionType NetworkAttachmentDefinitions and networkAttachmentDefinitionSelector have to be set or neither"),
)]
pub struct NetworkSelector {
    /// Which of the following is set.
    pub network_selection_type: NetworkSelection,
    /// Set if CUDNs are selected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_user_defined_network_selector: Option<ByLabel>,
    /// Set if primary UDNs are selected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary_user_defined_network_selector: Option<ByNamespace>,
    /// Set if secondary UDNs are selected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secondary_user_defined_network_selector: Option<ByNamespaceAndLabel>,
    /// Set if attachment definitions are selected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_attachment_definition_selector: Option<ByNamespaceAndLabel>,
}

/// Networks by label.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ByLabel {
    /// Labels of the network.
    #[schemars(schema_with = "label_selector")]
    pub network_selector: LabelSelector,
}

/// Networks by their namespace's label.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ByNamespace {
    /// Labels of the namespace.
    #[schemars(schema_with = "label_selector")]
    pub namespace_selector: LabelSelector,
}

/// Networks by both.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ByNamespaceAndLabel {
    /// Labels of the namespace.
    #[schemars(schema_with = "label_selector")]
    pub namespace_selector: LabelSelector,
    /// Labels of the network.
    #[schemars(schema_with = "label_selector")]
    pub network_selector: LabelSelector,
}

/// What the network's controllers say of it.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterNetworkConnectStatus {
    /// `Success` or `Failure`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "success_or_failure")]
    pub status: Option<String>,
    /// Details.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
}

fn success_or_failure(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "enum": ["Success", "Failure"]})
}

fn connectivity(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": generator.subschema_for::<Connectivity>(),
        "minItems": 1,
        "maxItems": 2,
        "x-kubernetes-list-type": "atomic",
        "x-kubernetes-validations": [{
            "rule": "self.all(a, self.filter(b, a == b).size() == 1)",
            "message": "connectivity cannot contain duplicate values",
        }],
    })
}

/// One or two ranges, of different families, cut into parts of as many addresses each.
fn connect_subnets(generator: &mut SchemaGenerator) -> Schema {
    const TWO_FAMILIES: &str = "size(self) == 2 && isCIDR(self[0].cidr) && isCIDR(self[1].cidr) && cidr(self[0].cidr).ip().family() != cidr(self[1].cidr).ip().family()";
    json_schema!({
        "type": "array",
        "items": generator.subschema_for::<ConnectSubnet>(),
        "minItems": 1,
        "maxItems": 2,
        "x-kubernetes-list-type": "atomic",
        "x-kubernetes-validations": [
            {"rule": "self == oldSelf", "message": "connectSubnets is immutable"},
            {
                "rule": format!("size(self) != 2 || !isCIDR(self[0].cidr) || !isCIDR(self[1].cidr) || ({TWO_FAMILIES})"),
                "message": "When 2 CIDRs are set, they must be from different IP families",
            },
            {
                // 96 is what an IPv6 prefix is longer by when both leave as many bits.
                "rule": format!("!({TWO_FAMILIES}) || (cidr(self[0].cidr).ip().family() == 4 ? self[1].networkPrefix - self[0].networkPrefix : self[0].networkPrefix - self[1].networkPrefix) == 96"),
                "message": "For dual-stack, networkPrefix must have matching host bits: (32 - ipv4NetworkPrefix) must equal (128 - ipv6NetworkPrefix)",
            },
        ],
    })
}
