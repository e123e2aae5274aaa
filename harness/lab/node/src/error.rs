//! Why a node agent stops.

use std::io;

/// Why a node agent could not start or go on. What goes wrong with one pod is that pod's events and status instead.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Directories, programs or links below the site's scratch directory.
    #[error("cannot prepare node {node} below {directory}: {source}")]
    Prepare {
        /// The node's name.
        node: String,
        /// Where.
        directory: String,
        /// Why; the scratch directory must be writable and allow programs to run.
        #[source]
        source: io::Error,
    },
    /// The Node object.
    #[error("cannot register node {node} with the API server: {source}")]
    Register {
        /// The node's name.
        node: String,
        /// What the API server said.
        #[source]
        source: Box<kube::Error>,
    },
    /// The HTTPS endpoint of exec and logs.
    #[error("the endpoint for exec and logs of node {node} failed: {source}")]
    Serve {
        /// The node's name.
        node: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A task ended that never should.
    #[error("the {task} task of node {node} ended: {reason}")]
    Ended {
        /// The node's name.
        node: String,
        /// Which.
        task: &'static str,
        /// Why, as far as known.
        reason: String,
    },
}
