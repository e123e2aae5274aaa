//! The control socket: answers whoever can open it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use kube::Client;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use udn_lab_sys::ground::Ground;

use super::leave::leave;
use super::start::Start;
use crate::control::{self, Daemon, Left, Node, Request, Status};
use crate::error::Error;

/// What is needed to answer.
pub(super) struct Answers {
    pub(super) start: Start,
    pub(super) ground: Arc<Ground>,
    pub(super) ready: Instant,
    pub(super) ready_ms: u64,
    /// Of an API server that was there before.
    joined: Option<Client>,
    problems: Mutex<Vec<String>>,
}

impl Answers {
    /// Serves the control socket from now on; collects what tasks report.
    pub(super) fn serve(
        start: Start,
        ground: Arc<Ground>,
        joined: Option<Client>,
        ready_ms: u64,
        mut reported: mpsc::UnboundedReceiver<String>,
    ) -> Result<(), Error> {
        let listener = UnixListener::bind(control::inside()).map_err(Error::inside("open its control socket"))?;
        let answers =
            Arc::new(Self { start, ground, ready: Instant::now(), ready_ms, joined, problems: Mutex::default() });
        let collect = answers.clone();
        tokio::spawn(async move {
            while let Some(problem) = reported.recv().await {
                tracing::error!("{problem}");
                collect.problems.lock().unwrap_or_else(PoisonError::into_inner).push(problem);
            }
        });
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answers.clone().answer(stream));
            }
        });
        Ok(())
    }

    async fn answer(self: Arc<Self>, stream: UnixStream) {
        let (reader, mut writer) = stream.into_split();
        let mut lines = BufReader::new(reader).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let answer = match serde_json::from_str(&line) {
                Ok(Request::Status) => serde_json::to_vec(&self.status()),
                Ok(Request::Leave) => serde_json::to_vec(&self.leave().await),
                Err(_) => return,
            };
            let Ok(mut answer) = answer else { return };
            answer.push(b'\n');
            if writer.write_all(&answer).await.is_err() {
                return;
            }
        }
    }

    async fn leave(&self) -> Left {
        match &self.joined {
            Some(client) => leave(client.clone()).await,
            None => Left::default(),
        }
    }

    fn status(&self) -> Status {
        let site = self.ground.site();
        let mut problems = self.ground.health();
        problems.extend(self.problems.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned());
        Status {
            name: self.start.name.clone(),
            versions: self.start.versions.clone(),
            uptime_s: self.ready.elapsed().as_secs(),
            ready_ms: self.ready_ms,
            server: self.start.api.url(),
            nodes: site
                .nodes
                .iter()
                .map(|node| Node { name: node.name.clone(), ipv4: node.ipv4, ipv6: node.ipv6 })
                .collect(),
            daemons: self.ground.daemons().into_iter().map(|(name, place, pid)| Daemon { name, place, pid }).collect(),
            problems,
            mended: self.ground.known_ends(),
            lost: self.ground.lost(),
            logs: self.ground.logs_of_problems(),
        }
    }
}
