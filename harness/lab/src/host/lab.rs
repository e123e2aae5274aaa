//! A lab that this program started.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use udn_lab_sys::error::Error as Ground;
use udn_lab_sys::packages::{self, Packages, Versions, courier};
use udn_lab_sys::sandbox::{Event, Sandbox, Spec, TREE, preflight};

use super::running::{self, Running};
use super::state::{Folder, Record, start_time};
use crate::control::Status;
use crate::error::Error;
use crate::inside::Start;
use crate::internal::MAIN;

/// How to start a lab.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where packages, kubeconfigs and logs are kept.
    pub cache: PathBuf,
    /// The lab's name; unique to this program if none.
    pub name: Option<String>,
    /// The lab lives on when this program ends, until [`down`](super::down).
    pub background: bool,
    /// Services of the default network (`<namespace>/<name>`) that pods of all networks may use by their ClusterIPs;
    /// OVN-Kubernetes' default if `None`: the API server's and kube-dns'.
    pub udn_allowed_default_services: Option<Vec<String>>,
}

impl Default for Options {
    fn default() -> Self {
        Self { cache: packages::default_folder(), name: None, background: false, udn_allowed_default_services: None }
    }
}

/// What takes time while a lab starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Packages are being found or fetched.
    Packages(packages::Progress),
    /// A step of the bring-up is done: `underlay`, `switches`, `ovn`, `api`, `network`, `nodes`.
    Step {
        /// Which.
        step: String,
        /// Since the lab's process started.
        at: Duration,
    },
    /// Everything is up.
    Ready {
        /// Since the lab's process started.
        at: Duration,
    },
}

/// A running lab. It ends when this value is dropped, unless it was started in the background; and when the program ends,
/// in whatever way.
#[derive(Debug)]
pub struct Lab {
    sandbox: Option<Sandbox>,
    /// Ends by itself after the sandbox.
    courier: Child,
    running: Running,
    folder: Folder,
    versions: Versions,
}

impl Lab {
    /// Starts a lab and waits until it is ready: API served, nodes ready, network up. Blocks; takes a few seconds, or
    /// longer where packages have to be fetched first.
    ///
    /// # Errors
    /// What the host lacks, with its remedy; a lab of that name that runs already; whatever failed inside.
    pub fn start(options: &Options, progress: &dyn Fn(Progress)) -> Result<Self, Error> {
        preflight::check()?;
        clear_away(&options.cache);
        let name = options.name.clone().unwrap_or_else(own_name);
        let folder = Folder::of(&options.cache, &name)?;
        // A name of one's own is nobody else's.
        let _lock = options.name.as_ref().map(|_| folder.lock()).transpose()?;
        if let Some(record) = folder.running() {
            return Err(Error::AlreadyUp { name, pid: record.keeper });
        }
        let packages = packages::ensure(&options.cache, &|event| progress(Progress::Packages(event)))?;
        folder.remove()?;
        folder.create()?;
        let lab = Self::boot(name, &folder, packages, options, progress);
        match lab {
            Ok(lab) if options.background => lab.detach(),
            Ok(lab) => Ok(lab),
            Err(error) => {
                // The log of a lab that never was says no more than the error.
                let _ = folder.remove();
                Err(error)
            }
        }
    }

    fn boot(
        name: String,
        folder: &Folder,
        packages: Packages,
        options: &Options,
        progress: &dyn Fn(Progress),
    ) -> Result<Self, Error> {
        let log = folder.log();
        let log = File::create(&log).map_err(Ground::file("create", &log))?;
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(Error::inside("listen on the host's loopback"))?;
        let port = listener.local_addr().map_err(Error::inside("listen on the host's loopback"))?.port();
        let from_host = packages.tools.root == Path::new("/");
        let versions = packages.versions;
        let spec = Spec { tree: packages.image_root, main: vec![MAIN.into()] };
        let mut sandbox = Sandbox::spawn(&spec, Some(&log))?;
        let courier_socket = folder.courier();
        let courier = courier::start(sandbox.keeper(), &courier_socket, &options.cache, Some(&log))?;
        let tools = if from_host { "/" } else { TREE }.into();
        let start = Start {
            name: name.clone(),
            tools,
            versions: versions.clone(),
            port,
            courier: courier_socket,
            udn_allowed_default_services: options.udn_allowed_default_services.clone(),
        };
        let told = sandbox.channel().send_fd(listener.as_fd()).and_then(|()| sandbox.channel().send(&start));
        drop(listener);
        // A sandbox that is gone already has said why.
        let facts = loop {
            match sandbox.event()? {
                Event::Step { step, at_ms } => progress(Progress::Step { step, at: Duration::from_millis(at_ms) }),
                Event::Ready { at_ms, facts } => {
                    progress(Progress::Ready { at: Duration::from_millis(at_ms) });
                    break facts;
                }
                // Errors by now.
                Event::Failed { .. } | Event::NoNamespaces { .. } => {}
            }
        };
        told.map_err(Error::inside("say what to do"))?;
        let kubeconfig = serde_json::to_vec_pretty(&facts).map_err(Error::inside("write its kubeconfig"))?;
        // JSON is YAML: kubectl and kube read it as it is.
        folder.write("kubeconfig", &kubeconfig)?;
        let keeper = sandbox.keeper();
        let record = Record { keeper, started: start_time(keeper).unwrap_or_default(), versions: versions.clone() };
        folder.write_record(&record)?;
        let running = Running::new(name, folder.clone(), &record);
        Ok(Self { sandbox: Some(sandbox), courier, running, folder: folder.clone(), versions })
    }

    fn detach(mut self) -> Result<Self, Error> {
        if let Some(sandbox) = self.sandbox.take() {
            sandbox.detach()?;
        }
        Ok(self)
    }

    /// Path of the kubeconfig, readable by this user only.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.kubeconfig()
    }

    /// The lab's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.running.name()
    }

    /// What the lab's processes print.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.folder.log()
    }

    /// Open vSwitch and OVN.
    #[must_use]
    pub fn versions(&self) -> &Versions {
        &self.versions
    }

    /// How the lab is. Its problems are lab errors, not findings about the network: look after every run.
    ///
    /// # Errors
    /// When the lab does not answer.
    pub fn status(&self) -> Result<Status, Error> {
        self.running.status()
    }

    /// The lab as one that was found by its name.
    #[must_use]
    pub fn running(&self) -> &Running {
        &self.running
    }

    /// Ends the lab, background or not; returns when nothing of it is left.
    ///
    /// # Errors
    /// When its folder cannot be removed.
    pub fn stop(mut self) -> Result<(), Error> {
        match self.sandbox.take() {
            Some(sandbox) => {
                drop(sandbox);
                let _ = self.courier.wait();
                self.folder.remove()
            }
            None => self.running.stop(Instant::now() + running::STOP_DEADLINE),
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some(sandbox) = self.sandbox.take() {
            drop(sandbox);
            let _ = self.courier.wait();
            let _ = self.folder.remove();
        }
    }
}

/// Each lab of a program has a name of its own, which no other running program has.
fn own_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(1);
    format!("run-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Removes what programs that were killed left in the cache folder: a folder whose name holds the number of a process
/// that is no more.
fn clear_away(cache: &Path) {
    for name in Folder::names(cache) {
        let program = name.strip_prefix("run-").and_then(|rest| rest.split('-').next()?.parse().ok());
        let Some(program) = program else { continue };
        if start_time(program).is_none()
            && let Ok(folder) = Folder::of(cache, &name)
            && folder.running().is_none()
        {
            let _ = folder.remove();
        }
    }
}
