//! The Node object and its lease.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use udn_lab_sys::site::{LAB_LABEL, NodeSite};

use crate::kubelet::{KUBELET_PORT, Reached};

/// How often a lease is renewed: a real kubelet's default.
const RENEW: Duration = Duration::from_secs(10);
/// How often the conditions' heartbeat is written: a real kubelet's default while nothing changes.
const HEARTBEAT: Duration = Duration::from_secs(300);
/// What the node says it is; the Kubernetes version is that of the API types in use.
const KUBELET_VERSION: &str = "v1.33.0";

/// A node and how its agent is found.
pub(crate) struct Registered {
    pub(crate) node: NodeSite,
    /// Where its agent is reached, if not at the node's addresses.
    pub(crate) reached: Option<Reached>,
}

/// Creates the Node, or brings one that exists up to date.
pub(crate) async fn register(client: &Client, node: &Registered) -> kube::Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let wanted: Node = serde_json::from_value(object(node)).map_err(kube::Error::SerdeError)?;
    match nodes.create(&PostParams::default(), &wanted).await {
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let mut patch = object(node);
            if let Some(patch) = patch.as_object_mut() {
                patch.remove("status");
            }
            nodes.patch(&node.node.name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        }
        result => {
            result?;
        }
    }
    heartbeat(client, node).await
}

/// Keeps the lease and the heartbeat fresh, for ever.
pub(crate) async fn keep_alive(client: Client, node: Registered) {
    let mut lease = tokio::time::interval(RENEW);
    lease.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut last_heartbeat = tokio::time::Instant::now();
    loop {
        lease.tick().await;
        if let Err(error) = renew(&client, &node.node).await {
            tracing::warn!(node = node.node.name, %error, "cannot renew the node's lease; trying again");
        }
        if last_heartbeat.elapsed() >= HEARTBEAT {
            last_heartbeat = tokio::time::Instant::now();
            if let Err(error) = heartbeat(&client, &node).await {
                tracing::warn!(node = node.node.name, %error, "cannot write the node's status; trying again");
            }
        }
    }
}

async fn renew(client: &Client, node: &NodeSite) -> kube::Result<()> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), "kube-node-lease");
    let now = MicroTime(Timestamp::now());
    let patch = json!({ "spec": { "holderIdentity": node.name, "leaseDurationSeconds": 40, "renewTime": now } });
    match leases.patch(&node.name, &PatchParams::default(), &Patch::Merge(patch.clone())).await {
        Err(kube::Error::Api(status)) if status.code == 404 => {
            let owner = Api::<Node>::all(client.clone()).get(&node.name).await?.uid();
            let mut lease = patch;
            lease["metadata"] = json!({
                "name": node.name,
                "namespace": "kube-node-lease",
                "ownerReferences": [{ "apiVersion": "v1", "kind": "Node", "name": node.name, "uid": owner }],
            });
            let lease: Lease = serde_json::from_value(lease).map_err(kube::Error::SerdeError)?;
            leases.create(&PostParams::default(), &lease).await.map(drop)
        }
        result => result.map(drop),
    }
}

async fn heartbeat(client: &Client, node: &Registered) -> kube::Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let before = nodes.get_status(&node.node.name).await?;
    let mut status = status(node);
    // A condition keeps the time of its last change; other writers keep their conditions.
    let old = before.status.and_then(|status| status.conditions).unwrap_or_default();
    let mut conditions: Vec<Value> = conditions(Timestamp::now());
    for condition in &old {
        match conditions.iter_mut().find(|own| own["type"] == condition.type_.as_str()) {
            Some(own) if own["status"] == condition.status.as_str() => {
                own["lastTransitionTime"] = json!(condition.last_transition_time);
            }
            Some(_) => {}
            None => conditions.push(json!(condition)),
        }
    }
    status["conditions"] = Value::Array(conditions);
    let patch = json!({ "status": status });
    nodes.patch_status(&node.node.name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
}

fn object(registered: &Registered) -> Value {
    let node = &registered.node;
    let architecture = architecture();
    let mut labels: BTreeMap<&str, &str> = [
        (LAB_LABEL, ""),
        ("beta.kubernetes.io/arch", architecture),
        ("beta.kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", architecture),
        ("kubernetes.io/hostname", &node.name),
        ("kubernetes.io/os", "linux"),
    ]
    .into();
    let mut taints = Vec::new();
    if node.index == 1 {
        labels.insert("node-role.kubernetes.io/control-plane", "");
        labels.insert("node.kubernetes.io/exclude-from-external-load-balancers", "");
        taints.push(json!({ "key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule" }));
    }
    let ipv4 = format!("10.244.{}.0/24", node.index);
    let ipv6 = format!("fd00:10:244:{:x}::/64", node.index);
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": { "name": node.name, "labels": labels },
        "spec": { "podCIDR": ipv4, "podCIDRs": [ipv4, ipv6], "providerID": format!("lab://{}", node.name), "taints": taints },
        "status": status(registered),
    })
}

fn status(registered: &Registered) -> Value {
    let Registered { node, reached } = registered;
    let (host, port) = reached.as_ref().map_or((&node.name, KUBELET_PORT), |reached| (&reached.host, reached.port));
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).to_string();
    let memory = format!("{}Ki", memory_kibibytes());
    let resources = json!({ "cpu": processors, "memory": memory, "pods": "110", "ephemeral-storage": "1Gi" });
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    json!({
        "addresses": [
            { "type": "InternalIP", "address": node.ipv4.to_string() },
            { "type": "InternalIP", "address": node.ipv6.to_string() },
            { "type": "Hostname", "address": host },
        ],
        "allocatable": resources,
        "capacity": resources,
        "conditions": conditions(Timestamp::now()),
        // API servers from 1.36 on pass clients' WebSockets on to nodes that say so, and translate them to SPDY for others.
        "declaredFeatures": ["ExtendWebSocketsToKubelet"],
        "daemonEndpoints": { "kubeletEndpoint": { "Port": port } },
        "nodeInfo": {
            "architecture": architecture(),
            "bootID": read("/proc/sys/kernel/random/boot_id"),
            "containerRuntimeVersion": concat!("lab://", env!("CARGO_PKG_VERSION")),
            "kernelVersion": read("/proc/sys/kernel/osrelease"),
            "kubeProxyVersion": "",
            "kubeletVersion": KUBELET_VERSION,
            "machineID": format!("{:032x}", u128::from(node.index)),
            "operatingSystem": "linux",
            "osImage": "udn-conformance lab",
            "systemUUID": format!("00000000-0000-0000-0000-{:012x}", node.index),
        },
    })
}

/// The node's own address in its pod subnet, from which a kubelet speaks to its pods: OVN-Kubernetes gives it to the
/// management port. The lab has it at the end of the /24, and likewise in IPv6.
pub(crate) fn management_address(node: &NodeSite, ipv4: bool) -> IpAddr {
    if ipv4 {
        Ipv4Addr::new(10, 244, node.index, 254).into()
    } else {
        Ipv6Addr::new(0xfd00, 0x10, 0x244, node.index.into(), 0, 0, 0, 0xfe).into()
    }
}

fn conditions(now: Timestamp) -> Vec<Value> {
    let now = Time(now);
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        json!({
            "type": kind, "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": now, "lastTransitionTime": now,
        })
    };
    vec![
        condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        condition("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        condition("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
    ]
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn memory_kibibytes() -> u64 {
    let table = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = table.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    total.and_then(|line| line.split_whitespace().next()).and_then(|number| number.parse().ok()).unwrap_or(1024 * 1024)
}
