//! What is asked of the start-up program, as JSON in a memory file, and what it reports.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// One run of the start-up program.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Job {
    /// A new container. The namespace descriptor is the pod's network namespace.
    Create(Creation),
    /// A process in a running container. The namespace descriptor is the pidfd of the container's first process.
    Join(Program),
}

/// A new container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Creation {
    /// Host name inside.
    pub hostname: String,
    /// An existing directory to build the root file system over; it is only covered for a moment.
    pub mount_point: PathBuf,
    /// How to build the root file system, in order.
    pub steps: Vec<Step>,
    /// Whether it sees, and is seen in, the lab's pid namespace (`hostPID`).
    pub host_pid: bool,
    /// Whether the root itself (volumes apart) ends up read-only.
    pub read_only_root: bool,
    /// The first process.
    pub program: Program,
}

/// A process inside a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Program {
    /// Program and arguments; a name without a slash is looked for in `PATH` of `env`.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// Working directory, made when it is missing.
    pub directory: String,
    /// User, group and further groups.
    pub user: u32,
    /// Primary group.
    pub group: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Capabilities as a kernel bit mask; all bits set means "leave what there is" (privileged).
    pub capabilities: u64,
    /// `allowPrivilegeEscalation: false`.
    pub no_new_privileges: bool,
    /// A pseudo terminal made inside the container instead of the three descriptors.
    pub terminal: bool,
}

/// One step of building a root file system. Paths are absolute inside the new root, sources absolute outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Step {
    /// A directory (and its parents).
    Directory { path: PathBuf, mode: u32 },
    /// A symbolic link, unless something is there already.
    Symlink { path: PathBuf, target: PathBuf },
    /// A file with this content.
    File { path: PathBuf, mode: u32, content: String },
    /// A file or directory of the lab, bound; the mount point is made.
    Bind { source: PathBuf, path: PathBuf, read_only: bool },
    /// An empty file system in memory.
    Tmpfs { path: PathBuf, mode: u32 },
    /// `/proc`; what reaches beyond the container is read-only unless `writable`.
    Proc { writable: bool },
    /// `/sys` of the pod's network namespace.
    Sys { writable: bool },
    /// `/dev/pts`, private to the container.
    Terminals,
}

/// What the start-up program reports, one per packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Report {
    /// Carries the pseudo terminal's controlling side.
    Terminal,
    /// The program runs. Carries its pidfd.
    Started {
        /// In the lab's pid namespace.
        pid: i32,
    },
    /// It could not be started.
    Failed {
        /// As a container runtime words it.
        message: String,
        /// 127 not found, 126 not executable, 128 anything else.
        code: i32,
    },
}
