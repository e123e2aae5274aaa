//! Kinds that are asked and answered at once: who am I, may I, bind this pod, give me a token.

use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use super::{Call, pods};
use crate::json::{int, name, text};
use crate::respond::reply;
use crate::status::Rejection;
use crate::write::{decode, parse_body};

/// The only user.
pub(crate) const USER: &str = "kubernetes-admin";
/// Its groups.
pub(crate) const GROUPS: [&str; 2] = ["system:masters", "system:authenticated"];

pub(super) fn answer(call: &Call, body: &[u8]) -> Result<Response, Rejection> {
    let mut object = decode(call.resource(), body)?;
    let user = json!({"username": USER, "groups": GROUPS});
    object["status"] = match call.resource().kind.as_str() {
        "Binding" => return pods::assign(&call.cluster, call.writer(), name(&object), &object),
        "SelfSubjectReview" => json!({ "userInfo": user }),
        "SelfSubjectRulesReview" => json!({
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
            "incomplete": false,
        }),
        "TokenReview" if text(&object, &["spec", "token"]) == call.cluster.config.admin_token => {
            json!({"authenticated": true, "user": user})
        }
        "TokenReview" => json!({"authenticated": false}),
        _ => json!({"allowed": true, "reason": "authorization is not enforced here"}),
    };
    Ok(reply(StatusCode::CREATED, &object))
}

/// `POST serviceaccounts/<name>/token`: there are no service account tokens here, and a made-up one would only fail
/// later.
pub(super) fn token(call: &Call, body: &[u8]) -> Result<Response, Rejection> {
    let request: Value = parse_body(body)?;
    call.current().ok_or_else(|| call.not_found())?;
    let seconds = int(&request, &["spec", "expirationSeconds"]).unwrap_or(3600);
    Err(Rejection::bad_request(format!(
        "service account tokens are not issued here (asked for {seconds} s); use the token of the kubeconfig"
    )))
}
