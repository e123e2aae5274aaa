//! Pods and pod templates.

use serde_json::{Value, json};

use crate::json::{default, is_empty, list_mut, map, object, text, truth};

/// What a pod has beyond its template: what admission adds when it is created.
pub(super) fn pod(value: &mut Value) {
    let spec = &mut value["spec"];
    pod_spec(spec);
    default(spec, "enableServiceLinks", true);
    default(spec, "serviceAccountName", "default");
    let account = spec["serviceAccountName"].clone();
    default(spec, "serviceAccount", account);
    default(spec, "priority", 0);
    default(spec, "preemptionPolicy", "PreemptLowerPriority");
    for key in ["initContainers", "containers"] {
        for container in list_mut(spec, key) {
            requests_from_limits(container);
        }
    }
    tolerate_node_trouble(spec);
}

pub(super) fn template(template: &mut Value) {
    object(template, "metadata");
    pod_spec(&mut template["spec"]);
}

fn pod_spec(spec: &mut Value) {
    map(spec);
    default(spec, "restartPolicy", "Always");
    default(spec, "dnsPolicy", "ClusterFirst");
    default(spec, "terminationGracePeriodSeconds", 30);
    default(spec, "schedulerName", "default-scheduler");
    default(spec, "securityContext", json!({}));
    let host_network = truth(spec, &["hostNetwork"]);
    for key in ["initContainers", "containers", "ephemeralContainers"] {
        for container in list_mut(spec, key) {
            self::container(container, host_network);
        }
    }
    for volume in list_mut(spec, "volumes") {
        self::volume(volume);
    }
}

fn container(container: &mut Value, host_network: bool) {
    let image = text(container, &["image"]);
    let tag = image.rsplit('/').next().and_then(|last| last.split_once(':')).map(|(_, tag)| tag);
    let latest = !image.contains('@') && matches!(tag, None | Some("latest"));
    default(container, "imagePullPolicy", if latest { "Always" } else { "IfNotPresent" });
    default(container, "terminationMessagePath", "/dev/termination-log");
    default(container, "terminationMessagePolicy", "File");
    default(container, "resources", json!({}));
    for port in list_mut(container, "ports") {
        default(port, "protocol", "TCP");
        if host_network {
            let own = port["containerPort"].clone();
            default(port, "hostPort", own);
        }
    }
    for variable in list_mut(container, "env") {
        if let Some(field) = variable.get_mut("valueFrom").and_then(|from| from.get_mut("fieldRef")) {
            default(field, "apiVersion", "v1");
        }
    }
    for key in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(key).filter(|probe| probe.is_object()) {
            self::probe(probe);
        }
    }
    for hook in ["postStart", "preStop"] {
        if let Some(get) =
            container.get_mut("lifecycle").and_then(|all| all.get_mut(hook)).and_then(|one| one.get_mut("httpGet"))
        {
            http_get(get);
        }
    }
}

fn probe(probe: &mut Value) {
    for (key, value) in [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
    {
        default(probe, key, value);
    }
    if let Some(get) = probe.get_mut("httpGet") {
        http_get(get);
    }
    if let Some(grpc) = probe.get_mut("grpc") {
        default(grpc, "service", "");
    }
}

fn http_get(get: &mut Value) {
    default(get, "path", "/");
    default(get, "scheme", "HTTP");
}

fn volume(volume: &mut Value) {
    if map(volume).keys().all(|key| key == "name") {
        volume["emptyDir"] = json!({});
    }
    for key in ["configMap", "secret", "projected", "downwardAPI"] {
        if let Some(source) = volume.get_mut(key) {
            default(source, "defaultMode", 0o644);
        }
    }
    if let Some(path) = volume.get_mut("hostPath") {
        default(path, "type", "");
    }
    if let Some(sources) = volume.get_mut("projected") {
        for source in list_mut(sources, "sources") {
            if let Some(token) = source.get_mut("serviceAccountToken") {
                default(token, "expirationSeconds", 3600);
            }
        }
    }
}

fn requests_from_limits(container: &mut Value) {
    let limits = container["resources"].get("limits").and_then(Value::as_object).cloned().unwrap_or_default();
    if limits.is_empty() {
        return;
    }
    let requests = object(&mut container["resources"], "requests");
    for (name, amount) in limits {
        requests.entry(name).or_insert(amount);
    }
}

/// Pods stay five minutes on a node in trouble unless they say otherwise (admission plugin DefaultTolerationSeconds).
fn tolerate_node_trouble(spec: &mut Value) {
    let list = map(spec).entry("tolerations").or_insert_with(|| json!([]));
    let Some(tolerations) = list.as_array_mut() else { return };
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let covers = |one: &Value| {
            let effect = text(one, &["effect"]);
            (one["key"] == key || is_empty(&one["key"]) || text(one, &["key"]).is_empty())
                && (effect.is_empty() || effect == "NoExecute")
        };
        if !tolerations.iter().any(covers) {
            tolerations.push(json!({
                "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300,
            }));
        }
    }
}

pub(super) fn first_status(value: &mut Value) {
    let class = quality(&value["spec"]);
    value["status"] = json!({"phase": "Pending", "qosClass": class});
}

/// Quality of service class, by the rules of the node agent's eviction.
fn quality(spec: &Value) -> &'static str {
    let mut any = false;
    let mut guaranteed = true;
    for key in ["initContainers", "containers"] {
        for container in crate::json::list(spec, &[key]) {
            let resources = &container["resources"];
            any |= !is_empty(&resources["limits"]) || !is_empty(&resources["requests"]);
            for name in ["cpu", "memory"] {
                let limit = &resources["limits"][name];
                guaranteed &= !limit.is_null() && resources["requests"][name] == *limit;
            }
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_gets_what_clients_rely_on() {
        let mut value = json!({"metadata": {"name": "a"}, "spec": {
            "hostNetwork": true,
            "containers": [{
                "name": "c", "image": "registry:5000/x", "ports": [{"containerPort": 80}],
                "readinessProbe": {"httpGet": {"port": 80}},
                "resources": {"limits": {"cpu": "1", "memory": "1Mi"}},
            }],
            "volumes": [{"name": "v"}],
        }});
        pod(&mut value);
        first_status(&mut value);
        let spec = &value["spec"];
        let container = &spec["containers"][0];
        assert_eq!(spec["restartPolicy"], "Always");
        assert_eq!(container["imagePullPolicy"], "Always");
        assert_eq!(container["ports"][0], json!({"containerPort": 80, "protocol": "TCP", "hostPort": 80}));
        assert_eq!(container["readinessProbe"]["httpGet"]["scheme"], "HTTP");
        assert_eq!(spec["volumes"][0]["emptyDir"], json!({}));
        assert_eq!(spec["tolerations"].as_array().unwrap().len(), 2);
        assert_eq!(value["status"]["qosClass"], "Guaranteed");
        let again = value.clone();
        pod(&mut value);
        assert_eq!(value, again);
    }

    #[test]
    fn tagged_images_are_pulled_once() {
        let mut one = json!({"image": "registry:5000/x:1.0"});
        container(&mut one, false);
        assert_eq!(one["imagePullPolicy"], "IfNotPresent");
    }
}
