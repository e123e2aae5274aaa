//! Delete, one object or a selection.

use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use super::{Call, read};
use crate::json::{at, name, namespace, text};
use crate::request::Form;
use crate::respond::{reply, shown, success};
use crate::status::Rejection;
use crate::write::{DeleteOptions, Deleted, parse_body};

pub(super) fn options(call: &Call, body: &[u8]) -> Result<DeleteOptions, Rejection> {
    let given = if body.is_empty() { json!({}) } else { parse_body(body)? };
    let mut options = DeleteOptions::read(&given)?;
    if let Some(secs) = call.options.number("gracePeriodSeconds")? {
        options.grace = i64::try_from(secs).ok();
    }
    if let Some(policy) = call.options.get("propagationPolicy") {
        options.propagation = Some(policy.to_owned());
    }
    if call.options.on("orphanDependents") {
        options.propagation = Some("Orphan".into());
    }
    options.dry_run |= call.options.dry_run()?;
    Ok(options)
}

pub(super) fn one(call: &Call, body: &[u8]) -> Result<Response, Rejection> {
    let options = options(call, body)?;
    let mut writer = call.writer();
    writer.dry_run = options.dry_run;
    let deleted = writer.delete(call.target.name_key(), &options)?;
    // kubectl and kube tell the two answers apart by kind: an object that is still there, or a Status.
    let keeps_object = call.resource().is("", "pods") || call.resource().is("", "namespaces");
    let body = match &deleted {
        Deleted::Marked(object) => shown(call.resource(), object),
        Deleted::Gone(object) if keeps_object => shown(call.resource(), object),
        Deleted::Gone(object) => success(call.resource(), name(object), text(object, &["metadata", "uid"])),
    };
    Ok(reply(StatusCode::OK, &body))
}

pub(super) fn collection(call: &Call, body: &[u8]) -> Result<Response, Rejection> {
    let options = options(call, body)?;
    let (version, objects) = read::selected(call)?;
    let mut items: Vec<Value> = Vec::new();
    for object in objects {
        let mut writer = call.writer();
        writer.dry_run = options.dry_run;
        writer.namespace = namespace(&object);
        match writer.delete(name(&object), &options) {
            Ok(Deleted::Marked(object) | Deleted::Gone(object)) => items.push(shown(call.resource(), &object)),
            // Gone in the meantime, or another object of that name: either way not one of the selection.
            Err(rejection) if rejection.code == 404 || rejection.code == 409 => {}
            Err(rejection) => return Err(rejection),
        }
    }
    let resource = call.resource();
    let metadata = json!({"resourceVersion": version.to_string()});
    if call.form == Form::Metadata {
        let items: Vec<Value> = items.iter().map(|item| json!({"metadata": at(item, &["metadata"])})).collect();
        let body = json!({
            "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "items": items,
        });
        return Ok(reply(StatusCode::OK, &body));
    }
    let body = json!({
        "kind": format!("{}List", resource.kind), "apiVersion": resource.api_version(),
        "metadata": metadata, "items": items,
    });
    Ok(reply(StatusCode::OK, &body))
}
