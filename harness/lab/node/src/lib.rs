//! The lab's node agent: a kubelet with a container runtime of its own, and a client of the API server like any other.
//!
//! * [`Kubelet`] (`kubelet`): one node: its tasks and what they share
//! * [`NodePods`] (`node_pods`): the node's pods, for what else runs on the node
//! * `node`: the Node object and its lease
//! * `pod`: what happens to a pod, from the watch to its status and its end
//! * `container`: processes in namespaces; [`container_main`] is the start-up program's entry
//! * `images`: the catalogue of images, and root file systems out of the lab's trees
//! * `volumes`: what pods mount
//! * `probes`: startup, readiness and liveness
//! * `output`, `terminal`: what containers print, and pseudo terminals
//! * `server`: exec and attach over HTTPS, by WebSocket or SPDY/3.1, and logs
//! * `events`: events about pods
//! * `readiness`: waiting for file descriptors
//!
//! Differences from a real node, on purpose: containers are restarted sooner (`pod::backoff`), resources are neither
//! limited nor counted, and a user that the lab's user namespace does not map stays user 0 without capabilities.

mod container;
mod error;
mod events;
mod images;
mod kubelet;
mod node;
mod node_pods;
mod output;
mod pod;
mod probes;
mod readiness;
mod server;
mod terminal;
mod volumes;

pub use container::init::container_main;
pub use container::spawn::CONTAINER_COMMAND;
pub use error::Error;
pub use kubelet::{KUBELET_PORT, Kubelet, Reached};
pub use node_pods::NodePods;
pub use server::serve_https;
