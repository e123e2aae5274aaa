//! Deletion: at once, or marked until finalizers and grace periods are over.

use std::sync::Arc;

use serde_json::Value;

use super::{Writer, meta};
use crate::json::{deleting, int, name, stamp, text};
use crate::status::{FieldError, Rejection};
use crate::store::Expect;

/// Keeps an object until its dependents are gone.
const FOREGROUND: &str = "foregroundDeletion";
/// Keeps an object until its dependents are told to stay.
const ORPHAN: &str = "orphan";

/// How something is to be deleted.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeleteOptions {
    /// Seconds that a pod gets to end.
    pub(crate) grace: Option<i64>,
    pub(crate) propagation: Option<String>,
    uid: Option<String>,
    version: Option<String>,
    pub(crate) dry_run: bool,
}

impl DeleteOptions {
    /// Reads a `DeleteOptions` object.
    pub(crate) fn read(given: &Value) -> Result<Self, Rejection> {
        let some = |path: &[&str]| Some(text(given, path).to_owned()).filter(|text| !text.is_empty());
        let orphan = given.get("orphanDependents").and_then(Value::as_bool).unwrap_or_default();
        let propagation = if orphan { Some("Orphan".to_owned()) } else { some(&["propagationPolicy"]) };
        if let Some(policy) = &propagation
            && !["Background", "Foreground", "Orphan"].contains(&policy.as_str())
        {
            let error = FieldError::unsupported(
                "propagationPolicy",
                &policy.as_str().into(),
                ["Foreground", "Background", "Orphan", "nil"],
            );
            return Err(Rejection::invalid("DeleteOptions.meta.k8s.io", "", &[error]));
        }
        Ok(Self {
            grace: int(given, &["gracePeriodSeconds"]),
            propagation,
            uid: some(&["preconditions", "uid"]),
            version: some(&["preconditions", "resourceVersion"]),
            dry_run: crate::json::list(given, &["dryRun"]).iter().any(|one| one == "All"),
        })
    }
}

/// How far a deletion got.
pub(crate) enum Deleted {
    /// The object is still there and being deleted.
    Marked(Arc<Value>),
    /// The object's last state.
    Gone(Arc<Value>),
}

impl Writer<'_> {
    /// Deletes an object, or marks it as being deleted.
    pub(crate) fn delete(&mut self, name: &str, options: &DeleteOptions) -> Result<Deleted, Rejection> {
        loop {
            let current = self
                .cluster
                .store
                .get(&self.resource.storage, self.namespace, name)
                .ok_or_else(|| Rejection::not_found(&self.resource.in_texts(), name))?;
            self.check_preconditions(&current, options)?;
            self.admit("DELETE", None, Some(&current))?;
            let mut next = (*current).clone();
            self.mark(&mut next, &current, options);
            if next == *current {
                return Ok(Deleted::Marked(current));
            }
            let vanish = meta::may_vanish(self.resource, &next);
            if self.dry_run {
                let next = Arc::new(next);
                return Ok(if vanish { Deleted::Gone(next) } else { Deleted::Marked(next) });
            }
            let key = (self.namespace, name);
            let storage = &self.resource.storage;
            let done = if vanish {
                // What vanishes at once was never seen as being deleted.
                let last = if deleting(&current) { next } else { (*current).clone() };
                self.cluster.store.remove(storage, key, Expect::Same(&current), last).map(Deleted::Gone)
            } else {
                self.cluster.store.put(storage, key, Expect::Same(&current), next).map(Deleted::Marked)
            };
            if let Ok(done) = done {
                match &done {
                    Deleted::Marked(object) => self.after(Some(&current), Some(object)),
                    Deleted::Gone(_) => self.after(Some(&current), None),
                }
                return Ok(done);
            }
        }
    }

    fn check_preconditions(&self, current: &Value, options: &DeleteOptions) -> Result<(), Rejection> {
        let given = [
            ("UID", &options.uid, meta::uid(current)),
            ("ResourceVersion", &options.version, text(current, &["metadata", "resourceVersion"])),
        ];
        for (what, wanted, found) in given {
            if let Some(wanted) = wanted
                && wanted != found
            {
                let why =
                    format!("Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}");
                return Err(Rejection::conflict(&self.resource.in_texts(), name(current), &why));
            }
        }
        Ok(())
    }

    /// Marks `next` as being deleted, with what keeps it.
    fn mark(&self, next: &mut Value, current: &Value, options: &DeleteOptions) {
        let grace = self.grace(current, options);
        let marked = deleting(current);
        let before = int(current, &["metadata", "deletionGracePeriodSeconds"]);
        // A second deletion can only hurry the first.
        if !marked || before.is_some_and(|before| grace < before) {
            let now = jiff::Timestamp::now();
            let at = now.checked_add(jiff::SignedDuration::from_secs(grace)).unwrap_or(now);
            let metadata = &mut next["metadata"];
            if !marked || before.is_some_and(|before| before > 0) {
                metadata["deletionTimestamp"] = stamp(at).into();
            }
            metadata["deletionGracePeriodSeconds"] = grace.into();
            if !marked && let Some(generation) = int(current, &["metadata", "generation"]) {
                next["metadata"]["generation"] = (generation + 1).into();
            }
        }
        match options.propagation.as_deref() {
            Some("Foreground") => {
                meta::remove_finalizer(next, ORPHAN);
                meta::add_finalizer(next, FOREGROUND);
            }
            Some("Orphan") => {
                meta::remove_finalizer(next, FOREGROUND);
                meta::add_finalizer(next, ORPHAN);
            }
            Some("Background") => {
                meta::remove_finalizer(next, ORPHAN);
                meta::remove_finalizer(next, FOREGROUND);
            }
            _ => {}
        }
        if self.resource.is("", "namespaces") {
            next["status"]["phase"] = "Terminating".into();
        }
        if self.resource.is("apiextensions.k8s.io", "customresourcedefinitions") && !marked {
            meta::add_finalizer(next, super::effects::CRD_CLEANUP);
        }
    }

    /// Seconds until the object may vanish: only pods that run somewhere get any.
    fn grace(&self, current: &Value, options: &DeleteOptions) -> i64 {
        if !self.resource.is("", "pods") {
            return 0;
        }
        let ended = matches!(text(current, &["status", "phase"]), "Succeeded" | "Failed");
        if text(current, &["spec", "nodeName"]).is_empty() || ended {
            return 0;
        }
        let own = int(current, &["spec", "terminationGracePeriodSeconds"]).unwrap_or(30);
        match options.grace.unwrap_or(own) {
            // Kubernetes: a negative period is one second.
            negative if negative < 0 => 1,
            grace => grace,
        }
    }
}
