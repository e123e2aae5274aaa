//! A cluster reached through its API server: worlds, and what they share.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rand::RngExt;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedSender;
use udn_model::naming::Naming;
use udn_model::plan::Environment;
use udn_model::scenario::WorldSpec;
use udn_runner::cluster::{Cluster, Trouble, World};

use crate::cleanup::{self, Cleaned};
use crate::connect::{self, Connect, NodeInfo, Survey};
use crate::error::Error;
use crate::external_ips;
use crate::inject::Injection;
use crate::names::{prefix, selector};
use crate::nodes::{Outposts, Plan};
use crate::objects::Objects;
use crate::pods::PodWatch;
use crate::provision;
use crate::world::{KubeWorld, Setup, Station, Traces};

/// How long pods may take to get ready where nothing else is said: the first pull of an image included.
const READY_DEADLINE: Duration = Duration::from_secs(120);
/// Agents that are sent into pods at once: each is a few hundred kilobytes through the API server.
const UPLOADS: usize = 8;

/// A cluster.
pub struct Kube {
    pub(crate) objects: Objects,
    survey: Survey,
    run: String,
    image: Option<String>,
    guest_image: Option<String>,
    ready_deadline: Duration,
    pub(crate) session: u64,
    uploads: Arc<Semaphore>,
    outposts: Arc<Outposts>,
    with_nodes: bool,
    traces: Mutex<HashMap<String, Arc<Traces>>>,
}

impl fmt::Debug for Kube {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kube").field("context", &self.survey.context).field("run", &self.run).finish_non_exhaustive()
    }
}

impl Kube {
    /// Connects and finds out what the cluster offers. Creates nothing.
    ///
    /// # Errors
    /// What is wrong with the kubeconfig, or why the API server cannot be used.
    pub async fn connect(connect: Connect) -> Result<Self, Error> {
        let (client, address, context) = connect::client(&connect).await?;
        let objects = Objects::new(client);
        let survey = connect::survey(&objects, &address, context, &connect).await?;
        let ready_deadline = connect.ready_deadline.unwrap_or(READY_DEADLINE);
        let session = rand::rng().random_range(1..=u64::MAX);
        let uploads = Arc::new(Semaphore::new(UPLOADS));
        let plan = Plan {
            run: connect.run.clone(),
            image: connect.image.clone(),
            session,
            uploads: uploads.clone(),
            nodes: survey.nodes.clone(),
            external: survey.external.clone(),
            deadline: ready_deadline,
        };
        Ok(Self {
            outposts: Arc::new(Outposts::new(objects.clone(), plan)),
            objects,
            survey,
            run: connect.run,
            image: connect.image,
            guest_image: connect.guest_image,
            ready_deadline,
            session,
            uploads,
            with_nodes: !connect.without_host_network,
            traces: Mutex::default(),
        })
    }

    /// What cells may count on.
    #[must_use]
    pub const fn environment(&self) -> &Environment {
        &self.survey.environment
    }

    /// Kubernetes, OVN, Open vSwitch.
    #[must_use]
    pub const fn versions(&self) -> &BTreeMap<String, String> {
        &self.survey.versions
    }

    /// The kubeconfig's context.
    #[must_use]
    pub fn context(&self) -> &str {
        &self.survey.context
    }

    /// The run's id.
    #[must_use]
    pub fn run(&self) -> &str {
        &self.run
    }

    /// Schedulable nodes by slot.
    #[must_use]
    pub fn nodes(&self) -> &[NodeInfo] {
        &self.survey.nodes
    }

    /// Removes everything that carries a run's label: of one run, or of every run that left something behind.
    ///
    /// # Errors
    /// What could not be removed.
    pub async fn cleanup(&self, run: Option<&str>) -> Result<Cleaned, Error> {
        cleanup::by_label(&self.objects, run).await
    }

    pub(crate) async fn external_station(&self) -> Result<Arc<Station>, String> {
        self.outposts.external().await
    }

    fn traces_of(&self, instance: &str) -> Arc<Traces> {
        lock(&self.traces).entry(instance.into()).or_default().clone()
    }

    async fn make(
        &self,
        spec: &WorldSpec,
        instance: &str,
        progress: &UnboundedSender<String>,
    ) -> Result<KubeWorld, Error> {
        let naming = Naming::new(&prefix(&self.run, instance)).knowing(&spec.manifests);
        let seed = format!("{}/{instance}", self.run);
        let external_ips =
            external_ips::choose(&self.objects, &self.survey.external_ips, &seed, &spec.manifests).await?;
        let injection = Injection {
            run: self.run.clone(),
            instance: instance.into(),
            external_ips,
            nodes: self.survey.nodes.iter().map(|node| node.hostname.clone()).collect(),
            image: self.image.clone(),
            guest_image: self.guest_image.clone(),
        };
        let client = self.objects.client.clone();
        let world = KubeWorld::new(Setup {
            objects: self.objects.clone(),
            injection,
            naming,
            pods: PodWatch::start(client, &selector(&self.run, Some(instance))),
            ready_deadline: self.ready_deadline,
            outposts: self.outposts.clone(),
            uploads: self.uploads.clone(),
            session: self.session,
            traces: self.traces_of(instance),
            api_server: self.survey.api_server.clone(),
            dns: self.survey.dns.clone(),
        });
        let manifests = spec.manifests.iter().map(|manifest| world.inject(manifest)).collect::<Result<Vec<_>, _>>()?;
        let told = |line: String| {
            // Nobody may be listening.
            let _ = progress.send(line);
        };
        let nodes = async {
            // Cells from and to nodes say themselves what went wrong there.
            if self.with_nodes
                && let Err(why) = self.outposts.nodes().await
            {
                told(format!("no vantage points in host networks: {why}"));
            }
        };
        let outside = async {
            if self.outposts.has_outside()
                && let Err(why) = self.outposts.external().await
            {
                told(format!("no vantage point outside of the cluster: {why}"));
            }
        };
        let (made, (), ()) = tokio::join!(provision::make(&world, &manifests, told), nodes, outside);
        made.map(|()| world)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Cluster for Kube {
    async fn provision(
        &self,
        spec: &WorldSpec,
        instance: &str,
        progress: UnboundedSender<String>,
    ) -> Result<Arc<dyn World>, Trouble> {
        let world = self.make(spec, instance, &progress).await?;
        Ok(Arc::new(world))
    }

    async fn remove(&self, instance: &str) -> Result<(), Trouble> {
        let traces = self.traces_of(instance);
        cleanup::remove(&self.objects, traces.roots()).await?;
        Ok(())
    }

    async fn finish(&self) -> Result<(), Trouble> {
        self.outposts.leave().await;
        // By label: what a broken-off request made after its world was removed is found, too.
        cleanup::sweep(&self.objects, &self.run).await?;
        Ok(())
    }
}
