//! What can go wrong, and what to do about it.

use std::io;

/// Why the network could not do something.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A database of Open vSwitch or OVN does not answer.
    #[error("cannot reach the {database} database: {source}; see whether its ovsdb-server still runs")]
    Connect {
        /// `OVN_Northbound`, `Open_vSwitch`.
        database: &'static str,
        /// The socket's error.
        source: io::Error,
    },
    /// A database refused a transaction.
    #[error("the {database} database refused a transaction for {purpose}: {reason}")]
    Refused {
        /// The database.
        database: &'static str,
        /// What was being done.
        purpose: String,
        /// The database's words.
        reason: String,
    },
    /// The API server refused something or does not answer.
    #[error("cannot {action}: {source}")]
    Api {
        /// What was attempted, on what.
        action: String,
        /// The client's error.
        source: Box<kube::Error>,
    },
    /// The kernel refused a change of an interface, address or route.
    #[error("cannot {action} in {netns}: {reason}")]
    Link {
        /// What was attempted, on what.
        action: String,
        /// The network namespace's name.
        netns: String,
        /// The kernel's words.
        reason: String,
    },
    /// A program of the package tree failed.
    #[error("{program} failed for node {node}: {reason}")]
    Program {
        /// Its name.
        program: &'static str,
        /// The node.
        node: String,
        /// Its words.
        reason: String,
    },
    /// Something did not come in time.
    #[error("waited {seconds} s in vain for {what}; see ovn-controller.log and ovs-vswitchd.log of the node")]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        seconds: u64,
    },
    /// Nodes or their site are not as expected.
    #[error("the lab has no node {0}")]
    NoNode(String),
}

impl Error {
    pub(crate) fn api(action: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let action = action.into();
        move |source| Self::Api { action, source: Box::new(source) }
    }
}
