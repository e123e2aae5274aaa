//! Create.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Writer, meta};
use crate::fields;
use crate::json::{self, deleting, map, name, text};
use crate::resources::Resource;
use crate::respond::to_storage;
use crate::status::Rejection;
use crate::store::Expect;
use crate::{defaults, services};

/// How often a generated name is tried before the client has to.
const NAMES_TRIED: usize = 8;

impl Writer<'_> {
    /// Creates an object as a client sent it.
    pub(crate) fn create(&mut self, mut object: Value) -> Result<Arc<Value>, Rejection> {
        to_storage(self.resource, &mut object);
        self.check_fields(&mut object)?;
        if !text(&object, &["metadata", "resourceVersion"]).is_empty() {
            return Err(Rejection::bad_request("resourceVersion should not be set on objects to be created"));
        }
        self.place(&mut object)?;
        json::remove(&mut object["metadata"], "managedFields");
        self.create_owned(object, true)
    }

    /// Creates an object; `record`: as a plain write of the manager, else its ownership is recorded already.
    pub(super) fn create_owned(&mut self, object: Value, record: bool) -> Result<Arc<Value>, Rejection> {
        let base = text(&object, &["metadata", "generateName"]).to_owned();
        let generated = name(&object).is_empty() && !base.is_empty();
        for _ in 0..NAMES_TRIED {
            let mut object = object.clone();
            if generated {
                object["metadata"]["name"] = meta::generate_name(&base).into();
            }
            match self.create_named(object, record) {
                Err(rejection) if generated && rejection.reason == "AlreadyExists" => {}
                done => return done,
            }
        }
        Err(Rejection::already_exists(&self.resource.in_texts(), &base))
    }

    fn create_named(&mut self, mut object: Value, record: bool) -> Result<Arc<Value>, Rejection> {
        self.check_namespace(name(&object))?;
        if name(&object).is_empty() {
            let error = crate::status::FieldError::required("metadata.name", "name or generateName is required");
            return Err(Rejection::invalid(&self.resource.qualified_kind(), "", &[error]));
        }
        if self.cluster.store.get(&self.resource.storage, self.namespace, name(&object)).is_some() {
            return Err(Rejection::already_exists(&self.resource.in_texts(), name(&object)));
        }
        meta::identify(self.resource, &mut object);
        // Node agents register their node with a first status; everybody else's status begins empty.
        if self.resource.has_status() && !self.resource.is("", "nodes") {
            json::remove(&mut object, "status");
        }
        self.set_defaults(&mut object);
        if record {
            fields::record_create(self.resource, &mut object, self.manager, self.subresource);
        }
        defaults::first_status(self.resource, &mut object);
        self.check_rules(&object, None)?;
        let _addresses = self.lock_addresses();
        if self.resource.is("", "services") {
            services::allocate(self.cluster, &mut object, None)?;
        }
        self.admit("CREATE", Some(&object), None)?;
        if self.dry_run {
            return Ok(Arc::new(object));
        }
        let name = name(&object).to_owned();
        let created = self
            .cluster
            .store
            .put(&self.resource.storage, (self.namespace, &name), Expect::Absent, object)
            .map_err(|_| Rejection::already_exists(&self.resource.in_texts(), &name))?;
        self.after(None, Some(&created));
        Ok(created)
    }

    /// Puts the object into the namespace of the path.
    pub(super) fn place(&self, object: &mut Value) -> Result<(), Rejection> {
        let metadata = map(&mut object["metadata"]);
        let given = metadata.get("namespace").and_then(Value::as_str).unwrap_or_default();
        if !self.resource.namespaced {
            if !given.is_empty() {
                metadata.remove("namespace");
            }
            return Ok(());
        }
        if !given.is_empty() && given != self.namespace {
            return Err(Rejection::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        metadata.insert("namespace".into(), self.namespace.into());
        Ok(())
    }

    /// Nothing is created in a namespace that is not there or on its way out.
    fn check_namespace(&self, name: &str) -> Result<(), Rejection> {
        if !self.resource.namespaced {
            return Ok(());
        }
        let namespaces = crate::status::GroupResource { group: "", resource: "namespaces" };
        let namespace = self
            .cluster
            .store
            .get("namespaces", "", self.namespace)
            .ok_or_else(|| Rejection::not_found(&namespaces, self.namespace))?;
        if deleting(&namespace) && !may_outlive(self.resource) {
            let why =
                format!("unable to create new content in namespace {} because it is being terminated", self.namespace);
            let causes = json!([{
                "reason": "NamespaceTerminating",
                "message": format!("namespace {} is being terminated", self.namespace),
                "field": "metadata.namespace",
            }]);
            return Err(Rejection::forbidden(&self.resource.in_texts(), name, &why).with_causes(causes));
        }
        Ok(())
    }
}

/// Kinds that may still be created while their namespace ends.
fn may_outlive(resource: &Resource) -> bool {
    resource.is("authorization.k8s.io", "localsubjectaccessreviews")
}
