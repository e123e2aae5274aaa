//! State of the pods at both ends of bad cells, collected before anything is removed.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;
use udn_model::cell::{Cell, Check, Target, VantagePoint};
use udn_model::world::PodRef;

use super::Phase;

/// How long the collection may take.
const EVIDENCE_TIMEOUT: Duration = Duration::from_secs(10);

impl Phase<'_> {
    /// State of the pods at both ends of the first bad cells; each pod is asked once.
    pub(super) async fn collect(&self, bad: &[usize]) -> HashMap<usize, Vec<String>> {
        let begun = Instant::now();
        let chosen: Vec<usize> = bad.iter().copied().take(self.shared.options.evidence_cells).collect();
        let wanted: HashSet<PodRef> = chosen.iter().flat_map(|index| pods_of(self.cells[*index])).collect();
        let asked = wanted.into_iter().map(async |pod| {
            let notes = tokio::time::timeout(EVIDENCE_TIMEOUT, self.world.evidence(&pod)).await;
            (pod, notes.unwrap_or_else(|_| vec!["evidence could not be collected in time".into()]))
        });
        let known: HashMap<PodRef, Vec<String>> = futures::future::join_all(asked).await.into_iter().collect();
        let mut told: HashSet<PodRef> = HashSet::new();
        let mut notes = HashMap::new();
        for index in chosen {
            let fresh = pods_of(self.cells[index]).into_iter().filter(|pod| told.insert(pod.clone()));
            let collected: Vec<String> = fresh.flat_map(|pod| known.get(&pod).cloned().unwrap_or_default()).collect();
            notes.insert(index, collected);
        }
        if !bad.is_empty() {
            self.shared.budget.cleanup(begun.elapsed());
        }
        notes
    }
}

fn pods_of(cell: &Cell) -> Vec<PodRef> {
    match &cell.check {
        Check::Probe { from, to, .. } | Check::Series { from, to, .. } | Check::Figure { from, to, .. } => {
            let mut pods = Vec::new();
            if let VantagePoint::Pod(pod) = from {
                pods.push(pod.clone());
            }
            if let Target::Pod { pod, .. } = to {
                pods.push(pod.clone());
            }
            pods.dedup();
            pods
        }
        Check::Resolve { from: VantagePoint::Pod(pod), .. } | Check::Fact { pod, .. } => vec![pod.clone()],
        Check::Resolve { .. } => vec![],
        Check::Object { object, .. } => match (&object.kind[..], &object.namespace) {
            ("Pod" | "VirtualMachine", Some(namespace)) => vec![PodRef::new(namespace, &object.name)],
            _ => vec![],
        },
    }
}
