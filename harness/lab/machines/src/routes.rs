//! What a node serves for its machines, beside exec and logs: console, pause and unpause, at the paths of KubeVirt's
//! node component.

use axum::Router;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use serde_json::json;

use crate::context::Context;
use crate::emulator::console::Session;
use crate::instance::slot::{Slot, remove_condition, set_condition};

/// KubeVirt's protocol of consoles: raw bytes both ways, a message each.
const PROTOCOL: &str = "plain.kubevirt.io";

#[derive(Clone)]
struct Node {
    context: Context,
    name: String,
}

/// Why a request is not served.
type Refusal = (StatusCode, String);

/// The routes of the node `name`.
pub(crate) fn of_node(context: Context, name: String) -> Router {
    let root = "/v1/namespaces/{namespace}/virtualmachineinstances/{name}";
    Router::new()
        .route(&format!("{root}/console"), get(console))
        .route(&format!("{root}/pause"), put(pause))
        .route(&format!("{root}/unpause"), put(unpause))
        .with_state(Node { context, name })
}

impl Node {
    /// The running instance, where this node runs it.
    fn slot(&self, namespace: &str, name: &str) -> Result<std::sync::Arc<Slot>, Refusal> {
        let here = |slot: &std::sync::Arc<Slot>| slot.current().is_some_and(|machine| machine.place.node == self.name);
        let found = self.context.slot_of(namespace, name).filter(here);
        found.ok_or_else(|| (StatusCode::NOT_FOUND, format!("node {} does not run {namespace}/{name}", self.name)))
    }
}

async fn console(
    State(node): State<Node>,
    Path((namespace, name)): Path<(String, String)>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let session = node.slot(&namespace, &name).and_then(|slot| {
        let machine = slot.current().and_then(|machine| machine.console.attach());
        machine.ok_or_else(|| (StatusCode::CONFLICT, format!("the guest of {namespace}/{name} has ended")))
    });
    match (session, upgrade) {
        (Err(refusal), _) => refusal.into_response(),
        (_, Err(rejection)) => rejection.into_response(),
        // Clients that name no protocol get the same bytes.
        (Ok(session), Ok(upgrade)) => upgrade.protocols([PROTOCOL]).on_upgrade(async move |socket| carry(socket, session).await),
    }
}

/// Carries bytes both ways, until the guest ends, the client goes, or another one comes.
async fn carry(mut socket: WebSocket, mut session: Session) {
    loop {
        tokio::select! {
            said = session.output.recv() => {
                let Some(said) = said else { break };
                if socket.send(Message::Binary(said)).await.is_err() {
                    return;
                }
            }
            typed = socket.recv() => {
                let bytes = match typed {
                    Some(Ok(Message::Binary(bytes))) => bytes,
                    Some(Ok(Message::Text(text))) => text.into(),
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                };
                if session.type_in(&bytes).await.is_err() {
                    break;
                }
            }
        }
    }
    let _ = socket.send(Message::Close(Some(CloseFrame { code: 1000, reason: "".into() }))).await;
}

async fn pause(State(node): State<Node>, Path((namespace, name)): Path<(String, String)>) -> Result<(), Refusal> {
    switch(&node, &namespace, &name, "stop").await
}

async fn unpause(State(node): State<Node>, Path((namespace, name)): Path<(String, String)>) -> Result<(), Refusal> {
    switch(&node, &namespace, &name, "cont").await
}

async fn switch(node: &Node, namespace: &str, name: &str, command: &str) -> Result<(), Refusal> {
    let slot = node.slot(namespace, name)?;
    let failed = |error: crate::error::Error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string());
    // A guest on its way is neither stopped nor started.
    let _migration = slot.migrating.try_lock().map_err(|_| (StatusCode::CONFLICT, "the guest migrates".to_owned()))?;
    let Some(machine) = slot.current() else { return Err((StatusCode::CONFLICT, "the guest has ended".into())) };
    let (runs, _) = machine.qmp.status().await.map_err(failed)?;
    if runs == (command == "cont") {
        let how = if runs { "VMI is not paused" } else { "VMI is already paused" };
        return Err((StatusCode::CONFLICT, how.into()));
    }
    machine.qmp.run(command, json!({})).await.map_err(failed)?;
    let update = slot.update(|status| match command {
        "stop" => set_condition(status, "Paused", true, "PausedByUser", "VMI was paused by user"),
        _ => remove_condition(status, "Paused"),
    });
    update.await.map_err(failed)
}
