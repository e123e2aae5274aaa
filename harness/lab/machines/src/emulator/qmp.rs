//! QEMU's monitor (QMP): commands and events as JSON lines over a socket.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{oneshot, watch};

use crate::error::Error;

/// How long an answer may take: the emulator answers from its main loop, which a busy guest does not hold up for long.
const ANSWER: Duration = Duration::from_secs(20);
/// Events that are remembered.
const REMEMBERED: usize = 128;

/// Something that happened in the emulator.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Event {
    /// Such as `STOP`.
    pub(crate) name: String,
    /// When, by the emulator's clock, which is the host's.
    pub(crate) at: Timestamp,
    /// More about it.
    pub(crate) data: Value,
}

/// How far an outgoing or incoming migration is.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Migration {
    /// `setup`, `active`, `completed`, `failed` and others.
    #[serde(default)]
    pub(crate) status: String,
    /// Milliseconds from beginning to end.
    #[serde(default)]
    pub(crate) total_time: Option<u64>,
    /// Why it failed.
    #[serde(default)]
    pub(crate) error_desc: Option<String>,
}

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Result<Value, String>>>>>;

/// A connection to a monitor.
#[derive(Debug)]
pub(crate) struct Qmp {
    writer: tokio::sync::Mutex<OwnedWriteHalf>,
    waiting: Waiting,
    next: AtomicU64,
    events: watch::Receiver<Vec<Event>>,
}

impl Qmp {
    /// Greets the emulator at the other end.
    pub(crate) async fn open(stream: UnixStream) -> Result<Self, Error> {
        let (reader, writer) = stream.into_split();
        let waiting = Waiting::default();
        let (sender, events) = watch::channel(Vec::new());
        tokio::spawn(read(BufReader::new(reader), waiting.clone(), sender));
        let qmp = Self { writer: writer.into(), waiting, next: AtomicU64::new(1), events };
        qmp.run("qmp_capabilities", json!({})).await?;
        Ok(qmp)
    }

    /// Runs a command.
    pub(crate) async fn run(&self, command: &str, arguments: Value) -> Result<Value, Error> {
        let failed = |reason: String| Error::Emulator { action: format!("run {command}"), reason };
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(id, sender);
        let mut line = json!({"execute": command, "arguments": arguments, "id": id}).to_string();
        line.push('\n');
        self.writer.lock().await.write_all(line.as_bytes()).await.map_err(|error| failed(error.to_string()))?;
        match tokio::time::timeout(ANSWER, answer).await {
            Ok(Ok(result)) => result.map_err(failed),
            Ok(Err(_)) => Err(failed("it has ended".into())),
            Err(_) => Err(Error::Deadline { what: format!("QEMU's answer to {command}"), seconds: ANSWER.as_secs() }),
        }
    }

    /// Whether the guest runs, and the emulator's word for how it is.
    pub(crate) async fn status(&self) -> Result<(bool, String), Error> {
        let answer = self.run("query-status", json!({})).await?;
        Ok((answer["running"] == true, answer["status"].as_str().unwrap_or_default().to_owned()))
    }

    /// How far the migration is.
    pub(crate) async fn migration(&self) -> Result<Migration, Error> {
        let answer = self.run("query-migrate", json!({})).await?;
        serde_json::from_value(answer).map_err(Error::emulator("read how far a migration is"))
    }

    /// Switches migration capabilities on or off.
    pub(crate) async fn capabilities(&self, states: &[(&str, bool)]) -> Result<(), Error> {
        let all: Vec<Value> =
            states.iter().map(|(name, state)| json!({"capability": name, "state": state})).collect();
        self.run("migrate-set-capabilities", json!({"capabilities": all})).await.map(drop)
    }

    /// The first event of these names that happened, or will.
    ///
    /// # Errors
    /// When the emulator ends first, or `deadline` is over.
    pub(crate) async fn event(
        &self,
        what: &str,
        deadline: Duration,
        wanted: impl Fn(&Event) -> bool,
    ) -> Result<Event, Error> {
        let mut events = self.events.clone();
        let seen = events.wait_for(|all| all.iter().any(&wanted));
        match tokio::time::timeout(deadline, seen).await {
            Ok(Ok(all)) => all.iter().find(|event| wanted(event)).cloned().ok_or_else(|| Error::Emulator {
                action: format!("wait for {what}"),
                reason: "it was forgotten".into(),
            }),
            Ok(Err(_)) => Err(Error::Emulator { action: format!("wait for {what}"), reason: "it has ended".into() }),
            Err(_) => Err(Error::Deadline { what: what.into(), seconds: deadline.as_secs() }),
        }
    }

    /// What happened until now.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.events.borrow().clone()
    }
}

async fn read(mut reader: BufReader<OwnedReadHalf>, waiting: Waiting, events: watch::Sender<Vec<Event>>) {
    let mut line = String::new();
    while matches!(reader.read_line(&mut line).await, Ok(1..)) {
        match serde_json::from_str::<Value>(&line) {
            Ok(message) => take(&message, &waiting, &events),
            Err(error) => tracing::debug!(%error, line, "QEMU's monitor said something odd"),
        }
        line.clear();
    }
    // Whoever still waits hears that nothing will come.
    waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

fn take(message: &Value, waiting: &Waiting, events: &watch::Sender<Vec<Event>>) {
    if let Some(event) = event(message) {
        tracing::debug!(?event, "QEMU");
        events.send_modify(|all| {
            if all.len() >= REMEMBERED {
                all.remove(0);
            }
            all.push(event);
        });
        return;
    }
    let Some(id) = message["id"].as_u64() else { return };
    let Some(sender) = waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&id) else { return };
    let answer = match message.get("error") {
        Some(error) => Err(error["desc"].as_str().unwrap_or("an error without description").to_owned()),
        None => Ok(message["return"].clone()),
    };
    // Nobody waits any more: the deadline was over.
    let _ = sender.send(answer);
}

fn event(message: &Value) -> Option<Event> {
    let name = message.get("event")?.as_str()?.to_owned();
    let seconds = message["timestamp"]["seconds"].as_i64()?;
    let nanoseconds = message["timestamp"]["microseconds"].as_i64()?.saturating_mul(1000);
    let at = Timestamp::new(seconds, i32::try_from(nanoseconds).ok()?).ok()?;
    Some(Event { name, at, data: message["data"].clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An emulator that is one line at a time.
    async fn pair() -> (Qmp, BufReader<OwnedReadHalf>, OwnedWriteHalf) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (reader, mut writer) = theirs.into_split();
        let mut reader = BufReader::new(reader);
        let greeting = async {
            writer.write_all(b"{\"QMP\": {\"version\": {}}}\n").await.unwrap();
            let mut line = String::new();
            reader.read_line(&mut line).await.unwrap();
            assert!(line.contains("qmp_capabilities"), "{line}");
            writer.write_all(b"{\"return\": {}, \"id\": 1}\n").await.unwrap();
        };
        let (qmp, ()) = tokio::join!(Qmp::open(ours), greeting);
        (qmp.unwrap(), reader, writer)
    }

    #[tokio::test]
    async fn answers_find_their_questions_and_events_their_time() {
        let (qmp, mut reader, mut writer) = pair().await;
        let emulator = async {
            let mut line = String::new();
            reader.read_line(&mut line).await.unwrap();
            let stop = r#"{"timestamp": {"seconds": 1700000000, "microseconds": 123456}, "event": "STOP"}"#;
            writer.write_all(format!("{stop}\n").as_bytes()).await.unwrap();
            writer.write_all(b"{\"return\": {\"running\": true, \"status\": \"running\"}, \"id\": 2}\n").await.unwrap();
        };
        let (status, ()) = tokio::join!(qmp.status(), emulator);
        assert_eq!(status.unwrap(), (true, "running".to_owned()));
        let stop = qmp.event("STOP", ANSWER, |event| event.name == "STOP").await.unwrap();
        assert_eq!(stop.at.to_string(), "2023-11-14T22:13:20.123456Z");
    }

    #[tokio::test]
    async fn refusals_say_why_and_an_end_ends_the_wait() {
        let (qmp, mut reader, mut writer) = pair().await;
        let emulator = async {
            let mut line = String::new();
            reader.read_line(&mut line).await.unwrap();
            writer.write_all(b"{\"error\": {\"class\": \"GenericError\", \"desc\": \"no such thing\"}, \"id\": 2}\n").await.unwrap();
        };
        let (refused, ()) = tokio::join!(qmp.run("nothing", json!({})), emulator);
        assert!(refused.unwrap_err().to_string().contains("no such thing"));
        drop((reader, writer));
        assert!(qmp.status().await.is_err());
        assert!(qmp.event("RESUME", ANSWER, |_| true).await.unwrap_err().to_string().contains("ended"));
    }
}
