//! Server-side apply.

use std::sync::Arc;

use serde_json::Value;

use super::body::check_type;
use super::{Proposed, Writer};
use crate::fields;
use crate::json::{self, name, text};
use crate::request::FieldValidation;
use crate::respond::to_storage;
use crate::status::Rejection;

impl Writer<'_> {
    /// Applies a configuration; creates the object if there is none. Says whether it did.
    pub(crate) fn apply(
        &mut self,
        path_name: &str,
        mut config: Value,
        force: bool,
    ) -> Result<(Arc<Value>, bool), Rejection> {
        check_type(self.resource, &mut config)?;
        to_storage(self.resource, &mut config);
        if name(&config).is_empty() {
            config["metadata"]["name"] = path_name.into();
        } else if name(&config) != path_name {
            return Err(Rejection::bad_request(format!(
                "the name of the object ({}) does not match the name on the URL ({path_name})",
                name(&config)
            )));
        }
        self.place(&mut config)?;
        if !json::list(&config, &["metadata", "managedFields"]).is_empty() {
            return Err(Rejection::bad_request("metadata.managedFields must be nil"));
        }
        self.check_applied_fields(&mut config)?;
        loop {
            let current = self.cluster.store.get(&self.resource.storage, self.namespace, path_name);
            let Some(current) = current else {
                if self.subresource.is_some() {
                    return Err(Rejection::not_found(&self.resource.in_texts(), path_name));
                }
                let uid = text(&config, &["metadata", "uid"]);
                if !uid.is_empty() {
                    let why = format!(
                        "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
                    );
                    return Err(Rejection::conflict(&self.resource.in_texts(), path_name, &why));
                }
                let object = fields::apply_new(self.resource, &config, self.manager, self.subresource);
                match self.create_owned(object, false) {
                    // Somebody else was faster: apply to what they created.
                    Err(rejection) if rejection.reason == "AlreadyExists" => continue,
                    created => return Ok((created?, true)),
                }
            };
            let merged = fields::apply(self.resource, &current, &config, self.manager, self.subresource, force)?;
            if let Some(done) = self.try_update(&current, Proposed::applied(merged))? {
                return Ok((done, false));
            }
        }
    }

    /// Fields that the kind does not have cannot be owned.
    fn check_applied_fields(&mut self, config: &mut Value) -> Result<(), Rejection> {
        let unknown = self.prune(config)?;
        let Some(first) = unknown.first() else { return Ok(()) };
        match self.validation {
            FieldValidation::Ignore => Ok(()),
            _ if self.resource.is_custom() && self.validation == FieldValidation::Warn => {
                self.warnings.extend(unknown.iter().map(|path| format!("unknown field {path:?}")));
                Ok(())
            }
            _ => Err(Rejection::untyped(format!(
                "failed to create typed patch object ({}/{}; {}/{}, Kind={}): .{first}: field not declared in schema",
                self.namespace,
                name(config),
                self.resource.group,
                self.resource.version,
                self.resource.kind,
            ))),
        }
    }
}
