//! The agents of a world: started in pods and guests by whoever needs one first.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use serde_json::Value;
use tokio::sync::OnceCell;
use udn_agent::protocol::{Listen, Transport as Wire};
use udn_model::cell::VantagePoint;
use udn_model::fact::Announcement;
use udn_model::flow::FLOW_PORT;
use udn_model::migration::HeardAt;
use udn_model::observation::Outcome;
use udn_model::world::{PROBE_CONTAINER, PodRef};
use udn_runner::cluster::node_identity;

use super::{KubeWorld, lock};
use crate::agent::arrivals::ArrivalLog;
use crate::agent::console::Console;
use crate::agent::link::Exec;
use crate::agent::{Agent, AgentError};
use crate::error::Error;
use crate::flows::Flows;
use crate::names::AGENT_DIRECTORY;
use crate::vm::{self, Ear};
use crate::{claims, probes};

/// An agent and what has arrived at it.
#[derive(Debug)]
pub(crate) struct Station {
    pub(crate) agent: Agent,
    pub(crate) log: ArrivalLog,
    pub(crate) flows: Flows,
    pub(crate) ear: Ear,
}

impl Station {
    pub(crate) fn new(agent: Agent) -> Self {
        Self { agent, log: ArrivalLog::default(), flows: Flows::default(), ear: Ear::default() }
    }
}

/// A pod's agent, started by whoever needs it first.
#[derive(Debug, Default)]
pub(super) struct Post {
    uid: String,
    started: OnceCell<Result<Arc<Station>, AgentError>>,
}

impl KubeWorld {
    /// What identities of this world's pods begin with: another run's or world's pod is a wrong peer.
    pub(super) fn identity_prefix(&self) -> String {
        format!("{}{}/", self.run, self.instance)
    }

    /// Starts the agent of a pod and waits until it listens on the pod's ports.
    pub(crate) async fn attach(&self, pod: &PodRef) -> Result<(), Error> {
        let told = |source| Error::Agent { pod: pod.to_string(), source };
        self.start(pod).await.map(drop).map_err(told)
    }

    /// The agent of a pod.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) async fn station(&self, pod: &PodRef) -> Result<Arc<Station>, String> {
        self.start(pod).await.map_err(|error| format!("agent in {pod} {error}"))
    }

    async fn start(&self, pod: &PodRef) -> Result<Arc<Station>, AgentError> {
        if let Some(vm) = self.vms.get(pod) {
            // Its console is found by its name, whichever pod runs it.
            return self.started(pod, String::new(), self.start_in_guest(pod, vm)).await;
        }
        let object = self.pods.get(&self.key_of(pod)).ok_or_else(|| AgentError::Exec("the pod is not there".into()))?;
        let uid = object["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        if !is_running(&object) {
            return Err(AgentError::Exec(format!("the pod does not run: {}", claims::pod_state(&object))));
        }
        self.started(pod, uid, self.start_anew(pod, &object)).await
    }

    /// The agent of a pod of this uid, started by whoever is first.
    async fn started(
        &self,
        pod: &PodRef,
        uid: String,
        start: impl Future<Output = Result<Arc<Station>, AgentError>>,
    ) -> Result<Arc<Station>, AgentError> {
        let post = {
            let mut posts = lock(&self.posts);
            let post = posts.entry(pod.clone()).or_default();
            if post.uid != uid {
                *post = Arc::new(Post { uid, started: OnceCell::new() });
            }
            post.clone()
        };
        let started = post.started.get_or_init(|| start).await.clone();
        if started.is_err() {
            // The next one may have more luck: the pod may be ready by then.
            let mut posts = lock(&self.posts);
            if posts.get(pod).is_some_and(|known| Arc::ptr_eq(known, &post)) {
                posts.remove(pod);
            }
        }
        started
    }

    async fn start_anew(&self, pod: &PodRef, object: &Value) -> Result<Arc<Station>, AgentError> {
        let (namespace, name) = self.key_of(pod);
        let pods: Api<Pod> = Api::namespaced(self.objects.client.clone(), &namespace);
        let uid = object["metadata"]["uid"].as_str().map(str::to_owned);
        let link = Exec::new(pods, &name, uid, Some(PROBE_CONTAINER), AGENT_DIRECTORY, self.uploads.clone());
        let station = Station::new(Agent::start(link, self.session));
        station.agent.ready().await?;
        self.listen(pod, station, ports(object)).await
    }

    async fn start_in_guest(&self, vm: &PodRef, known: vm::Known) -> Result<Arc<Station>, AgentError> {
        let (namespace, name) = self.key_of(vm);
        let link = Console::new(self.objects.client.clone(), &namespace, &name, vm::boots_within(self));
        let station = Station::new(Agent::start(link, self.session));
        station.agent.ready().await?;
        self.listen(vm, station, known.ports).await
    }

    async fn listen(
        &self,
        pod: &PodRef,
        station: Station,
        ports: Vec<(Wire, u16)>,
    ) -> Result<Arc<Station>, AgentError> {
        for (transport, port) in ports {
            let identity = format!("{}{pod}", self.identity_prefix());
            let echo = transport == Wire::Tcp && port == FLOW_PORT;
            station.agent.listen(Listen { transport, port, identity, echo }).await?;
        }
        Ok(Arc::new(station))
    }

    /// All agents of this world that were started.
    pub(crate) fn stations(&self) -> Vec<Arc<Station>> {
        self.known_stations().into_iter().map(|(_, station)| station).collect()
    }

    fn known_stations(&self) -> Vec<(PodRef, Arc<Station>)> {
        let posts = lock(&self.posts);
        let started =
            posts.iter().filter_map(|(pod, post)| Some((pod.clone(), post.started.get()?.as_ref().ok().cloned()?)));
        started.collect()
    }

    /// What a pod's agent heard: an error where it cannot, since then silence proves nothing.
    pub(crate) async fn heard(&self, pod: &PodRef) -> Result<Vec<Announcement>, String> {
        let station = self.station(pod).await?;
        station.ear.heard(&station.agent).await.map_err(|error| format!("announcements at {pod}: {error}"))
    }

    /// What agents that listen heard from a moment on, microseconds since the Unix epoch; in order of time. For the
    /// timeline: what an agent cannot tell is missing there, and for facts to complain about.
    pub(super) async fn announced_since(&self, from_us: i64) -> Vec<HeardAt> {
        let mut all = Vec::new();
        for (at, station) in self.known_stations().into_iter().filter(|(_, station)| station.ear.listens()) {
            let heard = station.ear.heard(&station.agent).await.unwrap_or_default();
            let lately = heard.into_iter().filter(|said| said.at_us >= from_us);
            all.extend(lately.map(|said| HeardAt { at: at.clone(), said }));
        }
        all.sort_by_key(|heard| heard.said.at_us);
        all
    }

    /// Which life a pod's agent lives, if it was started and is attached to.
    pub(super) fn life(&self, pod: &PodRef) -> Option<u64> {
        let post = lock(&self.posts).get(pod).cloned()?;
        let agent = &post.started.get()?.as_ref().ok()?.agent;
        // A console is gone for a moment when its VM moves, and the guest's life goes on.
        if self.vms.get(pod).is_some() { agent.last_life() } else { agent.life() }
    }

    pub(super) async fn station_of(&self, from: &VantagePoint) -> Result<Arc<Station>, Outcome> {
        match from {
            VantagePoint::Pod(pod) => match self.start(pod).await {
                Ok(station) => Ok(station),
                Err(error @ AgentError::Exec(_)) => Err(Outcome::Unresolved { why: format!("agent in {pod} {error}") }),
                Err(error) => Err(probes::failure(&error)),
            },
            VantagePoint::Node(slot) => self
                .outposts
                .node(*slot)
                .await
                .map_err(|why| Outcome::AgentFailed { why: format!("{}: {why}", node_identity(*slot)) }),
            VantagePoint::External => self.outposts.external().await.map_err(|why| Outcome::AgentFailed { why }),
        }
    }
}

/// The ports that a pod's probe container declares, as far as the agent speaks their protocol.
fn ports(pod: &Value) -> Vec<(Wire, u16)> {
    let containers = pod["spec"]["containers"].as_array();
    let probe = containers.into_iter().flatten().find(|container| container["name"] == PROBE_CONTAINER);
    let declared = probe.and_then(|probe| probe["ports"].as_array()).into_iter().flatten();
    let read = |port: &Value| {
        let transport = match port["protocol"].as_str() {
            None | Some("TCP") => Wire::Tcp,
            Some("UDP") => Wire::Udp,
            Some(_) => return None,
        };
        Some((transport, u16::try_from(port["containerPort"].as_u64()?).ok()?))
    };
    declared.filter_map(read).collect()
}

fn is_running(pod: &Value) -> bool {
    let statuses = pod["status"]["containerStatuses"].as_array();
    let probe = statuses.into_iter().flatten().find(|status| status["name"] == PROBE_CONTAINER);
    probe.is_some_and(|status| !status["state"]["running"].is_null())
}
