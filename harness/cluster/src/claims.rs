//! Whether a claim about an object holds. Pure: what is needed was fetched before.

use std::collections::BTreeSet;

use serde_json::Value;
use udn_model::cell::Claim;
use udn_model::naming::Naming;
use udn_runner::cluster::Found;

use crate::addresses::{POD_NETWORKS, annotation};

/// What the API server said to the last action on an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It was done.
    Accepted,
    /// It was refused, with these words.
    Refused(String),
}

/// What is known of an object.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known<'a> {
    /// The object; `None` where there is none.
    pub(crate) object: Option<&'a Value>,
    /// Events about it.
    pub(crate) events: &'a [Value],
    /// What the API server said to the last action on it.
    pub(crate) answer: Option<&'a Answer>,
}

/// Judges.
pub(crate) fn judge(claim: &Claim, known: Known<'_>, naming: &Naming) -> Found {
    let result = match claim {
        Claim::Refused { message_contains } => match known.answer {
            Some(Answer::Refused(message)) => contains(message, message_contains, naming),
            Some(Answer::Accepted) => Err("the API server accepted it".into()),
            None => Err("no action on it was answered".into()),
        },
        Claim::Accepted => match known.answer {
            Some(Answer::Accepted) => Ok("accepted".into()),
            Some(Answer::Refused(message)) => Err(format!("refused: {message}")),
            None => Err("no action on it was answered".into()),
        },
        Claim::Gone => match known.object {
            None => Ok("gone".into()),
            Some(object) => Err(still_there(object)),
        },
        claim => match known.object {
            Some(object) => of_object(claim, object, known.events, naming),
            None => Err("there is no such object".into()),
        },
    };
    let holds = result.is_ok();
    Found { holds, found: result.unwrap_or_else(|found| found) }
}

fn of_object(claim: &Claim, object: &Value, events: &[Value], naming: &Naming) -> Result<String, String> {
    match claim {
        Claim::Exists => Ok("exists".into()),
        Claim::HeldByFinalizer { finalizer } => held(object, finalizer),
        Claim::Condition { any_of, status, reason, message_contains } => {
            condition(object, any_of, status, reason.as_deref(), message_contains, naming)
        }
        Claim::NotTrue { condition } => match find_condition(object, condition) {
            Some(found) if found["status"] == "True" => Err(tell(found)),
            Some(found) => Ok(tell(found)),
            None => Ok(format!("no condition {condition}")),
        },
        Claim::Event { kind, reason, message_contains } => event(events, kind, reason, message_contains, naming),
        Claim::ReadyWithoutRestart => ready_without_restart(object),
        Claim::PodWaits => waits(object),
        Claim::PodNetworks { keys } => pod_networks(object, keys, naming),
        Claim::NoClusterIp => match &object["spec"]["clusterIPs"] {
            Value::Array(ips) if *ips == ["None"] => Ok("clusterIPs: None".into()),
            other => Err(format!("clusterIPs: {other}")),
        },
        Claim::Gone | Claim::Refused { .. } | Claim::Accepted | Claim::Mirrored { .. } | Claim::NotMirrored => {
            Err("not a claim about what an object is".into())
        }
    }
}

fn still_there(object: &Value) -> String {
    let deleting =
        if object["metadata"]["deletionTimestamp"].is_null() { "not being deleted" } else { "being deleted" };
    format!("still there, {deleting}, finalizers {}", list(&object["metadata"]["finalizers"]))
}

fn held(object: &Value, finalizer: &str) -> Result<String, String> {
    let finalizers = &object["metadata"]["finalizers"];
    let has = finalizers.as_array().is_some_and(|list| list.iter().any(|f| f == finalizer));
    if object["metadata"]["deletionTimestamp"].is_null() {
        Err("it is not being deleted".into())
    } else if has {
        Ok(format!("being deleted, held by {finalizer}"))
    } else {
        Err(format!("being deleted, but its finalizers are {}", list(finalizers)))
    }
}

fn find_condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}

fn condition(
    object: &Value,
    any_of: &[String],
    status: &str,
    reason: Option<&str>,
    message_contains: &[String],
    naming: &Naming,
) -> Result<String, String> {
    let found = any_of.iter().find_map(|kind| find_condition(object, kind));
    let found = found.ok_or_else(|| {
        let all = object["status"]["conditions"].as_array().into_iter().flatten().map(tell).collect::<Vec<_>>();
        let all = if all.is_empty() { "no conditions".into() } else { all.join("; ") };
        format!("no condition {}; there are: {all}", any_of.join(" or "))
    })?;
    if found["status"] != status || reason.is_some_and(|reason| found["reason"] != reason) {
        return Err(tell(found));
    }
    contains(found["message"].as_str().unwrap_or_default(), message_contains, naming).map(|_| tell(found))
}

fn event(
    events: &[Value],
    kind: &str,
    reason: &str,
    message_contains: &[String],
    naming: &Naming,
) -> Result<String, String> {
    let matching = events.iter().find(|event| {
        let message = event["message"].as_str().unwrap_or_default();
        event["type"] == kind && event["reason"] == reason && contains(message, message_contains, naming).is_ok()
    });
    let tell =
        |event: &Value| format!("{} {}: {}", text(&event["type"]), text(&event["reason"]), text(&event["message"]));
    match matching {
        Some(event) => Ok(tell(event)),
        None if events.is_empty() => Err("no events about it".into()),
        None => Err(format!("no such event; there are: {}", events.iter().map(tell).collect::<Vec<_>>().join("; "))),
    }
}

/// Whether a pod's condition `Ready` is `True`.
pub(crate) fn is_ready(pod: &Value) -> bool {
    find_condition(pod, "Ready").is_some_and(|ready| ready["status"] == "True")
        && pod["metadata"]["deletionTimestamp"].is_null()
}

fn ready_without_restart(pod: &Value) -> Result<String, String> {
    let statuses = pod["status"]["containerStatuses"].as_array();
    let restarts: u64 = statuses.into_iter().flatten().filter_map(|status| status["restartCount"].as_u64()).sum();
    if restarts > 0 {
        return Err(format!("restarted {restarts} times"));
    }
    if is_ready(pod) { Ok("ready, never restarted".into()) } else { Err(pod_state(pod)) }
}

fn waits(pod: &Value) -> Result<String, String> {
    match pod["status"]["phase"].as_str() {
        Some("Pending") | None => Ok(pod_state(pod)),
        Some(phase) => Err(format!("it is {phase}")),
    }
}

fn pod_networks(pod: &Value, keys: &[String], naming: &Naming) -> Result<String, String> {
    let expected: BTreeSet<String> = keys.iter().map(|key| naming.expand(key)).collect();
    let text = annotation(pod, POD_NETWORKS).ok_or_else(|| format!("no annotation {POD_NETWORKS}"))?;
    let value: Value = serde_json::from_str(text).map_err(|error| format!("{POD_NETWORKS}: {error}"))?;
    let found: BTreeSet<String> = value.as_object().into_iter().flatten().map(|(key, _)| key.clone()).collect();
    let told = format!("pod-networks has {}", found.iter().cloned().collect::<Vec<_>>().join(", "));
    if found == expected { Ok(told) } else { Err(told) }
}

/// What a pod's status says in one line: why it waits, or what its containers do.
pub(crate) fn pod_state(pod: &Value) -> String {
    let mut parts = vec![text(&pod["status"]["phase"]).to_owned()];
    for condition in pod["status"]["conditions"].as_array().into_iter().flatten() {
        // What keeps the containers from being ready keeps the pod from it, which is told.
        if condition["status"] != "True" && condition["type"] != "ContainersReady" {
            parts.push(tell(condition));
        }
    }
    for status in pod["status"]["containerStatuses"].as_array().into_iter().flatten() {
        let waiting = &status["state"]["waiting"];
        if !waiting.is_null() {
            parts.push(format!(
                "container {}: {} {}",
                text(&status["name"]),
                text(&waiting["reason"]),
                text(&waiting["message"])
            ));
        }
    }
    parts.retain(|part| !part.is_empty());
    if parts.is_empty() { "no status yet".into() } else { parts.join("; ") }
}

fn contains(message: &str, wanted: &[String], naming: &Naming) -> Result<String, String> {
    match wanted.iter().map(|text| naming.expand(text)).find(|text| !message.contains(text.as_str())) {
        Some(missing) => Err(format!("the message does not contain `{missing}`: {message}")),
        None => Ok(message.to_owned()),
    }
}

fn tell(condition: &Value) -> String {
    let told = format!(
        "{} {} {} {}",
        text(&condition["type"]),
        text(&condition["status"]),
        text(&condition["reason"]),
        text(&condition["message"])
    );
    told.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> String {
    let items: Vec<&str> = value.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if items.is_empty() { "none".into() } else { items.join(", ") }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn network() -> Value {
        json!({ "metadata": { "finalizers": ["keep"] }, "status": { "conditions": [
            { "type": "NetworkCreated", "status": "True", "reason": "Created", "message": "created in [k3v9a-red, k3v9a-yellow]" },
            { "type": "Odd", "status": "False", "reason": "SyncError", "message": "in use" } ] } })
    }

    fn deleting(mut object: Value) -> Value {
        object["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        object
    }

    fn pod(phase: &str, ready: &str, restarts: u64) -> Value {
        json!({ "metadata": { "annotations": { POD_NETWORKS: "{\"default\":{},\"k3v9a-red/net\":{}}" } },
            "status": { "phase": phase, "conditions": [{ "type": "Ready", "status": ready }],
                "containerStatuses": [{ "name": "probe", "restartCount": restarts }] } })
    }

    fn condition(kinds: &[&str], status: &str, reason: Option<&str>, words: &[&str]) -> Claim {
        Claim::Condition {
            any_of: kinds.iter().map(|kind| (*kind).into()).collect(),
            status: status.into(),
            reason: reason.map(Into::into),
            message_contains: words.iter().map(|word| (*word).into()).collect(),
        }
    }

    fn event(reason: &str, word: &str) -> Claim {
        Claim::Event { kind: "Warning".into(), reason: reason.into(), message_contains: vec![word.into()] }
    }

    fn keys(keys: &[&str]) -> Claim {
        Claim::PodNetworks { keys: keys.iter().map(|key| (*key).into()).collect() }
    }

    #[rstest]
    #[case::exists(Claim::Exists, Some(network()), true)]
    #[case::exists_not(Claim::Exists, None, false)]
    #[case::gone(Claim::Gone, None, true)]
    #[case::gone_not(Claim::Gone, Some(network()), false)]
    #[case::held(Claim::HeldByFinalizer { finalizer: "keep".into() }, Some(deleting(network())), true)]
    #[case::held_by_another(Claim::HeldByFinalizer { finalizer: "other".into() }, Some(deleting(network())), false)]
    #[case::not_deleted(Claim::HeldByFinalizer { finalizer: "keep".into() }, Some(network()), false)]
    #[case::condition(condition(&["NetworkReady", "NetworkCreated"], "True", Some("Created"), &["{red}", "{yellow}"]), Some(network()), true)]
    #[case::condition_status(condition(&["NetworkCreated"], "False", None, &[]), Some(network()), false)]
    #[case::condition_reason(condition(&["NetworkCreated"], "True", Some("Other"), &[]), Some(network()), false)]
    #[case::condition_words(condition(&["NetworkCreated"], "True", None, &["{green}"]), Some(network()), false)]
    #[case::condition_absent(condition(&["Accepted"], "True", None, &[]), Some(network()), false)]
    #[case::not_true(Claim::NotTrue { condition: "Odd".into() }, Some(network()), true)]
    #[case::not_true_absent(Claim::NotTrue { condition: "Never".into() }, Some(network()), true)]
    #[case::is_true(Claim::NotTrue { condition: "NetworkCreated".into() }, Some(network()), false)]
    #[case::ready(Claim::ReadyWithoutRestart, Some(pod("Running", "True", 0)), true)]
    #[case::restarted(Claim::ReadyWithoutRestart, Some(pod("Running", "True", 1)), false)]
    #[case::unready(Claim::ReadyWithoutRestart, Some(pod("Running", "False", 0)), false)]
    #[case::waits(Claim::PodWaits, Some(pod("Pending", "False", 0)), true)]
    #[case::runs(Claim::PodWaits, Some(pod("Running", "False", 0)), false)]
    #[case::keys(keys(&["default", "{red}/net"]), Some(pod("Running", "True", 0)), true)]
    #[case::fewer_keys(keys(&["default"]), Some(pod("Running", "True", 0)), false)]
    #[case::event(event("Failed", "conflict"), Some(network()), true)]
    #[case::event_reason(event("Other", "conflict"), Some(network()), false)]
    #[case::event_words(event("Failed", "nothing"), Some(network()), false)]
    fn claims(#[case] claim: Claim, #[case] object: Option<Value>, #[case] holds: bool) {
        let events = [json!({ "type": "Warning", "reason": "Failed", "message": "address conflict" })];
        let known = Known { object: object.as_ref(), events: &events, answer: None };
        let found = judge(&claim, known, &Naming::new("k3v9a"));
        assert_eq!(found.holds, holds, "{}", found.found);
        assert!(!found.found.is_empty());
    }

    #[rstest]
    #[case(Claim::Accepted, Some(Answer::Accepted), true)]
    #[case(Claim::Accepted, Some(Answer::Refused("no".into())), false)]
    #[case(Claim::Accepted, None, false)]
    #[case(Claim::Refused { message_contains: vec!["immutable".into()] }, Some(Answer::Refused("it is immutable".into())), true)]
    #[case(Claim::Refused { message_contains: vec!["immutable".into()] }, Some(Answer::Refused("connection".into())), false)]
    #[case(Claim::Refused { message_contains: vec![] }, Some(Answer::Accepted), false)]
    fn answers(#[case] claim: Claim, #[case] answer: Option<Answer>, #[case] holds: bool) {
        let known = Known { object: None, events: &[], answer: answer.as_ref() };
        assert_eq!(judge(&claim, known, &Naming::new("k3v9a")).holds, holds);
    }

    #[test]
    fn a_pods_state_says_why_it_waits() {
        let pod = json!({ "status": { "phase": "Pending",
            "conditions": [{ "type": "PodScheduled", "status": "True" },
                { "type": "Ready", "status": "False", "reason": "ContainersNotReady", "message": "containers with unready status: [probe]" }],
            "containerStatuses": [{ "name": "probe", "state": { "waiting": { "reason": "ErrImagePull", "message": "not found" } } }] } });
        assert_eq!(
            pod_state(&pod),
            "Pending; Ready False ContainersNotReady containers with unready status: [probe]; container probe: ErrImagePull not found"
        );
    }
}
