//! A QEMU process with its monitor and console.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::process::Child;
use tokio::sync::{Notify, watch};
use udn_lab_sys::netns::Netns;
use udn_lab_sys::packages::Machines;

use super::command::{Guest, Sockets, command};
use super::console::Console;
use super::network::Card;
use super::qmp::Qmp;
use crate::error::Error;

/// How long QEMU may take to open its monitor: a tenth of a second on an idle host.
const START: Duration = Duration::from_secs(30);
/// What is kept of a log's end, characters.
const TAIL: usize = 600;

/// How a machine ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    /// The guest itself shut down.
    pub(crate) well: bool,
    /// What there is to say about it.
    pub(crate) how: String,
}

/// Where a machine runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The node.
    pub(crate) node: String,
    /// The launcher pod's name.
    pub(crate) pod: String,
    /// The launcher pod's UID.
    pub(crate) pod_uid: String,
}

/// A running machine. It is killed when the last of its owners lets it go.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) place: Place,
    pub(crate) guest: Guest,
    pub(crate) card: Card,
    pub(crate) qmp: Qmp,
    pub(crate) console: Console,
    /// Where a migration arrives.
    pub(crate) incoming: PathBuf,
    ended: watch::Receiver<Option<Ended>>,
    kill: Kill,
}

/// Ends the process when dropped: nobody who loses interest half-way leaves one behind.
#[derive(Debug)]
struct Kill(Arc<Notify>);

impl Drop for Kill {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// How to start one.
pub(crate) struct Start<'a> {
    pub(crate) machines: &'a Machines,
    pub(crate) guest: Guest,
    pub(crate) place: Place,
    pub(crate) card: Card,
    /// Where the card's tap is; none: the card leads nowhere.
    pub(crate) netns: Option<&'a Netns>,
    /// The machine's folder.
    pub(crate) folder: &'a Path,
    /// It waits for a guest to arrive.
    pub(crate) incoming: bool,
}

impl Start<'_> {
    /// Starts the emulator; returns once its monitor answers.
    pub(crate) async fn run(self) -> Result<Machine, Error> {
        let Self { machines, guest, place, card, netns, folder, incoming } = self;
        // Paths of sockets are short.
        let short = place.pod_uid.split('-').next().unwrap_or_default().to_owned();
        let file = |kind: &str| folder.join(format!("{short}.{kind}"));
        let sockets = Sockets { monitor: file("monitor"), console: file("console"), log: file("log") };
        let listen =
            |path: &Path| UnixListener::bind(path).map_err(Error::file(format!("listen on {}", path.display())));
        let (monitor, console) = (listen(&sockets.monitor)?, listen(&sockets.console)?);
        let mut command = command(machines, &guest, &card, netns.is_some(), &sockets, incoming);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).current_dir("/");
        let mut command = tokio::process::Command::from(command);
        command.kill_on_drop(true);
        let runtime = tokio::runtime::Handle::current();
        let mut spawn = || {
            let _runtime = runtime.enter();
            command.spawn()
        };
        let child = match netns {
            Some(netns) => netns.run(spawn).and_then(|child| child),
            None => spawn(),
        };
        let child = child.map_err(Error::file("start QEMU"))?;
        let kill = Kill(Arc::new(Notify::new()));
        let (sender, mut ended) = watch::channel(None);
        tokio::spawn(follow(child, kill.0.clone(), sockets.log.clone(), sender));
        let open = async {
            let (monitor, console) = tokio::try_join!(accept(&monitor), accept(&console))?;
            Ok::<_, Error>((Qmp::open(monitor).await?, Console::new(console)))
        };
        let opened = tokio::select! {
            opened = tokio::time::timeout(START, open) => opened,
            ended = ended.wait_for(Option::is_some) => {
                let how = ended.ok().and_then(|ended| ended.as_ref().map(|ended| ended.how.clone())).unwrap_or_default();
                return Err(Error::Emulator { action: format!("start machine {}", guest.name), reason: how });
            }
        };
        let (qmp, console) = match opened {
            Ok(opened) => opened?,
            Err(_) => {
                return Err(Error::Deadline { what: "QEMU's monitor".into(), seconds: START.as_secs() });
            }
        };
        let incoming = file("arrival");
        Ok(Machine { place, guest, card, qmp, console, incoming, ended, kill })
    }
}

async fn accept(listener: &UnixListener) -> Result<UnixStream, Error> {
    listener.accept().await.map(|(stream, _)| stream).map_err(Error::file("accept QEMU's connection"))
}

/// Watches the process to its end; kills it when told to.
async fn follow(mut child: Child, kill: Arc<Notify>, log: PathBuf, ended: watch::Sender<Option<Ended>>) {
    let errors = child.stderr.take();
    let read = tokio::spawn(async move {
        let mut text = String::new();
        if let Some(mut errors) = errors {
            let _ = errors.read_to_string(&mut text).await;
        }
        text
    });
    let status = tokio::select! {
        status = child.wait() => status,
        () = kill.notified() => {
            let _ = child.start_kill();
            child.wait().await
        }
    };
    let said = read.await.unwrap_or_default();
    let kernel = tokio::fs::read(&log).await.unwrap_or_default();
    let how = match &status {
        Ok(status) => format!(
            "QEMU ended ({status}){}{}",
            tail("; it said: ", &said),
            tail("; its kernel said: ", &String::from_utf8_lossy(&kernel))
        ),
        Err(error) => format!("QEMU cannot be watched: {error}"),
    };
    let well = status.is_ok_and(|status| status.success());
    ended.send_replace(Some(Ended { well, how }));
}

fn tail(title: &str, text: &str) -> String {
    let text = text.trim();
    if text.is_empty() {
        return String::new();
    }
    let start = text.char_indices().rev().nth(TAIL).map_or(0, |(at, _)| at);
    format!("{title}{}", text[start..].lines().map(str::trim).collect::<Vec<_>>().join(" | "))
}

impl Machine {
    /// Waits for its end.
    pub(crate) async fn ended(&self) -> Ended {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await.map(|ended| ended.clone()) {
            Ok(Some(ended)) => ended,
            _ => Ended { well: false, how: "QEMU was left alone".into() },
        }
    }

    /// Ends it at once, and waits until it has ended.
    pub(crate) async fn kill(&self) {
        self.kill.0.notify_one();
        self.ended().await;
    }
}
