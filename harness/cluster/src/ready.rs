//! Readiness that the harness decides about: a readiness gate of its own, so that a backend comes and goes without
//! anything changing in the pod.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};
use udn_model::cell::ObjectRef;
use udn_model::world::{PodRef, READY_GATE};

use crate::claims::{is_ready, pod_state};
use crate::error::Error;
use crate::names::FIELD_MANAGER;
use crate::objects::{Objects, Real};
use crate::world::KubeWorld;

/// How long a pod may take to be what it was made.
const DEADLINE: Duration = Duration::from_secs(30);

/// Whether a pod's manifest leaves its readiness to the harness.
pub(crate) fn is_gated(manifest: &Value) -> bool {
    let gates = manifest["spec"]["readinessGates"].as_array();
    gates.into_iter().flatten().any(|gate| gate["conditionType"] == READY_GATE)
}

/// Opens or shuts the gate of a pod that has one, and waits until the pod's status says so.
///
/// # Errors
/// The API server's refusal, or that the pod does not become it in time.
pub(crate) async fn set(world: &KubeWorld, pod: &PodRef, ready: bool) -> Result<(), Error> {
    let real = world.real(&ObjectRef::pod(pod));
    gate(&world.objects, &real, ready).await?;
    let holds = move |object: Option<&DynamicObject>| {
        let object = object.and_then(|object| serde_json::to_value(object).ok());
        object.is_some_and(|object| is_ready(&object) == ready)
    };
    let awaited = if ready { "to be Ready" } else { "not to be Ready any more" };
    let told = |last: Option<&Value>| last.map_or_else(|| "it is not there".into(), pod_state);
    world.objects.wait(&real, awaited, DEADLINE, holds, told).await
}

/// Opens or shuts the gate, and waits for nothing.
///
/// # Errors
/// The API server's refusal, or why it could not be asked.
pub(crate) async fn gate(objects: &Objects, pod: &Real, open: bool) -> Result<(), Error> {
    let api: Api<Pod> = Api::namespaced(objects.client.clone(), pod.namespace.as_deref().unwrap_or_default());
    let status = if open { "True" } else { "False" };
    let patch = json!({ "status": { "conditions": [{ "type": READY_GATE, "status": status }] } });
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
    let patched = api.patch_status(&pod.name, &params, &Patch::Strategic(&patch)).await;
    patched.map(drop).map_err(|error| Error::api(format!("set the readiness gate of {pod}"), error))
}
