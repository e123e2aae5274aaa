//! Who owns which field: `metadata.managedFields`, and server-side apply, which is about nothing else.

mod apply;
mod builtin;
mod managers;
mod path;
pub(crate) mod shape;
mod walk;

use serde_json::Value;

use crate::json::at;
use crate::resources::Resource;
use managers::{Managers, Operation};
use shape::Shape;

pub(crate) use apply::{apply, apply_new};

/// Fields that nobody owns: the server keeps them, or they are the object's identity.
const UNOWNED: &[&[&str]] = &[
    &["apiVersion"],
    &["kind"],
    &["metadata", "name"],
    &["metadata", "namespace"],
    &["metadata", "creationTimestamp"],
    &["metadata", "selfLink"],
    &["metadata", "uid"],
    &["metadata", "generation"],
    &["metadata", "managedFields"],
    &["metadata", "resourceVersion"],
];

/// Fields that may be set but are not owned once the object is there.
const UNTRACKED: &[&[&str]] =
    &[&["metadata", "generateName"], &["metadata", "deletionTimestamp"], &["metadata", "deletionGracePeriodSeconds"]];

fn is_owned(path: &path::Path) -> bool {
    !UNOWNED.iter().chain(UNTRACKED).any(|unowned| path.is_below(unowned))
}

/// Records that a manager created an object.
pub(crate) fn record_create(resource: &Resource, object: &mut Value, manager: &str, subresource: Option<&str>) {
    let mut set = walk::owned(Shape::root(resource), object);
    set.retain(is_owned);
    let mut managers = Managers::default();
    managers.set(manager, Operation::Update, &resource.api_version(), subresource, set);
    managers.write(object);
}

/// Records what a manager changed of an object.
pub(crate) fn record_update(
    resource: &Resource,
    object: &mut Value,
    current: &Value,
    manager: &str,
    subresource: Option<&str>,
) {
    let mut managers = match at(object, &["metadata", "managedFields"]) {
        // A client that sends an empty entry wants all records dropped; one that sends none has no opinion.
        Some(Value::Array(entries)) if entries.iter().any(|entry| entry.as_object().is_some_and(|e| !e.is_empty())) => {
            Managers::read(object)
        }
        Some(Value::Array(entries)) if !entries.is_empty() => Managers::default(),
        _ => Managers::read(current),
    };
    let changes = walk::compare(Shape::root(resource), current, object, is_owned);
    if !changes.is_empty() {
        managers.take_over(&changes);
        managers.add(manager, Operation::Update, &resource.api_version(), subresource, &changes.now);
    }
    managers.write(object);
}

/// Whether somebody owns what they did not own before; times do not count.
pub(crate) fn ownership_changed(object: &Value, current: &Value) -> bool {
    Managers::read(object) != Managers::read(current)
}
