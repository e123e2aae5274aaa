//! Which fields an object has, and which differ between two.

use std::collections::BTreeMap;

use serde_json::Value;

use super::path::{Path, Set, Step};
use super::shape::{Items, Shape};

/// The step to an item of a list; `None` when it lacks what tells items apart.
pub(super) fn step_to(items: &Items, item: &Value) -> Option<Step> {
    match items {
        Items::Whole => None,
        Items::Set => Some(Step::Item(item.to_string())),
        Items::Keyed(keys) => {
            let mut found = BTreeMap::new();
            for (key, default) in keys {
                // A key that is missing everywhere is no key; one that has a default counts as that.
                if let Some(value) = item.get(key).or(default.as_ref()) {
                    found.insert(key.as_str(), value);
                }
            }
            if found.is_empty() { None } else { serde_json::to_string(&found).ok().map(Step::Key) }
        }
    }
}

/// Whether every item of a list can be told from the others.
pub(super) fn is_mergeable(items: &Items, list: &[Value]) -> bool {
    if *items == Items::Whole {
        return false;
    }
    let mut seen = Set::new();
    list.iter().all(|item| step_to(items, item).is_some_and(|step| seen.insert(Path(vec![step]))))
}

/// Calls `leaf` for each place that is owned as one, and for each item of merging lists.
fn visit<'v>(shape: Shape<'_>, value: &'v Value, path: &Path, leaf: &mut impl FnMut(Path, Option<&'v Value>)) {
    match value {
        Value::Object(map) if !map.is_empty() && !shape.is_whole() => {
            for (key, below) in map {
                visit(shape.field(key), below, &path.then(Step::Field(key.clone())), leaf);
            }
        }
        Value::Array(list) if !list.is_empty() && is_mergeable(&shape.items(), list) => {
            let items = shape.items();
            for item in list {
                let Some(step) = step_to(&items, item) else { continue };
                let here = path.then(step);
                if items == Items::Set {
                    leaf(here, Some(item));
                } else {
                    leaf(here.clone(), None);
                    visit(shape.item(), item, &here, leaf);
                }
            }
        }
        _ => leaf(path.clone(), Some(value)),
    }
}

/// The fields that an object has.
pub(super) fn owned(shape: Shape<'_>, value: &Value) -> Set {
    let mut set = Set::new();
    visit(shape, value, &Path::default(), &mut |path, _| {
        set.insert(path);
    });
    set
}

/// What differs between two versions of an object.
pub(super) struct Changes {
    /// Fields that are new or have another value.
    pub(super) now: Set,
    /// Fields that are gone.
    pub(super) gone: Set,
}

impl Changes {
    pub(super) fn is_empty(&self) -> bool {
        self.now.is_empty() && self.gone.is_empty()
    }
}

/// Compares two versions of an object, in the fields that `counts`.
pub(super) fn compare(shape: Shape<'_>, old: &Value, new: &Value, counts: impl Fn(&Path) -> bool) -> Changes {
    let leaves = |value| {
        let mut leaves = BTreeMap::new();
        visit(shape, value, &Path::default(), &mut |path, value: Option<&Value>| {
            if counts(&path) {
                leaves.insert(path, value);
            }
        });
        leaves
    };
    let (before, after) = (leaves(old), leaves(new));
    let now = after.iter().filter(|(path, value)| before.get(path) != Some(value)).map(|(path, _)| path.clone());
    let gone = before.keys().filter(|path| !after.contains_key(path)).cloned();
    Changes { now: now.collect(), gone: gone.collect() }
}

/// Removes a field. Objects and lists that become empty by it go too.
pub(super) fn remove(shape: Shape<'_>, value: &mut Value, path: &[Step]) {
    let Some((step, rest)) = path.split_first() else { return };
    match (step, value) {
        (Step::Field(name), Value::Object(map)) => {
            if rest.is_empty() {
                map.remove(name);
            } else if let Some(below) = map.get_mut(name) {
                remove(shape.field(name), below, rest);
                if crate::json::is_empty(below) {
                    map.remove(name);
                }
            }
        }
        (Step::Key(_) | Step::Item(_), Value::Array(list)) => {
            let items = shape.items();
            let Some(at) = list.iter().position(|item| step_to(&items, item).as_ref() == Some(step)) else { return };
            if rest.is_empty() {
                list.remove(at);
            } else {
                remove(shape.item(), &mut list[at], rest);
            }
        }
        _ => {}
    }
}

/// Merges a configuration into an object.
pub(super) fn merge(shape: Shape<'_>, live: &mut Value, config: &Value) {
    match (live, config) {
        (Value::Object(live), Value::Object(config)) if !shape.is_whole() => {
            for (key, value) in config {
                match live.get_mut(key) {
                    Some(below) => merge(shape.field(key), below, value),
                    None => {
                        live.insert(key.clone(), value.clone());
                    }
                }
            }
        }
        (Value::Array(live), Value::Array(config))
            if is_mergeable(&shape.items(), live) && is_mergeable(&shape.items(), config) =>
        {
            merge_lists(shape, live, config);
        }
        (live, config) => *live = config.clone(),
    }
}

/// Items of both in the order of the configuration; live items that it lacks stay where they stood before others.
fn merge_lists(shape: Shape<'_>, live: &mut Vec<Value>, config: &[Value]) {
    let items = shape.items();
    let identify = |item: Value| (step_to(&items, &item), item);
    let mut left: Vec<(Option<Step>, Value)> = live.drain(..).map(identify).collect();
    let wanted: Vec<Option<Step>> = config.iter().map(|item| step_to(&items, item)).collect();
    for (step, item) in wanted.iter().zip(config) {
        // What nobody else wants and comes first in the live list stays first.
        let strangers = left.iter().take_while(|(other, _)| !wanted.contains(other)).count();
        live.extend(left.drain(..strangers).map(|(_, item)| item));
        match left.iter().position(|(other, _)| other == step) {
            Some(at) => {
                let (_, mut merged) = left.remove(at);
                if items != Items::Set {
                    merge(shape.item(), &mut merged, item);
                }
                live.push(merged);
            }
            None => live.push(item.clone()),
        }
    }
    live.extend(left.into_iter().map(|(_, item)| item));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_merge_in_the_order_of_the_configuration() {
        let schema = json!({"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"]});
        let named = |names: &str| names.chars().map(|name| json!({"n": name})).collect::<Value>();
        for (live, config, merged) in [("ab", "c", "abc"), ("ab", "ba", "ba"), ("abc", "cb", "acb"), ("", "ab", "ab")] {
            let mut list = named(live);
            merge(Shape::Schema(&schema), &mut list, &named(config));
            assert_eq!(list, named(merged), "{live} {config}");
        }
    }
}
