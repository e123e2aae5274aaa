//! Pruning, nulls and defaults by a structural schema.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Map, Value};

use crate::json::truth;
use crate::resources::typed;

const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";
const EMBEDDED: &str = "x-kubernetes-embedded-resource";

/// Removes what the schema of a kind does not have. Type and metadata are every object's.
pub(super) fn prune_root(schema: &Value, object: &mut Value, unknown: &mut Vec<String>) {
    prune_metadata(object, "metadata", unknown);
    if let Some(map) = object.as_object_mut() {
        prune_object(schema, map, "", true, unknown);
    }
}

fn prune_metadata(object: &mut Value, path: &str, unknown: &mut Vec<String>) {
    let Some(metadata) = object.get_mut("metadata") else { return };
    let known = serde_json::from_value::<ObjectMeta>(metadata.clone()).and_then(serde_json::to_value);
    if let Ok(known) = known {
        unknown.extend(typed::prune(metadata, &known).into_iter().map(|field| format!("{path}.{field}")));
    }
}

fn prune(schema: &Value, value: &mut Value, path: &str, unknown: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            prune_object(schema, map, path, truth(schema, &[EMBEDDED]), unknown);
        }
        Value::Array(items) => {
            if let Some(schema) = schema.get("items") {
                for (at, item) in items.iter_mut().enumerate() {
                    prune(schema, item, &format!("{path}[{at}]"), unknown);
                }
            }
        }
        _ => {}
    }
}

fn prune_object(
    schema: &Value,
    map: &mut Map<String, Value>,
    path: &str,
    is_resource: bool,
    unknown: &mut Vec<String>,
) {
    let properties = schema.get("properties").and_then(Value::as_object);
    let others = schema.get("additionalProperties");
    let keep = truth(schema, &[PRESERVE]) || others == Some(&Value::Bool(true));
    map.retain(|key, value| {
        if is_resource && matches!(key.as_str(), "apiVersion" | "kind" | "metadata") {
            return true;
        }
        let here = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let below = properties.and_then(|all| all.get(key)).or_else(|| others.filter(|other| other.is_object()));
        match below {
            Some(below) => {
                prune(below, value, &here, unknown);
                true
            }
            None if keep => true,
            None => {
                unknown.push(here);
                false
            }
        }
    });
}

/// Sets the defaults of a schema. A null where none may be counts as absent, with a default or without.
pub(super) fn set_defaults(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(map) => {
            let properties = schema.get("properties").and_then(Value::as_object);
            let others = schema.get("additionalProperties").filter(|other| other.is_object());
            map.retain(|key, value| {
                let below = properties.and_then(|all| all.get(key)).or(others);
                !value.is_null() || below.is_none_or(|below| truth(below, &["nullable"]))
            });
            for (key, below) in properties.into_iter().flatten() {
                if !map.contains_key(key)
                    && let Some(default) = below.get("default")
                {
                    map.insert(key.clone(), default.clone());
                }
                if let Some(value) = map.get_mut(key) {
                    set_defaults(below, value);
                }
            }
            if let Some(others) = others {
                for (key, value) in map.iter_mut() {
                    if !properties.is_some_and(|all| all.contains_key(key)) {
                        set_defaults(others, value);
                    }
                }
            }
        }
        Value::Array(items) => {
            if let Some(schema) = schema.get("items") {
                items.iter_mut().for_each(|item| set_defaults(schema, item));
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn prunes_and_defaults() {
        let schema = json!({"type": "object", "properties": {"spec": {
            "type": "object",
            "properties": {
                "a": {"type": "string", "default": "x"},
                "free": {"type": "object", PRESERVE: true, "properties": {"in": {"type": "object"}}},
                "no": {"type": "object"},
                "kept": {"type": "string", "nullable": true, "default": "x"},
                "map": {"type": "object", "additionalProperties": {
                    "type": "object", "properties": {"b": {"type": "integer", "default": 2}}}},
            },
        }}});
        let mut object = json!({
            "apiVersion": "x/v1", "kind": "K", "metadata": {"name": "n", "what": 1},
            "spec": {"zz": 1, "a": null, "no": null, "kept": null, "free": {"any": 1, "in": {"gone": 1}}, "map": {"k": {"c": 1}, "nothing": null}},
            "other": {},
        });
        let mut unknown = Vec::new();
        prune_root(&schema, &mut object, &mut unknown);
        unknown.sort();
        assert_eq!(unknown, ["metadata.what", "other", "spec.free.in.gone", "spec.map.k.c", "spec.zz"]);
        set_defaults(&schema, &mut object);
        assert_eq!(
            object["spec"],
            json!({"a": "x", "kept": null, "free": {"any": 1, "in": {}}, "map": {"k": {"b": 2}}})
        );
    }
}
