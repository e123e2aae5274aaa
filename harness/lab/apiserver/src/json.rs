//! Short ways through JSON objects.

use serde_json::{Map, Value};

/// The string at `path`, `""` when there is none.
pub(crate) fn text<'a>(value: &'a Value, path: &[&str]) -> &'a str {
    at(value, path).and_then(Value::as_str).unwrap_or_default()
}

/// The value at `path`.
pub(crate) fn at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |inner, key| inner.get(key))
}

/// The array at `path`, empty when there is none.
pub(crate) fn list<'a>(value: &'a Value, path: &[&str]) -> &'a [Value] {
    at(value, path).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// The integer at `path`.
pub(crate) fn int(value: &Value, path: &[&str]) -> Option<i64> {
    at(value, path).and_then(Value::as_i64)
}

/// Whether the value at `path` is `true`.
pub(crate) fn truth(value: &Value, path: &[&str]) -> bool {
    at(value, path).and_then(Value::as_bool).unwrap_or_default()
}

/// The object at `key`, made if it is missing or not an object.
pub(crate) fn object<'a>(value: &'a mut Value, key: &str) -> &'a mut Map<String, Value> {
    let slot = map(value).entry(key).or_insert(Value::Null);
    map(slot)
}

/// The value as an object, made one if it is not.
pub(crate) fn map(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(inner) => inner,
        _ => unreachable!("made an object above"),
    }
}

/// The mutable array at `key`, if there is one.
pub(crate) fn list_mut<'a>(value: &'a mut Value, key: &str) -> &'a mut [Value] {
    value.get_mut(key).and_then(Value::as_array_mut).map(Vec::as_mut_slice).unwrap_or_default()
}

/// Sets `key` unless it is there and not null.
pub(crate) fn default(value: &mut Value, key: &str, given: impl Into<Value>) {
    let slot = map(value).entry(key).or_insert(Value::Null);
    if slot.is_null() {
        *slot = given.into();
    }
}

/// Removes `key` from an object.
pub(crate) fn remove(value: &mut Value, key: &str) -> Option<Value> {
    value.as_object_mut().and_then(|inner| inner.remove(key))
}

/// Copies `key` from `from` to `to`, or removes it there.
pub(crate) fn carry(to: &mut Value, from: &Value, key: &str) {
    match from.get(key) {
        Some(value) => {
            map(to).insert(key.into(), value.clone());
        }
        None => {
            remove(to, key);
        }
    }
}

/// Name of an object.
pub(crate) fn name(object: &Value) -> &str {
    text(object, &["metadata", "name"])
}

/// Namespace of an object, `""` for cluster-scoped ones.
pub(crate) fn namespace(object: &Value) -> &str {
    text(object, &["metadata", "namespace"])
}

/// Whether the object is being deleted.
pub(crate) fn deleting(object: &Value) -> bool {
    at(object, &["metadata", "deletionTimestamp"]).is_some_and(|at| !at.is_null())
}

/// The present moment as Kubernetes writes it, to the second.
pub(crate) fn now() -> String {
    stamp(jiff::Timestamp::now())
}

/// A moment as Kubernetes writes it, to the second.
pub(crate) fn stamp(moment: jiff::Timestamp) -> String {
    moment.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Makes `inner` the only word for absent, null and empty containers: what Go's `omitempty` does when comparing.
pub(crate) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}
