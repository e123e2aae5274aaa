//! Get and list.

use std::sync::Arc;

use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Call;
use crate::json::{name, namespace};
use crate::request::Form;
use crate::respond::{convert, partial, reply, reply_bytes};
use crate::selectors::Selector;
use crate::status::Rejection;
use crate::table;

pub(super) fn get(call: &Call) -> Result<Response, Rejection> {
    let object = call.current().ok_or_else(|| call.not_found())?;
    Ok(call.answer(StatusCode::OK, &object, &[]))
}

/// Where a list in pieces goes on.
#[derive(Serialize, Deserialize)]
struct Continue {
    /// Version of the first piece, which a watch after the last piece starts from.
    version: u64,
    namespace: String,
    name: String,
}

impl Continue {
    fn read(text: &str) -> Result<Self, Rejection> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok();
        bytes
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .ok_or_else(|| Rejection::bad_request(format!("continue key is not valid: {text:?}")))
    }

    fn write(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }
}

/// The selected objects of the call's kind and namespace, with their version.
pub(super) fn selected(call: &Call) -> Result<(u64, Vec<Arc<Value>>), Rejection> {
    let selector = selector(call)?;
    let (version, mut objects) = call.cluster.store.list(&call.resource().storage, call.target.namespace.as_deref());
    if !selector.is_everything() {
        objects.retain(|object| selector.matches(object));
    }
    Ok((version, objects))
}

pub(super) fn selector(call: &Call) -> Result<Selector, Rejection> {
    Selector::parse(call.resource(), call.options.get("labelSelector"), call.options.get("fieldSelector"))
}

pub(super) fn list(call: &Call) -> Result<Response, Rejection> {
    let (mut version, mut objects) = selected(call)?;
    check_version(call, version)?;
    if let Some(from) = call.options.get("continue").map(Continue::read).transpose()? {
        version = from.version;
        objects.retain(|object| (namespace(object), name(object)) > (from.namespace.as_str(), from.name.as_str()));
    }
    let mut metadata = json!({"resourceVersion": version.to_string()});
    if let Some(limit) = call.options.number("limit")?.filter(|limit| *limit > 0) {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let left = objects.len().saturating_sub(limit);
        objects.truncate(limit);
        if let (true, Some(last)) = (left > 0, objects.last()) {
            let next = Continue { version, namespace: namespace(last).into(), name: name(last).into() };
            metadata["continue"] = next.write().into();
            metadata["remainingItemCount"] = left.into();
        }
    }
    match call.form {
        Form::Table => Ok(reply(StatusCode::OK, &table::many(call.resource(), &objects, &call.options, metadata))),
        Form::Metadata => {
            let items: Vec<Value> = objects.iter().map(|object| partial(object)).collect();
            let body = json!({
                "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "items": items,
            });
            Ok(reply(StatusCode::OK, &body))
        }
        Form::Object | Form::Aggregated => Ok(reply_bytes(StatusCode::OK, text(call, &metadata, &objects))),
    }
}

/// Writes a list without building it in memory a second time.
fn text(call: &Call, metadata: &Value, objects: &[Arc<Value>]) -> Vec<u8> {
    let resource = call.resource();
    let head = json!({
        "kind": format!("{}List", resource.kind), "apiVersion": resource.api_version(), "metadata": metadata,
    });
    let mut text = head.to_string().into_bytes();
    text.pop();
    text.extend_from_slice(b",\"items\":[");
    for (at, object) in objects.iter().enumerate() {
        if at > 0 {
            text.push(b',');
        }
        // Writing into a vector cannot fail.
        let _ = if stored_as_shown(call, object) {
            serde_json::to_writer(&mut text, &**object)
        } else {
            let mut object = (**object).clone();
            convert(resource, &mut object);
            serde_json::to_writer(&mut text, &object)
        };
    }
    text.extend_from_slice(b"]}");
    text
}

/// Whether the stored object is what the call's version shows.
pub(super) fn stored_as_shown(call: &Call, object: &Value) -> bool {
    let resource = call.resource();
    object["apiVersion"].as_str().is_some_and(|stored| stored == resource.api_version())
}

/// Refuses versions of the future, and exact ones of the past, which nothing here remembers.
fn check_version(call: &Call, current: u64) -> Result<(), Rejection> {
    let Some(wanted) = call.options.number("resourceVersion")? else { return Ok(()) };
    if wanted > current {
        return Err(Rejection::too_large_version(wanted, current));
    }
    if call.options.get("resourceVersionMatch") == Some("Exact") && wanted < current {
        return Err(Rejection::gone(format!("The resourceVersion for the provided list is too old: {wanted}")));
    }
    Ok(())
}
