//! The hand-over between the pods of a virtual machine: which port its guest is reached by, in one transaction, and what the
//! guest is told afterwards.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::Controller;
use super::cache::key_of;
use super::faults::Fault;
use super::standing::{Standing, is_ready, standings, vm_of};
use super::state::{PodState, State};
use crate::annotation::Attachment;
use crate::error::Error;
use crate::layout::Layout;
use crate::node::announce::Announcement;
use crate::ovsdb::Transaction;
use crate::topology::ports;

/// A pod whose port changes.
struct Change {
    key: String,
    from: Standing,
    to: Standing,
}

impl Controller {
    /// The standing that a pod of the virtual machine `vm` (`<namespace>/<name>`) has from the start.
    pub(crate) fn standing_of(&self, state: &State, pod: &Pod, vm: &str) -> Standing {
        let pods = self.pods_of(vm);
        let found = self.wanted_standings(state, &pods).into_iter().find(|(other, _)| other.uid() == pod.uid());
        found.map(|(_, standing)| standing).unwrap_or_default()
    }

    /// Makes the ports of a virtual machine's pods what they should be, all in one transaction.
    pub(crate) async fn hand_over(&self, vm: &str) -> Result<(), Error> {
        let _guard = self.rebuilding.read().await;
        let _one_at_a_time = self.handing_over.lock().await;
        let pods = self.pods_of(vm);
        let Some((transaction, changes)) = self.changes(vm, &pods) else { return Ok(()) };
        self.northbound.commit(&format!("handing over {vm}"), transaction).await?;
        {
            let mut state = self.state();
            for change in &changes {
                if let Some(known) = state.pods.get_mut(&change.key) {
                    known.standing = change.to;
                }
            }
        }
        for change in &changes {
            tracing::info!(vm, pod = change.key, from = ?change.from, to = ?change.to, "port handed over");
            self.mirrors_with_pod_changed(&change.key);
            if change.from == Standing::Waiting && change.to == Standing::Active {
                self.announce(&change.key);
            }
        }
        Ok(())
    }

    /// All pods of a virtual machine.
    fn pods_of(&self, vm: &str) -> Vec<Arc<Pod>> {
        let (namespace, name) = vm.split_once('/').unwrap_or_default();
        let mut pods = self.pods.in_namespace(namespace);
        pods.retain(|pod| vm_of(pod).as_deref() == Some(name));
        pods
    }

    fn wanted_standings<'a>(&self, state: &State, pods: &'a [Arc<Pod>]) -> Vec<(&'a Pod, Standing)> {
        let decision = |pod: &Pod| {
            let known = state.pods.get(&key_of(pod)).filter(|known| Some(&known.uid) == pod.uid().as_ref());
            known.map_or(u64::MAX, |known| known.decision)
        };
        standings(pods, decision)
    }

    /// What has to change; nothing if all is well, or as long as the pod that the guest runs in has no port.
    fn changes(&self, vm: &str, pods: &[Arc<Pod>]) -> Option<(Transaction, Vec<Change>)> {
        let state = self.state();
        let wanted = self.wanted_standings(&state, pods);
        let (active, _) = wanted.iter().find(|(_, standing)| *standing == Standing::Active)?;
        let active = key_of(*active);
        let reached = state.pods.get(&active).filter(|pod| !pod.ports.is_empty())?;
        if reached.standing == Standing::Waiting && self.is_faulty(&reached.node, Fault::NoHandOver) {
            return None;
        }
        // Pods that have ended or are gone have nothing to be reached for, even if their ports are still there.
        let to = |known: &PodState| {
            let found = wanted.iter().find(|(pod, _)| pod.uid().as_ref() == Some(&known.uid));
            found.map_or(Standing::Left, |(_, standing)| *standing)
        };
        let mut changes: Vec<Change> = state
            .pods
            .iter()
            .filter(|(_, known)| known.guest() == Some(vm) && !known.ports.is_empty() && known.standing != to(known))
            .map(|(key, known)| Change { key: key.clone(), from: known.standing, to: to(known) })
            .collect();
        // What two ports have in common is taken from the one before it is given to the other.
        changes.sort_by_key(|change| change.to == Standing::Active);
        let mut transaction = Transaction::default();
        for change in &changes {
            let Some((known, attachment, uuid, layout)) = guest_port(&state, &change.key) else { continue };
            let ips = attachment.ips();
            match (change.from, change.to) {
                (_, Standing::Active) => {
                    ports::plug(&mut transaction, layout, &known.node, uuid, attachment.mac, &ips);
                }
                (Standing::Active, _) => ports::unplug(&mut transaction, layout, &known.node, uuid, &ips),
                // Disabled before and after.
                _ => {}
            }
        }
        (!changes.is_empty()).then_some((transaction, changes))
    }

    /// Has the node of a migration's target tell the guest where its gateway is.
    fn announce(&self, key: &str) {
        let announcement = {
            let state = self.state();
            let Some((known, attachment, _, layout)) = guest_port(&state, key) else { return };
            let ready = self.pods.get(key).is_some_and(|pod| is_ready(&pod));
            // Without addresses that are kept there is no live migration that anybody would notice, and no port to send from.
            if !ready || !layout.has_management_ports() || self.is_faulty(&known.node, Fault::NoGatewayAnnouncements) {
                return;
            }
            Announcement::new(layout, &known.node, attachment.mac, &attachment.ips())
        };
        // Nobody listens where the node's component does not run, as anywhere.
        let _ = self.announcements.send(Arc::new(announcement));
    }

    fn is_faulty(&self, node: &str, fault: Fault) -> bool {
        self.nodes.get(node).is_some_and(|node| fault.is_on(&node))
    }
}

/// The port of a pod behind which its guest is, with the layout of its network.
fn guest_port<'a>(state: &'a State, key: &str) -> Option<(&'a PodState, &'a Attachment, &'a str, &'a Layout)> {
    let known = state.pods.get(key)?;
    let position = known.attachments.iter().position(|attachment| attachment.guest.is_some())?;
    let attachment = known.attachments.get(position)?;
    let network = state.networks.get(&attachment.network)?;
    Some((known, attachment, known.ports.get(position)?, &network.layout))
}
