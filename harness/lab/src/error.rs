//! What can go wrong with a lab: what was attempted, on what, and what to do.

use std::io;
use std::path::PathBuf;

/// A failure of the lab as a whole.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Packages, sandbox or ground.
    #[error(transparent)]
    Ground(#[from] udn_lab_sys::error::Error),
    /// A lab of that name runs already.
    #[error("a lab named {name} is up already (process {pid}); use it, or end it with `lab down --name {name}`")]
    AlreadyUp {
        /// Its name.
        name: String,
        /// Its keeper.
        pid: u32,
    },
    /// No lab of that name runs.
    #[error("no lab named {name} is up; start one with `lab up --name {name}`")]
    NotUp {
        /// The name asked for.
        name: String,
    },
    /// A name that is no folder name.
    #[error("{name:?} cannot name a lab: use letters, digits and dashes")]
    Name {
        /// The name asked for.
        name: String,
    },
    /// No such place in the lab.
    #[error("the lab has no {place:?} to run a command in; it has {}", known.join(", "))]
    NoSuchPlace {
        /// The place asked for.
        place: String,
        /// The places there are.
        known: Vec<String>,
    },
    /// The running lab did not answer.
    #[error("lab {name} does not answer: {source}; end it with `lab down --name {name}`; its log is {}", log.display())]
    NoAnswer {
        /// Its name.
        name: String,
        /// Why.
        source: io::Error,
        /// Its log.
        log: PathBuf,
    },
    /// A part of the lab's inside.
    #[error("cannot {action} in the lab: {reason}")]
    Inside {
        /// A verb and its object.
        action: String,
        /// Why, as the part says.
        reason: String,
    },
    /// Something did not come within its time.
    #[error("waited {seconds} s for {what} in the lab, in vain: {last}")]
    Deadline {
        /// What.
        what: String,
        /// How long, seconds.
        seconds: u64,
        /// What was seen last.
        last: String,
    },
    /// A kubeconfig by which no API server can be joined.
    #[error("cannot join the API server of {}: {reason}", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What of it, with the remedy.
        reason: String,
    },
    /// An API server that no lab can join.
    #[error("cannot join the API server at {url}: {reason}")]
    Join {
        /// As the kubeconfig has it.
        url: String,
        /// Why, with the remedy.
        reason: String,
    },
    /// An API server at which something of the lab stayed.
    #[error(
        "the lab has ended, but something of it is left at the API server at {url}: {reason}; remove what has the label udn-conformance.io/lab"
    )]
    Leave {
        /// As the kubeconfig has it.
        url: String,
        /// What, and why.
        reason: String,
    },
    /// A certificate.
    #[error("cannot make the lab's certificates: {0}")]
    Certificate(String),
}

impl Error {
    /// For `map_err`: a failed step inside the lab.
    pub fn inside<E: std::fmt::Display>(action: impl Into<String>) -> impl FnOnce(E) -> Self {
        let action = action.into();
        move |reason| Self::Inside { action, reason: reason.to_string() }
    }
}
