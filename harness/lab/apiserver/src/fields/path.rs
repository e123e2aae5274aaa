//! Paths to fields, and how `FieldsV1` writes sets of them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// A field of an object.
    Field(String),
    /// An item of a list, by its keys (JSON text with sorted keys).
    Key(String),
    /// An item of a set, by its value (JSON text).
    Item(String),
}

/// The way from an object to one of its fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Path(pub(super) Vec<Step>);

pub(super) type Set = BTreeSet<Path>;

impl Path {
    pub(super) fn then(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }

    /// Whether the path is that of these fields, or leads below it.
    pub(super) fn is_below(&self, fields: &[&str]) -> bool {
        self.0.len() >= fields.len()
            && fields.iter().zip(&self.0).all(|(name, step)| matches!(step, Step::Field(field) if field == name))
    }

    pub(super) fn starts_with(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0)
    }
}

impl std::fmt::Display for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for step in &self.0 {
            match step {
                Step::Field(name) => write!(f, ".{name}")?,
                Step::Key(text) => {
                    let keys: BTreeMap<String, Value> = serde_json::from_str(text).unwrap_or_default();
                    let parts: Vec<String> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
                    write!(f, "[{}]", parts.join(","))?;
                }
                Step::Item(text) => write!(f, "[={text}]")?,
            }
        }
        Ok(())
    }
}

/// A set of paths as `FieldsV1`.
pub(super) fn to_fields_v1(set: &Set) -> Value {
    let mut root = Value::Object(Map::new());
    for path in set {
        let mut at = &mut root;
        for step in &path.0 {
            let name = match step {
                Step::Field(name) => format!("f:{name}"),
                Step::Key(keys) => format!("k:{keys}"),
                Step::Item(value) => format!("v:{value}"),
            };
            at = crate::json::map(at).entry(name).or_insert_with(|| Value::Object(Map::new()));
        }
        crate::json::map(at).insert(".".into(), Value::Object(Map::new()));
    }
    without_lonely_dots(&mut root);
    root
}

/// A leaf is written as `{}`; `.` is for members that have members.
fn without_lonely_dots(value: &mut Value) {
    if let Value::Object(map) = value {
        if map.len() == 1 {
            map.remove(".");
        }
        map.values_mut().for_each(without_lonely_dots);
    }
}

/// Reads `FieldsV1`.
pub(super) fn from_fields_v1(fields: &Value) -> Set {
    let mut set = Set::new();
    collect(fields, &Path::default(), &mut set);
    set
}

fn collect(fields: &Value, path: &Path, set: &mut Set) {
    let Some(map) = fields.as_object() else { return };
    if map.is_empty() && !path.0.is_empty() {
        set.insert(path.clone());
    }
    for (name, below) in map {
        let step = match name.split_once(':') {
            _ if name == "." => {
                set.insert(path.clone());
                continue;
            }
            Some(("f", field)) => Step::Field(field.to_owned()),
            Some(("k", keys)) => match serde_json::from_str::<BTreeMap<String, Value>>(keys) {
                Ok(keys) => Step::Key(serde_json::to_string(&keys).unwrap_or_default()),
                Err(_) => continue,
            },
            Some(("v", value)) => match serde_json::from_str::<Value>(value) {
                Ok(value) => Step::Item(value.to_string()),
                Err(_) => continue,
            },
            _ => continue,
        };
        collect(below, &path.then(step), set);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_v1_goes_there_and_back() {
        let fields = json!({
            "f:metadata": {"f:labels": {"f:app": {}}},
            "f:spec": {
                "f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:image": {}}},
                "f:finalizers": {"v:\"kubernetes\"": {}},
            },
        });
        let set = from_fields_v1(&fields);
        assert_eq!(set.len(), 4);
        assert_eq!(to_fields_v1(&set), fields);
        let texts: Vec<String> = set.iter().map(ToString::to_string).collect();
        assert!(texts.contains(&".spec.containers[name=\"c\"].image".to_owned()), "{texts:?}");
    }
}
