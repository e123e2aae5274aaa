//! What bindings grant a user.

use std::sync::Arc;

use serde_json::Value;

use crate::identity::{User, account_name};
use crate::json::{list, name, namespace, text};
use crate::selectors::Selector;
use crate::server::Cluster;
use crate::store::Store;

const ROLES: &str = "rbac.authorization.k8s.io/roles";
const CLUSTER_ROLES: &str = "rbac.authorization.k8s.io/clusterroles";
const BINDINGS: &str = "rbac.authorization.k8s.io/rolebindings";
const CLUSTER_BINDINGS: &str = "rbac.authorization.k8s.io/clusterrolebindings";

/// One rule that a user has.
pub(crate) struct Grant {
    pub(crate) rule: Value,
    /// Whether it holds for the whole cluster.
    pub(crate) everywhere: bool,
    /// Which binding gives it, as Kubernetes words it.
    pub(crate) reason: String,
}

/// What a user has by bindings for the whole cluster, and by those of a namespace where one is named.
pub(crate) fn granted<'a>(
    cluster: &'a Cluster,
    user: &'a User,
    within: &'a str,
) -> impl Iterator<Item = Grant> + use<'a> {
    let store = &cluster.store;
    let (_, everywhere) = store.list(CLUSTER_BINDINGS, None);
    let there = if within.is_empty() { Vec::new() } else { store.list(BINDINGS, Some(within)).1 };
    everywhere.into_iter().chain(there).flat_map(move |binding| of_binding(store, user, &binding))
}

fn of_binding(store: &Store, user: &User, binding: &Arc<Value>) -> Vec<Grant> {
    let within = namespace(binding);
    let mut subjects = list(binding, &["subjects"]).iter();
    let Some(subject) = subjects.find(|subject| is_meant(user, subject, within)) else { return Vec::new() };
    let (kind, role) = (text(binding, &["roleRef", "kind"]), text(binding, &["roleRef", "name"]));
    let rules = match kind {
        "ClusterRole" => cluster_rules(store, role),
        _ => store.get(ROLES, within, role).map(|role| list(&role, &["rules"]).to_vec()).unwrap_or_default(),
    };
    let itself = if within.is_empty() {
        format!("ClusterRoleBinding {:?}", name(binding))
    } else {
        format!("RoleBinding {:?}", format!("{}/{within}", name(binding)))
    };
    let reason = format!("RBAC: allowed by {itself} of {kind} {role:?} to {}", described(subject, within));
    let grant = |rule| Grant { rule, everywhere: within.is_empty(), reason: reason.clone() };
    rules.into_iter().map(grant).collect()
}

/// A cluster role's own rules, and those of the roles that it aggregates.
fn cluster_rules(store: &Store, role: &str) -> Vec<Value> {
    let Some(role) = store.get(CLUSTER_ROLES, "", role) else { return Vec::new() };
    let mut rules = list(&role, &["rules"]).to_vec();
    let selectors = list(&role, &["aggregationRule", "clusterRoleSelectors"]);
    let selectors: Vec<Selector> = selectors.iter().filter_map(|one| Selector::of_object(Some(one))).collect();
    if !selectors.is_empty() {
        let (_, others) = store.list(CLUSTER_ROLES, None);
        let chosen = others.iter().filter(|other| selectors.iter().any(|selector| selector.matches(other)));
        rules.extend(chosen.flat_map(|other| list(other, &["rules"]).to_vec()));
    }
    rules
}

fn is_meant(user: &User, subject: &Value, within: &str) -> bool {
    let named = text(subject, &["name"]);
    match text(subject, &["kind"]) {
        "User" => user.name == named,
        "Group" => user.groups.iter().any(|group| group == named),
        "ServiceAccount" => user.name == account_name(place(subject, within), named),
        _ => false,
    }
}

/// The namespace of a service account: the binding's own where none is named.
fn place<'a>(subject: &'a Value, within: &'a str) -> &'a str {
    match text(subject, &["namespace"]) {
        "" => within,
        named => named,
    }
}

fn described(subject: &Value, within: &str) -> String {
    let (kind, named) = (text(subject, &["kind"]), text(subject, &["name"]));
    match kind {
        "ServiceAccount" => format!("{kind} {:?}", format!("{named}/{}", place(subject, within))),
        _ => format!("{kind} {named:?}"),
    }
}
