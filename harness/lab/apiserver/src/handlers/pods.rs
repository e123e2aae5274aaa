//! Binding a pod to a node, and evicting it.

use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use super::Call;
use crate::json::{int, list, map, name, namespace, now, text};
use crate::respond::reply;
use crate::selectors::Selector;
use crate::server::Cluster;
use crate::status::Rejection;
use crate::write::{DeleteOptions, Proposed, Writer, parse_body};

/// `POST pods/<name>/binding`.
pub(super) fn bind(call: &Call, body: &[u8]) -> Result<Response, Rejection> {
    let binding = parse_body(body)?;
    assign(&call.cluster, call.writer(), call.target.name_key(), &binding)
}

/// Sets the node of a pod, once.
pub(super) fn assign(cluster: &Cluster, writer: Writer<'_>, pod: &str, binding: &Value) -> Result<Response, Rejection> {
    let node = text(binding, &["target", "name"]).to_owned();
    let kind = text(binding, &["target", "kind"]);
    if node.is_empty() || !matches!(kind, "" | "Node") {
        let text = format!("Binding {pod:?} is invalid: target.name: Required value");
        return Err(Rejection::unprocessable(text));
    }
    let uid = text(binding, &["metadata", "uid"]).to_owned();
    let Some(pods) = cluster.registry.find("", "v1", "pods") else { return Err(Rejection::no_such_path()) };
    let conflict = |why: String| {
        let texts = crate::status::GroupResource { group: "", resource: "pods/binding" };
        Rejection::conflict(&texts, pod, &why)
    };
    // `writer` may be that of the other path to the same thing, `POST bindings`.
    let mut writer = Writer { resource: &pods, subresource: Some("binding"), ..writer };
    writer.update(pod, |current| {
        if !uid.is_empty() && text(current, &["metadata", "uid"]) != uid {
            return Err(conflict(format!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                text(current, &["metadata", "uid"])
            )));
        }
        if crate::json::deleting(current) {
            return Err(conflict(format!("pod {pod} is being deleted, cannot be assigned to a host")));
        }
        let assigned = text(current, &["spec", "nodeName"]);
        if !assigned.is_empty() {
            return Err(conflict(format!("pod {pod} is already assigned to node {assigned:?}")));
        }
        let mut next = current.clone();
        next["spec"]["nodeName"] = node.clone().into();
        if let Some(extra) = binding["metadata"]["annotations"].as_object() {
            let annotations = crate::json::object(&mut next["metadata"], "annotations");
            annotations.extend(extra.clone());
        }
        let moment = now();
        let conditions = map(&mut next["status"]).entry("conditions").or_insert_with(|| json!([]));
        if let Some(conditions) = conditions.as_array_mut() {
            conditions.retain(|condition| condition["type"] != "PodScheduled");
            conditions.push(json!({
                "type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": moment,
            }));
        }
        Ok(Proposed::change(next))
    })?;
    Ok(reply(
        StatusCode::CREATED,
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
    ))
}

/// `POST pods/<name>/eviction`: deletes unless a disruption budget forbids it.
pub(super) fn evict(call: &Call, body: &[u8]) -> Result<Response, Rejection> {
    let eviction = parse_body(body)?;
    let pod = call.current().ok_or_else(|| call.not_found())?;
    if eviction.get("deleteOptions").is_some_and(|given| !given.is_object()) {
        return Err(Rejection::bad_request("Eviction.deleteOptions is not an object"));
    }
    let mut options = DeleteOptions::read(eviction.get("deleteOptions").unwrap_or(&Value::Null))?;
    options.dry_run |= call.options.dry_run()?;
    let ready = list(&pod, &["status", "conditions"])
        .iter()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
    if ready {
        check_budgets(&call.cluster, &pod)?;
    }
    let mut writer = call.writer();
    writer.subresource = None;
    writer.dry_run = options.dry_run;
    writer.delete(call.target.name_key(), &options)?;
    let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    Ok(reply(StatusCode::CREATED, &body))
}

fn check_budgets(cluster: &Cluster, pod: &Value) -> Result<(), Rejection> {
    let (_, budgets) = cluster.store.list("policy/poddisruptionbudgets", Some(namespace(pod)));
    for budget in budgets {
        let selects = Selector::of_object(budget["spec"].get("selector")).is_some_and(|selector| selector.matches(pod));
        if selects && int(&budget, &["status", "disruptionsAllowed"]).unwrap_or(0) < 1 {
            let cause = format!(
                "The disruption budget {} needs {} healthy pods and has {} currently",
                name(&budget),
                int(&budget, &["status", "desiredHealthy"]).unwrap_or(0),
                int(&budget, &["status", "currentHealthy"]).unwrap_or(0),
            );
            return Err(Rejection::too_many_requests(
                "Cannot evict pod as it would violate the pod's disruption budget.",
                json!({"causes": [{"reason": "DisruptionBudget", "message": cause}]}),
            ));
        }
    }
    Ok(())
}
