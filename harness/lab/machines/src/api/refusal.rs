//! What a client is told when its request is refused: Kubernetes `Status` objects, worded as Kubernetes words them.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use udn_api::kubevirt::names;

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Refusal {
    code: u16,
    reason: String,
    message: String,
    details: Option<Value>,
}

impl Refusal {
    fn new(code: u16, reason: &str, message: impl Into<String>, details: Option<Value>) -> Self {
        Self { code, reason: reason.to_owned(), message: message.into(), details }
    }

    pub(super) fn no_such_path() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource", Some(json!({})))
    }

    pub(super) fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self::new(405, "MethodNotAllowed", message, Some(json!({})))
    }

    pub(super) fn not_found(plural: &str, name: &str) -> Self {
        let message = format!("{plural}.{} {name:?} not found", names::GROUP);
        Self::new(404, "NotFound", message, Some(details(plural, name)))
    }

    /// An instance that shall run and that nobody here runs, such as one of a lab that is no more.
    pub(super) fn runs_nowhere(namespace: &str, name: &str) -> Self {
        let message = format!(
            "no node of this lab runs {namespace}/{name}, though its status says Running; delete the instance to have \
             it started again"
        );
        Self::new(404, "NotFound", message, None)
    }

    pub(super) fn conflict(plural: &str, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {plural}.{} {name:?}: {why}", names::GROUP);
        Self::new(409, "Conflict", message, Some(details(plural, name)))
    }

    /// A request that should become a WebSocket and cannot.
    pub(super) fn no_upgrade(code: StatusCode, why: &str) -> Self {
        Self::new(code.as_u16(), "BadRequest", format!("unable to upgrade: {why}"), None)
    }

    pub(super) fn internal(error: &dyn std::fmt::Display) -> Self {
        let details = json!({"causes": [{"message": error.to_string()}]});
        Self::new(500, "InternalError", format!("Internal error occurred: {error}"), Some(details))
    }
}

/// The API server's own refusals are passed on.
impl From<kube::Error> for Refusal {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => {
                let details = status.details.as_ref().and_then(|details| serde_json::to_value(details).ok());
                Self::new(status.code, &status.reason, status.message, details)
            }
            error => Self::internal(&error),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let code = StatusCode::from_u16(self.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "reason": self.reason, "message": self.message, "code": code.as_u16(),
        });
        if let Some(details) = self.details {
            status["details"] = details;
        }
        (code, Json(status)).into_response()
    }
}

fn details(plural: &str, name: &str) -> Value {
    json!({"name": name, "group": names::GROUP, "kind": plural})
}
