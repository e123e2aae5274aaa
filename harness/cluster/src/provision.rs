//! Makes a world: namespaces, then networks, then everything else, then pods; each waited for by watch.

use std::time::Duration;

use futures::stream::{self, StreamExt, TryStreamExt};
use kube::api::DynamicObject;
use serde_json::Value;
use tokio::time::{Instant, sleep};
use udn_model::world::{PodRef, VM_KIND};

use crate::error::Error;
use crate::objects::{Objects, Real};
use crate::ready;
use crate::vm;
use crate::world::KubeWorld;

/// How long networks may take to be created.
const NETWORK_DEADLINE: Duration = Duration::from_secs(60);
/// How long a new namespace may take to get its default service account, without which pods are refused.
const ACCOUNT_DEADLINE: Duration = Duration::from_secs(20);
/// How often that is tried.
const ACCOUNT_POLL: Duration = Duration::from_millis(200);
/// Requests to the API server at once, per world.
pub(crate) const REQUESTS: usize = 16;
/// Agents attached to at once, per world.
const ATTACHMENTS: usize = 32;
/// Conditions that say that a network is there; older releases say `NetworkReady`.
const NETWORK_THERE: [&str; 2] = ["NetworkCreated", "NetworkReady"];

/// In which order objects are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Namespaces,
    Networks,
    Others,
    Pods,
    Vms,
}

fn stage(object: &Real) -> Stage {
    match object.kind.as_str() {
        "Namespace" => Stage::Namespaces,
        "UserDefinedNetwork" | "ClusterUserDefinedNetwork" | "NetworkAttachmentDefinition" => Stage::Networks,
        "Pod" => Stage::Pods,
        VM_KIND => Stage::Vms,
        _ => Stage::Others,
    }
}

/// Applies manifests that have their real names, waits until networks are created and pods Ready, and attaches to the
/// pods' agents.
///
/// # Errors
/// The first that could not be done, or did not get ready in time.
pub(crate) async fn make(world: &KubeWorld, manifests: &[Value], progress: impl Fn(String)) -> Result<(), Error> {
    let mut objects: Vec<(Real, &Value)> =
        manifests.iter().map(|manifest| Ok((Real::of_manifest(manifest)?, manifest))).collect::<Result<_, Error>>()?;
    objects.sort_by_key(|(object, _)| stage(object));
    let of = |wanted: Stage| -> Vec<(Real, &Value)> {
        objects.iter().filter(|(object, _)| stage(object) == wanted).cloned().collect()
    };
    let (namespaces, networks, others, pods, vms) =
        (of(Stage::Namespaces), of(Stage::Networks), of(Stage::Others), of(Stage::Pods), of(Stage::Vms));
    // Before the requests are sent: what is half made has to be found by the clean-up, too.
    objects.iter().for_each(|(object, _)| world.remember(object));
    vms.iter().for_each(|(vm, manifest)| world.note_vm(vm, manifest));

    apply_all(&world.objects, &namespaces).await?;
    progress(format!("{} namespaces", namespaces.len()));
    apply_all(&world.objects, &networks).await?;
    at_most(REQUESTS, networks.iter().map(|(network, _)| wait_network(&world.objects, network)).collect()).await?;
    progress(format!("{} networks", networks.len()));
    apply_all(&world.objects, &others).await?;
    // They take longest to start: everything else is done meanwhile.
    apply_all(&world.objects, &vms).await?;
    let applied =
        at_most(REQUESTS, pods.iter().map(|(_, manifest)| apply_pod(&world.objects, manifest)).collect()).await?;
    let gated = pods.iter().filter(|(_, manifest)| ready::is_gated(manifest));
    at_most(REQUESTS, gated.map(|(pod, _)| ready::gate(&world.objects, pod, true)).collect()).await?;
    let keys: Vec<_> = pods
        .iter()
        .zip(applied)
        .map(|((pod, _), applied)| {
            ((pod.namespace.clone().unwrap_or_default(), pod.name.clone()), applied.metadata.uid)
        })
        .collect();
    wait_pods(world, &keys).await?;
    progress(format!("{} pods ready", pods.len()));
    let refs: Vec<PodRef> = keys.iter().filter_map(|(key, _)| world.name_of(key)).collect();
    at_most(ATTACHMENTS, refs.iter().map(|pod| world.attach(pod)).collect()).await?;
    progress(format!("{} agents listen", refs.len()));
    if !vms.is_empty() {
        let refs: Vec<PodRef> = vms.iter().filter_map(|(real, _)| world.vm_of(real)).collect();
        vm::wait(world, &refs).await?;
        progress(format!("{} guests answer", refs.len()));
    }
    Ok(())
}

async fn apply_all(objects: &Objects, manifests: &[(Real, &Value)]) -> Result<(), Error> {
    at_most(REQUESTS, manifests.iter().map(|(_, manifest)| objects.apply(manifest)).collect()).await.map(drop)
}

/// Runs so many at once, and gives their results in order.
pub(crate) async fn at_most<T>(
    limit: usize,
    jobs: Vec<impl Future<Output = Result<T, Error>>>,
) -> Result<Vec<T>, Error> {
    stream::iter(jobs).buffered(limit).try_collect().await
}

/// Applies a pod; in a new namespace once its default service account is there.
pub(crate) async fn apply_pod(objects: &Objects, manifest: &Value) -> Result<DynamicObject, Error> {
    let begun = Instant::now();
    loop {
        match objects.apply(manifest).await {
            Err(Error::Api { why, .. }) if why.contains("service account") && begun.elapsed() < ACCOUNT_DEADLINE => {
                sleep(ACCOUNT_POLL).await;
            }
            result => return result,
        }
    }
}

async fn wait_network(objects: &Objects, network: &Real) -> Result<(), Error> {
    if network.kind == "NetworkAttachmentDefinition" {
        return Ok(());
    }
    let there = |object: Option<&DynamicObject>| {
        let conditions = object.and_then(|object| object.data["status"]["conditions"].as_array());
        conditions.into_iter().flatten().any(|condition| {
            NETWORK_THERE.iter().any(|name| condition["type"] == *name) && condition["status"] == "True"
        })
    };
    let describe = |last: Option<&Value>| match last {
        None => "it is not there".to_owned(),
        Some(object) => format!("its conditions: {}", object["status"]["conditions"]),
    };
    objects.wait(network, "to be created (condition NetworkCreated)", NETWORK_DEADLINE, there, describe).await
}

/// Waits for pods; a failure says what the last event about the first unready one was.
pub(crate) async fn wait_pods(world: &KubeWorld, keys: &[(crate::pods::Key, Option<String>)]) -> Result<(), Error> {
    let error = match world.pods.wait_ready(keys, world.ready_deadline).await {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    let Error::Deadline { awaited, after, last } = error else { return Err(error) };
    let named =
        keys.iter().map(|(key, _)| key).find(|(namespace, name)| awaited.contains(&format!("{namespace}/{name}")));
    let event = match named {
        Some((namespace, name)) => last_event(&world.objects, namespace, name).await,
        None => None,
    };
    let last = event.map_or_else(|| last.clone(), |event| format!("{last}; last event: {event}"));
    Err(Error::Deadline { awaited, after, last })
}

async fn last_event(objects: &Objects, namespace: &str, name: &str) -> Option<String> {
    let pod =
        Real { api_version: "v1".into(), kind: "Pod".into(), namespace: Some(namespace.into()), name: name.into() };
    let events = objects.events(&pod).await.ok()?;
    // A warning says more than the `Normal` one that may have followed it.
    let event = events.iter().rev().find(|event| event["type"] == "Warning").or_else(|| events.last())?;
    Some(format!("{}: {}", event["reason"].as_str()?, event["message"].as_str()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_first_pods_last() {
        let of = |kind: &str| {
            stage(&Real { api_version: "v1".into(), kind: kind.into(), namespace: None, name: "x".into() })
        };
        let mut kinds = ["Pod", "Service", "ClusterUserDefinedNetwork", "Namespace"];
        kinds.sort_by_key(|kind| of(kind));
        assert_eq!(kinds, ["Namespace", "ClusterUserDefinedNetwork", "Service", "Pod"]);
    }
}
