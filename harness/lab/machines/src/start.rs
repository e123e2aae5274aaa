//! Starts everything.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use axum::Router;
use kube::{Client, ResourceExt};
use udn_lab_controllers::Recorder;
use udn_lab_node::NodePods;

use crate::context::Context;
use crate::error::Error;
use crate::instance::life;
use crate::{api, installation, machine, migration};

/// What the machines need besides the API server.
#[derive(Clone, Debug)]
pub struct Options {
    /// The nodes' pods, by node.
    pub nodes: HashMap<String, NodePods>,
    /// A folder on the lab's private tmpfs: guests' memory and sockets.
    pub folder: PathBuf,
    /// The socket of the lab's courier, who fetches packages.
    pub courier: PathBuf,
}

/// All machines of a lab.
pub struct Machines {
    context: Context,
}

impl std::fmt::Debug for Machines {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Machines").finish_non_exhaustive()
    }
}

impl Machines {
    /// Watches machines from now on. `client` needs all rights and the kinds of `udn_api::crds()`. Must be called within a
    /// Tokio runtime. Nothing is fetched or started until there is an instance.
    #[must_use]
    pub fn start(client: Client, options: Options) -> Self {
        let (events, writing) = Recorder::new(client.clone(), "virtualmachine-controller");
        tokio::spawn(writing);
        Self { context: Context::new(client, options.nodes, options.folder, options.courier, events) }
    }

    /// The group [`API_GROUP`](crate::API_GROUP) in version [`API_VERSION`](crate::API_VERSION), at its paths below `/apis`, as
    /// a server that API servers aggregate has it. Consoles are WebSockets (protocol `plain.kubevirt.io`, or none named).
    ///
    /// It asks nobody who he is: whoever serves it has looked at the client's rights.
    pub fn api(&self) -> Router {
        api::router(self.context.clone())
    }

    /// Runs the controllers, which end with an error only.
    ///
    /// # Errors
    /// When a part stops for good; single machines never stop it.
    pub async fn run(self) -> Result<(), Error> {
        installation::create(&self.context.client).await?;
        let stopped = |part: &str| Err(Error::Stopped(format!("the watch of {part} ended")));
        tokio::select! {
            () = machine::run(self.context.clone()) => stopped("machines"),
            () = instances(self.context.clone()) => stopped("instances"),
            () = migrations(self.context.clone()) => stopped("migrations"),
        }
    }
}

/// Gives each instance a task.
async fn instances(context: Context) {
    let mut changes = context.instances.changes();
    let mut known = HashSet::new();
    loop {
        changes.mark_unchanged();
        let all = context.instances.all();
        known.retain(|uid| all.iter().any(|one| one.uid().as_ref() == Some(uid)));
        for instance in all {
            if instance.uid().is_some_and(|uid| known.insert(uid)) {
                tokio::spawn(life::run(context.clone(), instance));
            }
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Gives each migration a task.
async fn migrations(context: Context) {
    let mut changes = context.migrations.changes();
    let mut known = HashSet::new();
    loop {
        changes.mark_unchanged();
        let all = context.migrations.all();
        known.retain(|uid| all.iter().any(|one| one.uid().as_ref() == Some(uid)));
        for one in all {
            if one.uid().is_some_and(|uid| known.insert(uid)) {
                tokio::spawn(migration::run(context.clone(), one));
            }
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}
