//! Server-side apply: merge a configuration into an object, drop what its manager applied before and no longer does,
//! and refuse to change what others own.

use serde_json::Value;

use super::managers::{Managers, Operation};
use super::path::Set;
use super::shape::Shape;
use super::{is_owned, walk};
use crate::json::remove;
use crate::resources::Resource;
use crate::status::Rejection;

/// What a manager owns by a configuration, and the configuration without what its path may not change.
fn prepare(resource: &Resource, config: &Value, subresource: Option<&str>) -> (Value, Set) {
    let mut config = config.clone();
    remove(&mut config["metadata"], "managedFields");
    remove(&mut config["metadata"], "creationTimestamp");
    match subresource {
        Some("status") => {
            let keep = ["apiVersion", "kind", "metadata", "status"];
            let own_metadata = !resource.is_custom();
            if let Some(map) = config.as_object_mut() {
                map.retain(|key, _| keep.contains(&key.as_str()));
            }
            if !own_metadata && let Some(metadata) = config["metadata"].as_object_mut() {
                metadata.retain(|key, _| matches!(key.as_str(), "name" | "namespace" | "uid" | "resourceVersion"));
            }
        }
        None if resource.has_status() => {
            remove(&mut config, "status");
        }
        _ => {}
    }
    let mut set = walk::owned(Shape::root(resource), &config);
    set.retain(is_owned);
    (config, set)
}

/// The object that a configuration makes where there is none.
pub(crate) fn apply_new(resource: &Resource, config: &Value, manager: &str, subresource: Option<&str>) -> Value {
    let (mut object, set) = prepare(resource, config, subresource);
    let mut managers = Managers::default();
    managers.set(manager, Operation::Apply, &resource.api_version(), subresource, set);
    managers.write(&mut object);
    object
}

/// The object that a configuration makes of the present one.
pub(crate) fn apply(
    resource: &Resource,
    current: &Value,
    config: &Value,
    manager: &str,
    subresource: Option<&str>,
    force: bool,
) -> Result<Value, Rejection> {
    let shape = Shape::root(resource);
    let (config, set) = prepare(resource, config, subresource);
    let mut managers = Managers::read(current);
    let mut object = current.clone();
    walk::merge(shape, &mut object, &config);
    let before = managers.find(manager, Operation::Apply, subresource).map(|one| one.set.clone()).unwrap_or_default();
    // In order of the paths: an item of a list goes as a whole, before its keys are gone and it cannot be found.
    let dropped: Vec<_> = before
        .iter()
        .filter(|path| {
            !set.contains(path)
                && !set.iter().any(|kept| kept.starts_with(path))
                && !managers.is_owned_by_others(manager, Operation::Apply, subresource, path)
        })
        .collect();
    for path in dropped {
        walk::remove(shape, &mut object, &path.0);
    }
    let changes = walk::compare(shape, current, &object, is_owned);
    let mut conflicts = Vec::new();
    let mut lost = Set::new();
    for other in managers.others(manager, Operation::Apply, subresource) {
        for path in other.set.intersection(&changes.now) {
            conflicts.push((other.in_texts(), path.to_string()));
            lost.insert(path.clone());
        }
    }
    if !conflicts.is_empty() && !force {
        return Err(Rejection::apply_conflict(&conflicts));
    }
    managers.take(manager, Operation::Apply, subresource, &lost);
    managers.take(manager, Operation::Apply, subresource, &changes.gone);
    managers.set(manager, Operation::Apply, &resource.api_version(), subresource, set);
    managers.write(&mut object);
    Ok(object)
}
