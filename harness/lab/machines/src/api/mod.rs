//! `subresources.kubevirt.io`: what is done to virtual machines and not stored, as KubeVirt's API server does it.
//!
//! * [`kinds`]: which subresources there are, and the paths that tell it
//! * [`machines`]: start, stop, restart and migrate are written into objects, for the controllers to act on
//! * [`console`], [`pause`]: are the running guest's business
//! * [`refusal`]: what a client is told otherwise, in Kubernetes' words

mod console;
mod kinds;
mod machines;
mod pause;
mod refusal;

use std::sync::Arc;

use axum::Router;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use kube::{Api, ResourceExt};
use udn_api::kubevirt::{InstancePhase, VirtualMachine, VirtualMachineInstance, names};

use crate::context::Context;
use crate::instance::slot::Slot;
use kinds::{INSTANCES, MACHINES};
use refusal::Refusal;

/// Group of what is done to machines and not stored.
pub const API_GROUP: &str = names::SUBRESOURCES_GROUP;
/// Its version.
pub const API_VERSION: &str = "v1";

/// All paths of the group.
pub(crate) fn router(context: Context) -> Router {
    let root = format!("/apis/{API_GROUP}/{API_VERSION}");
    Router::new()
        .route("/apis", get(kinds::groups))
        .route(&format!("/apis/{API_GROUP}"), get(kinds::group))
        .route(&root, get(kinds::resources))
        .route(&format!("{root}/namespaces/{{namespace}}/{{plural}}/{{name}}/{{action}}"), any(handle))
        .fallback(async || Refusal::no_such_path())
        .method_not_allowed_fallback(async || Refusal::method_not_allowed())
        .with_state(context)
}

/// An object that something shall be done with.
struct Task {
    context: Context,
    namespace: String,
    name: String,
}

async fn handle(
    State(context): State<Context>,
    Path((namespace, plural, name, action)): Path<(String, String, String, String)>,
    method: Method,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Refusal> {
    let verb = kinds::verb(&plural, &action).ok_or_else(Refusal::no_such_path)?;
    if method != (if verb == "get" { Method::GET } else { Method::PUT }) {
        return Err(Refusal::method_not_allowed());
    }
    let task = Task { context, namespace, name };
    match action.as_str() {
        "console" => return console::open(&task, upgrade).await,
        "pause" => pause::switch(&task, false).await?,
        "unpause" => pause::switch(&task, true).await?,
        "migrate" => machines::migrate(&task).await?,
        "start" => machines::change(&task, machines::start).await?,
        "stop" => machines::change(&task, machines::stop).await?,
        _ => machines::change(&task, machines::restart).await?,
    }
    Ok(StatusCode::ACCEPTED.into_response())
}

/// Objects are asked of the API server: what was told a moment ago by watches may be what the client has just seen end.
impl Task {
    async fn machine(&self) -> Result<VirtualMachine, Refusal> {
        let api = Api::<VirtualMachine>::namespaced(self.context.client.clone(), &self.namespace);
        api.get_opt(&self.name).await?.ok_or_else(|| Refusal::not_found(MACHINES, &self.name))
    }

    async fn instance(&self) -> Result<Option<VirtualMachineInstance>, Refusal> {
        let api = Api::<VirtualMachineInstance>::namespaced(self.context.client.clone(), &self.namespace);
        Ok(api.get_opt(&self.name).await?)
    }

    /// The running instance.
    async fn slot(&self) -> Result<Arc<Slot>, Refusal> {
        let instance = self.instance().await?.ok_or_else(|| Refusal::not_found(INSTANCES, &self.name))?;
        let phase = instance.phase();
        if phase != InstancePhase::Running {
            let why =
                format!("Unable to connect to VirtualMachineInstance because phase is {phase:?} instead of Running");
            return Err(Refusal::conflict(INSTANCES, &self.name, &why));
        }
        let slot = self.context.slot(&instance.uid().unwrap_or_default());
        slot.ok_or_else(|| Refusal::runs_nowhere(&self.namespace, &self.name))
    }

    /// For a guest that ended while its status still says that it runs.
    fn ended(&self) -> Refusal {
        Refusal::conflict(INSTANCES, &self.name, "the guest has ended")
    }
}
