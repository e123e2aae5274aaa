//! A pod's network namespace and its networks.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use rtnetlink::LinkUnspec;
use serde_json::json;
use tokio::sync::watch;
use udn_lab_sys::ground::underlay::lift_icmp_limits;
use udn_lab_sys::netns::Netns;
use udn_lab_sys::pod::{AttachError, Attached, Sandbox};
use udn_lab_sys::site::{EXTERNAL_V4, EXTERNAL_V6};

use super::backoff::Backoff;
use super::record::PodCell;
use crate::events::about;
use crate::kubelet::Host;

/// Puts a host-network pod outside the cluster, with this value.
const NETNS_ANNOTATION: &str = "lab.udn-conformance.io/netns";
/// What a pod's interfaces are, as Multus writes it.
const STATUS_ANNOTATION: &str = "k8s.v1.cni.cncf.io/network-status";

/// Whether the pod uses its node's network.
pub(crate) fn host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or(false)
}

/// Whether the pod stands outside the cluster.
pub(crate) fn external(pod: &Pod) -> bool {
    host_network(pod) && pod.annotations().get(NETNS_ANNOTATION).is_some_and(|value| value == "external")
}

/// Gives the pod a network namespace and its networks; tries until that works.
pub(super) async fn establish(host: &Arc<Host>, pod: &Arc<PodCell>) {
    if host_network(&pod.arrival) {
        return establish_on_host(host, pod);
    }
    let mut backoff = Backoff::retries();
    let mut told = None;
    let mut object = pod.object.clone();
    let attached = loop {
        object.mark_unchanged();
        let (reason, detail) = match attach(host, pod).await {
            Ok(attached) => break attached,
            Err(Trouble::Namespace(error)) => ("FailedCreatePodSandBox", error.to_string()),
            Err(Trouble::Network(AttachError::Pending { reason, .. } | AttachError::Refused { reason, .. })) => {
                ("FailedCreatePodSandBox", reason)
            }
        };
        if told.as_ref() != Some(&detail) {
            let message = format!(
                "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to setup network for sandbox \
                 \"{}\": plugin type=\"ovn-k8s-cni-overlay\" name=\"ovn-kubernetes\" failed (add): {detail}",
                pod.uid
            );
            host.events.warning(about(&pod.arrival, None), reason, message);
            told = Some(detail);
        }
        wait_for_change(&mut object, backoff.next()).await;
    };
    annotate(host, pod, &attached).await;
    pod.update(|record| {
        record.ips = attached.ips;
        record.sandbox_ready = true;
    });
}

fn establish_on_host(host: &Host, pod: &PodCell) {
    let node = &host.node;
    let (netns, ips) = if external(&pod.arrival) {
        (host.site.external.clone(), vec![IpAddr::V4(EXTERNAL_V4), IpAddr::V6(EXTERNAL_V6)])
    } else {
        (node.netns.clone(), vec![IpAddr::V4(node.ipv4), IpAddr::V6(node.ipv6)])
    };
    remember(host, pod, netns);
    pod.update(|record| {
        record.ips = ips;
        record.sandbox_ready = true;
    });
}

enum Trouble {
    Namespace(io::Error),
    Network(AttachError),
}

async fn attach(host: &Host, pod: &PodCell) -> Result<Attached, Trouble> {
    let existing = pod.sandbox.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let sandbox = match existing {
        Some(sandbox) => sandbox,
        None => remember(host, pod, create(pod).await.map_err(Trouble::Namespace)?),
    };
    host.network.attach(&sandbox).await.map_err(Trouble::Network)
}

async fn create(pod: &PodCell) -> io::Result<Netns> {
    let netns = Netns::create(&format!("{}/{}", pod.namespace, pod.name))?;
    let netlink = netns.netlink()?;
    let loopback =
        netlink.link().get().match_name("lo".to_owned()).execute().try_next().await.map_err(io::Error::other)?;
    let index = loopback.map_or(1, |link| link.header.index);
    netlink.link().set(LinkUnspec::new_with_index(index).up().build()).execute().await.map_err(io::Error::other)?;
    // As container runtimes set it: an unprivileged server may have port 80.
    let _ = netns.write_sysctl("net/ipv4/ip_unprivileged_port_start", "0");
    lift_icmp_limits(&netns).map_err(io::Error::other)?;
    let security = pod.arrival.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    for sysctl in security.and_then(|security| security.sysctls.as_ref()).into_iter().flatten() {
        netns.write_sysctl(&sysctl.name.replace('.', "/"), &sysctl.value)?;
    }
    Ok(netns)
}

fn remember(host: &Host, pod: &PodCell, netns: Netns) -> Sandbox {
    let sandbox = Sandbox {
        namespace: pod.namespace.clone(),
        pod: pod.name.clone(),
        uid: pod.uid.clone(),
        node: host.node.name.clone(),
        netns,
    };
    *pod.sandbox.lock().unwrap_or_else(PoisonError::into_inner) = Some(sandbox.clone());
    sandbox
}

/// Waits for a new version of the pod (an annotation, perhaps), or for `time`, whichever is first.
async fn wait_for_change(object: &mut watch::Receiver<Option<Arc<Pod>>>, time: Duration) {
    let changed = async {
        if object.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    // Both ways lead to the next attempt.
    let _ = tokio::time::timeout(time, changed).await;
}

async fn annotate(host: &Host, pod: &PodCell, attached: &Attached) {
    let text = indented(&attached.network_status);
    let patch = json!({ "metadata": { "uid": pod.uid, "annotations": { STATUS_ANNOTATION: text } } });
    let pods: Api<Pod> = Api::namespaced(host.client.clone(), &pod.namespace);
    let mut backoff = Backoff::retries();
    loop {
        match pods.patch(&pod.name, &PatchParams::default(), &Patch::Merge(&patch)).await {
            Ok(_) => return,
            // The pod is gone, or another one has its name.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409 | 422) => return,
            Err(error) => {
                tracing::warn!(pod = pod.name, %error, "cannot write the network status; trying again");
                tokio::time::sleep(backoff.next()).await;
            }
        }
    }
}

/// JSON with four spaces, which is how Multus writes it and people read it in `kubectl describe`.
fn indented(value: &serde_json::Value) -> String {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    match serde::Serialize::serialize(value, &mut serializer) {
        Ok(()) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => value.to_string(),
    }
}

/// Takes the pod's networks and its namespace away. May be called again.
pub(super) async fn release(host: &Host, pod: &PodCell) {
    let sandbox = pod.sandbox.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(sandbox) = sandbox {
        if !host_network(&pod.arrival) {
            host.network.detach(&sandbox).await;
        }
        pod.update(|record| record.sandbox_ready = false);
    }
}
