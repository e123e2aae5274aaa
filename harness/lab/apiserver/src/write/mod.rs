//! The way of a write: fields checked, defaults set, rules and policies asked, ownership recorded, committed.

mod apply;
mod body;
mod create;
mod delete;
mod effects;
mod meta;
mod update;

use std::sync::MutexGuard;

use serde_json::Value;

use crate::crd;
use crate::identity::{ADMIN, User};
use crate::request::FieldValidation;
use crate::resources::{Resource, typed};
use crate::server::Cluster;
use crate::status::{FieldError, Rejection};
use crate::{defaults, validate};

pub(crate) use body::{check_type, decode, parse_body};
pub(crate) use delete::{DeleteOptions, Deleted};
pub(crate) use update::Proposed;

/// One request's writes.
pub(crate) struct Writer<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) resource: &'a Resource,
    /// Namespace of the object, `""` for cluster-scoped kinds.
    pub(crate) namespace: &'a str,
    pub(crate) subresource: Option<&'a str>,
    /// Who writes.
    pub(crate) user: &'a User,
    /// Who the write is recorded for.
    pub(crate) manager: &'a str,
    pub(crate) dry_run: bool,
    pub(crate) validation: FieldValidation,
    /// What the client is warned of.
    pub(crate) warnings: Vec<String>,
}

impl<'a> Writer<'a> {
    /// What the API server itself writes.
    pub(crate) fn of_server(cluster: &'a Cluster, resource: &'a Resource, namespace: &'a str) -> Self {
        Self {
            cluster,
            resource,
            namespace,
            subresource: None,
            user: &ADMIN,
            manager: "kube-apiserver",
            dry_run: false,
            validation: FieldValidation::Ignore,
            warnings: Vec::new(),
        }
    }
}

impl Writer<'_> {
    /// Removes what the kind does not know from an object, or refuses the object for it, as the client wants.
    pub(crate) fn check_fields(&mut self, object: &mut Value) -> Result<(), Rejection> {
        let unknown = self.prune(object)?;
        if unknown.is_empty() {
            return Ok(());
        }
        let texts: Vec<String> = unknown.iter().map(|path| format!("unknown field {path:?}")).collect();
        match self.validation {
            FieldValidation::Ignore => {}
            FieldValidation::Warn => self.warnings.extend(texts),
            FieldValidation::Strict => {
                let Resource { kind, version, .. } = self.resource;
                let list = texts.join(", ");
                return Err(Rejection::bad_request(if self.resource.is_custom() {
                    format!("strict decoding error: {list}")
                } else {
                    format!(
                        "{kind} in version {version:?} cannot be handled as a {kind}: strict decoding error: {list}"
                    )
                }));
            }
        }
        Ok(())
    }

    /// Removes unknown fields and returns their paths.
    fn prune(&self, object: &mut Value) -> Result<Vec<String>, Rejection> {
        let Resource { group, kind, version, .. } = self.resource;
        if let Some(custom) = &self.resource.custom {
            return Ok(crd::prune(custom, object));
        }
        // Events are stored as core/v1 whatever they were sent as.
        let group = if kind == "Event" { "" } else { group };
        match typed::normalize(group, kind, object) {
            Some(Ok(known)) => Ok(typed::prune(object, &known)),
            Some(Err(error)) => Err(Rejection::bad_request(format!(
                "{kind} in version {version:?} cannot be handled as a {kind}: {error}"
            ))),
            None => Ok(Vec::new()),
        }
    }

    /// Sets what the kind sets by default.
    fn set_defaults(&self, object: &mut Value) {
        match &self.resource.custom {
            Some(custom) => crd::set_defaults(custom, object),
            None => defaults::set(self.resource, object),
        }
    }

    /// Refuses an object that breaks a rule of its kind. `old` is what it replaces.
    fn check_rules(&self, object: &Value, old: Option<&Value>) -> Result<(), Rejection> {
        let mut errors: Vec<FieldError> = validate::metadata(self.resource, object);
        match &self.resource.custom {
            Some(custom) => errors.extend(crd::validate(custom, object, old)),
            None => errors.extend(validate::object(self.resource, self.subresource, object, old)),
        }
        if errors.is_empty() {
            return Ok(());
        }
        let name = crate::json::name(object);
        Err(Rejection::invalid(&self.resource.qualified_kind(), name, &errors))
    }

    /// For services a lock to hold until the commit, so that no address is given twice.
    fn lock_addresses(&self) -> Option<MutexGuard<'_, ()>> {
        self.resource.is("", "services").then(|| self.cluster.allocator.lock())
    }

    fn admit(&self, operation: &str, object: Option<&Value>, old: Option<&Value>) -> Result<(), Rejection> {
        self.cluster.policies.admit(
            self.cluster,
            &crate::admission::Attempt {
                operation,
                resource: self.resource,
                subresource: self.subresource.unwrap_or_default(),
                namespace: self.namespace,
                user: self.user,
                object,
                old,
                dry_run: self.dry_run,
            },
        )
    }
}
