//! Change of an object that is there.

use std::sync::Arc;

use serde_json::Value;

use super::{Writer, meta};
use crate::fields;
use crate::json::{self, deleting, name, text};
use crate::services;
use crate::status::{FieldError, Rejection};
use crate::store::Expect;

/// What an object shall become.
pub(crate) struct Proposed {
    pub(crate) object: Value,
    /// Who owns which field is already in `managedFields`.
    pub(crate) owned: bool,
    /// The whole object was sent, not a change to it.
    replacement: bool,
}

impl Proposed {
    /// A change computed from the present object.
    pub(crate) fn change(object: Value) -> Self {
        Self { object, owned: false, replacement: false }
    }

    /// An object sent in place of the present one.
    pub(crate) fn replacement(object: Value) -> Self {
        Self { object, owned: false, replacement: true }
    }

    /// The result of a server-side apply.
    pub(crate) fn applied(object: Value) -> Self {
        Self { object, owned: true, replacement: false }
    }
}

/// What is to be done after an object's next state is known.
enum Step {
    Nothing,
    Store,
    Remove,
}

impl Writer<'_> {
    /// Changes an object. `change` sees the present state and is called again if somebody else wrote in between.
    pub(crate) fn update(
        &mut self,
        name: &str,
        change: impl Fn(&Value) -> Result<Proposed, Rejection>,
    ) -> Result<Arc<Value>, Rejection> {
        loop {
            let current = self
                .cluster
                .store
                .get(&self.resource.storage, self.namespace, name)
                .ok_or_else(|| Rejection::not_found(&self.resource.in_texts(), name))?;
            let proposed = change(&current)?;
            if let Some(done) = self.try_update(&current, proposed)? {
                return Ok(done);
            }
        }
    }

    /// Commits one proposal; `None` if the object changed meanwhile.
    pub(super) fn try_update(
        &mut self,
        current: &Arc<Value>,
        proposed: Proposed,
    ) -> Result<Option<Arc<Value>>, Rejection> {
        let Proposed { mut object, owned, replacement } = proposed;
        self.check_identity(&mut object, current, replacement)?;
        if !replacement {
            self.check_fields(&mut object)?;
        }
        let _addresses = self.lock_addresses();
        let step = self.advance(&mut object, current, owned)?;
        if matches!(step, Step::Nothing) {
            return Ok(Some(current.clone()));
        }
        self.admit("UPDATE", Some(&object), Some(current))?;
        if self.dry_run {
            return Ok(Some(Arc::new(object)));
        }
        let key = (self.namespace, name(current));
        let store = &self.cluster.store;
        let done = match step {
            Step::Nothing => return Ok(Some(current.clone())),
            Step::Store => store.put(&self.resource.storage, key, Expect::Same(current), object),
            Step::Remove => store.remove(&self.resource.storage, key, Expect::Same(current), object),
        };
        let Ok(done) = done else { return Ok(None) };
        self.after(Some(current), if matches!(step, Step::Remove) { None } else { Some(&done) });
        Ok(Some(done))
    }

    /// Refuses what names another object or version, and restores what no client may change.
    fn check_identity(&self, object: &mut Value, current: &Value, replacement: bool) -> Result<(), Rejection> {
        let in_texts = self.resource.in_texts();
        let given = name(object);
        if given != name(current) && (replacement || !given.is_empty()) {
            return Err(Rejection::bad_request(format!(
                "the name of the object ({given}) does not match the name on the URL ({})",
                name(current)
            )));
        }
        self.place(object)?;
        let version = text(object, &["metadata", "resourceVersion"]);
        if version.is_empty() {
            if replacement && self.resource.is_custom() {
                let error =
                    FieldError::invalid("metadata.resourceVersion", &"0x0".into(), "must be specified for an update");
                return Err(Rejection::invalid(&self.resource.qualified_kind(), name(current), &[error]));
            }
        } else if version != text(current, &["metadata", "resourceVersion"]) {
            return Err(Rejection::modified(&in_texts, name(current)));
        }
        let uid = meta::uid(object);
        if !uid.is_empty() && uid != meta::uid(current) {
            let why =
                format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", meta::uid(current));
            return Err(Rejection::conflict(&in_texts, name(current), &why));
        }
        meta::keep_identity(object, current);
        object["kind"] = current["kind"].clone();
        if !self.resource.is_custom() {
            object["apiVersion"] = current["apiVersion"].clone();
        }
        Ok(())
    }

    /// Brings a proposal into the form that is stored, and says what to do with it.
    fn advance(&self, object: &mut Value, current: &Value, owned: bool) -> Result<Step, Rejection> {
        self.confine(object, current);
        self.set_defaults(object);
        if self.resource.is("", "services") && self.subresource.is_none() {
            services::allocate(self.cluster, object, Some(current))?;
        }
        let added: Vec<&str> = meta::finalizers(object)
            .into_iter()
            .filter(|finalizer| !meta::finalizers(current).contains(finalizer))
            .collect();
        if deleting(current) && !added.is_empty() {
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers {}",
                go_strings(&added)
            );
            let error = FieldError::forbidden("metadata.finalizers", &detail);
            return Err(Rejection::invalid(&self.resource.qualified_kind(), name(current), &[error]));
        }
        self.check_rules(object, Some(current))?;
        meta::count_generation(self.resource, object, current);
        if !owned {
            fields::record_update(self.resource, object, current, self.manager, self.subresource);
        }
        if meta::may_vanish(self.resource, object) {
            return Ok(Step::Remove);
        }
        if meta::is_unchanged(object, current) && !fields::ownership_changed(object, current) {
            return Ok(Step::Nothing);
        }
        Ok(Step::Store)
    }

    /// Leaves only the part of a proposal that its path may change.
    fn confine(&self, object: &mut Value, current: &Value) {
        match self.subresource {
            Some("status") => {
                let status = json::remove(object, "status");
                let metadata = object["metadata"].take();
                *object = current.clone();
                match status {
                    Some(status) => object["status"] = status,
                    None => {
                        json::remove(object, "status");
                    }
                }
                if self.resource.is_custom() {
                    // Of custom resources only the status, and who owns it.
                    json::carry(&mut object["metadata"], &metadata, "managedFields");
                } else {
                    object["metadata"] = metadata;
                }
            }
            Some("finalize") => {
                let finalizers = object["spec"]["finalizers"].take();
                let metadata = object["metadata"].take();
                *object = current.clone();
                object["metadata"] = metadata;
                object["spec"]["finalizers"] = finalizers;
            }
            Some("ephemeralcontainers") => {
                let containers = object["spec"]["ephemeralContainers"].take();
                *object = current.clone();
                object["spec"]["ephemeralContainers"] = containers;
            }
            Some(_) => {}
            None => {
                if self.resource.has_status() {
                    json::carry(object, current, "status");
                }
                if self.resource.is("", "namespaces") {
                    let finalizers = json::at(current, &["spec", "finalizers"]).cloned().unwrap_or_default();
                    object["spec"]["finalizers"] = finalizers;
                }
            }
        }
    }
}

/// A list of strings as Go prints it with `%#v`.
fn go_strings(list: &[&str]) -> String {
    let quoted: Vec<String> = list.iter().map(|one| format!("{one:?}")).collect();
    format!("[]string{{{}}}", quoted.join(", "))
}
