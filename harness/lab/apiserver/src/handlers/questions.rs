//! Kinds that are asked and answered at once: who am I, may I, bind this pod, give me a token.

use std::time::Duration;

use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use super::{Call, pods};
use crate::authorization::{Attributes, allowed, granted};
use crate::identity::User;
use crate::json::{int, list, name, stamp, text};
use crate::respond::reply;
use crate::status::{FieldError, Rejection};
use crate::write::{decode, parse_body};

/// How long a token is good where nothing else is asked for, and the shortest that may be: seconds.
const USUAL_LIFETIME: i64 = 3600;
const SHORTEST_LIFETIME: i64 = 600;

pub(super) fn answer(call: &Call, body: &[u8]) -> Result<Response, Rejection> {
    let mut object = decode(call.resource(), body)?;
    let user = &call.caller.user;
    object["status"] = match call.resource().kind.as_str() {
        "Binding" => return pods::assign(&call.cluster, call.writer(), name(&object), &object),
        "SelfSubjectReview" => json!({ "userInfo": user.info() }),
        "SelfSubjectRulesReview" => rules(call, text(&object, &["spec", "namespace"])),
        "TokenReview" => match call.cluster.user(text(&object, &["spec", "token"])) {
            Some(holder) => json!({"authenticated": true, "user": holder.info()}),
            None => json!({"authenticated": false}),
        },
        "SelfSubjectAccessReview" => access(call, user, &object)?,
        _ => access(call, &subject(&object["spec"]), &object)?,
    };
    Ok(reply(StatusCode::CREATED, &object))
}

/// Whom a review of somebody else's rights is about.
fn subject(spec: &Value) -> User {
    let groups = list(spec, &["groups"]).iter().filter_map(Value::as_str).map(str::to_owned);
    User { name: text(spec, &["user"]).to_owned(), groups: groups.collect() }
}

fn access(call: &Call, user: &User, review: &Value) -> Result<Value, Rejection> {
    let Some(asked) = Attributes::of_review(&review["spec"]) else {
        let text = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
        let error = FieldError::invalid("spec.resourceAttributes", &Value::Null, text);
        return Err(Rejection::invalid(&call.resource().qualified_kind(), "", &[error]));
    };
    Ok(match allowed(&call.cluster, user, &asked) {
        Some(reason) => json!({"allowed": true, "reason": reason}),
        None => json!({"allowed": false}),
    })
}

/// Everything that a user may do in a namespace, the rules as they are written.
fn rules(call: &Call, namespace: &str) -> Value {
    let user = &call.caller.user;
    let (mut resources, mut paths) = (Vec::new(), Vec::new());
    if user.may_everything() {
        resources.push(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
        paths.push(json!({"verbs": ["*"], "nonResourceURLs": ["*"]}));
    }
    for grant in granted(&call.cluster, user, namespace) {
        if list(&grant.rule, &["nonResourceURLs"]).is_empty() {
            resources.push(grant.rule);
        } else if grant.everywhere {
            paths.push(grant.rule);
        }
    }
    json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false})
}

/// `POST serviceaccounts/<name>/token`.
pub(super) fn token(call: &Call, body: &[u8]) -> Result<Response, Rejection> {
    let mut request: Value = parse_body(body)?;
    let account = call.current().ok_or_else(|| call.not_found())?;
    let seconds = int(&request, &["spec", "expirationSeconds"]).unwrap_or(USUAL_LIFETIME);
    if seconds < SHORTEST_LIFETIME {
        let text = "may not specify a duration less than 10 minutes";
        let error = FieldError::invalid("spec.expirationSeconds", &seconds.into(), text);
        return Err(Rejection::invalid("TokenRequest.authentication.k8s.io", call.target.name_key(), &[error]));
    }
    let lifetime = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
    let (token, until) = call.cluster.tokens.issue(&account, lifetime);
    request["kind"] = "TokenRequest".into();
    request["apiVersion"] = "authentication.k8s.io/v1".into();
    request["spec"]["expirationSeconds"] = seconds.into();
    request["status"] = json!({"token": token, "expirationTimestamp": stamp(until)});
    Ok(reply(StatusCode::CREATED, &request))
}
