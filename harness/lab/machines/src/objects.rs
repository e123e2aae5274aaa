//! Small things about objects of the API.

use std::fmt::Debug;

use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::error::Error;

/// A moment to the second, as Kubernetes writes it.
pub(crate) fn moment(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A moment to the microsecond.
pub(crate) fn precise(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

/// The merge patch that makes `new` of `old`; none if they are equal.
pub(crate) fn difference(old: &Value, new: &Value) -> Option<Value> {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let mut patch = Map::new();
            for key in old.keys().filter(|key| !new.contains_key(*key)) {
                patch.insert(key.clone(), Value::Null);
            }
            for (key, value) in new {
                match old.get(key) {
                    Some(before) => {
                        if let Some(below) = difference(before, value) {
                            patch.insert(key.clone(), below);
                        }
                    }
                    None => {
                        patch.insert(key.clone(), value.clone());
                    }
                }
            }
            (!patch.is_empty()).then_some(Value::Object(patch))
        }
        _ => (old != new).then(|| new.clone()),
    }
}

/// Whether an object is being deleted.
pub(crate) fn is_deleted<K: Resource>(object: &K) -> bool {
    object.meta().deletion_timestamp.is_some()
}

/// Adds or removes a finalizer; an object that is gone needs neither.
pub(crate) async fn finalize<K>(client: &Client, object: &K, finalizer: &str, keep: bool) -> Result<(), Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Serialize,
{
    if keep && object.finalizers().iter().any(|one| one == finalizer) {
        return Ok(());
    }
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let api = Api::<K>::namespaced(client.clone(), &namespace);
    let action = || format!("change the finalizers of {} {namespace}/{name}", K::kind(&()));
    loop {
        let Some(current) = api.get_opt(&name).await.map_err(Error::request(action()))? else { return Ok(()) };
        if current.uid() != object.uid() {
            return Ok(());
        }
        let mut finalizers = current.finalizers().to_vec();
        if finalizers.iter().any(|one| one == finalizer) == keep {
            return Ok(());
        }
        if keep {
            finalizers.push(finalizer.to_owned());
        } else {
            finalizers.retain(|one| one != finalizer);
        }
        let metadata =
            json!({"finalizers": finalizers, "uid": current.uid(), "resourceVersion": current.resource_version()});
        let patch = Patch::Merge(json!({"metadata": metadata}));
        match api.patch_metadata(&name, &PatchParams::default(), &patch).await {
            Ok(_) => return Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
            // Somebody else changed it meanwhile.
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(Error::request(action())(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_merge_patches() {
        let old = json!({"a": 1, "b": {"c": 1, "d": 2}, "gone": [1]});
        let new = json!({"a": 1, "b": {"c": 1, "d": 3}, "new": [2]});
        assert_eq!(difference(&old, &new), Some(json!({"b": {"d": 3}, "gone": null, "new": [2]})));
        assert_eq!(difference(&old, &old), None);
    }
}
