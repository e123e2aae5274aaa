//! Metadata that the server keeps: identity, times, generation.

use rand::RngExt;
use serde_json::{Value, json};

use crate::json::{at, int, map, now, remove, text};
use crate::resources::Resource;

/// Letters of generated names and hashes: no vowels and nothing easily confused, as Kubernetes chose them.
const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Longest generated name before its suffix.
const LONGEST_BASE: usize = 58;

/// A name from `generateName`.
pub(super) fn generate_name(base: &str) -> String {
    let base: String = base.chars().take(LONGEST_BASE).collect();
    let mut random = rand::rng();
    let suffix: String = (0..5).map(|_| char::from(LETTERS[random.random_range(0..LETTERS.len())])).collect();
    base + &suffix
}

/// A random (version 4) UUID.
pub(super) fn new_uid() -> String {
    let mut bytes: [u8; 16] = rand::random();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// Whether changes of a kind's spec are counted in `metadata.generation`.
pub(super) fn counts_generations(resource: &Resource) -> bool {
    resource.is_custom()
        || matches!(
            (resource.group.as_str(), resource.plural.as_str()),
            ("apps", "deployments" | "replicasets" | "statefulsets" | "daemonsets")
                | ("batch", "jobs" | "cronjobs")
                | ("networking.k8s.io", "networkpolicies" | "ingresses" | "ingressclasses")
                | ("policy", "poddisruptionbudgets")
                | ("discovery.k8s.io", "endpointslices")
                | ("", "replicationcontrollers")
                | ("apiextensions.k8s.io" | "admissionregistration.k8s.io", _)
        )
}

/// Gives a new object its identity.
pub(super) fn identify(resource: &Resource, object: &mut Value) {
    let metadata = map(&mut object["metadata"]);
    for key in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation", "resourceVersion"] {
        metadata.remove(key);
    }
    metadata.insert("uid".into(), new_uid().into());
    metadata.insert("creationTimestamp".into(), now().into());
    if counts_generations(resource) {
        metadata.insert("generation".into(), 1.into());
    }
}

/// Carries over what no client may change.
pub(super) fn keep_identity(object: &mut Value, current: &Value) {
    for key in [
        "uid",
        "name",
        "namespace",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "resourceVersion",
        "generateName",
    ] {
        crate::json::carry(&mut object["metadata"], &current["metadata"], key);
    }
    remove(&mut object["metadata"], "selfLink");
}

/// Counts the generation up if anything but metadata and a separately written status changed.
pub(super) fn count_generation(resource: &Resource, object: &mut Value, current: &Value) {
    if !counts_generations(resource) {
        return;
    }
    let own_status = resource.has_status();
    let apart = |key: &str| matches!(key, "metadata" | "apiVersion" | "kind") || (own_status && key == "status");
    let differs = |a: &Value, b: &Value| {
        a.as_object().into_iter().flatten().any(|(key, value)| !apart(key) && b.get(key) != Some(value))
    };
    if differs(object, current) || differs(current, object) {
        let generation = int(current, &["metadata", "generation"]).unwrap_or(0) + 1;
        object["metadata"]["generation"] = generation.into();
    }
}

/// Whether two versions of an object differ in nothing but who owns what, and the version.
pub(super) fn is_unchanged(object: &Value, current: &Value) -> bool {
    let strip = |value: &Value| {
        let mut value = value.clone();
        for key in ["managedFields", "resourceVersion"] {
            remove(&mut value["metadata"], key);
        }
        remove(&mut value, "apiVersion");
        value
    };
    strip(object) == strip(current)
}

/// The finalizers of an object.
pub(super) fn finalizers(object: &Value) -> Vec<&str> {
    let list = at(object, &["metadata", "finalizers"]).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Adds a finalizer that is not there yet.
pub(super) fn add_finalizer(object: &mut Value, finalizer: &str) {
    if finalizers(object).contains(&finalizer) {
        return;
    }
    let list = map(&mut object["metadata"]).entry("finalizers").or_insert_with(|| json!([]));
    if !list.is_array() {
        *list = json!([]);
    }
    if let Some(list) = list.as_array_mut() {
        list.push(finalizer.into());
    }
}

/// Removes a finalizer.
pub(super) fn remove_finalizer(object: &mut Value, finalizer: &str) {
    if let Some(list) = object["metadata"].get_mut("finalizers").and_then(Value::as_array_mut) {
        list.retain(|one| one != finalizer);
        if list.is_empty() {
            remove(&mut object["metadata"], "finalizers");
        }
    }
}

/// Whether nothing keeps an object that is being deleted.
pub(super) fn may_vanish(resource: &Resource, object: &Value) -> bool {
    let waits = int(object, &["metadata", "deletionGracePeriodSeconds"]).unwrap_or(0) > 0;
    let contents = resource.is("", "namespaces") && !crate::json::list(object, &["spec", "finalizers"]).is_empty();
    crate::json::deleting(object) && finalizers(object).is_empty() && !waits && !contents
}

/// `metadata.uid`.
pub(super) fn uid(object: &Value) -> &str {
    text(object, &["metadata", "uid"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uids_are_version_4() {
        let uid = new_uid();
        assert_eq!(uid.len(), 36);
        assert_eq!(&uid[14..15], "4");
        assert_ne!(uid, new_uid());
    }

    #[test]
    fn generated_names_stay_names() {
        let name = generate_name(&"x".repeat(80));
        assert_eq!(name.len(), 63);
        assert!(generate_name("a-").starts_with("a-"));
    }
}
