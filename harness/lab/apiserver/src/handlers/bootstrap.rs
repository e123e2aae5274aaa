//! What every cluster has from the start: namespaces, and roles for everybody.

use serde_json::{Value, json};

use crate::server::Cluster;
use crate::write::Writer;

const RBAC: &str = "rbac.authorization.k8s.io";
const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// Creates it.
pub(crate) fn bootstrap(cluster: &Cluster) {
    for name in NAMESPACES {
        create(cluster, "", "namespaces", json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}));
    }
    for (name, rules, group) in roles() {
        let api_version = format!("{RBAC}/v1");
        let role =
            json!({"apiVersion": api_version, "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules});
        let binding = json!({
            "apiVersion": api_version, "kind": "ClusterRoleBinding", "metadata": {"name": name},
            "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": name},
            "subjects": [{"apiGroup": RBAC, "kind": "Group", "name": group}],
        });
        create(cluster, RBAC, "clusterroles", role);
        create(cluster, RBAC, "clusterrolebindings", binding);
    }
}

/// Name, rules and the group that has them.
fn roles() -> [(&'static str, Value, &'static str); 3] {
    let everything = json!([
        {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
        {"nonResourceURLs": ["*"], "verbs": ["*"]},
    ]);
    let paths = [
        "/api",
        "/api/*",
        "/apis",
        "/apis/*",
        "/healthz",
        "/livez",
        "/openapi",
        "/openapi/*",
        "/readyz",
        "/version",
        "/version/",
    ];
    let reviews = json!([
        {"apiGroups": ["authorization.k8s.io"], "verbs": ["create"],
            "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"]},
        {"apiGroups": ["authentication.k8s.io"], "resources": ["selfsubjectreviews"], "verbs": ["create"]},
    ]);
    [
        ("cluster-admin", everything, "system:masters"),
        ("system:discovery", json!([{"nonResourceURLs": paths, "verbs": ["get"]}]), "system:authenticated"),
        ("system:basic-user", reviews, "system:authenticated"),
    ]
}

fn create(cluster: &Cluster, group: &str, plural: &str, object: Value) {
    let Some(resource) = cluster.registry.find(group, "v1", plural) else { return };
    if let Err(rejection) = Writer::of_server(cluster, &resource, "").create(object) {
        tracing::error!(%rejection, plural, "cannot create what every cluster has");
    }
}
