//! Migrations and restarts of VMs, each waited for.

use std::time::Duration;

use kube::api::DynamicObject;
use serde_json::{Value, json};
use udn_model::migration::{Migration, Moment};
use udn_model::scenario::MigrationFailure;
use udn_model::world::PodRef;

use super::course::{self, TARGET_READY};
use super::{KUBEVIRT, MIGRATION_KIND, describe, instance, launchers, machine, wait};
use crate::agent::now_us;
use crate::error::Error;
use crate::names::{RUN_LABEL, WORLD_LABEL};
use crate::objects::Real;
use crate::pods::Key;
use crate::world::KubeWorld;

/// How long a migration may take, from the wish to its end: a new launcher pod, and the guest's memory.
const MIGRATED: Duration = Duration::from_secs(120);
/// How long the target's pod may take to be there.
const TARGET: Duration = Duration::from_secs(60);
/// How long a VM may take to be stopped.
const STOPPED: Duration = Duration::from_secs(60);
/// How long the network's mark on the target's pod is waited for once the migration is over.
const TOLD: Duration = Duration::from_secs(2);
/// The label of a target's pod: the migration's uid.
const JOB_LABEL: &str = "kubevirt.io/migrationJobUID";
/// What makes KubeVirt's launcher fail a migration.
const FORCED: &str = "kubevirt.io/func-test-force-launcher-migration-failure";
/// The lab's own switch for the same, on the migration.
const LAB_FAIL: &str = "lab.udn-conformance.io/fail";

/// Migrates a VM to the node in a slot.
///
/// # Errors
/// It cannot be asked for, fails, or is not over in time.
pub(crate) async fn migrate(world: &KubeWorld, vm: &PodRef, to: u8) -> Result<(), Error> {
    let node = world.node_name(to).ok_or(Error::NoNodes)?;
    let from =
        node_of(world, vm).ok_or_else(|| Error::Migration { vm: vm.to_string(), why: "it does not run".into() })?;
    if from == node {
        let why =
            format!("it runs on {node} already, which is node{to}: with one schedulable node there is nowhere to go");
        return Err(Error::Migration { vm: vm.to_string(), why });
    }
    // Whoever may be asked later what was announced has to listen now. Who cannot says so then.
    futures::future::join_all(world.stations().iter().map(|station| station.ear.open(&station.agent))).await;
    let asked_us = now_us();
    let migration = ask(world, vm, Some(&node), &[]).await?;
    let object = over(world, vm, &migration).await?;
    let over_us = now_us();
    let target = target_of(world, vm, &object);
    let told = |pod: &Value| pod["metadata"]["annotations"][TARGET_READY].is_string();
    if let Some(key) = &target {
        // For the timeline: without the mark it is told without it.
        let _ = world.pods.wait_for(key, TOLD, told).await;
    }
    let succeeded = object["status"]["phase"] == "Succeeded";
    finish(world, vm, (asked_us, over_us), (&object, target.as_ref()), from, succeeded).await;
    if !succeeded {
        let why = format!("{}; {}", why(&object), describe(world, vm).await);
        return Err(Error::Migration { vm: vm.to_string(), why });
    }
    match node_of(world, vm) {
        Some(found) if found != node => {
            let why = format!("it is on {found}, not on {node} as asked for");
            Err(Error::Migration { vm: vm.to_string(), why })
        }
        _ => Ok(()),
    }
}

/// Makes a migration fail.
///
/// # Errors
/// It cannot be asked for, succeeds after all, or is not over in time.
pub(crate) async fn fail(world: &KubeWorld, vm: &PodRef, how: MigrationFailure) -> Result<(), Error> {
    let from =
        node_of(world, vm).ok_or_else(|| Error::Migration { vm: vm.to_string(), why: "it does not run".into() })?;
    let asked_us = now_us();
    let nowhere = "no-such-node.udn-conformance.io";
    let (object, target) = match how {
        MigrationFailure::NoNode => {
            let migration = ask(world, vm, Some(nowhere), &[]).await?;
            let target = target_pod(world, vm, &migration).await?;
            called_off(world, vm, &migration).await?;
            (Value::Null, Some(target))
        }
        MigrationFailure::Launcher => {
            let real = instance(world, vm);
            world.objects.set(&real, "annotations", FORCED, Some("")).await?;
            let outcome = async {
                let migration = ask(world, vm, None, &[(LAB_FAIL, "target-never-ready")]).await?;
                over(world, vm, &migration).await
            };
            let outcome = outcome.await;
            world.objects.set(&real, "annotations", FORCED, None).await?;
            let object = outcome?;
            let target = target_of(world, vm, &object);
            (object, target)
        }
    };
    let succeeded = object["status"]["phase"] == "Succeeded";
    finish(world, vm, (asked_us, now_us()), (&object, target.as_ref()), from, succeeded).await;
    if succeeded {
        let why = format!("it was to fail ({how}), and succeeded: the cluster does not know that way to fail one");
        return Err(Error::Migration { vm: vm.to_string(), why });
    }
    Ok(())
}

/// Stops a VM and starts it again.
///
/// # Errors
/// A refusal, or that it does not in time.
pub(crate) async fn restart(world: &KubeWorld, vm: &PodRef) -> Result<(), Error> {
    stop(world, vm).await?;
    start(world, vm).await
}

/// Stops a VM.
///
/// # Errors
/// As [`restart`].
pub(crate) async fn stop(world: &KubeWorld, vm: &PodRef) -> Result<(), Error> {
    world.objects.merge(&machine(world, vm), &json!({ "spec": { "runStrategy": "Halted" } })).await?;
    world.objects.wait_gone(&instance(world, vm), STOPPED).await?;
    // The next one is another pod, with the same addresses.
    for pod in launchers(world, vm) {
        let key = (text(&pod["metadata"]["namespace"]), text(&pod["metadata"]["name"]));
        world.pods.wait_gone(&key, STOPPED).await?;
    }
    Ok(())
}

/// Starts a VM that was stopped.
///
/// # Errors
/// As [`restart`].
pub(crate) async fn start(world: &KubeWorld, vm: &PodRef) -> Result<(), Error> {
    world.objects.merge(&machine(world, vm), &json!({ "spec": { "runStrategy": "Always" } })).await?;
    wait(world, std::slice::from_ref(vm)).await
}

/// The node of the launcher pod that runs the VM.
fn node_of(world: &KubeWorld, vm: &PodRef) -> Option<String> {
    let pod = world.object_of(vm)?;
    pod["spec"]["nodeName"].as_str().map(str::to_owned)
}

/// Asks for a migration, to a node where one is named.
async fn ask(world: &KubeWorld, vm: &PodRef, node: Option<&str>, annotations: &[(&str, &str)]) -> Result<Real, Error> {
    let real = Real {
        kind: MIGRATION_KIND.into(),
        name: format!("{}-{}", vm.name, world.vms.next_number()),
        ..instance(world, vm)
    };
    let annotations: serde_json::Map<String, Value> =
        annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
    let mut manifest = json!({
        "apiVersion": KUBEVIRT, "kind": MIGRATION_KIND,
        "metadata": { "name": real.name, "namespace": real.namespace, "annotations": annotations,
            "labels": { RUN_LABEL: world.run, WORLD_LABEL: world.instance } },
        "spec": { "vmiName": vm.name },
    });
    if let Some(node) = node {
        manifest["spec"]["addedNodeSelector"] = json!({ "kubernetes.io/hostname": node });
    }
    world.remember(&real);
    match world.objects.apply(&manifest).await {
        // Before KubeVirt 1.5 the target's node could not be said: with two nodes it is the other one.
        Err(error) if node.is_some() && error.to_string().contains("addedNodeSelector") => {
            if let Some(spec) = manifest["spec"].as_object_mut() {
                spec.remove("addedNodeSelector");
            }
            world.objects.apply(&manifest).await?;
        }
        other => drop(other?),
    }
    Ok(real)
}

/// Waits until a migration is over, whichever way.
async fn over(world: &KubeWorld, vm: &PodRef, migration: &Real) -> Result<Value, Error> {
    let ended = |object: Option<&DynamicObject>| {
        object.is_some_and(|it| matches!(it.data["status"]["phase"].as_str(), Some("Succeeded" | "Failed")))
    };
    let told = |last: Option<&Value>| last.map_or_else(|| "it is not there".into(), why);
    match world.objects.wait(migration, "to be over", MIGRATED, ended, told).await {
        Ok(()) => Ok(world.objects.get(migration).await?.unwrap_or_default()),
        Err(Error::Deadline { awaited, after, last }) => {
            Err(Error::Deadline { awaited, after, last: format!("{last}; {}", describe(world, vm).await) })
        }
        Err(other) => Err(other),
    }
}

/// Deletes a migration that waits, and waits until it is gone.
async fn called_off(world: &KubeWorld, vm: &PodRef, migration: &Real) -> Result<(), Error> {
    world.objects.delete(migration).await?;
    match world.objects.wait_gone(migration, TARGET).await {
        Err(Error::Deadline { awaited, after, last }) => {
            Err(Error::Deadline { awaited, after, last: format!("{last}; {}", describe(world, vm).await) })
        }
        other => other,
    }
}

/// Waits for the pod of a migration's target.
async fn target_pod(world: &KubeWorld, vm: &PodRef, migration: &Real) -> Result<Key, Error> {
    let object = world.objects.get(migration).await?.unwrap_or_default();
    let uid = text(&object["metadata"]["uid"]);
    let key = || find_target(world, vm, &uid);
    let waited = world.pods.wait_until(TARGET, || key().is_some()).await;
    match (key(), waited) {
        (Some(key), _) => Ok(key),
        (None, _) => Err(Error::Deadline {
            awaited: format!("the target's pod of {migration}"),
            after: TARGET,
            last: describe(world, vm).await,
        }),
    }
}

fn find_target(world: &KubeWorld, vm: &PodRef, uid: &str) -> Option<Key> {
    let namespace = world.naming.real(&vm.namespace);
    let mine = |pod: &Value| pod["metadata"]["labels"][JOB_LABEL] == *uid;
    world.pods.all().into_iter().find(|((of, _), pod)| *of == namespace && mine(pod)).map(|(key, _)| key)
}

fn target_of(world: &KubeWorld, vm: &PodRef, migration: &Value) -> Option<Key> {
    find_target(world, vm, migration["metadata"]["uid"].as_str()?)
}

/// What a migration says of itself.
fn why(migration: &Value) -> String {
    let phase = migration["status"]["phase"].as_str().unwrap_or("no phase yet");
    let reason = text(&migration["status"]["migrationState"]["failureReason"]);
    let conditions = migration["status"]["conditions"].as_array().into_iter().flatten();
    let conditions = conditions.map(|it| format!("{} {}", text(&it["type"]), text(&it["message"])));
    let told: Vec<String> = std::iter::once(reason).chain(conditions).filter(|text| !text.is_empty()).collect();
    if told.is_empty() { format!("phase {phase}") } else { format!("phase {phase}: {}", told.join("; ")) }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Keeps what is known of the migration's course.
async fn finish(
    world: &KubeWorld,
    vm: &PodRef,
    (asked_us, over_us): (i64, i64),
    (object, target): (&Value, Option<&Key>),
    from: String,
    succeeded: bool,
) {
    let now = world.objects.get(&instance(world, vm)).await.ok().flatten();
    let target = target.and_then(|key| world.pods.get(key));
    let course = course::read(object, now.as_ref(), target.as_deref());
    let mut marks = course.marks;
    if succeeded && !marks.iter().any(|mark| mark.what == Moment::Ended) {
        marks.push(udn_model::migration::Mark { at_us: over_us, what: Moment::Ended, within_ms: 500 });
    }
    let to = target.as_ref().and_then(|pod| pod["spec"]["nodeName"].as_str()).map(str::to_owned);
    world.vms.migrated(Migration {
        vm: vm.clone(),
        from: Some(from),
        to,
        succeeded,
        asked_us,
        over_us,
        marks,
        pause_ms: course.pause_ms,
        announcements: Vec::new(),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_migration_says_why() {
        let migration = json!({ "status": { "phase": "Failed", "migrationState": { "failureReason": "target gone" },
            "conditions": [{ "type": "migrationRejectedByResourceQuota", "message": "exceeded quota" }] } });
        assert_eq!(why(&migration), "phase Failed: target gone; migrationRejectedByResourceQuota exceeded quota");
        assert_eq!(why(&json!({})), "phase no phase yet");
    }
}
