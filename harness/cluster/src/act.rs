//! Performs actions on a world, and keeps what the API server answered.

use std::time::Duration;

use serde_json::Value;
use udn_model::cell::ObjectRef;
use udn_model::scenario::Action;

use crate::claims::Answer;
use crate::component;
use crate::error::Error;
use crate::objects::Real;
use crate::provision;
use crate::ready;
use crate::slices;
use crate::vm;
use crate::world::KubeWorld;

/// How long a deleted object may take to be gone.
const GONE_DEADLINE: Duration = Duration::from_secs(90);

/// Performs an action as it says.
///
/// # Errors
/// What could not be done; a refusal only where the action is not for the matrix to judge.
pub(crate) async fn perform(world: &KubeWorld, action: &Action) -> Result<(), Error> {
    match action {
        Action::Apply(manifests) => {
            let real = manifests.iter().map(|manifest| world.inject(manifest)).collect::<Result<Vec<_>, _>>()?;
            // Pods that are changed in place keep their uid and their agents; those that are replaced do not.
            provision::make(world, &real, |line| tracing::debug!(line, "apply")).await?;
            manifests.iter().for_each(|manifest| world.answered(ObjectRef::of(manifest), Answer::Accepted));
            Ok(())
        }
        Action::Submit(manifests) => {
            for manifest in manifests {
                let real = world.inject(manifest)?;
                let object = Real::of_manifest(&real)?;
                world.remember(&object);
                world.note_vm(&object, &real);
                let applied = match object.kind.as_str() {
                    "Pod" => provision::apply_pod(&world.objects, &real).await,
                    _ => world.objects.apply(&real).await,
                };
                judge_later(world, ObjectRef::of(manifest), applied.map(drop))?;
            }
            Ok(())
        }
        Action::TryCreate(manifests) => try_all(world, manifests, false).await,
        Action::TryChange(manifests) => try_all(world, manifests, true).await,
        Action::Delete(object) => {
            let result = world.objects.delete(&world.real(object)).await;
            world.forget(object);
            judge_later(world, object.clone(), result)
        }
        Action::DeleteAndWait(object) => {
            let real = world.real(object);
            world.objects.delete(&real).await?;
            world.forget(object);
            world.answered(object.clone(), Answer::Accepted);
            world.objects.wait_gone(&real, GONE_DEADLINE).await
        }
        Action::SetReady { pod, ready } => ready::set(world, pod, *ready).await,
        Action::DeleteMirrored(service) => slices::delete(world, service).await,
        Action::Label { object, key, value } => {
            let result = world.objects.set(&world.real(object), "labels", key, value.as_deref()).await;
            judge_later(world, object.clone(), result)
        }
        Action::Migrate { vm, to } => vm::act::migrate(world, vm, *to).await,
        Action::FailMigration { vm, how } => vm::act::fail(world, vm, *how).await,
        Action::RestartVm(vm) => vm::act::restart(world, vm).await,
        Action::StopVm(vm) => vm::act::stop(world, vm).await,
        Action::StartVm(vm) => vm::act::start(world, vm).await,
        Action::RestartNodeComponent { node } => component::restart(world, *node).await,
        Action::Annotate { object, key, value } => {
            let result = world.objects.set(&world.real(object), "annotations", key, value.as_deref()).await;
            judge_later(world, object.clone(), result)
        }
    }
}

/// Asks about all of them at once: they do not depend on each other, for nothing is done.
async fn try_all(world: &KubeWorld, manifests: &[Value], change: bool) -> Result<(), Error> {
    let asked = manifests.iter().map(|manifest| ask(world, manifest, change)).collect();
    let answers = provision::at_most(provision::REQUESTS, asked).await?;
    answers.into_iter().try_for_each(|(object, answer)| judge_later(world, object, answer))
}

async fn ask(world: &KubeWorld, manifest: &Value, change: bool) -> Result<(ObjectRef, Result<(), Error>), Error> {
    let real = world.inject(manifest)?;
    let answer = if change { world.objects.try_change(&real).await } else { world.objects.try_create(&real).await };
    Ok((ObjectRef::of(manifest), answer))
}

/// A refusal is an answer; that the API server could not be asked is not.
fn judge_later(world: &KubeWorld, object: ObjectRef, result: Result<(), Error>) -> Result<(), Error> {
    let answer = match result {
        Ok(()) => Answer::Accepted,
        Err(error) => match error.refusal() {
            Some(message) => Answer::Refused(message.clone()),
            None => return Err(error),
        },
    };
    world.answered(object, answer);
    Ok(())
}
