//! What a client is told when its request is refused: Kubernetes `Status` objects, worded as Kubernetes words them.

use serde_json::{Value, json};

/// Why a request was refused.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Rejection {
    /// HTTP status code.
    pub(crate) code: u16,
    /// Machine readable reason, `""` when Kubernetes gives none.
    pub(crate) reason: &'static str,
    /// Human readable text.
    pub(crate) message: String,
    /// `details` of the status.
    pub(crate) details: Option<Value>,
}

impl Rejection {
    fn new(code: u16, reason: &'static str, message: impl Into<String>, details: Option<Value>) -> Self {
        Self { code, reason, message: message.into(), details }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message, None)
    }

    pub(crate) fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized", None)
    }

    pub(crate) fn forbidden(resource: &GroupResource<'_>, name: &str, why: &str) -> Self {
        let message = format!("{resource} {name:?} is forbidden: {why}");
        Self::new(403, "Forbidden", message, Some(resource.details(name)))
    }

    /// The user lacks a right. `resource`: what it is about, where it is about objects.
    pub(crate) fn no_right(resource: Option<&GroupResource<'_>>, name: &str, why: &str) -> Self {
        let message = match resource {
            None => format!("forbidden: {why}"),
            Some(resource) if name.is_empty() => format!("{resource} is forbidden: {why}"),
            Some(resource) => format!("{resource} {name:?} is forbidden: {why}"),
        };
        let details = resource.map_or_else(|| json!({}), |resource| resource.details(name));
        Self::new(403, "Forbidden", message, Some(details))
    }

    pub(crate) fn not_found(resource: &GroupResource<'_>, name: &str) -> Self {
        let message = format!("{resource} {name:?} not found");
        Self::new(404, "NotFound", message, Some(resource.details(name)))
    }

    pub(crate) fn no_such_path() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource", Some(json!({})))
    }

    pub(crate) fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self::new(405, "MethodNotAllowed", message, Some(json!({})))
    }

    pub(crate) fn already_exists(resource: &GroupResource<'_>, name: &str) -> Self {
        let message = format!("{resource} {name:?} already exists");
        Self::new(409, "AlreadyExists", message, Some(resource.details(name)))
    }

    pub(crate) fn conflict(resource: &GroupResource<'_>, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {resource} {name:?}: {why}");
        Self::new(409, "Conflict", message, Some(resource.details(name)))
    }

    /// A write lost a race against another one.
    pub(crate) fn modified(resource: &GroupResource<'_>, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(resource, name, why)
    }

    /// Server-side apply met fields that others own. `conflicts` are (manager as Kubernetes words it, field path).
    pub(crate) fn apply_conflict(conflicts: &[(String, String)]) -> Self {
        let causes: Vec<Value> = conflicts
            .iter()
            .map(|(manager, field)| {
                json!({"reason": "FieldManagerConflict", "message": format!("conflict with {manager}"), "field": field})
            })
            .collect();
        let mut managers: Vec<&str> = conflicts.iter().map(|(manager, _)| manager.as_str()).collect();
        managers.dedup();
        let message = if let [(manager, field)] = conflicts {
            format!("Apply failed with 1 conflict: conflict with {manager}: {field}")
        } else {
            let mut text = format!("Apply failed with {} conflicts:", conflicts.len());
            for (at, manager) in managers.iter().enumerate() {
                text.push_str(if at == 0 { " " } else { "\n" });
                text.push_str(&format!("conflicts with {manager}:"));
                for (_, field) in conflicts.iter().filter(|(other, _)| other == manager) {
                    text.push_str(&format!("\n- {field}"));
                }
            }
            text
        };
        Self::new(409, "Conflict", message, Some(json!({ "causes": causes })))
    }

    pub(crate) fn gone(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message, None)
    }

    pub(crate) fn too_large_version(wanted: u64, current: u64) -> Self {
        let message = format!("Too large resource version: {wanted}, current: {current}");
        let causes = json!([{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]);
        Self::new(504, "Timeout", message, Some(json!({"causes": causes, "retryAfterSeconds": 1})))
    }

    pub(crate) fn unsupported_media_type(given: &str, supported: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {} (got {given:?})",
            supported.join(", ")
        );
        Self::new(415, "UnsupportedMediaType", message, None)
    }

    pub(crate) fn not_acceptable(supported: &[&str]) -> Self {
        let message = format!("only the following media types are accepted: {}", supported.join(", "));
        Self::new(406, "NotAcceptable", message, None)
    }

    /// The object breaks a rule of its kind. `kind` is qualified, as in `Deployment.apps`.
    pub(crate) fn invalid(kind: &str, name: &str, errors: &[FieldError]) -> Self {
        let text: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let joined = match text.as_slice() {
            [one] => one.clone(),
            _ => format!("[{}]", text.join(", ")),
        };
        let (plain, group) = kind.split_once('.').unwrap_or((kind, ""));
        let causes: Vec<Value> = errors.iter().map(FieldError::cause).collect();
        let details = json!({"name": name, "group": group, "kind": plain, "causes": causes});
        Self::new(422, "Invalid", format!("{kind} {name:?} is invalid: {joined}"), Some(details))
    }

    /// A patch that cannot be applied to the object.
    pub(crate) fn unprocessable(message: impl Into<String>) -> Self {
        Self::new(422, "Invalid", message, None)
    }

    pub(crate) fn too_many_requests(message: impl Into<String>, details: Value) -> Self {
        Self::new(429, "TooManyRequests", message, Some(details))
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        let message = message.into();
        let details = json!({"causes": [{"message": message}]});
        Self::new(500, "InternalError", format!("Internal error occurred: {message}"), Some(details))
    }

    /// An apply configuration that does not fit the kind's schema.
    pub(crate) fn untyped(message: impl Into<String>) -> Self {
        Self::new(500, "", message, None)
    }

    /// Somebody whom the server asked (a kubelet) answered with an error.
    pub(crate) fn upstream(code: u16, message: impl Into<String>) -> Self {
        let reason = match code {
            400 => "BadRequest",
            404 => "NotFound",
            _ => "InternalError",
        };
        Self::new(code, reason, message, None)
    }

    pub(crate) fn admission(mut self, code: u16, reason: &'static str, cause: &str) -> Self {
        self.code = code;
        self.reason = reason;
        if let Some(details) = self.details.as_mut() {
            details["causes"] = json!([{ "message": cause }]);
        }
        self
    }

    pub(crate) fn with_causes(mut self, causes: Value) -> Self {
        match self.details.as_mut() {
            Some(details) => details["causes"] = causes,
            None => self.details = Some(json!({ "causes": causes })),
        }
        self
    }

    /// The `Status` object.
    pub(crate) fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "code": self.code,
        });
        if !self.reason.is_empty() {
            status["reason"] = self.reason.into();
        }
        if let Some(details) = &self.details {
            status["details"] = details.clone();
        }
        status
    }
}

/// A resource in error texts: `pods`, `deployments.apps`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GroupResource<'a> {
    pub(crate) group: &'a str,
    pub(crate) resource: &'a str,
}

impl GroupResource<'_> {
    fn details(&self, name: &str) -> Value {
        let mut details = json!({"name": name, "kind": self.resource});
        if !self.group.is_empty() {
            details["group"] = self.group.into();
        }
        details
    }
}

impl std::fmt::Display for GroupResource<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.group.is_empty() { f.write_str(self.resource) } else { write!(f, "{}.{}", self.resource, self.group) }
    }
}

/// One field that breaks a rule.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FieldError {
    pub(crate) path: String,
    reason: &'static str,
    text: String,
}

impl FieldError {
    fn new(path: impl Into<String>, reason: &'static str, text: String) -> Self {
        Self { path: path.into(), reason, text }
    }

    pub(crate) fn required(path: impl Into<String>, detail: &str) -> Self {
        let text = if detail.is_empty() { "Required value".into() } else { format!("Required value: {detail}") };
        Self::new(path, "FieldValueRequired", text)
    }

    pub(crate) fn invalid(path: impl Into<String>, value: &Value, detail: &str) -> Self {
        Self::new(path, "FieldValueInvalid", format!("Invalid value: {value}: {detail}"))
    }

    /// A value of the wrong JSON type.
    pub(crate) fn type_invalid(path: impl Into<String>, value: &str, detail: &str) -> Self {
        Self::new(path, "FieldValueTypeInvalid", format!("Invalid value: {value:?}: {detail}"))
    }

    pub(crate) fn forbidden(path: impl Into<String>, detail: &str) -> Self {
        Self::new(path, "FieldValueForbidden", format!("Forbidden: {detail}"))
    }

    /// Something that the object refers to is not in it.
    pub(crate) fn not_found(path: impl Into<String>, value: &Value) -> Self {
        Self::new(path, "FieldValueNotFound", format!("Not found: {value}"))
    }

    pub(crate) fn duplicate(path: impl Into<String>, value: &Value) -> Self {
        Self::new(path, "FieldValueDuplicate", format!("Duplicate value: {value}"))
    }

    pub(crate) fn unsupported<'a>(
        path: impl Into<String>,
        value: &Value,
        supported: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let list: Vec<String> = supported.into_iter().map(|one| format!("{one:?}")).collect();
        let text = format!("Unsupported value: {value}: supported values: {}", list.join(", "));
        Self::new(path, "FieldValueNotSupported", text)
    }

    pub(crate) fn too_long(path: impl Into<String>, max: u64) -> Self {
        Self::new(path, "FieldValueTooLong", format!("Too long: may not be more than {max} bytes"))
    }

    pub(crate) fn too_many(path: impl Into<String>, count: usize, max: u64) -> Self {
        let items = if max == 1 { "item" } else { "items" };
        Self::new(path, "FieldValueTooMany", format!("Too many: {count}: must have at most {max} {items}"))
    }

    fn cause(&self) -> Value {
        json!({"reason": self.reason, "message": self.text, "field": self.path})
    }
}

impl std::fmt::Display for FieldError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.path, self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_those_of_kubernetes() {
        let pods = GroupResource { group: "", resource: "pods" };
        let sets = GroupResource { group: "apps", resource: "statefulsets" };
        assert_eq!(Rejection::not_found(&pods, "a").message, "pods \"a\" not found");
        assert_eq!(Rejection::already_exists(&sets, "a").message, "statefulsets.apps \"a\" already exists");
        let errors = [FieldError::required("spec.a", ""), FieldError::unsupported("spec.b", &json!("X"), ["A", "B"])];
        assert_eq!(
            Rejection::invalid("Thing.x.io", "n", &errors).message,
            "Thing.x.io \"n\" is invalid: [spec.a: Required value, spec.b: Unsupported value: \"X\": supported values: \"A\", \"B\"]"
        );
    }
}
