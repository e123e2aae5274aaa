//! The row of a pod: the status that kubectl shows is computed from many places.

use serde_json::{Value, json};

use super::age;
use crate::json::{at, deleting, int, list, text};

pub(super) fn cells(pod: &Value) -> Vec<Value> {
    let (ready, total) = ready(pod);
    let ips = list(pod, &["status", "podIPs"]).first().map(|ip| text(ip, &["ip"])).unwrap_or_default();
    let ip = if ips.is_empty() { text(pod, &["status", "podIP"]) } else { ips };
    let or_none = |text: &str| Value::from(if text.is_empty() { "<none>" } else { text });
    vec![
        pod["metadata"]["name"].clone(),
        format!("{ready}/{total}").into(),
        status(pod).into(),
        restarts(pod).into(),
        age::of(pod),
        or_none(ip),
        or_none(text(pod, &["spec", "nodeName"])),
        or_none(text(pod, &["status", "nominatedNodeName"])),
        gates(pod).into(),
    ]
}

fn is_sidecar(pod: &Value, name: &str) -> bool {
    list(pod, &["spec", "initContainers"])
        .iter()
        .any(|one| text(one, &["name"]) == name && text(one, &["restartPolicy"]) == "Always")
}

fn ready(pod: &Value) -> (usize, usize) {
    let sidecars: Vec<&Value> =
        list(pod, &["spec", "initContainers"]).iter().filter(|one| text(one, &["restartPolicy"]) == "Always").collect();
    let is_ready = |status: &&Value| status["ready"] == true && !status["state"]["running"].is_null();
    let own = list(pod, &["status", "containerStatuses"]).iter().filter(is_ready).count();
    let side = list(pod, &["status", "initContainerStatuses"])
        .iter()
        .filter(|status| is_sidecar(pod, text(status, &["name"])) && status["ready"] == true)
        .count();
    (own + side, list(pod, &["spec", "containers"]).len() + sidecars.len())
}

fn restarts(pod: &Value) -> String {
    let mut count = 0;
    let mut last = "";
    let own = list(pod, &["status", "containerStatuses"]).iter();
    let side = list(pod, &["status", "initContainerStatuses"])
        .iter()
        .filter(|status| is_sidecar(pod, text(status, &["name"])));
    for status in own.chain(side) {
        count += int(status, &["restartCount"]).unwrap_or(0);
        last = last.max(text(status, &["lastState", "terminated", "finishedAt"]));
    }
    if count == 0 || last.is_empty() { count.to_string() } else { format!("{count} ({} ago)", age::of_text(last)) }
}

fn gates(pod: &Value) -> String {
    let gates = list(pod, &["spec", "readinessGates"]);
    if gates.is_empty() {
        return "<none>".into();
    }
    let holds = |gate: &&Value| {
        list(pod, &["status", "conditions"])
            .iter()
            .any(|condition| condition["type"] == gate["conditionType"] && condition["status"] == "True")
    };
    format!("{}/{}", gates.iter().filter(holds).count(), gates.len())
}

/// What STATUS shows: the phase, or what is more telling.
pub(super) fn status(pod: &Value) -> String {
    let own_reason = text(pod, &["status", "reason"]);
    let mut reason = if own_reason.is_empty() { text(pod, &["status", "phase"]) } else { own_reason }.to_owned();
    let gated = list(pod, &["status", "conditions"])
        .iter()
        .any(|condition| condition["type"] == "PodScheduled" && condition["reason"] == "SchedulingGated");
    if gated {
        reason = "SchedulingGated".into();
    }
    if let Some(initializing) = initializing(pod) {
        reason = initializing;
    } else {
        reason = running(pod, reason);
    }
    if deleting(pod) {
        if own_reason == "NodeLost" {
            return "Unknown".into();
        }
        if !matches!(text(pod, &["status", "phase"]), "Succeeded" | "Failed") {
            return "Terminating".into();
        }
    }
    reason
}

fn terminated(state: &Value) -> String {
    match (text(state, &["reason"]), int(state, &["signal"]).unwrap_or(0)) {
        ("", 0) => format!("ExitCode:{}", int(state, &["exitCode"]).unwrap_or(0)),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn initializing(pod: &Value) -> Option<String> {
    let statuses = list(pod, &["status", "initContainerStatuses"]);
    let total = list(pod, &["spec", "initContainers"]).len();
    for (number, status) in statuses.iter().enumerate() {
        let state = &status["state"];
        if int(state, &["terminated", "exitCode"]) == Some(0)
            || (is_sidecar(pod, text(status, &["name"])) && status["started"] == true)
        {
            continue;
        }
        return Some(if !state["terminated"].is_null() {
            format!("Init:{}", terminated(&state["terminated"]))
        } else {
            match text(state, &["waiting", "reason"]) {
                "" | "PodInitializing" => format!("Init:{number}/{total}"),
                reason => format!("Init:{reason}"),
            }
        });
    }
    None
}

fn running(pod: &Value, mut reason: String) -> String {
    let mut has_running = false;
    for status in list(pod, &["status", "containerStatuses"]).iter().rev() {
        let state = &status["state"];
        let waiting = text(state, &["waiting", "reason"]);
        if !waiting.is_empty() {
            reason = waiting.to_owned();
        } else if !state["terminated"].is_null() {
            reason = terminated(&state["terminated"]);
        } else if status["ready"] == true && !state["running"].is_null() {
            has_running = true;
        }
    }
    if reason == "Completed" && has_running {
        let ready = list(pod, &["status", "conditions"])
            .iter()
            .any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
        reason = if ready { "Running" } else { "NotReady" }.into();
    }
    reason
}

/// Names and images of the containers of a pod template, or the like.
pub(super) fn images(spec: Option<&Value>) -> [Value; 2] {
    let containers = spec.and_then(|spec| at(spec, &["containers"])).and_then(Value::as_array);
    let join = |key: &str| {
        let texts: Vec<&str> = containers.into_iter().flatten().map(|one| text(one, &[key])).collect();
        json!(texts.join(","))
    };
    [join("name"), join("image")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_telling_status_is_shown() {
        let waiting = |reason: &str| {
            json!({"status": {"phase": "Pending", "containerStatuses": [
            {"state": {"waiting": {"reason": reason}}}]}})
        };
        assert_eq!(status(&json!({"status": {"phase": "Pending"}})), "Pending");
        assert_eq!(status(&waiting("ContainerCreating")), "ContainerCreating");
        assert_eq!(status(&waiting("ErrImagePull")), "ErrImagePull");
        let mut pod = json!({"status": {"phase": "Succeeded", "containerStatuses": [
            {"state": {"terminated": {"reason": "Completed", "exitCode": 0}}}]}});
        assert_eq!(status(&pod), "Completed");
        pod["metadata"]["deletionTimestamp"] = "2025-01-01T00:00:00Z".into();
        assert_eq!(status(&pod), "Completed");
        pod["status"]["phase"] = "Running".into();
        assert_eq!(status(&pod), "Terminating");
        let init = json!({
            "spec": {"initContainers": [{"name": "a"}, {"name": "b"}]},
            "status": {"phase": "Pending", "initContainerStatuses": [
                {"name": "a", "state": {"terminated": {"exitCode": 0}}}, {"name": "b", "state": {"running": {}}}]},
        });
        assert_eq!(status(&init), "Init:1/2");
    }
}
