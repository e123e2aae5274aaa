//! Daemon sets: one pod on every node that suits. A surge above one pod per node (`maxSurge`) is not supported; such a
//! set is updated one node at a time.

mod plan;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetSpec, DaemonSetStatus};
use k8s_openapi::api::core::v1::{
    Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Toleration,
};
use kube::ResourceExt;
use kube::api::DeleteParams;

use crate::Error;
use crate::cache::{Change, Key};
use crate::deployment::rolling::scaled;
use crate::events::{Recorder, Severity};
use crate::objects::Objects;
use crate::owners::{claim_all, managed_by, wake_owners, wake_self};
use crate::placement::{UNSCHEDULABLE, affinity_accepts, taints, untolerated};
use crate::pods;
use crate::queue::{Queue, drive};
use crate::revisions::{self, REVISION_LABEL, Template, label};
use plan::{Daemon, Place, place, replace};

/// Taints that daemon pods tolerate by nature.
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    (UNSCHEDULABLE, "NoSchedule"),
];

#[derive(Clone)]
pub(crate) struct DaemonSets {
    pub(crate) sets: Objects<DaemonSet>,
    pub(crate) pods: Objects<Pod>,
    pub(crate) nodes: Objects<Node>,
    pub(crate) revisions: Objects<ControllerRevision>,
    pub(crate) events: Recorder,
}

impl DaemonSets {
    pub(crate) async fn run(self) {
        let queue = Queue::new();
        wake_self(&self.sets, &queue);
        wake_owners(&self.sets, &self.pods, &queue, |set| set.spec.as_ref().map(|spec| spec.selector.clone()));
        let (sets, wake) = (self.sets.clone(), queue.clone());
        self.nodes.cache.on_change(move |change| {
            if let Change::Set { old: Some(old), new } = change
                && old.metadata.labels == new.metadata.labels
                && old.spec == new.spec
            {
                return;
            }
            for set in sets.cache.all() {
                wake.add(Key::of(set.as_ref()));
            }
        });
        self.sets.cache.synced().await;
        self.pods.cache.synced().await;
        self.nodes.cache.synced().await;
        self.revisions.cache.synced().await;
        drive("daemonset", queue, 4, move |key| self.clone().reconcile(key)).await;
    }

    async fn reconcile(self, key: Key) -> Result<Option<Duration>, Error> {
        let Some(set) = self.sets.get(&key) else { return Ok(None) };
        let Some(spec) = set.spec.as_ref() else { return Ok(None) };
        let mut owned = claim_all(set.as_ref(), &spec.selector, &self.pods, &self.sets, |_| true).await?;
        if set.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        let collisions = set.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0);
        let template = Template { selector: &spec.selector, template: &spec.template, collisions };
        let Some(history) = revisions::sync(set.as_ref(), template, &self.sets, &self.revisions).await? else {
            let mut status = set.status.clone().unwrap_or_default();
            status.collision_count = Some(collisions + 1);
            self.sets.update_status(set.as_ref(), set.status.as_ref(), &status).await?;
            return Ok(Some(Duration::ZERO));
        };
        let hash = revisions::hash(&history.update);
        // The oldest pod of a node is the one that stays.
        owned.sort_by_key(|pod| (pod.metadata.creation_timestamp.clone(), pod.name_any()));
        let pod_spec = tolerant(spec.template.spec.clone().unwrap_or_default());
        let places: Vec<Place> = self.nodes.cache.all().iter().map(|node| judge(&pod_spec, node)).collect();
        let (daemons, again) = daemons(&owned, spec, &hash);
        let mut todo = place(&places, &daemons);
        let rolling = spec.update_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref()) != Some("OnDelete");
        if rolling && todo.create.is_empty() {
            todo.delete.extend(replace(&places, &daemons, max_unavailable(spec, &places)));
        }
        let outcome = self.act(&set, spec, &hash, todo, &mut owned).await;
        let (daemons, _) = self::daemons(&owned, spec, &hash);
        let status = status(&set, &places, &daemons, &owned);
        self.sets.update_status(set.as_ref(), set.status.as_ref(), &status).await?;
        outcome?;
        let used: HashSet<&str> = owned.iter().map(|pod| label(pod.labels())).collect();
        let in_use = history.all.iter().filter(|revision| used.contains(revisions::hash(revision).as_str()));
        let in_use = in_use.map(|revision| revision.name_any()).collect();
        revisions::forget(&history, &in_use, spec.revision_history_limit, &self.revisions).await?;
        Ok(again)
    }

    async fn act(
        &self,
        set: &DaemonSet,
        spec: &DaemonSetSpec,
        hash: &str,
        todo: plan::Plan,
        owned: &mut Vec<Arc<Pod>>,
    ) -> Result<(), Error> {
        for index in todo.delete {
            let pod = &owned[index];
            self.pods.delete(pod.as_ref(), DeleteParams::background()).await?;
            let message = format!("Deleted pod: {}", pod.name_any());
            self.events.record(set, Severity::Normal, "SuccessfulDelete", &message);
        }
        let namespace = set.namespace().unwrap_or_default();
        let pods = todo.create.iter().map(|node| new_pod(set, spec, hash, node)).collect::<Vec<_>>();
        let answers = futures::future::join_all(pods.iter().map(|pod| self.pods.create(&namespace, pod))).await;
        let mut failure = None;
        for answer in answers {
            match answer {
                Ok(pod) => {
                    let message = format!("Created pod: {}", pod.name_any());
                    self.events.record(set, Severity::Normal, "SuccessfulCreate", &message);
                    owned.push(pod);
                }
                Err(error) => {
                    let message = format!("Error creating: {}", error.server_message());
                    self.events.record(set, Severity::Warning, "FailedCreate", &message);
                    failure = failure.or(Some(error));
                }
            }
        }
        for pod in owned.iter_mut() {
            if let Some(now) = self.pods.get(&Key::of(pod.as_ref())) {
                *pod = now;
            }
        }
        failure.map_or(Ok(()), Err)
    }
}

/// The template's pod with the tolerations that all daemon pods have.
fn tolerant(mut spec: PodSpec) -> PodSpec {
    let host_network = spec.host_network == Some(true);
    let tolerations = spec.tolerations.get_or_insert_default();
    let network = host_network.then_some(("node.kubernetes.io/network-unavailable", "NoSchedule"));
    for (key, effect) in TOLERATED.into_iter().chain(network) {
        let toleration = Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            ..Toleration::default()
        };
        if !tolerations.contains(&toleration) {
            tolerations.push(toleration);
        }
    }
    spec
}

fn judge(spec: &PodSpec, node: &Node) -> Place {
    let name = node.name_any();
    let fits = spec.node_name.as_ref().is_none_or(|wanted| *wanted == name) && affinity_accepts(spec, node);
    let taints = taints(node);
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    Place {
        wanted: fits && untolerated(&taints, tolerations, &["NoSchedule", "NoExecute"]).is_none(),
        may_stay: fits && untolerated(&taints, tolerations, &["NoExecute"]).is_none(),
        node: name,
    }
}

fn new_pod(set: &DaemonSet, spec: &DaemonSetSpec, hash: &str, node: &str) -> Pod {
    let mut pod = pods::from_template(&spec.template, &set.namespace().unwrap_or_default(), managed_by(set));
    pod.metadata.generate_name = Some(pods::generate_name(&set.name_any()));
    pod.metadata.labels.get_or_insert_default().insert(REVISION_LABEL.to_owned(), hash.to_owned());
    let mut spec = tolerant(pod.spec.take().unwrap_or_default());
    // The scheduler binds it; this names the node, and adds to what the template requires.
    let here = NodeSelectorRequirement {
        key: "metadata.name".to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let required = spec
        .affinity
        .get_or_insert_default()
        .node_affinity
        .get_or_insert_default()
        .required_during_scheduling_ignored_during_execution
        .get_or_insert_with(|| NodeSelector { node_selector_terms: Vec::new() });
    if required.node_selector_terms.is_empty() {
        required.node_selector_terms.push(NodeSelectorTerm::default());
    }
    for term in &mut required.node_selector_terms {
        term.match_fields = Some(vec![here.clone()]);
    }
    pod.spec = Some(spec);
    pod
}

/// The node that a daemon pod is on or meant for.
fn target(pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    if let Some(node) = spec.node_name.as_ref().filter(|name| !name.is_empty()) {
        return Some(node.clone());
    }
    let required = spec.affinity.as_ref()?.node_affinity.as_ref()?;
    let selector = required.required_during_scheduling_ignored_during_execution.as_ref()?;
    let mut fields = selector.node_selector_terms.iter().flat_map(|term| term.match_fields.iter().flatten());
    fields.find(|field| field.key == "metadata.name")?.values.as_ref()?.first().cloned()
}

fn daemons(owned: &[Arc<Pod>], spec: &DaemonSetSpec, hash: &str) -> (Vec<Daemon>, Option<Duration>) {
    let now = Timestamp::now();
    let mut again = None;
    let daemons = owned
        .iter()
        .enumerate()
        .map(|(index, pod)| {
            let available = pods::is_available(pod, spec.min_ready_seconds.unwrap_or(0), now);
            if let Err(left) = available {
                again = pods::sooner(again, left);
            }
            Daemon {
                index,
                node: target(pod).unwrap_or_default(),
                updated: label(pod.labels()) == hash,
                finished: pods::is_finished(pod),
                terminating: pods::is_terminating(pod),
                available: available.is_ok(),
            }
        })
        .collect();
    (daemons, again)
}

fn max_unavailable(spec: &DaemonSetSpec, places: &[Place]) -> usize {
    let wanted = pods::count(places.iter().filter(|place| place.wanted).count());
    let rolling = spec.update_strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
    let value = rolling.and_then(|rolling| rolling.max_unavailable.as_ref());
    let number = value.map_or(1, |value| scaled(value, wanted, true));
    usize::try_from(number.max(1)).unwrap_or(1)
}

fn status(set: &DaemonSet, places: &[Place], daemons: &[Daemon], owned: &[Arc<Pod>]) -> DaemonSetStatus {
    let before = set.status.clone().unwrap_or_default();
    let mut status = DaemonSetStatus {
        observed_generation: set.metadata.generation,
        collision_count: before.collision_count,
        conditions: before.conditions,
        ..DaemonSetStatus::default()
    };
    let (mut available, mut updated) = (0, 0);
    for place in places {
        let here: Vec<&Daemon> = daemons.iter().filter(|daemon| daemon.node == place.node).collect();
        if !place.wanted {
            status.number_misscheduled += i32::from(!here.is_empty());
            continue;
        }
        status.desired_number_scheduled += 1;
        let Some(daemon) = here.iter().find(|daemon| !daemon.terminating).or_else(|| here.first()) else { continue };
        status.current_number_scheduled += 1;
        status.number_ready += i32::from(pods::is_ready(&owned[daemon.index]));
        available += i32::from(daemon.available);
        updated += i32::from(daemon.updated);
    }
    let some = |n: i32| (n > 0).then_some(n);
    status.number_available = some(available);
    status.updated_number_scheduled = some(updated);
    status.number_unavailable = some(status.desired_number_scheduled - available);
    status
}
