//! ValidatingAdmissionPolicies.

mod cel;
mod policy;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use crate::identity::User;
use crate::json::{list, name, text};
use crate::resources::Resource;
use crate::server::Cluster;
use crate::status::Rejection;
use policy::Policy;

pub(crate) use policy::broken_expressions;

/// A write that policies are asked about.
pub(crate) struct Attempt<'a> {
    /// `CREATE`, `UPDATE`, `DELETE`.
    pub(crate) operation: &'a str,
    pub(crate) resource: &'a Resource,
    pub(crate) subresource: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) user: &'a User,
    pub(crate) object: Option<&'a Value>,
    pub(crate) old: Option<&'a Value>,
    pub(crate) dry_run: bool,
}

impl Attempt<'_> {
    fn name(&self) -> &str {
        self.object.or(self.old).map(name).unwrap_or_default()
    }
}

/// The policies, with their expressions compiled.
#[derive(Default)]
pub(crate) struct Policies {
    compiled: Mutex<HashMap<String, Arc<Policy>>>,
}

impl Policies {
    /// Refuses a write that a bound policy denies.
    pub(crate) fn admit(&self, cluster: &Cluster, attempt: &Attempt<'_>) -> Result<(), Rejection> {
        // Policies cannot lock out those who could remove them.
        if attempt.resource.group == "admissionregistration.k8s.io" {
            return Ok(());
        }
        let (_, bindings) = cluster.store.list("admissionregistration.k8s.io/validatingadmissionpolicybindings", None);
        if bindings.is_empty() {
            return Ok(());
        }
        let namespace = if attempt.resource.namespaced {
            cluster.store.get("namespaces", "", attempt.namespace)
        } else if attempt.resource.is("", "namespaces") {
            attempt.object.or(attempt.old).map(|object| Arc::new(object.clone()))
        } else {
            None
        };
        for binding in bindings {
            let policy_name = text(&binding, &["spec", "policyName"]);
            let storage = "admissionregistration.k8s.io/validatingadmissionpolicies";
            let Some(source) = cluster.store.get(storage, "", policy_name) else { continue };
            let denies = list(&binding, &["spec", "validationActions"]).iter().any(|action| action == "Deny");
            if !denies || !policy::applies(&source["spec"]["matchConstraints"], attempt, namespace.as_deref()) {
                continue;
            }
            let limit = &binding["spec"]["matchResources"];
            if limit.is_object() && !policy::limits_to(limit, attempt, namespace.as_deref()) {
                continue;
            }
            let policy = self.compiled(&source);
            for params in params(cluster, &source, &binding) {
                if let Err(denial) = policy.evaluate(attempt, namespace.as_deref(), params.as_deref()) {
                    let message = format!(
                        "ValidatingAdmissionPolicy '{policy_name}' with binding '{}' denied request: {}",
                        name(&binding),
                        denial.message
                    );
                    let rejection = Rejection::forbidden(&attempt.resource.in_texts(), attempt.name(), &message);
                    return Err(rejection.admission(denial.code, denial.reason, &message));
                }
            }
        }
        Ok(())
    }

    fn compiled(&self, source: &Value) -> Arc<Policy> {
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        let version = text(source, &["metadata", "resourceVersion"]);
        if let Some(policy) = compiled.get(name(source)).filter(|policy| policy.version == version) {
            return policy.clone();
        }
        let policy = Arc::new(Policy::compile(source));
        compiled.insert(name(source).to_owned(), policy.clone());
        policy
    }
}

/// The objects that a policy gets as `params`: one `None` for a policy without, the named one otherwise.
fn params(cluster: &Cluster, policy: &Value, binding: &Value) -> Vec<Option<Arc<Value>>> {
    let kind = &policy["spec"]["paramKind"];
    let reference = &binding["spec"]["paramRef"];
    if !kind.is_object() || !reference.is_object() {
        return vec![None];
    }
    let (group, version) = text(kind, &["apiVersion"]).split_once('/').unwrap_or(("", text(kind, &["apiVersion"])));
    let wanted = text(kind, &["kind"]);
    let resource = cluster.registry.of(group, version).into_iter().find(|resource| resource.kind == wanted);
    let Some(resource) = resource else { return Vec::new() };
    let namespace = text(reference, &["namespace"]);
    let found = cluster.store.get(&resource.storage, namespace, text(reference, &["name"]));
    found.map(Some).into_iter().collect()
}
