//! The agent of a VM: a console instead of the control socket.
//!
//! In a VM of the project's own the agent is `/init`. In a stock cloud image cloud-init starts it, once the image has its
//! network:
//!
//! ```yaml
//! #cloud-config
//! write_files:
//!   - {path: /usr/local/bin/agent, permissions: "0755", encoding: gz+b64, content: …}
//! runcmd:
//!   # Else a login prompt reads and writes there too.
//!   - [systemctl, mask, --now, serial-getty@ttyS0.service]
//!   - [systemd-run, --unit=udn-agent, --property=Restart=always, /usr/local/bin/agent, console, /dev/ttyS0]
//! ```

use rustix::io::Errno;
use rustix::process::getpid;
use rustix::system::{RebootCommand, reboot};

use super::Error;
use crate::agent::Agent;
use crate::control::console;
use crate::guest::{Log, boot, gate};

/// Serves a console until told to shut down.
pub(super) fn console(path: &str) -> Result<(), Error> {
    let device = console::open(path).map_err(|errno| {
        Error::system(&["open the console ", path].concat(), errno, "it has to be a device that this user may use")
    })?;
    let served = Agent::new(None).and_then(|mut agent| {
        agent.serve_console(device)?;
        agent.run()?;
        agent.drain();
        Ok(())
    });
    served.map_err(|errno| Error::system("wait for events", errno, "can the device be waited for, as a terminal can?"))
}

/// Is the first process of a VM until told to shut down; then the VM is powered off.
pub(super) fn init() -> Result<(), Error> {
    if !getpid().is_init() {
        return Err(Error::usage("init is for the first process of a VM, which this is not"));
    }
    let mut log = Log::default();
    let path = boot::prepare(&mut log);
    let console = gate::wait(&path, &mut log);
    let served = Agent::new(None).and_then(|mut agent| {
        agent.be_guest(path, console, log)?;
        agent.run()?;
        agent.drain();
        Ok(())
    });
    if let Err(errno) = served {
        Log::default().note("serve as the first process; the machine is powered off", errno);
    }
    rustix::fs::sync();
    // Returns only where it is refused.
    let refused = reboot(RebootCommand::PowerOff).err().unwrap_or(Errno::NOSYS);
    Err(Error::system("power off", refused, "process 1 of a container cannot"))
}
