//! The node's pods as others on the node see them, who on a real one would look at their processes.

use std::sync::PoisonError;

use rustix::process::Signal;
use udn_lab_sys::netns::Netns;

use crate::pod::Pods;

/// The pods of one node.
#[derive(Clone)]
pub struct NodePods {
    pods: Pods,
}

impl std::fmt::Debug for NodePods {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("NodePods").finish_non_exhaustive()
    }
}

impl NodePods {
    pub(crate) fn new(pods: Pods) -> Self {
        Self { pods }
    }

    /// The network namespace of the pod with this UID; none while it has none, or when it is on another node.
    #[must_use]
    pub fn netns(&self, uid: &str) -> Option<Netns> {
        let cell = self.pods.all().into_iter().find(|cell| cell.uid == uid)?;
        let sandbox = cell.sandbox.lock().unwrap_or_else(PoisonError::into_inner);
        sandbox.as_ref().map(|sandbox| sandbox.netns.clone())
    }

    /// Ends the containers of the pod with this UID: with SIGTERM where what they stood for ended well, else with SIGKILL.
    pub fn end(&self, uid: &str, well: bool) {
        let signal = if well { Signal::TERM } else { Signal::KILL };
        let cell = self.pods.all().into_iter().find(|cell| cell.uid == uid);
        for container in cell.into_iter().flat_map(|cell| cell.record().containers) {
            if let Some(run) = container.run {
                run.process.signal(signal);
            }
        }
    }
}
