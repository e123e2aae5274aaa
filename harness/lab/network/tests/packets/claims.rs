//! IPAMClaims: what they say, what they keep, and what cannot be had.

use anyhow::{Context, Result, ensure};
use kube::api::DeleteParams;
use serde_json::{Value, json};
use udn_lab_sys::pod::{AttachError, PodNetwork};

use crate::cluster::{Cluster, eventually};
use crate::machine::{Machine, claim, claims, entry, launcher, parsed};
use crate::vms::NODES;

async fn condition(cluster: &Cluster, vm: &str, reason: &str, words: &str) -> Result<()> {
    let mut last = None;
    eventually(&format!("the claim of {vm} to say {reason}"), async || {
        last = claims(cluster).get(&format!("{vm}.default")).await?.status;
        let conditions = last.iter().flat_map(|status| &status.conditions);
        Ok(conditions
            .filter(|it| it.type_ == "IPsAllocated")
            .any(|it| it.reason == reason && it.message.contains(words)))
    })
    .await
    .with_context(|| format!("its status was {last:?}"))
}

/// Requests that cannot be met are conditions of claims, and pods that wait.
pub(crate) async fn conflicts(cluster: &Cluster) -> Result<()> {
    let element =
        |ips: &[&str], mac: &str| json!({"name": "default", "namespace": "ovn-kubernetes", "ips": ips, "mac": mac});
    let taken = ["10.55.7.7/16", "fd55::77/64"];
    claim(cluster, "one").await?;
    let one = launcher(cluster, "one", "virt-launcher-one", NODES[1], element(&taken, "02:03:04:05:06:07")).await?;
    cluster.attach_silent(&one).await?;
    condition(cluster, "one", "SuccessfulAllocation", "IP addresses successfully allocated").await?;
    let status = claims(cluster).get("one.default").await?.status.context("no status")?;
    ensure!(status.ips == taken && status.owner_pod.as_ref().is_some_and(|it| it.name == one.pod), "{status:?}");
    let cases = [
        ("two", element(&taken, "02:03:04:05:06:08"), "IPAddressConflict", "provided IP is already allocated"),
        (
            "three",
            element(&["10.55.7.8/16", "fd55::78/64"], "02:03:04:05:06:07"),
            "MACAddressConflict",
            "MAC address already in use",
        ),
        (
            "four",
            element(&["10.55.7.9/16"], "02:03:04:05:06:09"),
            "InternalError",
            "requested IPs family types must match network's IP family configuration",
        ),
    ];
    for (vm, request, reason, words) in cases {
        claim(cluster, vm).await?;
        launcher(cluster, vm, &format!("virt-launcher-{vm}"), NODES[2], request).await?;
        condition(cluster, vm, reason, words).await?;
        cluster.event("vms", "ErrorAllocatingPod", words).await?;
        let status = claims(cluster).get(&format!("{vm}.default")).await?.status.context("no status")?;
        ensure!(status.ips.is_empty(), "{status:?}");
    }
    // Both wait for what the first has: the MAC goes with its pod, the addresses with its claim.
    cluster.delete_pod(&one).await?;
    condition(cluster, "three", "SuccessfulAllocation", "").await?;
    condition(cluster, "two", "IPAddressConflict", "").await?;
    claims(cluster).delete("one.default", &DeleteParams::default()).await?;
    condition(cluster, "two", "SuccessfulAllocation", "").await?;
    println!("ok   conflicts are conditions, and end with what they are about");
    Ok(())
}

/// The machine is stopped and started: it has its addresses again, and nobody else got them.
pub(crate) async fn kept(cluster: &Cluster, machine: Machine) -> Result<()> {
    let claimed = claims(cluster).get("db.default").await?.status.context("no status")?.ips;
    let had: Vec<String> = machine.addresses.iter().map(ToString::to_string).collect();
    ensure!(claimed == had, "{claimed:?} instead of {had:?}");
    for pod in &machine.pods {
        cluster.delete_pod(pod).await?;
    }
    // Addresses go round: whoever takes the next one proves nothing, whoever asks for these does.
    let request = json!([{"name": "default", "namespace": "ovn-kubernetes", "ips": had}]).to_string();
    let annotations = json!({"v1.multus-cni.io/default-network": request});
    let thief = cluster.create_pod("vms", "thief", NODES[1], annotations).await?;
    let refused = cluster.network.attach(&thief).await;
    ensure!(
        matches!(&refused, Err(AttachError::Pending { reason, .. }) if reason.contains("provided IP is already allocated")),
        "given away: {refused:?}"
    );
    let again = launcher(cluster, machine.name, "virt-launcher-db-again", NODES[2], Value::Null).await?;
    cluster.attach_silent(&again).await?;
    let entry = entry(cluster, &again.pod).await?;
    ensure!(parsed::<String>(&entry["ip_addresses"]) == had, "{entry}");
    println!("ok   a claim keeps its addresses without a pod");
    Ok(())
}
