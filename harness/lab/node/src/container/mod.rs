//! Containers: processes in their own mount, pid, uts and ipc namespace and the pod's network namespace.
//!
//! * [`job`]: what the node agent asks the start-up program for, and what it reports back
//! * [`channel`]: the socket between the two, which also carries file descriptors
//! * [`spawn`]: the node agent's side: start, signal, wait
//! * [`init`]: the start-up program's side: namespaces, then [`steps`], then [`privilege`], then exec
//! * [`steps`]: builds a root file system out of bind mounts
//! * [`fork`]: the one place that needs `fork`
//!
//! The start-up program leaves as soon as the container's process runs. The node agent is a "child subreaper", so
//! that process becomes its own child: no supervisor stays in memory per container, and its exit status is not lost.

pub(crate) mod channel;
mod fork;
pub(crate) mod init;
pub(crate) mod job;
mod privilege;
pub(crate) mod spawn;
mod steps;
