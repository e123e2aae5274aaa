//! What all topologies share: role, IPAM, addresses as text, status.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A network's role in a pod.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
pub enum NetworkRole {
    /// Given to every pod of its namespaces, with the default route.
    Primary,
    /// Given to pods that ask for it by annotation.
    Secondary,
}

/// Who gives addresses to pods.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum IpamMode {
    /// The network.
    Enabled,
    /// Nobody: only MAC addresses are given. Secondary networks only.
    Disabled,
}

/// How long an address belongs to its owner.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum IpamLifecycle {
    /// As long as its IPAMClaim exists.
    Persistent,
}

impl JsonSchema for IpamLifecycle {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "IpamLifecycle".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "enum": ["Persistent"]})
    }
}

/// Address management of a network.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
#[x_kube(validation = Rule::new("!has(self.lifecycle) || self.lifecycle != 'Persistent' || !has(self.mode) || self.mode == 'Enabled'").message("lifecycle Persistent is only supported when ipam.mode is Enabled"))]
pub struct IpamConfig {
    /// Who gives addresses. Unset means Enabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<IpamMode>,
    /// Unset: an address is given back with its pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifecycle: Option<IpamLifecycle>,
}

/// A subnet as text, such as `10.0.0.0/16`. Text, because an object with a bad one must still be readable.
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Cidr(pub String);

/// An address as text.
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Ip(pub String);

macro_rules! text {
    ($type:ident, $schema:tt) => {
        impl $type {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $type {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }

        impl From<String> for $type {
            fn from(text: String) -> Self {
                Self(text)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }

        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

text!(Cidr, {
    "type": "string",
    "maxLength": 43,
    "x-kubernetes-validations": [{"rule": "isCIDR(self)", "message": "CIDR is invalid"}],
});
text!(Ip, {
    "type": "string",
    "x-kubernetes-validations": [{"rule": "isIP(self)", "message": "IP is invalid"}],
});

/// A CIDR without host bits.
pub(crate) fn network_cidr(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 43,
        "x-kubernetes-validations": [{
            "rule": "isCIDR(self) && cidr(self) == cidr(self).masked()",
            "message": "CIDR must be a valid network address",
        }],
    })
}

/// One or two CIDRs, of different families.
pub(crate) fn dual_stack_cidrs(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": Cidr::json_schema(generator),
        "minItems": 1,
        "maxItems": 2,
        "x-kubernetes-validations": [{
            "rule": "size(self) != 2 || !isCIDR(self[0]) || !isCIDR(self[1]) || cidr(self[0]).ip().family() != cidr(self[1]).ip().family()",
            "message": "When 2 CIDRs are set, they must be from different IP families",
        }],
    })
}

/// As [`dual_stack_cidrs`], and it never changes.
pub(crate) fn immutable_join_subnets(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = dual_stack_cidrs(generator);
    if let Some(rules) = schema.get_mut("x-kubernetes-validations").and_then(serde_json::Value::as_array_mut) {
        rules.insert(0, serde_json::json!({"rule": "self == oldSelf", "message": "joinSubnets is immutable"}));
    }
    schema
}

/// One or two addresses, of different families.
pub(crate) fn dual_stack_ips(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": Ip::json_schema(generator),
        "minItems": 1,
        "maxItems": 2,
        "x-kubernetes-validations": [{
            "rule": "size(self) != 2 || !isIP(self[0]) || !isIP(self[1]) || ip(self[0]).family() != ip(self[1]).family()",
            "message": "When 2 IPs are set, they must be from different IP families",
        }],
    })
}

/// A list of at most `MAX` CIDRs that is replaced as a whole.
pub(crate) fn cidr_list<const MAX: u32>(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": Cidr::json_schema(generator),
        "minItems": 1,
        "maxItems": MAX,
        "x-kubernetes-list-type": "atomic",
    })
}

/// What the network's controllers say of a UDN or CUDN.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkStatus {
    /// `NetworkCreated` and `NetworkAllocationSucceeded`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
}

/// `metav1.Condition`, keyed by type. Written out because k8s-openapi's own schemas would be compiled for all its kinds.
pub(crate) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["lastTransitionTime", "message", "reason", "status", "type"],
            "properties": {
                "lastTransitionTime": {"type": "string", "format": "date-time"},
                "message": {"type": "string", "maxLength": 32768},
                "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0},
                "reason": {"type": "string", "minLength": 1, "maxLength": 1024, "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"},
                "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
                "type": {
                    "type": "string",
                    "maxLength": 316,
                    "pattern": "^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$",
                },
            },
        },
    })
}

/// `metav1.LabelSelector`.
pub(crate) fn label_selector(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "x-kubernetes-map-type": "atomic",
        "properties": {
            "matchLabels": {"type": "object", "additionalProperties": {"type": "string"}},
            "matchExpressions": {
                "type": "array",
                "x-kubernetes-list-type": "atomic",
                "items": {
                    "type": "object",
                    "required": ["key", "operator"],
                    "properties": {
                        "key": {"type": "string"},
                        "operator": {"type": "string"},
                        "values": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "atomic"},
                    },
                },
            },
        },
    })
}
