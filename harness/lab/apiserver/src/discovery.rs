//! What clients ask to learn which kinds there are: `/version`, `/api`, `/apis`, in the old form (a document per
//! group and version) and the aggregated one (one document).

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use crate::aggregation;
use crate::request::Form;
use crate::resources::{Resource, group_version};
use crate::respond::reply;
use crate::server::Cluster;
use crate::status::Rejection;

/// The Kubernetes version that this server speaks: that of the types it checks objects with.
pub(crate) const MINOR: &str = "33";

/// `/version`.
pub(crate) async fn version() -> Response {
    let version = json!({
        "major": "1", "minor": MINOR, "gitVersion": format!("v1.{MINOR}.0+udn-lab"),
        "gitCommit": "", "gitTreeState": "", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "", "compiler": "rustc", "platform": format!("linux/{}", std::env::consts::ARCH),
    });
    reply(StatusCode::OK, &version)
}

/// `/api`.
pub(crate) async fn core(State(cluster): State<Arc<Cluster>>, headers: HeaderMap) -> Result<Response, Rejection> {
    if Form::accepted(&headers)? == Form::Aggregated {
        return Ok(aggregated(&cluster, |group| group.is_empty()).await);
    }
    let body = json!({
        "kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [],
    });
    Ok(reply(StatusCode::OK, &body))
}

/// `/apis`.
pub(crate) async fn groups(State(cluster): State<Arc<Cluster>>, headers: HeaderMap) -> Result<Response, Rejection> {
    if Form::accepted(&headers)? == Form::Aggregated {
        return Ok(aggregated(&cluster, |group| !group.is_empty()).await);
    }
    let groups: Vec<Value> = all_groups(&cluster)
        .iter()
        .filter(|(group, _)| !group.is_empty())
        .map(|(group, versions)| describe_group(group, versions))
        .collect();
    Ok(reply(StatusCode::OK, &json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})))
}

/// Groups with their versions, those that somebody else serves included.
fn all_groups(cluster: &Cluster) -> std::collections::BTreeMap<String, Vec<String>> {
    let mut groups = cluster.registry.groups();
    for (group, version) in cluster.aggregated.all() {
        let versions = groups.entry(group).or_default();
        if !versions.contains(&version) {
            versions.push(version);
        }
    }
    groups
}

/// `/apis/<group>`.
pub(crate) async fn group(
    State(cluster): State<Arc<Cluster>>,
    Path(group): Path<String>,
) -> Result<Response, Rejection> {
    let groups = all_groups(&cluster);
    let versions = groups.get(&group).filter(|_| !group.is_empty()).ok_or_else(Rejection::no_such_path)?;
    let mut body = describe_group(&group, versions);
    body["kind"] = "APIGroup".into();
    body["apiVersion"] = "v1".into();
    Ok(reply(StatusCode::OK, &body))
}

fn describe_group(group: &str, versions: &[String]) -> Value {
    let describe = |version: &String| json!({"groupVersion": group_version(group, version), "version": version});
    json!({
        "name": group,
        "versions": versions.iter().map(describe).collect::<Vec<_>>(),
        "preferredVersion": versions.first().map(describe),
    })
}

/// `/api/v1`, `/apis/<group>/<version>`: the kinds of one group and version.
pub(crate) fn kinds(cluster: &Cluster, group: &str, version: &str) -> Result<Response, Rejection> {
    let found = cluster.registry.of(group, version);
    if found.is_empty() {
        return Err(Rejection::no_such_path());
    }
    let mut resources = Vec::new();
    for resource in &found {
        let mut entry = json!({
            "name": resource.plural, "singularName": resource.singular, "namespaced": resource.namespaced,
            "kind": resource.kind, "verbs": resource.verbs.names(),
        });
        if !resource.short.is_empty() {
            entry["shortNames"] = json!(resource.short);
        }
        if !resource.categories.is_empty() {
            entry["categories"] = json!(resource.categories);
        }
        resources.push(entry);
        for sub in &resource.subresources {
            let mut entry = json!({
                "name": format!("{}/{}", resource.plural, sub.name), "singularName": "",
                "namespaced": resource.namespaced, "kind": resource.kind, "verbs": sub.verbs,
            });
            if let Some((group, version, kind)) = sub.kind {
                entry["group"] = group.into();
                entry["version"] = version.into();
                entry["kind"] = kind.into();
            }
            resources.push(entry);
        }
    }
    let body = json!({
        "kind": "APIResourceList", "apiVersion": "v1",
        "groupVersion": group_version(group, version), "resources": resources,
    });
    Ok(reply(StatusCode::OK, &body))
}

async fn aggregated(cluster: &Cluster, wanted: impl Fn(&str) -> bool) -> Response {
    let mut items = Vec::new();
    for (group, versions) in all_groups(cluster) {
        if !wanted(&group) {
            continue;
        }
        let mut described = Vec::new();
        for version in &versions {
            described.push(match cluster.aggregated.find(&group, version) {
                Some(router) => aggregation::discover(router, &group, version).await,
                None => {
                    let kinds = cluster.registry.of(&group, version);
                    let resources: Vec<Value> = kinds.iter().map(|resource| aggregate(resource)).collect();
                    json!({"version": version, "resources": resources, "freshness": "Current"})
                }
            });
        }
        let mut metadata = json!({"creationTimestamp": null});
        if !group.is_empty() {
            metadata["name"] = group.into();
        }
        items.push(json!({"metadata": metadata, "versions": described}));
    }
    let body = json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items,
    });
    let mut response = reply(StatusCode::OK, &body);
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"),
    );
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    response
}

fn aggregate(resource: &Resource) -> Value {
    let scope = if resource.namespaced { "Namespaced" } else { "Cluster" };
    let own = json!({"group": resource.group, "version": resource.version, "kind": resource.kind});
    let mut entry = json!({
        "resource": resource.plural, "responseKind": own, "scope": scope,
        "singularResource": resource.singular, "verbs": resource.verbs.names(),
    });
    if !resource.short.is_empty() {
        entry["shortNames"] = json!(resource.short);
    }
    if !resource.categories.is_empty() {
        entry["categories"] = json!(resource.categories);
    }
    if !resource.subresources.is_empty() {
        let subresources: Vec<Value> = resource
            .subresources
            .iter()
            .map(|sub| {
                let kind = match sub.kind {
                    Some((group, version, kind)) => json!({"group": group, "version": version, "kind": kind}),
                    None => own.clone(),
                };
                json!({"subresource": sub.name, "responseKind": kind, "verbs": sub.verbs})
            })
            .collect();
        entry["subresources"] = subresources.into();
    }
    entry
}
