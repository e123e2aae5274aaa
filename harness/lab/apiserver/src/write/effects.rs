//! What the server itself does after a write: it begins and ends to serve custom resources.

use serde_json::Value;

use super::{DeleteOptions, Writer, meta};
use crate::crd;
use crate::json::{deleting, name, namespace};
use crate::server::Cluster;
use crate::store::Expect;

/// Keeps a definition until its objects are gone.
pub(super) const CRD_CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

impl Writer<'_> {
    /// Called after each commit. `new` is `None` when the object is gone.
    pub(super) fn after(&self, old: Option<&Value>, new: Option<&Value>) {
        if self.resource.is("apiextensions.k8s.io", "customresourcedefinitions") {
            self.definition_changed(old, new);
        }
        // The last custom resource of a definition that is being deleted lets it go.
        if let (Some(custom), None) = (&self.resource.custom, new) {
            finish_definition(self.cluster, &custom.definition);
        }
    }

    fn definition_changed(&self, old: Option<&Value>, new: Option<&Value>) {
        let Some(new) = new else {
            if let Some(old) = old {
                self.cluster.registry.serve_custom(&crd::storage(old), Vec::new());
            }
            return;
        };
        self.cluster.registry.serve_custom(&crd::storage(new), crd::resources(new));
        if deleting(new) && old.is_none_or(|old| !deleting(old)) {
            delete_all(self.cluster, new);
            finish_definition(self.cluster, name(new));
        }
    }
}

/// Deletes all objects of a definition; those with finalizers stay for a while.
fn delete_all(cluster: &Cluster, definition: &Value) {
    let resources = crd::resources(definition);
    let Some(resource) = resources.first() else { return };
    let (_, objects) = cluster.store.list(&resource.storage, None);
    for object in objects {
        let mut writer = Writer::of_server(cluster, resource, namespace(&object));
        if let Err(rejection) = writer.delete(name(&object), &DeleteOptions::default()) {
            tracing::debug!(%rejection, "cannot delete an object of a definition that is being deleted");
        }
    }
}

/// Removes a definition that is being deleted and has no objects any more.
fn finish_definition(cluster: &Cluster, definition: &str) {
    let Some(resource) = cluster.registry.find("apiextensions.k8s.io", "v1", "customresourcedefinitions") else {
        return;
    };
    loop {
        let Some(current) = cluster.store.get(&resource.storage, "", definition) else { return };
        if !deleting(&current) || cluster.store.count(&crd::storage(&current)) > 0 {
            return;
        }
        let mut next = (*current).clone();
        meta::remove_finalizer(&mut next, CRD_CLEANUP);
        let vanish = meta::may_vanish(&resource, &next);
        let key = ("", definition);
        let done = if vanish {
            cluster.store.remove(&resource.storage, key, Expect::Same(&current), next)
        } else {
            cluster.store.put(&resource.storage, key, Expect::Same(&current), next)
        };
        if done.is_ok() {
            if vanish {
                cluster.registry.serve_custom(&crd::storage(&current), Vec::new());
            }
            return;
        }
    }
}
