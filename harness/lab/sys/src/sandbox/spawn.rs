//! The parent's side of a sandbox.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::channel::{Channel, Event};
use super::keeper::DETACH;
use super::{KEEPER, Spec, preflight};
use crate::error::Error;

/// Longer than the longest wait inside, so that its own error, which knows more, comes first.
const SILENCE: Duration = Duration::from_secs(120);

/// A running sandbox. It ends when this value is dropped, and when the program ends in whatever way.
#[derive(Debug)]
pub struct Sandbox {
    keeper: Child,
    channel: Channel,
    detached: bool,
}

impl Sandbox {
    /// Starts one; its processes write to `log`, or where this program writes.
    ///
    /// # Errors
    /// When the keeper cannot be started. What goes wrong later arrives as an event.
    pub fn spawn(spec: &Spec, log: Option<&File>) -> Result<Self, Error> {
        let (ours, theirs) = UnixStream::pair().map_err(Error::sandbox("make a socket to the keeper"))?;
        ours.set_read_timeout(Some(SILENCE)).map_err(Error::sandbox("make a socket to the keeper"))?;
        let mut command = Command::new("/proc/self/exe");
        command.arg(KEEPER).arg(&spec.tree).args(&spec.main).stdin(std::os::fd::OwnedFd::from(theirs));
        // Nothing inside reaches a proxy of the host, and a client there would try to.
        for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
            command.env_remove(name).env_remove(name.to_uppercase());
        }
        if let Some(log) = log {
            let copy = || log.try_clone().map(Stdio::from).map_err(Error::sandbox("duplicate its log"));
            command.stdout(copy()?).stderr(copy()?);
        }
        let keeper = command.spawn().map_err(Error::sandbox("start the keeper"))?;
        Ok(Self { keeper, channel: Channel::new(ours), detached: false })
    }

    /// The channel to main.
    pub fn channel(&mut self) -> &mut Channel {
        &mut self.channel
    }

    /// The keeper's process id.
    #[must_use]
    pub fn keeper(&self) -> u32 {
        self.keeper.id()
    }

    /// The next event; failures become errors.
    ///
    /// # Errors
    /// What the sandbox says went wrong, that it ended without a word, or that it said nothing for two minutes.
    pub fn event(&mut self) -> Result<Event, Error> {
        match self.channel.receive().map_err(Error::sandbox("hear from its main process"))? {
            Some(Event::Failed { message }) => Err(Error::Ended(message)),
            Some(Event::NoNamespaces { errno }) => Err(preflight::namespaces_refused(errno)),
            Some(event) => Ok(event),
            None => {
                let status = self.keeper.wait().map_err(Error::sandbox("wait for the keeper"))?;
                Err(Error::Ended(format!("the lab's process ended unexpectedly ({status})")))
            }
        }
    }

    /// Lets the sandbox live on when this program ends; returns the keeper's process id.
    ///
    /// # Errors
    /// When the keeper is gone.
    pub fn detach(mut self) -> Result<u32, Error> {
        kill(self.pid(), DETACH).map_err(Error::sandbox("detach from the keeper"))?;
        self.detached = true;
        Ok(self.keeper.id())
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// When the keeper cannot be waited for.
    pub fn wait(&mut self) -> Result<ExitStatus, Error> {
        self.keeper.wait().map_err(Error::sandbox("wait for the keeper"))
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.keeper.id().cast_signed())
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if !self.detached {
            // The keeper answers by ending init, and returns when all in it are gone.
            let _ = kill(self.pid(), Signal::SIGTERM);
            let _ = self.keeper.wait();
        }
    }
}
