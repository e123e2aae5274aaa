//! Exec and attach over WebSockets: `v5.channel.k8s.io`, and `v4`, which cannot close standard input alone.
//!
//! Each message begins with a byte that says which channel it belongs to.

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::channels::{Channels, FAREWELL, Said, Size, Source, Wire};

/// Newest first: the first one that the client knows is taken.
const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// Followed by the number of the channel that ends (v5).
const CLOSE: u8 = 255;
/// Room for what a client sends, bytes. Every session has it for good, and the library's 128 KiB are filled with zeros
/// before each read.
const READ_BUFFER: usize = 8 * 1024;

/// Agrees on a protocol and runs `session` on the connection.
pub(super) fn upgrade<F, S>(upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>, session: S) -> Response
where
    F: Future<Output = ()> + Send + 'static,
    S: FnOnce(Channels) -> F + Send + 'static,
{
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade.protocols(PROTOCOLS).read_buffer_size(READ_BUFFER),
        Err(rejection) => return rejection.into_response(),
    };
    if upgrade.selected_protocol().is_none() {
        let message = format!("unable to upgrade: none of the subprotocols {PROTOCOLS:?} was offered\n");
        return (StatusCode::BAD_REQUEST, message).into_response();
    }
    upgrade.on_upgrade(async move |socket| {
        let (channels, wire) = Channels::new();
        tokio::spawn(serve(socket, wire));
        session(channels).await;
    })
}

async fn serve(socket: WebSocket, wire: Wire) {
    let Wire { typed, resized, said, open: _open } = wire;
    let (sink, stream) = socket.split();
    let reader = tokio::spawn(read(stream, typed, resized));
    let stop = reader.abort_handle();
    write(sink, said).await;
    if timeout(FAREWELL, reader).await.is_err() {
        stop.abort();
    }
}

/// Sends until the status is sent or the client is gone.
async fn write(mut sink: SplitSink<WebSocket, Message>, mut said: mpsc::Receiver<Said>) {
    while let Some(message) = said.recv().await {
        let (channel, bytes, last) = match message {
            Said::Output(Source::Stdout, bytes) => (STDOUT, bytes, false),
            Said::Output(Source::Stderr, bytes) => (STDERR, bytes, false),
            Said::Status(bytes) => (ERROR, bytes, true),
        };
        if sink.send(Message::Binary(framed(channel, &bytes))).await.is_err() {
            return;
        }
        if last {
            break;
        }
    }
    let _ = sink.send(Message::Close(Some(CloseFrame { code: 1000, reason: "".into() }))).await;
}

fn framed(channel: u8, bytes: &[u8]) -> Bytes {
    let mut message = BytesMut::with_capacity(bytes.len() + 1);
    message.put_u8(channel);
    message.put_slice(bytes);
    message.freeze()
}

async fn read(mut stream: SplitStream<WebSocket>, typed: mpsc::Sender<Bytes>, resized: watch::Sender<(u16, u16)>) {
    let mut typed = Some(typed);
    while let Some(Ok(message)) = stream.next().await {
        let Message::Binary(mut message) = message else { continue };
        if message.is_empty() {
            continue;
        }
        let channel = message.split_to(1)[0];
        match channel {
            STDIN if !message.is_empty() => {
                let taken = match &typed {
                    Some(typed) => typed.send(message).await.is_ok(),
                    None => true,
                };
                if !taken {
                    typed = None;
                }
            }
            CLOSE if message.first() == Some(&STDIN) => typed = None,
            RESIZE => {
                if let Ok(Size { width, height }) = serde_json::from_slice(&message) {
                    resized.send_replace((width, height));
                }
            }
            _ => {}
        }
    }
}
