//! Starting, watching and explaining a daemon.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::setpriority_process;

use crate::error::Error;
use crate::netns::Netns;
use crate::site::Tools;

/// A running daemon, killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    /// Program.
    pub name: String,
    /// Node, or `central`.
    pub place: String,
    /// Its log file.
    pub log: PathBuf,
    child: Child,
}

/// How to start one.
#[derive(Debug)]
pub(super) struct Start<'a> {
    pub(super) tools: &'a Tools,
    pub(super) program: &'a str,
    /// Pid file, control socket and log are named so; the program's name unless it runs twice in one folder.
    pub(super) name: &'a str,
    pub(super) place: &'a str,
    /// Run directory.
    pub(super) run: &'a Path,
    /// Run directory of the switch that it talks to.
    pub(super) switch: &'a Path,
    pub(super) netns: &'a Netns,
    /// Nice value: below 0 goes before others.
    pub(super) nice: i32,
}

impl Start<'_> {
    /// Starts the program in the foreground with `args`.
    ///
    /// # Errors
    /// When there is no such program.
    pub(super) fn run(&self, args: &[String]) -> Result<Daemon, Error> {
        let log = self.run.join(format!("{}.log", self.name));
        let pid_file = self.run.join(format!("{}.pid", self.name));
        let mut command = self.tools.command(self.program);
        environment(&mut command, self.tools, self.run, self.switch);
        command.args(args);
        command.args(["--no-chdir", "-vconsole:off", "-vsyslog:off", "-vfile:info", "--syslog-method=null"]);
        command.arg(format!("--pidfile={}", pid_file.display())).arg(format!("--log-file={}", log.display()));
        // What it says before its log is open, such as a library that is missing, belongs there too.
        let output = File::options().create(true).append(true).open(&log).map_err(Error::file("create", &log))?;
        let errors = output.try_clone().map_err(Error::file("create", &log))?;
        command.stdin(Stdio::null()).stdout(output).stderr(errors).current_dir("/");
        let spawn = || {
            // The thread is there for this only, and the child inherits it with all threads that it will have. Who may not
            // go before others, such as an ordinary user, goes with them.
            let _ = setpriority_process(None, self.nice);
            command.spawn()
        };
        let child = self.netns.run(spawn).and_then(|child| child);
        let child = child.map_err(|error| Error::Daemon {
            daemon: self.program.into(),
            place: self.place.into(),
            what: format!("cannot be started: {error}"),
            log: String::new(),
        })?;
        Ok(Daemon { name: self.name.into(), place: self.place.into(), log, child })
    }
}

/// Where a program of Open vSwitch or OVN looks for its files by itself.
pub(super) fn environment(command: &mut Command, tools: &Tools, run: &Path, switch: &Path) {
    for (prefix, run) in [("OVS", switch), ("OVN", run)] {
        for kind in ["RUNDIR", "LOGDIR", "DBDIR", "SYSCONFDIR"] {
            command.env(format!("{prefix}_{kind}"), run);
        }
    }
    command.env("OVS_PKGDATADIR", tools.root.join("usr/share/openvswitch"));
    command.env("OVN_PKGDATADIR", tools.root.join("usr/share/ovn"));
}

impl Daemon {
    /// Process id within the lab.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// An error when the daemon has ended.
    ///
    /// # Errors
    /// [`Error::Daemon`] with the end of its log.
    pub fn check(&mut self) -> Result<(), Error> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.error(format!("ended ({status})"))),
            Err(error) => Err(self.error(format!("cannot be watched: {error}"))),
        }
    }

    /// Waits for what the daemon is to bring about (with a deadline of its own), but no longer than it lives.
    pub(super) async fn brings<T>(&mut self, result: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let mut result = pin!(result);
        loop {
            tokio::select! {
                result = &mut result => {
                    // Its death says more than what did not come of it.
                    self.check()?;
                    return result;
                }
                () = tokio::time::sleep(Duration::from_millis(20)) => self.check()?,
            }
        }
    }

    /// An error about this daemon, with the end of its log.
    #[must_use]
    pub fn error(&self, what: String) -> Error {
        Error::Daemon { daemon: self.name.clone(), place: self.place.clone(), what, log: tail(&self.log) }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The last lines of a log, at most 1000 characters, in one line.
fn tail(log: &Path) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(1000)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let text = String::from_utf8_lossy(&read().unwrap_or_default()).into_owned();
    let lines: Vec<_> = text.lines().rev().take(4).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
}
