//! What a session and its client say to each other, whatever the wire, and the statuses that end a session.
//!
//! The session has [`Channels`], the wire (`websocket`, `spdy`) has the other ends of them: [`Wire`]. All queues are
//! bounded: a client or a process that is too slow makes the other one wait.

use std::convert::Infallible;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Duration;

use super::flag;
use crate::container::spawn::Exit;

/// Messages in flight per direction; beyond, the sender waits.
const IN_FLIGHT: usize = 32;
/// How much is read from a process at a time, bytes.
const CHUNK: usize = 8 * 1024;
/// How long a client may take to end the connection after the status.
pub(super) const FAREWELL: Duration = Duration::from_secs(5);

/// The streams that a client asks for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asked {
    pub stdin: bool,
    pub stdout: bool,
    /// Never with a terminal, which has one output only.
    pub stderr: bool,
    pub terminal: bool,
}

impl Asked {
    /// As the API server and as a kubelet's own clients write it.
    pub(super) fn of(query: &[(String, String)]) -> Self {
        let asked = |long: &str, short: &str| flag(query, long) || flag(query, short);
        let terminal = flag(query, "tty");
        Self {
            stdin: asked("stdin", "input"),
            stdout: asked("stdout", "output"),
            stderr: !terminal && asked("stderr", "error"),
            terminal,
        }
    }
}

/// A window's size as clients write it, in characters.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Size {
    pub width: u16,
    pub height: u16,
}

/// Where output comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The process's standard output, or its terminal.
    Stdout,
    /// The process's standard error.
    Stderr,
}

/// A message for the client.
#[derive(Debug)]
pub(super) enum Said {
    Output(Source, Bytes),
    /// The last one: how it ended, as JSON.
    Status(Bytes),
}

/// A session's ends.
pub(super) struct Channels {
    /// What the client types; ends when the client closes it or goes.
    pub stdin: mpsc::Receiver<Bytes>,
    /// The client's window, columns and rows.
    pub size: watch::Receiver<(u16, u16)>,
    /// To the client.
    pub output: Output,
    ended: oneshot::Receiver<Infallible>,
}

/// The wire's ends.
pub(super) struct Wire {
    pub typed: mpsc::Sender<Bytes>,
    pub resized: watch::Sender<(u16, u16)>,
    pub said: mpsc::Receiver<Said>,
    /// Dropped when the connection has ended.
    pub open: oneshot::Sender<Infallible>,
}

/// Sends to the client. Where the client is gone, what is sent is lost and the sender does not notice: the process
/// goes on, as it does on real nodes.
#[derive(Clone)]
pub(super) struct Output(mpsc::Sender<Said>);

impl Channels {
    /// Both sides of a session.
    pub(super) fn new() -> (Self, Wire) {
        let (output, said) = mpsc::channel(IN_FLIGHT);
        let (typed, stdin) = mpsc::channel(IN_FLIGHT);
        let (resized, size) = watch::channel((0, 0));
        let (open, ended) = oneshot::channel();
        (Self { stdin, size, output: Output(output), ended }, Wire { typed, resized, said, open })
    }

    /// Sends the final status and waits for the end of the connection.
    pub(super) async fn finish(self, status: &Value) {
        let Self { stdin, output, ended, .. } = self;
        // What is still typed is read and thrown away: closing with unread bytes would reset the connection, and the
        // client could lose the status.
        drop(stdin);
        let _ = output.0.send(Said::Status(status.to_string().into())).await;
        let _ = ended.await;
    }
}

impl Output {
    /// Sends to nobody: for a stream that the client did not ask for.
    pub(super) fn muted() -> Self {
        Self(mpsc::channel(1).0)
    }

    /// Says at once that the connection works, as a kubelet does.
    pub(super) async fn greet(&self) {
        self.send(Source::Stdout, b"").await;
    }

    pub(super) async fn send(&self, source: Source, bytes: &[u8]) {
        let _ = self.0.send(Said::Output(source, Bytes::copy_from_slice(bytes))).await;
    }

    /// Sends all that comes from a process. Reads to the end even where nobody listens any more: a process shall not
    /// be stopped by a pipe that is full or closed.
    pub(super) async fn copy(&self, source: Source, mut reader: impl AsyncRead + Unpin) {
        let mut chunk = vec![0; CHUNK];
        while let Ok(count @ 1..) = reader.read(&mut chunk).await {
            self.send(source, &chunk[..count]).await;
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
