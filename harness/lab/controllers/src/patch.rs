//! Merge patches (RFC 7386) computed from two states, so that a write touches only what changed.

use serde_json::{Map, Value};

/// The merge patch that turns `old` into `new`, or `None` if they are equal. Lists are replaced as a whole.
pub(crate) fn difference(old: &Value, new: &Value) -> Option<Value> {
    match (old, new) {
        _ if old == new => None,
        (Value::Object(old), Value::Object(new)) => {
            let mut patch = Map::new();
            for (field, value) in new {
                match old.get(field) {
                    None => drop(patch.insert(field.clone(), value.clone())),
                    Some(before) => {
                        if let Some(change) = difference(before, value) {
                            patch.insert(field.clone(), change);
                        }
                    }
                }
            }
            for field in old.keys().filter(|field| !new.contains_key(*field)) {
                patch.insert(field.clone(), Value::Null);
            }
            Some(Value::Object(patch))
        }
        _ => Some(new.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_changed_is_in_the_patch() {
        let old =
            json!({"replicas": 2, "ready": 1, "gone": true, "conditions": [{"type": "A"}], "deep": {"a": 1, "b": 2}});
        let new = json!({"replicas": 2, "ready": 2, "conditions": [{"type": "B"}], "deep": {"a": 1, "b": 3}});
        let patch = json!({"ready": 2, "gone": null, "conditions": [{"type": "B"}], "deep": {"b": 3}});
        assert_eq!(difference(&old, &new), Some(patch));
    }

    #[test]
    fn equal_states_need_no_patch() {
        assert_eq!(difference(&json!({"a": [1]}), &json!({"a": [1]})), None);
    }
}
