//! A lab that this program started.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use udn_lab_sys::error::Error as Ground;
use udn_lab_sys::ground::NODES;
use udn_lab_sys::packages::{self, Packages, Versions, courier};
use udn_lab_sys::sandbox::{Event, Sandbox, Spec, TREE, preflight};

use super::relay;
use super::running::{self, Running};
use super::state::{Folder, Record, start_time};
use crate::control::Status;
use crate::error::Error;
use crate::existing::ApiServer;
use crate::inside::{ApiSide, Start};
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
    /// Kubeconfig of an API server that the lab joins, by its current context; `None`: the lab has one of its own.
    pub api_server: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cache: packages::default_folder(),
            name: None,
            background: false,
            udn_allowed_default_services: None,
            api_server: None,
        }
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
    /// They end by themselves after the sandbox.
    attendants: Vec<Child>,
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
        let existing = options.api_server.as_deref().map(ApiServer::read).transpose()?;
        if let Some(server) = &existing {
            relay::connect(&server.host, server.port)
                .map_err(|error| Error::Join { url: server.url.clone(), reason: error.to_string() })?;
        }
        let packages = packages::ensure(&options.cache, &|event| progress(Progress::Packages(event)))?;
        folder.remove()?;
        folder.create()?;
        let lab = Self::boot(name, &folder, packages, existing, options, progress);
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
        existing: Option<ApiServer>,
        options: &Options,
        progress: &dyn Fn(Progress),
    ) -> Result<Self, Error> {
        let log = folder.log();
        let log = File::create(&log).map_err(Ground::file("create", &log))?;
        // The lab's own API server is reached here; one that was there before reaches the node agents and the
        // machines' API here.
        let listeners =
            (0..existing.as_ref().map_or(1, |_| NODES.len() + 1)).map(|_| listen()).collect::<Result<Vec<_>, _>>();
        let (listeners, ports): (Vec<TcpListener>, Vec<u16>) =
            listeners.map_err(Error::inside("listen on the host's loopback"))?.into_iter().unzip();
        let from_host = packages.tools.root == Path::new("/");
        let versions = packages.versions;
        let spec = Spec { tree: packages.image_root, main: vec![MAIN.into(), listeners.len().to_string().into()] };
        let mut sandbox = Sandbox::spawn(&spec, Some(&log))?;
        let courier_socket = folder.courier();
        let mut attendants = vec![courier::start(sandbox.keeper(), &courier_socket, &options.cache, Some(&log))?];
        let joined = existing.as_ref().map(|server| server.url.clone());
        let api = match existing {
            None => ApiSide::Own { port: ports.first().copied().unwrap_or_default() },
            Some(server) => {
                let socket = folder.relay();
                attendants.push(relay::start(sandbox.keeper(), &socket, &server, &log)?);
                ApiSide::Joined { server: Box::new(server), relay: socket, ports }
            }
        };
        let tools = if from_host { "/" } else { TREE }.into();
        let start = Start {
            name: name.clone(),
            tools,
            versions: versions.clone(),
            api,
            courier: courier_socket,
            udn_allowed_default_services: options.udn_allowed_default_services.clone(),
        };
        let channel = sandbox.channel();
        let told = listeners.iter().try_for_each(|listener| channel.send_fd(listener.as_fd()));
        let told = told.and_then(|()| channel.send(&start));
        drop(listeners);
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
        let started = start_time(keeper).unwrap_or_default();
        let record = Record { keeper, started, versions: versions.clone(), joined };
        folder.write_record(&record)?;
        let running = Running::new(name, folder.clone(), &record);
        Ok(Self { sandbox: Some(sandbox), attendants, running, folder: folder.clone(), versions })
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

    /// Ends the lab, background or not; returns when nothing of it is left, and what had to stay at an API server that it had
    /// joined.
    ///
    /// # Errors
    /// When its folder cannot be removed, or the API server not be left.
    pub fn stop(mut self) -> Result<Vec<String>, Error> {
        match self.sandbox.take() {
            Some(sandbox) => {
                let left = self.running.leave();
                self.end(sandbox);
                self.folder.remove()?;
                left
            }
            None => self.running.stop(running::STOP_DEADLINE),
        }
    }
}

impl Lab {
    fn end(&mut self, sandbox: Sandbox) {
        drop(sandbox);
        for attendant in &mut self.attendants {
            let _ = attendant.wait();
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some(sandbox) = self.sandbox.take() {
            self.end(sandbox);
            let _ = self.folder.remove();
        }
    }
}

/// A listener on the host's loopback, and its port.
fn listen() -> std::io::Result<(TcpListener, u16)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    Ok((listener, port))
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
