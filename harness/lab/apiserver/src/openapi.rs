//! OpenAPI, as much as kubectl needs. Version 3: which kinds take the `fieldValidation` option, and the schemas of custom
//! resources (`kubectl explain`). Built-in kinds are described by name only.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};

use crate::resources::{Resource, Verbs};
use crate::respond::reply;
use crate::server::Cluster;
use crate::status::Rejection;

/// `/openapi/v2`: a document that describes nothing. kubectl wants one before it sends a `List`, only in protobuf, and
/// leaves kinds that it does not find there to the server.
pub(crate) async fn old_document() -> Response {
    /// `Document { swagger: "2.0" }`
    const NOTHING: &[u8] = b"\x0a\x032.0";
    let mut response = Response::new(NOTHING.into());
    let media_type = HeaderValue::from_static("application/com.github.proto-openapi.spec.v2.v1.0+protobuf");
    response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    response
}

/// `/openapi/v3`.
pub(crate) async fn index(State(cluster): State<Arc<Cluster>>) -> Response {
    let mut paths = Map::new();
    let version = cluster.store.version();
    for (group, versions) in cluster.registry.groups() {
        for api in versions {
            let path = if group.is_empty() { format!("api/{api}") } else { format!("apis/{group}/{api}") };
            // Clients may cache by this hash; custom resources can change with any write.
            let hash = if group.contains('.') && !cluster.registry.is_builtin_group(&group) { version } else { 0 };
            paths.insert(path.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}")}));
        }
    }
    reply(StatusCode::OK, &json!({ "paths": paths }))
}

/// `/openapi/v3/api/v1`, `/openapi/v3/apis/<group>/<version>`.
pub(crate) async fn document(
    State(cluster): State<Arc<Cluster>>,
    Path(path): Path<String>,
) -> Result<Response, Rejection> {
    let parts: Vec<&str> = path.split('/').collect();
    let (group, version) = match parts.as_slice() {
        ["api", version] => ("", *version),
        ["apis", group, version] => (*group, *version),
        _ => return Err(Rejection::no_such_path()),
    };
    let kinds = cluster.registry.of(group, version);
    if kinds.is_empty() {
        return Err(Rejection::no_such_path());
    }
    let mut paths = Map::new();
    let mut schemas = Map::new();
    for resource in kinds.iter().filter(|resource| resource.verbs == Verbs::All) {
        schemas.insert(schema_name(resource), schema(resource));
        describe(resource, &mut paths);
    }
    let body = json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "unversioned"},
        "paths": paths,
        "components": {"schemas": schemas},
    });
    Ok(reply(StatusCode::OK, &body))
}

/// Names as Kubernetes makes them: the group's domain reversed, version, kind.
fn schema_name(resource: &Resource) -> String {
    let mut domain: Vec<&str> = resource.group.split('.').filter(|part| !part.is_empty()).collect();
    domain.reverse();
    let prefix = match (resource.is_custom(), domain.is_empty()) {
        (true, _) => domain.join("."),
        (false, true) => "io.k8s.api.core".to_owned(),
        (false, false) => format!("io.k8s.api.{}", resource.group.split('.').next().unwrap_or_default()),
    };
    format!("{prefix}.{}.{}", resource.version, resource.kind)
}

fn identity(resource: &Resource) -> Value {
    json!({"group": resource.group, "version": resource.version, "kind": resource.kind})
}

fn schema(resource: &Resource) -> Value {
    let mut schema = match &resource.custom {
        Some(custom) => custom.schema_source.clone(),
        None => json!({"type": "object", "description": format!("{} (fields are not described)", resource.kind)}),
    };
    for (key, text) in [("apiVersion", "The API group and version."), ("kind", "The kind of the object.")] {
        schema["properties"][key] = json!({"type": "string", "description": text});
    }
    schema["properties"]["metadata"] = json!({"type": "object", "description": "Name, labels, annotations ..."});
    schema["x-kubernetes-group-version-kind"] = json!([identity(resource)]);
    schema
}

fn describe(resource: &Resource, paths: &mut Map<String, Value>) {
    let root = match resource.group.as_str() {
        "" => format!("/api/{}", resource.version),
        group => format!("/apis/{group}/{}", resource.version),
    };
    let scope = if resource.namespaced { "/namespaces/{namespace}" } else { "" };
    let collection = format!("{root}{scope}/{}", resource.plural);
    let options = |names: &[&str]| -> Vec<Value> {
        names
            .iter()
            .map(|name| json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}}))
            .collect()
    };
    let reference = json!({"$ref": format!("#/components/schemas/{}", schema_name(resource))});
    let content = json!({"application/json": {"schema": reference}});
    let answer = json!({"200": {"description": "OK", "content": content}});
    let verb = |action: &str, names: &[&str]| {
        json!({
            "operationId": format!("{action}{}{}", resource.version, resource.kind),
            "parameters": options(names), "responses": answer,
            "x-kubernetes-action": action, "x-kubernetes-group-version-kind": identity(resource),
        })
    };
    let with_body = |action: &str| {
        let mut verb = verb(action, &["dryRun", "fieldManager", "fieldValidation"]);
        verb["requestBody"] = json!({ "content": content });
        verb
    };
    let mut patch = verb("patch", &["dryRun", "fieldManager", "fieldValidation", "force"]);
    // Strategic merge patches are taken too, but kubectl must compute them from its own types: it would look for merge
    // keys in the schema here if that media type were named.
    let any = json!({"schema": {"type": "object"}});
    patch["requestBody"] = json!({"content": {
        "application/json-patch+json": any, "application/merge-patch+json": any, "application/apply-patch+yaml": any,
    }});
    paths.insert(
        collection.clone(),
        json!({
            "get": verb("list", &["labelSelector", "fieldSelector", "limit", "continue", "watch"]),
            "post": with_body("post"),
            "delete": verb("deletecollection", &["dryRun"]),
        }),
    );
    paths.insert(
        format!("{collection}/{{name}}"),
        json!({
            "get": verb("get", &[]), "put": with_body("put"), "patch": patch,
            "delete": verb("delete", &["dryRun"]),
        }),
    );
}
