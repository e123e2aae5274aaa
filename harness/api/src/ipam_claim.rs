//! `IPAMClaim`: addresses that outlive a pod. As in k8snetworkplumbingwg/ipamclaims v0.5.1-alpha, which has neither short
//! names nor columns of its own.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::shared::conditions;

/// Whose addresses are kept, and on which network.
#[derive(Clone, CustomResource, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "k8s.cni.cncf.io",
    version = "v1alpha1",
    kind = "IPAMClaim",
    root = "IpamClaim",
    plural = "ipamclaims",
    singular = "ipamclaim",
    namespaced,
    status = "IpamClaimStatus"
)]
pub struct IpamClaimSpec {
    /// The network's name.
    pub network: String,
    /// The interface in the pod.
    pub interface: String,
}

/// What was given.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IpamClaimStatus {
    /// Addresses in CIDR form; empty where none could be given.
    pub ips: Vec<String>,
    /// The pod that uses them now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner_pod: Option<OwnerPod>,
    /// `IPsAllocated`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
}

/// A pod of the claim's namespace.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct OwnerPod {
    /// Its name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
}
