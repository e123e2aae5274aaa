//! The scale subresource: a number of replicas, for built-in and custom kinds alike.

use axum::response::Response;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::Call;
use crate::json::{at, map, name, namespace};
use crate::patch::Patch;
use crate::request::content_type;
use crate::resources::Resource;
use crate::respond::reply;
use crate::status::{FieldError, Rejection};
use crate::write::{Proposed, parse_body};

/// Where a kind keeps what scale shows.
struct Paths<'a> {
    replicas: Vec<&'a str>,
    observed: Vec<&'a str>,
    selector: Option<Vec<&'a str>>,
}

fn paths(resource: &Resource) -> Paths<'_> {
    fn split(path: &str) -> Vec<&str> {
        path.split('.').filter(|part| !part.is_empty()).collect()
    }
    match resource.custom.as_ref().and_then(|custom| custom.scale.as_ref()) {
        Some(scale) => Paths {
            replicas: split(&scale.replicas),
            observed: split(&scale.observed),
            selector: scale.selector.as_deref().map(split),
        },
        None => Paths {
            replicas: vec!["spec", "replicas"],
            observed: vec!["status", "replicas"],
            selector: Some(vec!["spec", "selector"]),
        },
    }
}

fn scale(resource: &Resource, object: &Value) -> Value {
    let paths = paths(resource);
    let metadata = &object["metadata"];
    let number = |path: &[&str]| at(object, path).and_then(Value::as_i64).unwrap_or(0);
    let mut scale = json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": name(object), "namespace": namespace(object), "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"], "creationTimestamp": metadata["creationTimestamp"],
        },
        "spec": {"replicas": number(&paths.replicas)},
        "status": {"replicas": number(&paths.observed)},
    });
    if let Some(selector) = paths.selector.and_then(|path| at(object, &path)) {
        scale["status"]["selector"] = match selector {
            Value::String(text) => text.clone().into(),
            other => written(other).into(),
        };
    }
    scale
}

/// A label selector as text.
fn written(selector: &Value) -> String {
    let labels = selector.get("matchLabels").unwrap_or(selector);
    let mut terms: Vec<String> = labels
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| value.as_str().map(|value| format!("{key}={value}")))
        .collect();
    for expression in selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
        let key = expression["key"].as_str().unwrap_or_default();
        let values: Vec<&str> =
            expression["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        terms.push(match expression["operator"].as_str() {
            Some("In") => format!("{key} in ({})", values.join(",")),
            Some("NotIn") => format!("{key} notin ({})", values.join(",")),
            Some("Exists") => key.to_owned(),
            _ => format!("!{key}"),
        });
    }
    terms.join(",")
}

pub(super) fn get(call: &Call) -> Result<Response, Rejection> {
    let object = call.current().ok_or_else(|| call.not_found())?;
    Ok(reply(StatusCode::OK, &scale(call.resource(), &object)))
}

pub(super) fn change(call: &Call, method: &Method, body: &[u8]) -> Result<Response, Rejection> {
    let resource = call.resource();
    let patch = if method == Method::PUT { None } else { Some(Patch::read_plain(content_type(&call.headers), body)?) };
    let replacement = if patch.is_none() { Some(parse_body(body)?) } else { None };
    let mut writer = call.writer();
    let updated = writer.update(call.target.name_key(), |current| {
        let before = scale(resource, current);
        let after = match (&patch, &replacement) {
            (Some(patch), _) => patch.applied_plain(&before)?,
            (None, Some(replacement)) => replacement.clone(),
            (None, None) => before.clone(),
        };
        let wanted = at(&after, &["spec", "replicas"]).cloned().unwrap_or_else(|| 0.into());
        let Some(replicas) = wanted.as_i64().filter(|n| *n >= 0) else {
            let error = FieldError::invalid("spec.replicas", &wanted, "must be greater than or equal to 0");
            return Err(Rejection::invalid("Scale.autoscaling", name(current), &[error]));
        };
        let mut next = current.clone();
        let paths = paths(resource);
        let mut slot = &mut next;
        for key in &paths.replicas {
            slot = map(slot).entry(*key).or_insert(Value::Null);
        }
        *slot = replicas.into();
        if let Some(version) = after["metadata"]["resourceVersion"].as_str().filter(|version| !version.is_empty()) {
            next["metadata"]["resourceVersion"] = version.into();
        }
        Ok(Proposed::change(next))
    })?;
    Ok(reply(StatusCode::OK, &scale(resource, &updated)))
}
