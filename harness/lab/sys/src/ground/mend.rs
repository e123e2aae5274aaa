//! Daemons that end: those of a node component that is restarted on purpose, and those that die by themselves. The latter
//! are started again, as a kubelet would, so that what is under way can go on; that they died is told all the same.

use std::path::PathBuf;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};

use super::daemon::{Daemon, environment};
use super::health::Health;
use super::up::Ground;
use super::{central, node};
use crate::error::Error;
use crate::ovsdb::Client;
use crate::site::NodeSite;

/// What a node component is to OVN.
const CONTROLLER: &str = "ovn-controller";
const NORTHD: &str = "ovn-northd";
/// How often one daemon is started again; one that dies more often will not be well.
const MOST_RESTARTS: usize = 5;
/// How often it is looked whether all are there.
const LOOK: Duration = Duration::from_millis(250);
/// How long a daemon may take to end when it is told to.
const END_DEADLINE: Duration = Duration::from_secs(10);
/// How long a new ovn-controller leaves flows alone that it finds, milliseconds: longer than it takes to work its own out.
const WAIT_BEFORE_CLEAR: &str = "1000";
const POLL: Duration = Duration::from_millis(10);

impl Ground {
    /// Looks after the daemons for ever: says what went wrong, and starts those again that can be.
    pub async fn look_after(&self) {
        loop {
            sleep(LOOK).await;
            let _ = self.health();
            self.mend();
        }
    }

    /// Daemons that ended by themselves and are not started again: without them the network does not work.
    #[must_use]
    pub fn lost(&self) -> Vec<String> {
        let mut guard = self.state();
        let ended = guard.0.iter_mut().filter_map(|daemon| daemon.check().err());
        ended.map(|error| error.to_string()).collect()
    }

    /// Logs of daemons of which there is a problem to tell.
    #[must_use]
    pub fn logs_of_problems(&self) -> Vec<PathBuf> {
        let guard = self.state();
        let (daemons, health) = &*guard;
        let of_problems = daemons.iter().filter(|daemon| health.has_problem_of(&daemon.name, &daemon.place));
        of_problems.map(|daemon| daemon.log.clone()).collect()
    }

    /// Has every ovn-controller that is started from now on work out all flows before it replaces those of its
    /// predecessor. Not the first: there is nothing to be kept, and everybody would wait.
    pub(super) async fn restarts_keep_flows(&self) -> Result<(), Error> {
        let insert = json!(["external_ids", "insert", ["map", [["ovn-ofctrl-wait-before-clear", WAIT_BEFORE_CLEAR]]]]);
        let change = json!({"op": "mutate", "table": "Open_vSwitch", "where": [], "mutations": [insert]});
        for node in &self.site_ref().nodes {
            let mut client = Client::connect(&node.ovs_run.join("db.sock"), END_DEADLINE).await?;
            client.transact("Open_vSwitch", std::slice::from_ref(&change)).await?;
        }
        Ok(())
    }

    /// Ends a node's ovn-controller as OVN-Kubernetes does when its node component is restarted: what it told the switch
    /// and the southbound database stays.
    ///
    /// # Errors
    /// No such node, or it did not end in time.
    pub async fn stop_controller(&self, node: &str) -> Result<(), Error> {
        let site = self.node(node)?;
        let Some(mut daemon) = self.take(CONTROLLER, node) else { return Ok(()) };
        let socket = site.ovn_run.join(format!("{CONTROLLER}.{}.ctl", daemon.pid()));
        let tools = &self.site_ref().tools;
        let mut command = tools.command("ovs-appctl");
        environment(&mut command, tools, &site.ovn_run, &site.ovs_run);
        command.arg("-t").arg(&socket).args(["exit", "--restart"]);
        let output = tokio::process::Command::from(command).output().await;
        let output = output.map_err(Error::file("ask to end by", &socket))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(daemon.error(format!("could not be asked to end: {said}")));
        }
        let begun = Instant::now();
        while daemon.check().is_ok() {
            if begun.elapsed() > END_DEADLINE {
                return Err(daemon.error(format!("did not end within {} s", END_DEADLINE.as_secs())));
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    /// Starts a node's ovn-controller unless it runs.
    ///
    /// # Errors
    /// No such node, or it cannot be started.
    pub fn start_controller(&self, node: &str) -> Result<(), Error> {
        let site = self.node(node)?;
        let mut guard = self.state();
        if !guard.0.iter().any(|daemon| is(daemon, CONTROLLER, node)) {
            guard.0.push(node::controller(&self.site_ref().tools, site)?);
        }
        Ok(())
    }

    /// Starts again what ended by itself and holds no state of its own.
    fn mend(&self) {
        let mut guard = self.state();
        let (daemons, health) = &mut *guard;
        for daemon in daemons.iter_mut() {
            if daemon.check().is_ok() || health.restarts(&daemon.name, &daemon.place) >= MOST_RESTARTS {
                continue;
            }
            if let Some(started) = self.again(daemon) {
                health.restarted(&daemon.name, &daemon.place);
                match started {
                    Ok(started) => *daemon = started,
                    Err(error) => tracing::error!(%error, "a daemon cannot be started again"),
                }
            }
        }
    }

    /// The daemon anew; `None` for databases, whose sockets everybody holds, and switches, which lose their interfaces.
    fn again(&self, daemon: &Daemon) -> Option<Result<Daemon, Error>> {
        let site = self.site_ref();
        match daemon.name.as_str() {
            CONTROLLER => Some(self.node(&daemon.place).and_then(|node| node::controller(&site.tools, node))),
            NORTHD => Some(central::northd(&site.tools, &site.ovn, self.own())),
            _ => None,
        }
    }

    fn take(&self, name: &str, place: &str) -> Option<Daemon> {
        let mut guard = self.state();
        let index = guard.0.iter().position(|daemon| is(daemon, name, place))?;
        Some(guard.0.remove(index))
    }

    fn node(&self, name: &str) -> Result<&NodeSite, Error> {
        let found = self.site_ref().nodes.iter().find(|site| site.name == name);
        found.ok_or_else(|| Error::NoNode(name.to_owned()))
    }

    pub(super) fn state(&self) -> MutexGuard<'_, (Vec<Daemon>, Health)> {
        self.daemons.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is(daemon: &Daemon, name: &str, place: &str) -> bool {
    daemon.name == name && daemon.place == place
}
