//! What can go wrong with a virtual machine: what was attempted, on what, and what to do.

use std::io;

/// A failure of one machine or migration. The lab itself goes on; these end up in conditions and events.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A request to the API server.
    #[error("cannot {action}: {source}")]
    Request {
        /// A verb and its object.
        action: String,
        /// What the API server said.
        source: Box<kube::Error>,
    },
    /// QEMU or the guests' kernel.
    #[error(transparent)]
    Packages(#[from] udn_lab_sys::error::Error),
    /// The guest's first file system.
    #[error("cannot make the guest's initramfs: {0}")]
    Guest(String),
    /// A machine that asks for what the lab has not.
    #[error("the lab's machines have {has}; {asked}")]
    Unsupported {
        /// What was asked for.
        asked: String,
        /// What there is instead.
        has: &'static str,
    },
    /// Not enough memory on the host.
    #[error(
        "the guest needs {needed_mib} MiB of memory with its emulator, {free_mib} MiB are free; end other machines or programs, \
         or give it less (spec.domain.memory.guest)"
    )]
    Memory {
        /// Guest and emulator.
        needed_mib: u64,
        /// Available on the host, or in the lab's folder.
        free_mib: u64,
    },
    /// Interfaces of the launcher pod.
    #[error("cannot {action} in the launcher pod {pod}: {reason}")]
    Network {
        /// A verb and its object.
        action: String,
        /// The pod.
        pod: String,
        /// Why.
        reason: String,
    },
    /// The emulator.
    #[error("cannot {action} with QEMU: {reason}")]
    Emulator {
        /// A verb and its object.
        action: String,
        /// What it said.
        reason: String,
    },
    /// A file or socket of the machine.
    #[error("cannot {action}: {source}")]
    File {
        /// A verb and its object.
        action: String,
        /// Why.
        source: io::Error,
    },
    /// Something did not come within its time.
    #[error("waited {seconds} s for {what}, in vain")]
    Deadline {
        /// What.
        what: String,
        /// How long, seconds.
        seconds: u64,
    },
    /// A migration that did not succeed.
    #[error("the migration failed: {0}")]
    Migration(String),
    /// A task that ended for good.
    #[error("the lab's machines stopped: {0}")]
    Stopped(String),
}

impl Error {
    /// For `map_err`: a failed request.
    pub(crate) fn request(action: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let action = action.into();
        move |source| Self::Request { action, source: Box::new(source) }
    }

    /// For `map_err`: a failed step with the emulator.
    pub(crate) fn emulator<E: std::fmt::Display>(action: impl Into<String>) -> impl FnOnce(E) -> Self {
        let action = action.into();
        move |reason| Self::Emulator { action, reason: reason.to_string() }
    }

    /// For `map_err`: an I/O error.
    pub(crate) fn file(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::File { action, source }
    }

    /// Whether the API server has no such object, or has another one of that name.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self, Self::Request { source, .. }
            if matches!(source.as_ref(), kube::Error::Api(status) if matches!(status.code, 404 | 409)))
    }
}
