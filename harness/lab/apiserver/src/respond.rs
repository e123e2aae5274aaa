//! Answers: objects in the form that the client accepts.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use crate::json::{map, remove};
use crate::resources::Resource;
use crate::status::Rejection;

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        let code = StatusCode::from_u16(self.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        reply(code, &self.status())
    }
}

/// A JSON answer.
pub(crate) fn reply(code: StatusCode, body: &Value) -> Response {
    reply_bytes(code, serde_json::to_vec(body).unwrap_or_default())
}

/// A JSON answer that is text already.
pub(crate) fn reply_bytes(code: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// Adds the warnings that clients print (RFC 7234, as Kubernetes uses it).
pub(crate) fn warn(mut response: Response, warnings: &[String]) -> Response {
    for warning in warnings {
        let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
    response
}

/// `Status` of something that was done.
pub(crate) fn success(resource: &Resource, name: &str, uid: &str) -> Value {
    let mut details = json!({"name": name, "kind": resource.plural, "uid": uid});
    if !resource.group.is_empty() {
        details["group"] = resource.group.clone().into();
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}

/// An object as a resource's version shows it.
pub(crate) fn shown(resource: &Resource, object: &Value) -> Value {
    let mut object = object.clone();
    convert(resource, &mut object);
    object
}

/// Rewrites a stored object into a resource's version.
pub(crate) fn convert(resource: &Resource, object: &mut Value) {
    if resource.is("events.k8s.io", "events") {
        rename(object, EVENT_FIELDS, false);
    }
    object["apiVersion"] = resource.api_version().into();
    object["kind"] = resource.kind.clone().into();
}

/// Rewrites an object that a client sent in a resource's version into the stored one.
pub(crate) fn to_storage(resource: &Resource, object: &mut Value) {
    if resource.is("events.k8s.io", "events") {
        rename(object, EVENT_FIELDS, true);
        object["apiVersion"] = "v1".into();
    }
}

/// Fields of core/v1 Event and what events.k8s.io/v1 calls them.
const EVENT_FIELDS: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

fn rename(object: &mut Value, names: &[(&str, &str)], back: bool) {
    for &(stored, shown) in names {
        let (from, to) = if back { (shown, stored) } else { (stored, shown) };
        if let Some(value) = remove(object, from) {
            map(object).insert(to.into(), value);
        }
    }
}

/// Only type and metadata of an object.
pub(crate) fn partial(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}
