//! What was made of a world, so that all of it can be removed.

use std::collections::BTreeSet;
use std::sync::Mutex;

use super::lock;
use crate::objects::Real;

/// What was made, so that it can be removed: also where making was broken off.
#[derive(Debug, Default)]
pub(crate) struct Traces(Mutex<BTreeSet<TraceKey>>);

/// api version, kind, namespace, name.
type TraceKey = (String, String, Option<String>, String);

impl Traces {
    pub(super) fn add(&self, object: &Real) {
        let key = (object.api_version.clone(), object.kind.clone(), object.namespace.clone(), object.name.clone());
        lock(&self.0).insert(key);
    }

    /// What does not go with a namespace of the run: namespaces, cluster-scoped objects, guests in others' namespaces.
    pub(crate) fn roots(&self) -> Vec<Real> {
        let all = lock(&self.0);
        let namespaces: BTreeSet<&String> =
            all.iter().filter(|(_, kind, _, _)| kind == "Namespace").map(|(.., name)| name).collect();
        all.iter()
            .filter(|(_, _, namespace, _)| namespace.as_ref().is_none_or(|namespace| !namespaces.contains(namespace)))
            .map(|(api_version, kind, namespace, name)| Real {
                api_version: api_version.clone(),
                kind: kind.clone(),
                namespace: namespace.clone(),
                name: name.clone(),
            })
            .collect()
    }
}
