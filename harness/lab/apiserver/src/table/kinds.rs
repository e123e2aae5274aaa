//! The rows of the built-in kinds.

use serde_json::{Value, json};

use super::{age, pod};
use crate::json::{at, deleting, int, list, text};
use crate::resources::Resource;

/// The row of an object, one cell per column.
pub(super) fn cells(resource: &Resource, object: &Value) -> Vec<Value> {
    let name = object["metadata"]["name"].clone();
    let age = age::of(object);
    match (resource.group.as_str(), resource.kind.as_str()) {
        ("", "Pod") => pod::cells(object),
        ("", "Namespace") => vec![name, object["status"]["phase"].clone(), age],
        ("", "Node") => node(object),
        ("", "Service") => service(object),
        ("", "Endpoints") => vec![name, endpoints(object).into(), age],
        ("", "ConfigMap") => vec![name, (count(object, "data") + count(object, "binaryData")).into(), age],
        ("", "Secret") => vec![name, object["type"].clone(), count(object, "data").into(), age],
        ("", "ServiceAccount") => vec![name, list(object, &["secrets"]).len().into(), age],
        ("", "PersistentVolumeClaim") => vec![
            name,
            object["status"]["phase"].clone(),
            text(object, &["spec", "volumeName"]).into(),
            text(object, &["status", "capacity", "storage"]).into(),
            strings(list(object, &["status", "accessModes"])).join(",").into(),
            text(object, &["spec", "storageClassName"]).into(),
            age,
        ],
        ("" | "events.k8s.io", "Event") => event(object),
        ("apps", "Deployment") => workload(
            object,
            name,
            age,
            |status, desired| {
                vec![
                    format!("{}/{desired}", status("readyReplicas")).into(),
                    status("updatedReplicas").into(),
                    status("availableReplicas").into(),
                ]
            },
            true,
        ),
        ("apps", "ReplicaSet") => workload(
            object,
            name,
            age,
            |status, desired| vec![desired.into(), status("replicas").into(), status("readyReplicas").into()],
            true,
        ),
        ("apps", "StatefulSet") => workload(
            object,
            name,
            age,
            |status, desired| vec![format!("{}/{desired}", status("readyReplicas")).into()],
            false,
        ),
        ("apps", "DaemonSet") => {
            let nodes = labels(&object["spec"]["template"]["spec"]["nodeSelector"]);
            workload(
                object,
                name,
                age,
                |status, _| {
                    vec![
                        status("desiredNumberScheduled").into(),
                        status("currentNumberScheduled").into(),
                        status("numberReady").into(),
                        status("updatedNumberScheduled").into(),
                        status("numberAvailable").into(),
                        nodes.into(),
                    ]
                },
                true,
            )
        }
        ("apps", "ControllerRevision") => {
            let owner = list(object, &["metadata", "ownerReferences"]).iter().find(|one| one["controller"] == true);
            let controller = owner.map_or("<none>".into(), |one| {
                format!("{}.{}/{}", text(one, &["kind"]).to_lowercase(), "apps", text(one, &["name"]))
            });
            vec![name, controller.into(), object["revision"].clone(), age]
        }
        ("batch", "Job") => job(object, name, age),
        ("batch", "CronJob") => vec![
            name,
            object["spec"]["schedule"].clone(),
            or_none(text(object, &["spec", "timeZone"])),
            if object["spec"]["suspend"] == true { "True" } else { "False" }.into(),
            list(object, &["status", "active"]).len().into(),
            match text(object, &["status", "lastScheduleTime"]) {
                "" => "<none>".into(),
                time => age::of_text(time).into(),
            },
            age,
        ],
        ("networking.k8s.io", "NetworkPolicy") => vec![name, selector(&object["spec"]["podSelector"]).into(), age],
        ("discovery.k8s.io", "EndpointSlice") => vec![
            name,
            object["addressType"].clone(),
            some(list(object, &["ports"]).iter().map(|port| port["port"].to_string()), 3).into(),
            some(
                list(object, &["endpoints"])
                    .iter()
                    .flat_map(|one| list(one, &["addresses"]))
                    .filter_map(Value::as_str)
                    .map(ToOwned::to_owned),
                3,
            )
            .into(),
            age,
        ],
        ("coordination.k8s.io", "Lease") => vec![name, text(object, &["spec", "holderIdentity"]).into(), age],
        ("policy", "PodDisruptionBudget") => {
            let amount = |key: &str| match &object["spec"][key] {
                Value::Null => "N/A".into(),
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            let allowed = int(object, &["status", "disruptionsAllowed"]).unwrap_or(0);
            vec![name, amount("minAvailable").into(), amount("maxUnavailable").into(), allowed.into(), age]
        }
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => {
            let role = &object["roleRef"];
            vec![name, format!("{}/{}", text(role, &["kind"]), text(role, &["name"])).into(), age]
        }
        ("rbac.authorization.k8s.io", _) | ("apiextensions.k8s.io", _) => {
            vec![name, object["metadata"]["creationTimestamp"].clone()]
        }
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy") => {
            let kind = &object["spec"]["paramKind"];
            let kind = if kind.is_object() {
                format!("{}/{}", text(kind, &["apiVersion"]), text(kind, &["kind"]))
            } else {
                "<unset>".into()
            };
            vec![name, list(object, &["spec", "validations"]).len().into(), kind.into(), age]
        }
        ("admissionregistration.k8s.io", _) => vec![
            name,
            object["spec"]["policyName"].clone(),
            match text(object, &["spec", "paramRef", "name"]) {
                "" => "<unset>".into(),
                param => param.into(),
            },
            age,
        ],
        _ => vec![name, age],
    }
}

fn or_none(text: &str) -> Value {
    if text.is_empty() { "<none>" } else { text }.into()
}

fn count(object: &Value, key: &str) -> usize {
    object.get(key).and_then(Value::as_object).map_or(0, serde_json::Map::len)
}

fn strings(list: &[Value]) -> Vec<&str> {
    list.iter().filter_map(Value::as_str).collect()
}

/// The first few of many.
fn some(all: impl Iterator<Item = String>, most: usize) -> String {
    let all: Vec<String> = all.collect();
    if all.is_empty() {
        return "<unset>".into();
    }
    let shown = all[..all.len().min(most)].join(",");
    if all.len() > most { format!("{shown} + {} more...", all.len() - most) } else { shown }
}

/// `key=value,...`
fn labels(map: &Value) -> String {
    let terms: Vec<String> = map
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    if terms.is_empty() { "<none>".into() } else { terms.join(",") }
}

/// A `LabelSelector` as text.
fn selector(selector: &Value) -> String {
    let mut terms: Vec<String> = Vec::new();
    if selector.get("matchLabels").is_some_and(|labels| !crate::json::is_empty(labels)) {
        terms.push(labels(&selector["matchLabels"]));
    }
    for one in list(selector, &["matchExpressions"]) {
        let key = text(one, &["key"]);
        let values = strings(list(one, &["values"])).join(",");
        terms.push(match text(one, &["operator"]) {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        });
    }
    if terms.is_empty() { "<none>".into() } else { terms.join(",") }
}

fn workload(
    object: &Value,
    name: Value,
    age: Value,
    own: impl FnOnce(&dyn Fn(&str) -> i64, i64) -> Vec<Value>,
    with_selector: bool,
) -> Vec<Value> {
    let status = |key: &str| int(object, &["status", key]).unwrap_or(0);
    let mut cells = vec![name];
    cells.extend(own(&status, int(object, &["spec", "replicas"]).unwrap_or(0)));
    cells.push(age);
    cells.extend(pod::images(at(object, &["spec", "template", "spec"])));
    if with_selector {
        cells.push(selector(&object["spec"]["selector"]).into());
    }
    cells
}

fn job(object: &Value, name: Value, age: Value) -> Vec<Value> {
    let condition = |kind: &str| {
        list(object, &["status", "conditions"]).iter().any(|one| one["type"] == kind && one["status"] == "True")
    };
    let status = if condition("Complete") {
        "Complete"
    } else if condition("Failed") {
        "Failed"
    } else if deleting(object) {
        "Terminating"
    } else if condition("Suspended") {
        "Suspended"
    } else {
        "Running"
    };
    let done = int(object, &["status", "succeeded"]).unwrap_or(0);
    let wanted = int(object, &["spec", "completions"]).unwrap_or(1);
    let seconds = |key: &str| text(object, &["status", key]).parse::<jiff::Timestamp>().ok().map(|at| at.as_second());
    let duration = seconds("startTime").map_or(String::new(), |start| {
        age::human(seconds("completionTime").unwrap_or_else(|| jiff::Timestamp::now().as_second()) - start)
    });
    let mut cells = vec![name, status.into(), format!("{done}/{wanted}").into(), duration.into(), age];
    cells.extend(pod::images(at(object, &["spec", "template", "spec"])));
    cells.push(selector(&object["spec"]["selector"]).into());
    cells
}

fn node(node: &Value) -> Vec<Value> {
    let ready = list(node, &["status", "conditions"]).iter().find(|one| one["type"] == "Ready");
    let mut status = match ready.map(|one| text(one, &["status"])) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if node["spec"]["unschedulable"] == true {
        status += ",SchedulingDisabled";
    }
    let mut roles: Vec<&str> = at(node, &["metadata", "labels"])
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role),
            None => value.as_str().filter(|_| key == "kubernetes.io/role"),
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    let address = |kind: &str| {
        let found = list(node, &["status", "addresses"]).iter().find(|one| one["type"] == kind);
        or_none(found.map(|one| text(one, &["address"])).unwrap_or_default())
    };
    let info = |key: &str| match text(node, &["status", "nodeInfo", key]) {
        "" => "<unknown>".into(),
        text => Value::from(text),
    };
    vec![
        node["metadata"]["name"].clone(),
        status.into(),
        or_none(&roles.join(",")),
        age::of(node),
        text(node, &["status", "nodeInfo", "kubeletVersion"]).into(),
        address("InternalIP"),
        address("ExternalIP"),
        info("osImage"),
        info("kernelVersion"),
        info("containerRuntimeVersion"),
    ]
}

fn service(service: &Value) -> Vec<Value> {
    let spec = &service["spec"];
    let kind = text(spec, &["type"]);
    let balancer: Vec<&str> = list(service, &["status", "loadBalancer", "ingress"])
        .iter()
        .map(|one| if text(one, &["ip"]).is_empty() { text(one, &["hostname"]) } else { text(one, &["ip"]) })
        .collect();
    let extra = strings(list(spec, &["externalIPs"]));
    let external = match kind {
        "ExternalName" => text(spec, &["externalName"]).to_owned(),
        "LoadBalancer" if balancer.is_empty() && extra.is_empty() => "<pending>".to_owned(),
        "LoadBalancer" => [balancer, extra].concat().join(","),
        _ => extra.join(","),
    };
    let ports: Vec<String> = list(spec, &["ports"])
        .iter()
        .map(|port| {
            let node = int(port, &["nodePort"]).filter(|number| *number > 0);
            let node = node.map_or(String::new(), |number| format!(":{number}"));
            format!("{}{node}/{}", port["port"], text(port, &["protocol"]))
        })
        .collect();
    vec![
        service["metadata"]["name"].clone(),
        kind.into(),
        or_none(text(spec, &["clusterIP"])),
        or_none(&external),
        or_none(&ports.join(",")),
        age::of(service),
        labels(&spec["selector"]).into(),
    ]
}

fn endpoints(object: &Value) -> String {
    let all = list(object, &["subsets"]).iter().flat_map(|subset| {
        let ports = list(subset, &["ports"]);
        list(subset, &["addresses"]).iter().flat_map(move |address| {
            let ip = text(address, &["ip"]).to_owned();
            let one = move |port: &Value| match ip.parse() {
                Ok(std::net::IpAddr::V6(ip)) => format!("[{ip}]:{}", port["port"]),
                _ => format!("{ip}:{}", port["port"]),
            };
            ports.iter().map(one)
        })
    });
    match some(all, 3).as_str() {
        "<unset>" => "<none>".into(),
        text => text.into(),
    }
}

fn event(event: &Value) -> Vec<Value> {
    let series = &event["series"];
    let time = |paths: &[&[&str]]| {
        let found = paths.iter().map(|path| text(event, path)).find(|text| !text.is_empty());
        found.map_or("<unknown>".into(), age::of_text)
    };
    let last = time(&[
        &["series", "lastObservedTime"],
        &["lastTimestamp"],
        &["eventTime"],
        &["metadata", "creationTimestamp"],
    ]);
    let first = time(&[&["firstTimestamp"], &["eventTime"], &["metadata", "creationTimestamp"]]);
    let object = &event["involvedObject"];
    let source = match text(event, &["source", "component"]) {
        "" => text(event, &["reportingComponent"]).to_owned(),
        component => component.to_owned(),
    };
    let host = text(event, &["source", "host"]);
    let count = int(series, &["count"]).or_else(|| int(event, &["count"])).unwrap_or(1);
    vec![
        last.into(),
        event["type"].clone(),
        event["reason"].clone(),
        format!("{}/{}", text(object, &["kind"]).to_lowercase(), text(object, &["name"])).into(),
        text(object, &["fieldPath"]).into(),
        if host.is_empty() { source.into() } else { json!(format!("{source}, {host}")) },
        text(event, &["message"]).trim().into(),
        first.into(),
        count.into(),
        event["metadata"]["name"].clone(),
    ]
}
