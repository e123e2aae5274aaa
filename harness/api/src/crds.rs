//! All kinds as CustomResourceDefinitions.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;

use crate::{
    ClusterNetworkConnect, ClusterUserDefinedNetwork, IpamClaim, NetworkAttachmentDefinition, UserDefinedNetwork, Vtep,
};

/// Every kind of this crate, ready to be created in an API server.
#[must_use]
pub fn crds() -> Vec<CustomResourceDefinition> {
    let mut all = vec![
        UserDefinedNetwork::crd(),
        ClusterUserDefinedNetwork::crd(),
        NetworkAttachmentDefinition::crd(),
        IpamClaim::crd(),
        Vtep::crd(),
        ClusterNetworkConnect::crd(),
    ];
    for version in all.iter_mut().flat_map(|crd| &mut crd.spec.versions) {
        if let Some(schema) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) {
            forbid_null(schema);
        }
    }
    all.extend(crate::kubevirt::crds());
    all
}

/// OVN-Kubernetes' fields may be absent, but not `null`; a derived schema calls every optional field nullable, and
/// `has(self.field)` in its rules would be true for a null.
fn forbid_null(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    if let Some(values) = &mut schema.enum_ {
        values.retain(|value| !value.0.is_null());
    }
    for property in schema.properties.iter_mut().flat_map(|properties| properties.values_mut()) {
        forbid_null(property);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        forbid_null(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        forbid_null(values);
    }
}
