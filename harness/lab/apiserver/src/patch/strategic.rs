//! Strategic merge patches: merge patches that know how the lists of built-in kinds merge, and take directives.

use serde_json::{Map, Value};

use crate::fields::shape::Shape;
use crate::status::Rejection;

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const ORDER: &str = "$setElementOrder/";

/// Merges a patch into an object.
pub(super) fn merge(shape: Shape<'_>, object: &mut Value, patch: &Value) -> Result<(), Rejection> {
    let Some(patch) = patch.as_object() else {
        *object = patch.clone();
        return Ok(());
    };
    match patch.get(PATCH).and_then(Value::as_str) {
        None | Some("merge") => {}
        Some("replace") => {
            let mut patch = patch.clone();
            patch.remove(PATCH);
            *object = Value::Object(patch);
            return Ok(());
        }
        Some("delete") => {
            *object = Value::Object(Map::new());
            return Ok(());
        }
        Some(other) => return Err(Rejection::bad_request(format!("Unknown patch type found: {other}"))),
    }
    let fields = crate::json::map(object);
    if let Some(keep) = patch.get(RETAIN_KEYS).and_then(Value::as_array) {
        fields.retain(|key, _| keep.iter().any(|one| one == key));
    }
    for (key, value) in patch {
        if let Some(list) = key.strip_prefix(DELETE_FROM) {
            delete_from(fields.get_mut(list), value);
        }
    }
    for (key, value) in patch {
        if key.starts_with('$') {
            continue;
        }
        let below = shape.field(key);
        match value {
            Value::Null => {
                fields.remove(key);
            }
            Value::Object(inner) if inner.get(PATCH).and_then(Value::as_str) == Some("delete") => {
                fields.remove(key);
            }
            Value::Object(_) => merge(below, fields.entry(key.clone()).or_insert(Value::Null), value)?,
            Value::Array(items) if below.merge_key().is_some() => {
                let slot = fields.entry(key.clone()).or_insert(Value::Null);
                if !slot.is_array() {
                    *slot = Value::Array(Vec::new());
                }
                if let Value::Array(list) = slot {
                    merge_list(below, list, items)?;
                }
            }
            other => {
                fields.insert(key.clone(), other.clone());
            }
        }
    }
    for (key, order) in patch {
        if let (Some(list), Some(order)) = (key.strip_prefix(ORDER), order.as_array())
            && let Some(Value::Array(items)) = fields.get_mut(list)
        {
            sort(shape.field(list).merge_key().unwrap_or_default(), items, order);
        }
    }
    Ok(())
}

fn delete_from(list: Option<&mut Value>, values: &Value) {
    if let (Some(Value::Array(list)), Some(values)) = (list, values.as_array()) {
        list.retain(|item| !values.contains(item));
    }
}

fn merge_list(shape: Shape<'_>, list: &mut Vec<Value>, patch: &[Value]) -> Result<(), Rejection> {
    let key = shape.merge_key().unwrap_or_default();
    if key.is_empty() {
        for item in patch {
            if !list.contains(item) {
                list.push(item.clone());
            }
        }
        return Ok(());
    }
    let replaces = |item: &Value| item.get(PATCH).and_then(Value::as_str) == Some("replace") && item.get(key).is_none();
    if patch.iter().any(replaces) {
        *list = patch.iter().filter(|item| !replaces(item)).cloned().collect();
        return Ok(());
    }
    for item in patch {
        let Some(id) = item.get(key) else {
            return Err(Rejection::bad_request(format!("map: {item} does not contain declared merge key: {key}")));
        };
        let found = list.iter().position(|one| one.get(key) == Some(id));
        match (item.get(PATCH).and_then(Value::as_str), found) {
            (Some("delete"), _) => list.retain(|one| one.get(key) != Some(id)),
            (_, Some(at)) => merge(shape.item(), &mut list[at], item)?,
            (_, None) => {
                let mut fresh = Value::Object(Map::new());
                merge(shape.item(), &mut fresh, item)?;
                list.push(fresh);
            }
        }
    }
    Ok(())
}

/// Brings items into the order that the client sees; items that it does not know stay behind what they stood behind.
fn sort(key: &str, items: &mut Vec<Value>, order: &[Value]) {
    let id = |item: &Value| if key.is_empty() { item.clone() } else { item.get(key).cloned().unwrap_or_default() };
    let rank = |item: &Value| order.iter().position(|wanted| id(wanted) == id(item));
    let mut known: Vec<Value> = Vec::new();
    let mut strangers: Vec<(Option<Value>, Value)> = Vec::new();
    let mut last = None;
    for item in items.drain(..) {
        let here = id(&item);
        if rank(&item).is_some() {
            known.push(item);
        } else {
            strangers.push((last.take(), item));
        }
        last = Some(here);
    }
    known.sort_by_key(|item| rank(item));
    *items = known;
    for (behind, item) in strangers {
        let at = behind.and_then(|behind| items.iter().position(|one| id(one) == behind)).map_or(0, |at| at + 1);
        items.insert(at, item);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(patch: Value) -> Value {
        let mut pod = json!({
            "metadata": {"labels": {"a": "1", "b": "2"}, "finalizers": ["x", "y"]},
            "spec": {
                "containers": [
                    {"name": "one", "image": "i", "env": [{"name": "A", "value": "1"}]},
                    {"name": "two", "image": "j"},
                ],
                "tolerations": [{"key": "k"}],
            },
        });
        merge(Shape::Named("Pod"), &mut pod, &patch).unwrap();
        pod
    }

    #[test]
    fn lists_merge_by_their_keys() {
        let patched = pod(json!({"spec": {"containers": [
            {"name": "two", "image": "new"}, {"name": "three", "image": "k"}, {"name": "one", "env": [{"name": "B"}]},
        ]}}));
        assert_eq!(
            patched["spec"]["containers"],
            json!([
                {"name": "one", "image": "i", "env": [{"name": "A", "value": "1"}, {"name": "B"}]},
                {"name": "two", "image": "new"},
                {"name": "three", "image": "k"},
            ])
        );
    }

    #[test]
    fn directives() {
        let patched = pod(json!({"spec": {"containers": [{"name": "one", "$patch": "delete"}]}}));
        assert_eq!(patched["spec"]["containers"], json!([{"name": "two", "image": "j"}]));
        let patched = pod(json!({"spec": {"containers": [{"name": "n"}, {"$patch": "replace"}]}}));
        assert_eq!(patched["spec"]["containers"], json!([{"name": "n"}]));
        let patched = pod(json!({"metadata": {"labels": {"$patch": "replace", "c": "3"}}}));
        assert_eq!(patched["metadata"]["labels"], json!({"c": "3"}));
        let patched = pod(json!({"metadata": {"labels": {"a": null}, "$deleteFromPrimitiveList/finalizers": ["x"]}}));
        assert_eq!(patched["metadata"], json!({"labels": {"b": "2"}, "finalizers": ["y"]}));
        let patched = pod(json!({"spec": {
            "$setElementOrder/containers": [{"name": "two"}, {"name": "zero"}, {"name": "one"}],
            "containers": [{"name": "zero"}],
        }}));
        let names: Vec<&Value> = patched["spec"]["containers"].as_array().unwrap().iter().map(|c| &c["name"]).collect();
        assert_eq!(names, ["two", "zero", "one"]);
        let patched = pod(json!({"spec": {"$retainKeys": ["containers"]}}));
        assert!(patched["spec"].get("tolerations").is_none());
    }

    #[test]
    fn other_lists_are_replaced() {
        let patched = pod(json!({"spec": {"tolerations": [{"key": "other"}]}}));
        assert_eq!(patched["spec"]["tolerations"], json!([{"key": "other"}]));
        let patched = pod(json!({"metadata": {"finalizers": ["z", "x"]}}));
        assert_eq!(patched["metadata"]["finalizers"], json!(["x", "y", "z"]));
    }
}
