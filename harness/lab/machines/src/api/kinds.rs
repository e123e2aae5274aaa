//! Which subresources there are. A server that aggregates asks for all three documents.

use axum::Json;
use serde_json::{Value, json};

use super::{API_GROUP, API_VERSION};

pub(super) const INSTANCES: &str = "virtualmachineinstances";
pub(super) const MACHINES: &str = "virtualmachines";

/// Plural, subresource, verb.
const ALL: [(&str, &str, &str); 7] = [
    (INSTANCES, "console", "get"),
    (INSTANCES, "pause", "update"),
    (INSTANCES, "unpause", "update"),
    (MACHINES, "start", "update"),
    (MACHINES, "stop", "update"),
    (MACHINES, "restart", "update"),
    (MACHINES, "migrate", "update"),
];

/// The verb of a subresource; none where there is no such.
pub(super) fn verb(plural: &str, name: &str) -> Option<&'static str> {
    ALL.iter().find(|(parent, sub, _)| *parent == plural && *sub == name).map(|(.., verb)| *verb)
}

/// `/apis/<group>/<version>`.
pub(super) async fn resources() -> Json<Value> {
    let entry = |(plural, name, verb): &(&str, &str, &str)| {
        json!({
            "name": format!("{plural}/{name}"), "singularName": "", "namespaced": true, "kind": "", "verbs": [verb],
        })
    };
    let resources: Vec<Value> = ALL.iter().map(entry).collect();
    Json(json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": format!("{API_GROUP}/{API_VERSION}"),
        "resources": resources,
    }))
}

/// `/apis/<group>`.
pub(super) async fn group() -> Json<Value> {
    let mut group = description();
    group["kind"] = "APIGroup".into();
    group["apiVersion"] = "v1".into();
    Json(group)
}

/// `/apis`.
pub(super) async fn groups() -> Json<Value> {
    Json(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [description()]}))
}

fn description() -> Value {
    let version = json!({"groupVersion": format!("{API_GROUP}/{API_VERSION}"), "version": API_VERSION});
    json!({"name": API_GROUP, "versions": [version], "preferredVersion": version})
}
