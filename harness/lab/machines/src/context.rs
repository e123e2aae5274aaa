//! What all parts share: the API, the nodes, the packages, and the machines that run.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher;
use kube::{Api, Client};
use tokio::sync::OnceCell;
use udn_api::kubevirt::{VirtualMachine, VirtualMachineInstance, VirtualMachineInstanceMigration};
use udn_lab_controllers::Recorder;
use udn_lab_node::NodePods;
use udn_lab_sys::packages::{Machines, Progress, courier};

use crate::emulator::snapshot::Snapshots;
use crate::error::Error;
use crate::guest::Image;
use crate::instance::slot::Slot;
use crate::watching::Watched;

/// Shared by everything.
#[derive(Clone)]
pub(crate) struct Context(Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) client: Client,
    pub(crate) vms: Watched<VirtualMachine>,
    pub(crate) instances: Watched<VirtualMachineInstance>,
    pub(crate) migrations: Watched<VirtualMachineInstanceMigration>,
    pub(crate) pods: Watched<Pod>,
    pub(crate) events: Recorder,
    pub(crate) nodes: HashMap<String, NodePods>,
    /// Below it each machine has a folder.
    pub(crate) folder: PathBuf,
    pub(crate) snapshots: Snapshots,
    courier: PathBuf,
    ready: OnceCell<(Machines, Image)>,
    slots: Mutex<HashMap<String, Arc<Slot>>>,
}

impl std::ops::Deref for Context {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Context {
    pub(crate) fn new(
        client: Client,
        nodes: HashMap<String, NodePods>,
        folder: PathBuf,
        courier: PathBuf,
        events: Recorder,
    ) -> Self {
        let launchers = watcher::Config::default().labels("kubevirt.io=virt-launcher");
        Self(Arc::new(Shared {
            vms: Watched::start(Api::all(client.clone()), watcher::Config::default()),
            instances: Watched::start(Api::all(client.clone()), watcher::Config::default()),
            migrations: Watched::start(Api::all(client.clone()), watcher::Config::default()),
            pods: Watched::start(Api::all(client.clone()), launchers),
            client,
            events,
            nodes,
            folder,
            snapshots: Snapshots::default(),
            courier,
            ready: OnceCell::new(),
            slots: Mutex::default(),
        }))
    }

    /// QEMU and the guest's image, fetched and made when first asked for. `progress` hears what takes time.
    pub(crate) async fn packages(
        &self,
        progress: impl Fn(Progress) + Send + Sync + 'static,
    ) -> Result<&(Machines, Image), Error> {
        let make = || async {
            let (courier, folder) = (self.courier.clone(), self.folder.clone());
            let work = move || {
                let machines = courier::ask(&courier, progress)?;
                let image = Image::make(&machines, &folder)?;
                Ok((machines, image))
            };
            tokio::task::spawn_blocking(work).await.map_err(|error| Error::Guest(error.to_string()))?
        };
        self.ready.get_or_try_init(make).await
    }

    /// The instance of this UID, as it runs.
    pub(crate) fn slot(&self, uid: &str) -> Option<Arc<Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).get(uid).cloned()
    }

    /// Remembers an instance.
    pub(crate) fn remember(&self, slot: &Arc<Slot>) {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).insert(slot.uid.clone(), slot.clone());
    }

    /// Forgets an instance.
    pub(crate) fn forget(&self, uid: &str) {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}
