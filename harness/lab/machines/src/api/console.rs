//! The console of a guest, as a WebSocket.

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;

use super::Task;
use super::refusal::Refusal;
use crate::emulator::console::Session;

/// KubeVirt's protocol of consoles: raw bytes both ways, a message each.
const PROTOCOL: &str = "plain.kubevirt.io";

/// Gives the client the console, which whoever had it loses.
pub(super) async fn open(
    task: &Task,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Refusal> {
    let slot = task.slot().await?;
    let upgrade = upgrade.map_err(|rejection| Refusal::no_upgrade(rejection.status(), &rejection.body_text()))?;
    let session = slot.current().and_then(|machine| machine.console.attach()).ok_or_else(|| task.ended())?;
    // Clients that name no protocol get the same bytes.
    Ok(upgrade.protocols([PROTOCOL]).on_upgrade(async move |socket| carry(socket, session).await))
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
