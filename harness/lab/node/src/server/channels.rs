//! The WebSocket protocol of exec and attach: `v5.channel.k8s.io`, and `v4`, which cannot close standard input alone.
//!
//! Each message begins with a byte that says which channel it belongs to.

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Duration, timeout};

use crate::container::spawn::Exit;

/// Newest first: the first one that the client knows is taken.
const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];
const STDIN: u8 = 0;
/// The process's standard output, or its terminal.
pub(super) const STDOUT: u8 = 1;
/// The process's standard error.
pub(super) const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// Followed by the number of the channel that ends (v5).
const CLOSE: u8 = 255;
/// Messages in flight per direction; beyond, the sender waits.
const IN_FLIGHT: usize = 32;
/// How much is read from a process at a time, bytes.
const CHUNK: usize = 8 * 1024;
/// Room for what a client sends, bytes. Every session has it for good, and the library's 128 KiB are filled with zeros
/// before each read.
const READ_BUFFER: usize = 8 * 1024;
/// How long a client may take to end the connection after the status.
const FAREWELL: Duration = Duration::from_secs(5);

/// Agrees on a protocol and runs `session` on the connection.
pub(super) fn upgrade<F, S>(upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>, session: S) -> Response
where
    F: Future<Output = ()> + Send + 'static,
    S: FnOnce(Channels) -> F + Send + 'static,
{
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade.protocols(PROTOCOLS).read_buffer_size(READ_BUFFER),
        // Clients older than the WebSocket protocol ask for SPDY.
        Err(rejection) => return rejection.into_response(),
    };
    if upgrade.selected_protocol().is_none() {
        let message = format!("unable to upgrade: none of the subprotocols {PROTOCOLS:?} was offered\n");
        return (StatusCode::BAD_REQUEST, message).into_response();
    }
    upgrade.on_upgrade(async move |socket| session(Channels::new(socket)).await)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Size {
    width: u16,
    height: u16,
}

/// A connection, taken apart into what concerns whom.
pub(super) struct Channels {
    /// What the client types; ends when the client closes it or goes.
    pub stdin: mpsc::Receiver<Bytes>,
    /// The client's window, columns and rows.
    pub size: watch::Receiver<(u16, u16)>,
    /// To the client.
    pub output: Output,
    reader: JoinHandle<()>,
    writer: JoinHandle<()>,
}

/// Sends to the client. Where the client is gone, what is sent is lost and the sender does not notice: the process
/// goes on, as it does on real nodes.
#[derive(Clone)]
pub(super) struct Output(mpsc::Sender<Message>);

impl Channels {
    fn new(socket: WebSocket) -> Self {
        let (sink, stream) = socket.split();
        let (output, messages) = mpsc::channel(IN_FLIGHT);
        let (typed, stdin) = mpsc::channel(IN_FLIGHT);
        let (resized, size) = watch::channel((0, 0));
        let reader = tokio::spawn(read(stream, typed, resized));
        let writer = tokio::spawn(write(sink, messages));
        Self { stdin, size, output: Output(output), reader, writer }
    }

    /// Sends the final status and ends the connection.
    pub(super) async fn finish(self, status: &Value) {
        let Self { stdin, output, reader, writer, .. } = self;
        // What is still typed is read and thrown away: closing with unread bytes would reset the connection, and the
        // client could lose the status.
        drop(stdin);
        output.send(ERROR, status.to_string().as_bytes()).await;
        let _ = output.0.send(Message::Close(Some(CloseFrame { code: 1000, reason: "".into() }))).await;
        drop(output);
        let _ = writer.await;
        let stop = reader.abort_handle();
        if timeout(FAREWELL, reader).await.is_err() {
            stop.abort();
        }
    }
}

impl Output {
    /// Sends to nobody: for a stream that the client did not ask for.
    pub(super) fn muted() -> Self {
        Self(mpsc::channel(1).0)
    }

    /// Says at once that the connection works, as a kubelet does.
    pub(super) async fn greet(&self) {
        self.send(STDOUT, b"").await;
    }

    pub(super) async fn send(&self, channel: u8, bytes: &[u8]) {
        let mut message = BytesMut::with_capacity(bytes.len() + 1);
        message.put_u8(channel);
        message.put_slice(bytes);
        let _ = self.0.send(Message::Binary(message.freeze())).await;
    }

    /// Sends all that comes from a process. Reads to the end even where nobody listens any more: a process shall not
    /// be stopped by a pipe that is full or closed.
    pub(super) async fn copy(&self, channel: u8, mut reader: impl AsyncRead + Unpin) {
        let mut chunk = vec![0; CHUNK];
        while let Ok(count @ 1..) = reader.read(&mut chunk).await {
            self.send(channel, &chunk[..count]).await;
        }
    }
}

async fn write(mut sink: SplitSink<WebSocket, Message>, mut messages: mpsc::Receiver<Message>) {
    while let Some(message) = messages.recv().await {
        if sink.send(message).await.is_err() {
            return;
        }
    }
    let _ = sink.flush().await;
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

/// The status of a process that ended.
pub(super) fn ended(command: &[String], exit: Exit) -> Value {
    if exit.code == 0 {
        return success();
    }
    let code = exit.code;
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("command terminated with non-zero exit code: error executing command {command:?}, exit code {code}"),
        "reason": "NonZeroExitCode",
        "details": { "causes": [{ "reason": "ExitCode", "message": code.to_string() }] },
    })
}

/// The status of a session that did what it was asked.
pub(super) fn success() -> Value {
    json!({ "metadata": {}, "status": "Success" })
}

/// The status of a session that could not begin.
pub(super) fn failed(message: &str) -> Value {
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("Internal error occurred: {message}"),
        "reason": "InternalError",
        "details": { "causes": [{ "message": message }] },
        "code": 500,
    })
}
