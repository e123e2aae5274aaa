//! What can go wrong with the ground: what was attempted, on what, and what to do.

use std::io;
use std::path::PathBuf;

use crate::packages::version::{OLDEST_OPEN_VSWITCH, OLDEST_OVN};

/// A failure of packages, sandbox or ground.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not a distribution whose packages are known to work.
    #[error(
        "this host ({found}) has no Open vSwitch >= {OLDEST_OPEN_VSWITCH} with OVN >= {OLDEST_OVN}, and packages can be fetched on \
         Debian and Ubuntu only; install both"
    )]
    UnknownDistribution {
        /// The host's name for itself.
        found: String,
    },
    /// The host's apt configuration has no archive of its own release.
    #[error(
        "no archive of {distribution} {codename} with component main in /etc/apt/sources.list or /etc/apt/sources.list.d, from \
         which Open vSwitch and OVN could be fetched; add one"
    )]
    NoArchive {
        /// `debian` or `ubuntu`.
        distribution: String,
        /// The host's release.
        codename: String,
    },
    /// The archive's packages are too old.
    #[error(
        "{origin} has Open vSwitch {open_vswitch} and OVN {ovn}; the lab needs >= {OLDEST_OPEN_VSWITCH} and >= {OLDEST_OVN}; install \
         newer ones on the host"
    )]
    TooOld {
        /// Where they come from.
        origin: String,
        /// Open vSwitch as found.
        open_vswitch: String,
        /// OVN as found.
        ovn: String,
    },
    /// Virtual machines are not to be had on this host.
    #[error("this host cannot run the lab's virtual machines: {reason}; {remedy}")]
    Machines {
        /// Why.
        reason: String,
        /// What to do.
        remedy: &'static str,
    },
    /// apt or dpkg is not there or failed.
    #[error(
        "cannot fetch the lab's packages ({reason}{detail}); they are needed once: connect to the network of the host's package \
         mirror, or copy {} from a machine that has it",
        folder.display()
    )]
    Fetch {
        /// Why Open vSwitch was not taken from the host, when it has one that is too old; else empty.
        reason: String,
        /// What apt said.
        detail: String,
        /// The cache folder that would hold them.
        folder: PathBuf,
    },
    /// A tree that lacks a library.
    #[error("the packages in {} lack {library}, needed by {}; remove that folder and try again", folder.display(), by.display())]
    Incomplete {
        /// Where.
        folder: PathBuf,
        /// The library's file name.
        library: String,
        /// One file that needs it.
        by: PathBuf,
    },
    /// No `/dev/net/tun`, which Open vSwitch's userspace datapath makes nodes' interfaces with.
    #[error("cannot open /dev/net/tun for reading and writing: {source}; {remedy}")]
    Tun {
        /// Why.
        source: io::Error,
        /// What to do.
        remedy: &'static str,
    },
    /// The kernel refuses namespaces.
    #[error("cannot make namespaces for the lab: {source}; {remedy}")]
    Namespaces {
        /// Why.
        source: io::Error,
        /// What to do.
        remedy: &'static str,
    },
    /// A step of the sandbox' set-up.
    #[error("cannot {action} in the lab's sandbox: {source}")]
    Sandbox {
        /// A verb and its object.
        action: String,
        /// Why.
        source: io::Error,
    },
    /// The sandbox ended, or said what was wrong with it, before it was ready.
    #[error("{0}")]
    Ended(String),
    /// A netlink request.
    #[error("cannot {action} in network namespace {netns}: {source}")]
    Netlink {
        /// A verb and its object.
        action: String,
        /// Which namespace.
        netns: String,
        /// Why.
        source: rtnetlink::Error,
    },
    /// A node that there is not.
    #[error("the lab has no node {0}")]
    NoNode(String),
    /// A daemon that cannot be started, or died.
    #[error("{daemon} of {place} {what}{}", if log.is_empty() { String::new() } else { format!("; its log ends with: {log}") })]
    Daemon {
        /// Program.
        daemon: String,
        /// Node, or `central`.
        place: String,
        /// What it did or did not.
        what: String,
        /// Last lines of its log.
        log: String,
    },
    /// A request to a database of Open vSwitch or OVN.
    #[error("cannot {action} in {}: {reason}", socket.display())]
    Ovsdb {
        /// A verb and its object.
        action: String,
        /// The database's socket.
        socket: PathBuf,
        /// What it answered.
        reason: String,
    },
    /// A file or folder of ours.
    #[error("cannot {action} {}: {source}{}", path.display(), remedy(source))]
    File {
        /// A verb.
        action: &'static str,
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; free some space, or point XDG_CACHE_HOME at another disk"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "; point XDG_CACHE_HOME at a folder that you may write"
        }
        _ => "",
    }
}

impl Error {
    /// For `map_err`: a failed step of the sandbox' set-up.
    pub fn sandbox<E: Into<io::Error>>(action: impl Into<String>) -> impl FnOnce(E) -> Self {
        let action = action.into();
        move |source| Self::Sandbox { action, source: source.into() }
    }

    /// For `map_err`: an I/O error with what was attempted on which path.
    pub fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }
}
