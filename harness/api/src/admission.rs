//! The admission rules that OVN-Kubernetes ships beside its kinds.
//!
//! Its own expressions read `metadata.labels` and `metadata.annotations` unguarded; these say the same of objects that
//! have none.

use k8s_openapi::api::admissionregistration::v1::{
    MatchResources, NamedRuleWithOperations, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
    ValidatingAdmissionPolicyBindingSpec, ValidatingAdmissionPolicySpec, Validation,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Each policy with the binding that puts it in force.
#[must_use]
pub fn admission_policies() -> Vec<(ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding)> {
    vec![
        policy(
            "user-defined-networks-namespace-label",
            "namespaces",
            "(has(oldObject.metadata.labels) && 'k8s.ovn.org/primary-user-defined-network' in oldObject.metadata.labels) == \
             (has(object.metadata.labels) && 'k8s.ovn.org/primary-user-defined-network' in object.metadata.labels)",
            "The 'k8s.ovn.org/primary-user-defined-network' label cannot be added/removed after the namespace was created",
        ),
        policy(
            "default-network-annotation",
            "pods",
            "(has(oldObject.metadata.annotations) && 'v1.multus-cni.io/default-network' in oldObject.metadata.annotations) \
             ? (has(object.metadata.annotations) && 'v1.multus-cni.io/default-network' in object.metadata.annotations \
             && oldObject.metadata.annotations['v1.multus-cni.io/default-network'] == object.metadata.annotations['v1.multus-cni.io/default-network']) \
             : !(has(object.metadata.annotations) && 'v1.multus-cni.io/default-network' in object.metadata.annotations)",
            "The 'v1.multus-cni.io/default-network' annotation cannot be changed after the pod was created",
        ),
    ]
}

fn policy(
    name: &str,
    resource: &str,
    expression: &str,
    message: &str,
) -> (ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding) {
    let constraints = MatchResources {
        resource_rules: Some(vec![NamedRuleWithOperations {
            api_groups: Some(vec![String::new()]),
            api_versions: Some(vec!["v1".into()]),
            operations: Some(vec!["UPDATE".into()]),
            resources: Some(vec![resource.into()]),
            ..Default::default()
        }]),
        ..Default::default()
    };
    let metadata = |name: String| ObjectMeta { name: Some(name), ..Default::default() };
    (
        ValidatingAdmissionPolicy {
            metadata: metadata(name.into()),
            spec: Some(ValidatingAdmissionPolicySpec {
                failure_policy: Some("Fail".into()),
                match_constraints: Some(constraints.clone()),
                validations: Some(vec![Validation {
                    expression: expression.into(),
                    message: Some(message.into()),
                    ..Default::default()
                }]),
                ..Default::default()
            }),
            status: None,
        },
        ValidatingAdmissionPolicyBinding {
            metadata: metadata(format!("{name}-binding")),
            spec: Some(ValidatingAdmissionPolicyBindingSpec {
                policy_name: Some(name.into()),
                validation_actions: Some(vec!["Deny".into()]),
                match_resources: Some(constraints),
                ..Default::default()
            }),
        },
    )
}
