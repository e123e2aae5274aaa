//! Custom resources: what their CustomResourceDefinitions say of them.

mod columns;
mod definition;
mod schema;
mod structure;

use std::collections::HashMap;

use kube::core::cel::{CompiledSchema, ErrorKind, RootContext, ValidationError, Validator};
use regex::Regex;
use serde_json::Value;

use crate::status::FieldError;

pub(crate) use columns::Column;
pub(crate) use definition::{check, priority, resources, storage};

/// One version of a custom resource.
pub(crate) struct CustomVersion {
    /// Name of the definition.
    pub(crate) definition: String,
    /// The schema as the definition has it.
    pub(crate) schema_source: Value,
    /// The patterns of the schema.
    patterns: HashMap<String, Regex>,
    /// The CEL rules of the schema.
    rules: CompiledSchema,
    has_rules: bool,
    root: RootContext,
    pub(crate) columns: Vec<Column>,
    /// Paths for field selectors.
    pub(crate) selectable: Vec<String>,
    pub(crate) scale: Option<ScalePaths>,
}

/// Where a custom resource keeps what its scale shows.
pub(crate) struct ScalePaths {
    pub(crate) replicas: String,
    pub(crate) observed: String,
    pub(crate) selector: Option<String>,
}

/// Removes fields that the schema does not have; returns their paths.
pub(crate) fn prune(custom: &CustomVersion, object: &mut Value) -> Vec<String> {
    let mut unknown = Vec::new();
    structure::prune_root(&custom.schema_source, object, &mut unknown);
    unknown
}

/// Sets the defaults of the schema.
pub(crate) fn set_defaults(custom: &CustomVersion, object: &mut Value) {
    structure::set_defaults(&custom.schema_source, object);
}

/// The rules of the schema that an object breaks. `old` is what it replaces.
pub(crate) fn validate(custom: &CustomVersion, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    schema::Check { patterns: &custom.patterns, errors: &mut errors }.root(&custom.schema_source, object);
    if !custom.has_rules {
        return errors;
    }
    if !errors.is_empty() {
        errors.push(FieldError::type_invalid(
            "<nil>",
            "null",
            "some validation rules were not checked because the object was invalid; correct the existing errors to \
             complete validation",
        ));
        return errors;
    }
    let validated = Validator::new().validate_compiled_with_context(&custom.rules, object, old, Some(&custom.root));
    if let Err(broken) = validated {
        errors.extend(broken.iter().map(|error| field_error(&custom.schema_source, error)));
    }
    errors
}

fn field_error(schema: &Value, error: &ValidationError) -> FieldError {
    let path = if error.field_path.is_empty() { "<nil>" } else { error.field_path.as_str() };
    let message = match error.kind {
        ErrorKind::ValidationFailure => error.message.clone(),
        _ => format!("rule {:?} cannot be evaluated: {}", error.rule, error.message),
    };
    match error.reason.as_deref() {
        Some("FieldValueForbidden") => FieldError::forbidden(path, &message),
        Some("FieldValueRequired") => FieldError::required(path, &message),
        _ => FieldError::invalid(path, &type_at(schema, &error.field_path).into(), &message),
    }
}

/// Type of the schema at a path such as `spec.list[0].field`.
fn type_at(schema: &Value, path: &str) -> String {
    let mut at = schema;
    for part in path.split(['.', '[']).filter(|part| !part.is_empty()) {
        let next = if part.ends_with(']') {
            at.get("items").or_else(|| at.get("additionalProperties"))
        } else {
            at.get("properties").and_then(|all| all.get(part)).or_else(|| at.get("additionalProperties"))
        };
        match next {
            Some(next) => at = next,
            None => return "object".into(),
        }
    }
    at.get("type").and_then(Value::as_str).unwrap_or("object").to_owned()
}
