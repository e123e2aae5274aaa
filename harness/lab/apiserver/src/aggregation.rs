//! Groups that somebody else serves, behind this server: what Kubernetes calls aggregation.
//!
//! Their requests have passed authentication and authorization here, and are handed over as they came, upgrades included,
//! but for the client's credentials. What kinds such a group has is asked of its router, as Kubernetes asks it of the
//! servers that it aggregates.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::{HeaderName, StatusCode, header};
use serde_json::{Map, Value, json};
use tower::ServiceExt;
use tracing::warn;

use crate::json::{list, text};
use crate::resources::group_version;
use crate::server::ApiServer;

/// Longest list of kinds that is read, bytes.
const LONGEST_LIST: usize = 1024 * 1024;

/// Routers by group and version.
#[derive(Default)]
pub(crate) struct Aggregated(RwLock<BTreeMap<(String, String), Router>>);

impl ApiServer {
    /// Hands all requests below `/apis/<group>/<version>` to `router` from now on: to its own paths, which begin so, and after
    /// the client was found to have the right. A router that was given before for the same group and version is replaced.
    ///
    /// `GET /apis/<group>/<version>` of the router must answer with an `APIResourceList`; discovery is made from it.
    pub fn aggregate(&self, group: &str, version: &str, router: Router) {
        let key = (group.to_owned(), version.to_owned());
        self.state.aggregated.0.write().unwrap_or_else(PoisonError::into_inner).insert(key, router);
    }
}

impl Aggregated {
    /// Who serves a group's version.
    pub(crate) fn find(&self, group: &str, version: &str) -> Option<Router> {
        let key = (group.to_owned(), version.to_owned());
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&key).cloned()
    }

    /// Groups and their versions.
    pub(crate) fn all(&self) -> Vec<(String, String)> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }
}

/// Hands a request over, without what says who sent it.
pub(crate) async fn hand_over(router: Router, mut request: Request) -> Response {
    let names: Vec<HeaderName> = request.headers().keys().cloned().collect();
    for name in names.iter().filter(|name| **name == header::AUTHORIZATION || name.as_str().starts_with("impersonate-"))
    {
        request.headers_mut().remove(name);
    }
    let Ok(response) = router.oneshot(request).await;
    response
}

/// A group's version in aggregated discovery. One whose router does not say what there is is shown without kinds, as stale.
pub(crate) async fn discover(router: Router, group: &str, version: &str) -> Value {
    match kinds(router, group, version).await {
        Ok(kinds) => {
            json!({"version": version, "resources": resources(&kinds, group, version), "freshness": "Current"})
        }
        Err(error) => {
            warn!(group, version, error, "an aggregated group does not say what kinds it has");
            json!({"version": version, "resources": [], "freshness": "Stale"})
        }
    }
}

async fn kinds(router: Router, group: &str, version: &str) -> Result<Vec<Value>, String> {
    let path = format!("/apis/{}", group_version(group, version));
    let request = Request::get(&path).body(Body::empty()).map_err(|error| format!("GET {path}: {error}"))?;
    let (parts, body) = hand_over(router, request).await.into_parts();
    if parts.status != StatusCode::OK {
        return Err(format!("GET {path} was answered with {}", parts.status));
    }
    let body = axum::body::to_bytes(body, LONGEST_LIST).await.map_err(|error| format!("GET {path}: {error}"))?;
    let answer: Value = serde_json::from_slice(&body).map_err(|error| format!("GET {path}: {error}"))?;
    Ok(list(&answer, &["resources"]).to_vec())
}

/// Kinds as aggregated discovery has them, subresources below their parents, as Kubernetes converts such lists. A
/// subresource whose parent is not in the list gets one that can do nothing itself.
fn resources(kinds: &[Value], group: &str, version: &str) -> Vec<Value> {
    let response_kind = |entry: &Value| {
        let or = |key: &str, default: &str| match text(entry, &[key]) {
            "" => default.to_owned(),
            said => said.to_owned(),
        };
        match text(entry, &["kind"]) {
            "" => json!({"group": "", "version": "", "kind": ""}),
            kind => json!({"group": or("group", group), "version": or("version", version), "kind": kind}),
        }
    };
    let scope = |entry: &Value| if entry["namespaced"] == true { "Namespaced" } else { "Cluster" };
    let name = |entry: &Value| text(entry, &["name"]).to_owned();
    let (below, own): (Vec<&Value>, Vec<&Value>) = kinds.iter().partition(|entry| name(entry).contains('/'));
    let mut all: Vec<Value> = Vec::new();
    for entry in own {
        let mut resource = Map::new();
        resource.insert("resource".into(), name(entry).into());
        resource.insert("responseKind".into(), response_kind(entry));
        resource.insert("scope".into(), scope(entry).into());
        resource.insert("singularResource".into(), text(entry, &["singularName"]).into());
        for key in ["verbs", "shortNames", "categories"] {
            if let Some(value) = entry.get(key) {
                resource.insert(key.into(), value.clone());
            }
        }
        all.push(resource.into());
    }
    for entry in below {
        let full = name(entry);
        let (parent, below) = full.split_once('/').unwrap_or((&full, ""));
        let sub = json!({"subresource": below, "responseKind": response_kind(entry), "verbs": entry["verbs"]});
        let at = all.iter().position(|resource| resource["resource"] == parent).unwrap_or_else(|| {
            all.push(json!({
                "resource": parent, "responseKind": response_kind(&Value::Null), "scope": scope(entry),
                "singularResource": "", "verbs": [],
            }));
            all.len() - 1
        });
        match all[at]["subresources"].as_array_mut() {
            Some(subs) => subs.push(sub),
            None => all[at]["subresources"] = json!([sub]),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subresources_come_below_their_parents_whether_those_are_listed_or_not() {
        let kinds = [
            json!({"name": "boats/sink", "namespaced": true, "kind": "", "verbs": ["update"]}),
            json!({"name": "boats", "singularName": "boat", "namespaced": true, "kind": "Boat", "verbs": ["get"],
                "shortNames": ["bt"]}),
            json!({"name": "boats/crew", "namespaced": true, "kind": "Crew", "group": "people.io", "version": "v2",
                "verbs": ["get"]}),
            json!({"name": "seas/dry", "namespaced": false, "kind": "", "verbs": ["update"]}),
        ];
        let none = json!({"group": "", "version": "", "kind": ""});
        let expected = json!([
            {"resource": "boats", "singularResource": "boat", "scope": "Namespaced", "verbs": ["get"], "shortNames": ["bt"],
                "responseKind": {"group": "sea.io", "version": "v1", "kind": "Boat"}, "subresources": [
                    {"subresource": "sink", "responseKind": none, "verbs": ["update"]},
                    {"subresource": "crew", "verbs": ["get"],
                        "responseKind": {"group": "people.io", "version": "v2", "kind": "Crew"}},
                ]},
            {"resource": "seas", "singularResource": "", "scope": "Cluster", "verbs": [], "responseKind": none,
                "subresources": [{"subresource": "dry", "responseKind": none, "verbs": ["update"]}]},
        ]);
        assert_eq!(Value::from(resources(&kinds, "sea.io", "v1")), expected);
    }
}
