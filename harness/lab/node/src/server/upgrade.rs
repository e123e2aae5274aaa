//! Which wire a request asks for.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::http::request::Parts;
use axum::response::Response;

use super::channels::{Asked, Channels};
use super::spdy::Handshake;
use super::websocket;

/// A request for a connection with streams.
pub(super) enum Upgrade {
    Spdy(Handshake),
    /// Also where the request is for neither: the rejection says what is missing.
    WebSocket(Result<WebSocketUpgrade, WebSocketUpgradeRejection>),
}

impl<S: Send + Sync> FromRequestParts<S> for Upgrade {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        Ok(match Handshake::of(parts) {
            Some(handshake) => Self::Spdy(handshake),
            None => Self::WebSocket(WebSocketUpgrade::from_request_parts(parts, state).await),
        })
    }
}

impl Upgrade {
    /// Answers the request; where that leads to a connection, runs `session` on it.
    pub(super) fn serve<F, S>(self, asked: Asked, session: S) -> Response
    where
        F: Future<Output = ()> + Send + 'static,
        S: FnOnce(Channels) -> F + Send + 'static,
    {
        match self {
            Self::Spdy(handshake) => handshake.serve(asked, session),
            Self::WebSocket(upgrade) => websocket::upgrade(upgrade, session),
        }
    }
}
