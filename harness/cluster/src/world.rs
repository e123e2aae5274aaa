//! A provisioned world: everything that the runner asks of it.
//!
//! * this file: the world, and the answers
//! * `stations`: its agents
//! * `traces`: what was made
//! * `repeat`: commands that repeat a probe by hand

mod repeat;
mod stations;
mod traces;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{OnceCell, Semaphore};
use udn_agent::protocol::{Body, Op};
use udn_model::cell::{Claim, ObjectRef, Target, VantagePoint};
use udn_model::fact::{Fact, PodView, Scene, judge};
use udn_model::migration::Migration;
use udn_model::naming::Naming;
use udn_model::scenario::Action;
use udn_model::world::{PodRef, VM_KIND, World as Declared};
use udn_runner::cluster::{AddressBook, Arrivals, FactQuestion, Found, Report, Shot, Trouble, World};

use self::stations::Post;
pub(crate) use self::stations::Station;
pub(crate) use self::traces::Traces;
use crate::claims::{self, Answer, Known};
use crate::error::Error;
use crate::flows::Stalls;
use crate::inject::Injection;
use crate::lookups::{self, Dns, Names};
use crate::nodes::Outposts;
use crate::objects::{Objects, Real};
use crate::pods::{Key, PodWatch};
use crate::services::{self, Announcers};
use crate::vm::{self, Vms};
use crate::{act, addresses, evidence, probes, slices, view};

/// How long an agent may take to look around.
pub(crate) const FACTS_PATIENCE: Duration = Duration::from_secs(15);

/// The world.
pub(crate) struct KubeWorld {
    pub(crate) objects: Objects,
    pub(crate) run: String,
    pub(crate) instance: String,
    pub(crate) naming: Naming,
    pub(crate) pods: PodWatch,
    pub(crate) ready_deadline: Duration,
    injection: Injection,
    outposts: Arc<Outposts>,
    uploads: Arc<Semaphore>,
    session: u64,
    posts: Mutex<HashMap<PodRef, Arc<Post>>>,
    answers: Mutex<HashMap<ObjectRef, Answer>>,
    traces: Arc<Traces>,
    api_server: Vec<IpAddr>,
    dns: Dns,
    /// VMs of this world.
    pub(crate) vms: Vms,
    stalls: Stalls,
    /// The cluster's domain, once a pod said it.
    domain: OnceCell<String>,
    pub(crate) announcers: Announcers,
}

/// What a world is made with.
pub(crate) struct Setup {
    pub(crate) objects: Objects,
    pub(crate) injection: Injection,
    pub(crate) naming: Naming,
    pub(crate) pods: PodWatch,
    pub(crate) ready_deadline: Duration,
    pub(crate) outposts: Arc<Outposts>,
    pub(crate) uploads: Arc<Semaphore>,
    pub(crate) session: u64,
    pub(crate) traces: Arc<Traces>,
    pub(crate) api_server: Vec<IpAddr>,
    pub(crate) dns: Dns,
}

impl KubeWorld {
    pub(crate) fn new(setup: Setup) -> Self {
        let Setup {
            objects,
            injection,
            naming,
            pods,
            ready_deadline,
            outposts,
            uploads,
            session,
            traces,
            api_server,
            dns,
        } = setup;
        Self {
            objects,
            run: injection.run.clone(),
            instance: injection.instance.clone(),
            naming,
            pods,
            ready_deadline,
            injection,
            outposts,
            uploads,
            session,
            posts: Mutex::default(),
            answers: Mutex::default(),
            traces,
            api_server,
            dns,
            vms: Vms::default(),
            stalls: Stalls::default(),
            domain: OnceCell::new(),
            announcers: Announcers::default(),
        }
    }

    /// The manifest as it is applied.
    pub(crate) fn inject(&self, manifest: &Value) -> Result<Value, Error> {
        self.injection.manifest(&self.naming, manifest)
    }

    pub(crate) fn real(&self, object: &ObjectRef) -> Real {
        Real::of(object, &self.naming)
    }

    pub(crate) fn remember(&self, object: &Real) {
        self.traces.add(object);
    }

    /// The agents of a deleted pod are not asked any more.
    pub(crate) fn forget(&self, object: &ObjectRef) {
        if let (true, Some(namespace)) = (object.kind == "Pod" || object.kind == VM_KIND, &object.namespace) {
            let pod = PodRef::new(namespace, &object.name);
            lock(&self.posts).remove(&pod);
            self.vms.forget(&pod);
        }
    }

    pub(crate) fn answered(&self, object: ObjectRef, answer: Answer) {
        lock(&self.answers).insert(object, answer);
    }

    /// Takes note of a VM by its manifest with its real names.
    pub(crate) fn note_vm(&self, object: &Real, manifest: &Value) {
        if let (VM_KIND, Some(vm)) = (object.kind.as_str(), self.vm_of(object)) {
            self.vms.note(vm, manifest);
        }
    }

    /// A VM's name in the world.
    pub(crate) fn vm_of(&self, object: &Real) -> Option<PodRef> {
        self.name_of(&(object.namespace.clone().unwrap_or_default(), object.name.clone()))
    }

    /// The object of a pod; of a VM the launcher pod that runs it: the eldest of those that live.
    pub(crate) fn object_of(&self, pod: &PodRef) -> Option<Arc<Value>> {
        if self.vms.get(pod).is_none() {
            return self.pods.get(&self.key_of(pod));
        }
        let launchers = vm::launchers(self, pod);
        let runs = |pod: &&Arc<Value>| pod["metadata"]["deletionTimestamp"].is_null();
        // Once the guest runs at the target the source's pod is about to end.
        let moved = launchers.iter().rev().find(|pod| pod["metadata"]["annotations"][vm::TARGET_READY].is_string());
        moved.filter(runs).or_else(|| launchers.iter().find(runs)).or_else(|| launchers.first()).cloned()
    }

    /// A pod's name in the world.
    pub(crate) fn name_of(&self, (namespace, name): &Key) -> Option<PodRef> {
        self.naming.world(namespace).map(|namespace| PodRef::new(namespace, name))
    }

    /// The Kubernetes name of the node in a slot.
    pub(crate) fn node_name(&self, slot: u8) -> Option<String> {
        self.outposts.names().get(usize::from(slot)).cloned()
    }

    pub(crate) fn key_of(&self, pod: &PodRef) -> Key {
        (self.naming.real(&pod.namespace), pod.name.clone())
    }

    /// What names are called in full, where shots are about names. The agent knows the cluster's domain.
    async fn names(&self, station: &Station, shots: &[Shot]) -> Option<Names<'_>> {
        shots.iter().find(|shot| shot.lookup.is_some())?;
        let domain = self.domain.get_or_try_init(|| lookups::domain(&station.agent)).await;
        Some(Names { naming: &self.naming, domain: domain.ok()?, external: self.dns.external() })
    }

    pub(crate) async fn view_of(&self, pod: &PodRef, inside: bool) -> Result<PodView, String> {
        let object = self.object_of(pod).ok_or_else(|| format!("pod {pod} is not there"))?;
        let mut view = view::outside(&object)?;
        if inside {
            let station = self.station(pod).await?;
            match station.agent.call(Op::Facts, FACTS_PATIENCE).await {
                Ok(Body::Facts(facts)) => {
                    view::inside(&mut view, &facts);
                    if self.vms.get(pod).is_some() {
                        view.guest = Some(Box::new(vm::guest::inside(&facts)));
                        vm::guest::complete(self, pod, &mut view, &self.dns.servers).await;
                    }
                }
                Ok(other) => return Err(format!("the agent in {pod} answered {other:?} when asked for facts")),
                Err(error) => return Err(format!("agent in {pod}: {error}")),
            }
        }
        Ok(view)
    }
}

/// Who has to have heard what a question is about.
fn listener(question: &FactQuestion) -> Option<&PodRef> {
    match &question.fact {
        Fact::AnnouncedAt(at) => Some(at),
        Fact::GatewayAnnounced => Some(&question.pod),
        _ => None,
    }
}

fn listeners(questions: &[FactQuestion]) -> BTreeSet<PodRef> {
    questions.iter().filter_map(listener).cloned().collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl World for KubeWorld {
    async fn act(&self, action: &Action) -> Result<(), Trouble> {
        Ok(act::perform(self, action).await?)
    }

    async fn addresses(&self, declared: &Declared) -> Result<AddressBook, Trouble> {
        let services = services::all(self, declared, &self.outposts.names()).await?;
        let mut book = AddressBook {
            nodes: self.outposts.addresses(),
            external: self.outposts.outside(),
            services: services.into_iter().collect(),
            api_server: self.api_server.clone(),
            dns: self.dns.servers.clone(),
            ..AddressBook::default()
        };
        book.external_name = self.dns.meaning(book.external.as_ref());
        for (key, pod) in self.pods.all() {
            // A pod that is being deleted gives its addresses away at any moment.
            if !pod["metadata"]["deletionTimestamp"].is_null() {
                continue;
            }
            let owner = vm::owner(&pod);
            // Launcher pods that have ended have given their addresses away.
            if owner.is_some() && vm::has_ended(&pod) {
                continue;
            }
            let key = owner.map_or(key.clone(), |vm| (key.0, vm.to_owned()));
            if let Some(name) = self.name_of(&key) {
                if owner.is_some() && book.pods.get(&name).is_some_and(|known| !known.primary.is_empty()) {
                    continue;
                }
                let mut addresses = addresses::of_pod(&pod, &name, declared, &self.naming);
                addresses.life = self.life(&name);
                book.pods.insert(name, addresses);
            }
        }
        Ok(book)
    }

    async fn probe(&self, from: &VantagePoint, shots: Vec<Shot>, reports: UnboundedSender<Report>) {
        // What is done once is on the heap: many of these wait for their answers at once.
        match Box::pin(self.station_of(from)).await {
            Ok(station) => {
                let names = Box::pin(self.names(&station, &shots)).await;
                let own = [self.identity_prefix(), format!("{}/", self.run)];
                let me = match from {
                    VantagePoint::Pod(pod) => pod.to_string(),
                    other => other.to_string(),
                };
                probes::send(&station, shots, &own, names.as_ref(), (&self.stalls, &me), &reports).await;
            }
            Err(outcome) => {
                for shot in shots {
                    let _ =
                        reports.send(Report { nonce: shot.nonce, outcome: outcome.clone(), local: None, flow: None });
                }
            }
        }
    }

    async fn arrivals(&self, at: &Target, since: Option<u64>) -> Result<Arrivals, Trouble> {
        let station = match at {
            Target::Pod { pod, .. } => self.station(pod).await,
            Target::Node(slot) => self.outposts.node(*slot).await,
            Target::External => self.outposts.external().await,
            Target::Service { .. } | Target::ApiServer | Target::Name(_) => {
                Err(format!("{at} is no place that could be looked at"))
            }
        };
        let station = station.map_err(Trouble)?;
        station.log.since(&station.agent, since).await.map_err(|error| Trouble::new(format!("agent at {at}: {error}")))
    }

    async fn facts(&self, declared: &Declared, questions: &[FactQuestion]) -> Vec<Result<Found, Trouble>> {
        let asked: BTreeSet<&PodRef> = questions.iter().map(|question| &question.pod).collect();
        let looked = declared.pods.iter().map(async |pod| {
            let inside = asked.contains(&pod.pod);
            (pod.pod.clone(), self.view_of(&pod.pod, inside).await)
        });
        let looked: BTreeMap<PodRef, Result<PodView, String>> =
            futures::future::join_all(looked).await.into_iter().collect();
        let mut views: BTreeMap<PodRef, PodView> =
            looked.iter().filter_map(|(pod, view)| Some((pod.clone(), view.as_ref().ok()?.clone()))).collect();
        let mut deaf: BTreeMap<PodRef, String> = BTreeMap::new();
        for pod in listeners(questions) {
            match self.heard(&pod).await {
                Ok(heard) => {
                    if let Some(view) = views.get_mut(&pod) {
                        view.heard = heard;
                    }
                }
                Err(why) => drop(deaf.insert(pod, why)),
            }
        }
        let scene = Scene { world: declared, naming: &self.naming, views: &views };
        questions
            .iter()
            .map(|question| {
                let pod = declared
                    .pod(&question.pod)
                    .ok_or_else(|| Trouble(format!("no pod {} is declared", question.pod)))?;
                if let Some(Err(why)) = looked.get(&question.pod) {
                    return Err(Trouble(why.clone()));
                }
                if let Some(why) = listener(question).and_then(|pod| deaf.get(pod)) {
                    return Err(Trouble(why.clone()));
                }
                let judged = judge(&question.fact, question.family, pod, scene);
                let holds = judged.is_ok();
                Ok(Found { holds, found: judged.unwrap_or_else(|found| found) })
            })
            .collect()
    }

    async fn migrations(&self) -> Vec<Migration> {
        let mut migrations = self.vms.migrations();
        for migration in migrations.iter_mut().filter(|migration| migration.succeeded) {
            migration.announcements = self.announced_since(migration.asked_us).await;
        }
        migrations
    }

    async fn claim(&self, object: &ObjectRef, claim: &Claim) -> Result<Found, Trouble> {
        if let Some(found) = slices::claim(self, object, claim).await? {
            return Ok(found);
        }
        let real = self.real(object);
        let answer = lock(&self.answers).get(object).cloned();
        let by_answer = matches!(claim, Claim::Accepted | Claim::Refused { .. });
        let found = if by_answer { None } else { self.objects.get(&real).await? };
        let mut events = Vec::new();
        if matches!(claim, Claim::Event { .. }) {
            events = self.objects.events(&real).await?;
            for pod in
                self.vm_of(&real).filter(|_| object.kind == VM_KIND).iter().flat_map(|vm| vm::launchers(self, vm))
            {
                // What concerns a VM's network is said of its launcher pod.
                let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                let pod = Real { api_version: "v1".into(), kind: "Pod".into(), name, ..real.clone() };
                events.extend(self.objects.events(&pod).await?);
            }
        }
        let known = Known { object: found.as_ref(), events: &events, answer: answer.as_ref() };
        Ok(claims::judge(claim, known, &self.naming))
    }

    fn repeat(&self, from: &VantagePoint, shot: &Shot) -> Option<String> {
        self.command(from, shot)
    }

    async fn evidence(&self, pod: &PodRef) -> Vec<String> {
        evidence::collect(self, pod).await
    }
}
