//! The streams of a container's own process, carried to the client.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;

use super::channels::{self, Asked, Channels, Source};
use super::exec::{Feeding, follow_size};
use super::upgrade::Upgrade;
use super::{Query, Target, find_run};
use crate::kubelet::Host;
use crate::output::Stream;
use crate::pod::record::Run;

pub(super) async fn handle(
    State(host): State<Arc<Host>>,
    Target { 0: (namespace, pod, container) }: Target,
    Query { 0: query }: Query,
    upgrade: Upgrade,
) -> Response {
    match find_run(&host, &namespace, &pod, &container) {
        Ok(run) => {
            let streams = Asked::of(&query);
            upgrade.serve(streams, async move |channels| session(&run, streams.stdin, channels).await)
        }
        Err(refusal) => refusal.into_response(),
    }
}

async fn session(run: &Arc<Run>, stdin: bool, mut channels: Channels) {
    let mut live = run.output.listen();
    channels.output.greet().await;
    let typed = std::mem::replace(&mut channels.stdin, mpsc::channel(1).1);
    let mut feeding = Vec::new();
    if let Some(terminal) = &run.terminal {
        feeding.push(Feeding(tokio::spawn(follow_size(channels.size.clone(), terminal.clone())).abort_handle()));
        if stdin {
            feeding.push(Feeding::terminal(typed, terminal.clone()));
        }
    } else if stdin {
        feeding.push(Feeding(tokio::spawn(feed(Arc::clone(run), typed)).abort_handle()));
    }
    let mut drained = run.drained.clone();
    let mut over = std::pin::pin!(async move {
        // An error means the same: nobody reads the container's output any more.
        let _ = drained.wait_for(|drained| *drained).await;
    });
    loop {
        tokio::select! {
            biased;
            piece = live.recv() => match piece {
                Ok((Stream::Out, bytes)) => channels.output.send(Source::Stdout, &bytes).await,
                Ok((Stream::Err, bytes)) => channels.output.send(Source::Stderr, &bytes).await,
                // A client that is too slow misses some, as `logs` has it all.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => break,
            },
            () = &mut over => break,
        }
    }
    drop(feeding);
    channels.finish(&channels::success()).await;
}

/// Types into the container's standard input; closes it when the client does.
async fn feed(run: Arc<Run>, mut typed: mpsc::Receiver<Bytes>) {
    let Some(stdin) = &run.stdin else { return };
    let mut stdin = stdin.lock().await;
    while let Some(bytes) = typed.recv().await {
        let Some(pipe) = stdin.as_mut() else { return };
        if pipe.write_all(&bytes).await.is_err() {
            return;
        }
    }
    *stdin = None;
}
