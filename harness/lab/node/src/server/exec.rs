//! A new process in a container, its streams carried to the client.

use std::io;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use super::channels::{self, Asked, Channels, Output, Source};
use super::upgrade::Upgrade;
use super::{Query, Target, find_run};
use crate::container::job::{Job, Program};
use crate::container::spawn::{Process, Streams};
use crate::kubelet::Host;
use crate::output;
use crate::pod::record::Run;
use crate::pod::with_terminal;
use crate::terminal::Terminal;

/// What was asked for.
struct Wanted {
    command: Vec<String>,
    streams: Asked,
}

pub(super) async fn handle(
    State(host): State<Arc<Host>>,
    Target { 0: (namespace, pod, container) }: Target,
    Query { 0: query }: Query,
    upgrade: Upgrade,
) -> Response {
    let command: Vec<String> =
        query.iter().filter(|(name, _)| name == "command").map(|(_, value)| value.clone()).collect();
    let streams = Asked::of(&query);
    let wanted = Wanted { command, streams };
    if wanted.command.is_empty() {
        return (StatusCode::BAD_REQUEST, "you must specify at least 1 command for exec\n").into_response();
    }
    match find_run(&host, &namespace, &pod, &container) {
        Ok(run) => upgrade.serve(streams, async move |channels| session(&host, &run, wanted, channels).await),
        Err(refusal) => refusal.into_response(),
    }
}

async fn session(host: &Host, run: &Arc<Run>, wanted: Wanted, mut channels: Channels) {
    channels.output.greet().await;
    let status = match serve(host, run, &wanted, &mut channels).await {
        Ok(status) => status,
        Err(error) => channels::failed(&format!("error executing command in container: {error}")),
    };
    channels.finish(&status).await;
}

async fn serve(host: &Host, run: &Arc<Run>, wanted: &Wanted, channels: &mut Channels) -> io::Result<Value> {
    let program = Program {
        argv: wanted.command.clone(),
        env: with_terminal(run.program.env.clone(), wanted.streams.terminal),
        terminal: wanted.streams.terminal,
        ..run.program.clone()
    };
    let namespaces = run.process.namespaces()?;
    let output = channels.output.clone();
    let typed = std::mem::replace(&mut channels.stdin, mpsc::channel(1).1);
    let exit = if wanted.streams.terminal {
        let (process, terminal) = host.spawner.spawn(Job::Join(program), namespaces, None).await.map_err(worded)?;
        let terminal = terminal.ok_or_else(|| io::Error::other("the process has no terminal"))?;
        with_a_terminal(&process, Terminal::new(terminal)?, typed, channels.size.clone(), &output).await
    } else {
        let (to_stdin, stdin) = output::pipe_to_process()?;
        let (stdout_reader, stdout) = output::pipe_from_process()?;
        let (stderr_reader, stderr) = output::pipe_from_process()?;
        let streams = Streams { stdin, stdout, stderr };
        let (process, _) = host.spawner.spawn(Job::Join(program), namespaces, Some(streams)).await.map_err(worded)?;
        let _stdin = if wanted.streams.stdin { Some(Feeding::pipe(typed, to_stdin)) } else { None };
        let muted = |wanted: bool| if wanted { output.clone() } else { Output::muted() };
        let (to_stdout, to_stderr) = (muted(wanted.streams.stdout), muted(wanted.streams.stderr));
        // The end of the output, not of the process, ends the session: what the process left running may still print.
        tokio::join!(
            process.exited(),
            to_stdout.copy(Source::Stdout, stdout_reader),
            to_stderr.copy(Source::Stderr, stderr_reader)
        )
        .0
    };
    Ok(channels::ended(&wanted.command, exit))
}

/// In the words of a container runtime.
fn worded(error: crate::container::spawn::SpawnError) -> io::Error {
    io::Error::other(format!(
        "failed to exec in container: failed to start exec: OCI runtime exec failed: exec failed: unable to start \
         container process: {error}: unknown"
    ))
}

async fn with_a_terminal(
    process: &Process,
    terminal: Terminal,
    typed: mpsc::Receiver<Bytes>,
    size: watch::Receiver<(u16, u16)>,
    output: &Output,
) -> crate::container::spawn::Exit {
    let _stdin = Feeding::terminal(typed, terminal.clone());
    let _size = Feeding(tokio::spawn(follow_size(size, terminal.clone())).abort_handle());
    let copy = async {
        let mut chunk = vec![0; 32 * 1024];
        while let Ok(count @ 1..) = terminal.read(&mut chunk).await {
            output.send(Source::Stdout, &chunk[..count]).await;
        }
    };
    tokio::join!(process.exited(), copy).0
}

/// Keeps a terminal's size that of the client's window.
pub(super) async fn follow_size(mut size: watch::Receiver<(u16, u16)>, terminal: Terminal) {
    loop {
        let (columns, rows) = *size.borrow_and_update();
        if columns > 0 {
            terminal.resize(columns, rows);
        }
        if size.changed().await.is_err() {
            return;
        }
    }
}

/// A task that feeds a process; ends with this value.
pub(super) struct Feeding(pub(super) AbortHandle);

impl Feeding {
    fn pipe(mut typed: mpsc::Receiver<Bytes>, mut pipe: tokio::net::unix::pipe::Sender) -> Self {
        let task = tokio::spawn(async move {
            while let Some(bytes) = typed.recv().await {
                if pipe.write_all(&bytes).await.is_err() {
                    return;
                }
            }
        });
        Self(task.abort_handle())
    }

    pub(super) fn terminal(mut typed: mpsc::Receiver<Bytes>, terminal: Terminal) -> Self {
        let task = tokio::spawn(async move {
            while let Some(bytes) = typed.recv().await {
                if terminal.write_all(&bytes).await.is_err() {
                    return;
                }
            }
        });
        Self(task.abort_handle())
    }
}

impl Drop for Feeding {
    fn drop(&mut self) {
        self.0.abort();
    }
}
