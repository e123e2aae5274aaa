//! Guests that have booted already. The first guest of a kind boots only to wait at its gate, where nothing of it is its own
//! yet; its memory and the state of its devices are kept, and every machine of that kind goes on from there: seconds of
//! booting become a few hundred milliseconds.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::OnceCell;
use udn_lab_sys::packages::Machines;

use super::command::Guest;
use super::machine::{Machine, Place, Start};
use super::memory;
use super::network::Card;
use super::qmp::Event;
use crate::error::Error;

/// Tells the guest's agent to wait (`harness/agent/src/guest/gate.rs`).
const GATE: &str = "udn.gate";
/// What it says there.
const WORD: &str = "udn-gate\n";
/// How long a guest may take to its gate: three seconds on an idle host.
const BOOT: Duration = Duration::from_secs(120);
/// How long the state of a guest's devices may be on its way: ten milliseconds.
const JOURNEY: Duration = Duration::from_secs(60);
/// The MAC until a guest has its own.
const NOBODY: &str = "02:00:00:00:00:01";
/// What of a memory is looked at in one piece, bytes: those without content are left out.
const PAGE: usize = 4096;

/// What guests may differ in and still be copies of one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Kind {
    cores: u32,
    memory_mib: u64,
    mtu: u32,
    arguments: String,
}

/// One guest at its gate, as files.
#[derive(Debug)]
pub(crate) struct Snapshot {
    memory: PathBuf,
    /// Of its devices: what a migration with shared memory sends.
    state: Vec<u8>,
}

/// All of a lab, made when first asked for.
#[derive(Debug, Default)]
pub(crate) struct Snapshots(Mutex<HashMap<Kind, Arc<Cell>>>);

#[derive(Debug)]
struct Cell {
    /// Its folder's.
    number: usize,
    /// Or why there is none.
    snapshot: OnceCell<Result<Arc<Snapshot>, Arc<str>>>,
}

impl Snapshots {
    /// What a guest can go on from.
    ///
    /// # Errors
    /// Why that cannot be had, now as when it was first asked for: the guest has to boot.
    pub(crate) async fn of(
        &self,
        machines: &Machines,
        guest: &Guest,
        mtu: u32,
        folder: &Path,
    ) -> Result<Arc<Snapshot>, Arc<str>> {
        let kind = Kind { cores: guest.cores, memory_mib: guest.memory_mib, mtu, arguments: guest.arguments.clone() };
        let cell = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let number = all.len();
            all.entry(kind).or_insert_with(|| Arc::new(Cell { number, snapshot: OnceCell::new() })).clone()
        };
        let make = || async {
            let folder = folder.join(format!("booted-{}", cell.number));
            match Snapshot::take(machines, guest.clone(), mtu, &folder).await {
                Ok(snapshot) => Ok(Arc::new(snapshot)),
                Err(error) => {
                    let _ = tokio::fs::remove_dir_all(&folder).await;
                    Err(error.to_string().into())
                }
            }
        };
        cell.snapshot.get_or_init(make).await.clone()
    }
}

impl Snapshot {
    /// Boots a guest to its gate and keeps it.
    async fn take(machines: &Machines, mut guest: Guest, mtu: u32, folder: &Path) -> Result<Self, Error> {
        memory::check(guest.memory_mib, folder.parent().unwrap_or(folder))?;
        // One that was begun before whoever wanted it lost interest.
        let _ = tokio::fs::remove_dir_all(folder).await;
        tokio::fs::create_dir_all(folder).await.map_err(Error::file(format!("create {}", folder.display())))?;
        guest.name = "gate".into();
        guest.memory = folder.join("memory");
        guest.arguments = format!("{} {GATE}", guest.arguments);
        let memory = guest.memory.clone();
        let place = Place { node: String::new(), pod: String::new(), pod_uid: "gate".into() };
        let card = Card { mac: NOBODY.into(), mtu, interface: String::new() };
        let start = Start { machines, guest, place, card, netns: None, folder, incoming: false };
        let machine = start.run().await?;
        tokio::select! {
            arrived = tokio::time::timeout(BOOT, at_gate(&machine)) => arrived.map_err(|_| Error::Deadline {
                what: "a guest to come to its gate".into(),
                seconds: BOOT.as_secs(),
            })?,
            ended = machine.ended() => {
                return Err(Error::Emulator { action: "boot a guest to its gate".into(), reason: ended.how });
            }
        }
        let state = state_of(&machine, &folder.join("state")).await?;
        machine.kill().await;
        tracing::debug!(bytes = state.len(), "a guest waits at its gate");
        Ok(Self { memory, state })
    }

    /// Makes `file` the memory of a guest.
    pub(crate) async fn give_memory(&self, file: &Path) -> Result<(), Error> {
        let (from, to) = (self.memory.clone(), file.to_owned());
        let copied = tokio::task::spawn_blocking(move || copy(&from, &to)).await;
        copied.unwrap_or_else(|error| Err(error.into())).map_err(Error::file(format!("write {}", file.display())))
    }

    /// Has a machine that has this memory, and waits for a guest to arrive, go on from here with what is its own.
    pub(crate) async fn go_on(&self, machine: &Machine) -> Result<(), Error> {
        machine.qmp.capabilities(&CAPABILITIES).await?;
        // Nobody is to hear of the MAC until then.
        machine.qmp.run("migrate-set-parameters", json!({"announce-rounds": 0})).await?;
        machine.qmp.run("migrate-incoming", json!({"uri": uri(&machine.incoming)})).await?;
        let send = async {
            let mut stream = UnixStream::connect(&machine.incoming).await?;
            stream.write_all(&self.state).await?;
            stream.shutdown().await
        };
        send.await.map_err(Error::file("hand QEMU the state of a guest"))?;
        over(machine, "a guest to be what was kept of it").await?;
        machine.qmp.run("cont", json!({})).await?;
        let seed: [u8; 32] = rand::random();
        let seed: String = seed.iter().map(|byte| format!("{byte:02x}")).collect();
        let line = format!("{} {} {seed}\n", machine.card.mac, Timestamp::now().as_microsecond());
        let told = match machine.console.attach() {
            Some(session) => session.type_in(line.as_bytes()).await,
            None => Err(std::io::ErrorKind::BrokenPipe.into()),
        };
        told.map_err(Error::file("tell a guest who it is"))
    }
}

/// As in migrations with shared memory.
const CAPABILITIES: [(&str, bool); 3] =
    [("events", true), ("x-ignore-shared", true), ("pause-before-switchover", false)];

fn uri(socket: &Path) -> String {
    format!("unix:{}", socket.display())
}

/// Waits for the guest's word.
async fn at_gate(machine: &Machine) {
    let mut said = String::new();
    let Some(mut session) = machine.console.attach() else { return };
    while let Some(piece) = session.output.recv().await {
        said.push_str(&String::from_utf8_lossy(&piece));
        if said.contains(WORD) {
            return;
        }
    }
    // The emulator has ended, which whoever waits for that hears.
    std::future::pending().await
}

/// Stops a guest; what is not in its memory.
async fn state_of(machine: &Machine, socket: &Path) -> Result<Vec<u8>, Error> {
    machine.qmp.run("stop", json!({})).await?;
    machine.qmp.capabilities(&CAPABILITIES).await?;
    let listener = UnixListener::bind(socket).map_err(Error::file(format!("listen on {}", socket.display())))?;
    machine.qmp.run("migrate", json!({"uri": uri(socket)})).await?;
    let read = async {
        let (mut stream, _) = listener.accept().await?;
        let mut state = Vec::new();
        stream.read_to_end(&mut state).await?;
        Ok(state)
    };
    let (state, ()) = tokio::try_join!(
        async { read.await.map_err(Error::file("read the state of a guest's devices")) },
        over(machine, "a guest's devices to be read")
    )?;
    Ok(state)
}

async fn over(machine: &Machine, what: &str) -> Result<(), Error> {
    let ended = |event: &Event| event.name == "MIGRATION" && (event.data["status"] == "completed" || failed(event));
    let event = machine.qmp.event(what, JOURNEY, ended).await?;
    if failed(&event) {
        let reason = machine.qmp.migration().await.ok().and_then(|migration| migration.error_desc);
        return Err(Error::Emulator {
            action: format!("wait for {what}"),
            reason: reason.unwrap_or_else(|| "it failed".into()),
        });
    }
    Ok(())
}

fn failed(event: &Event) -> bool {
    event.data["status"] == "failed"
}

/// Copies a file page by page; those without content stay holes. Blocks.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    let (from, to) = (File::open(from)?, File::create(to)?);
    to.set_len(from.metadata()?.len())?;
    let mut pages = vec![0; 256 * PAGE];
    let empty = [0; PAGE];
    let mut at = 0;
    loop {
        let length = from.read_at(&mut pages, at)?;
        if length == 0 {
            return Ok(());
        }
        for (number, page) in pages[..length].chunks(PAGE).enumerate() {
            if page != &empty[..page.len()] {
                to.write_all_at(page, at + (number * PAGE) as u64)?;
            }
        }
        at += length as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_memory_is_copied_without_its_empty_pages() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        let mut bytes = vec![0; 600 * PAGE + 7];
        bytes[PAGE] = 1;
        bytes[599 * PAGE + 1] = 2;
        bytes[600 * PAGE + 6] = 3;
        std::fs::write(&from, &bytes).unwrap();
        copy(&from, &to).unwrap();
        assert!(std::fs::read(&to).unwrap() == bytes);
        let [whole, sparse] = [&from, &to].map(|file| std::fs::metadata(file).unwrap().blocks());
        assert!(sparse * 10 < whole, "{sparse} blocks of {whole}");
    }
}
