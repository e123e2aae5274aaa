//! Starts all controllers on shared caches.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Namespace, Node, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use kube::api::Api;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher;
use tokio::sync::watch;
use tokio::task::{Id, JoinSet};

use crate::Error;
use crate::daemonset::DaemonSets;
use crate::deployment::Deployments;
use crate::dns::{self, Dns};
use crate::endpoints::EndpointsController;
use crate::endpoints::kubernetes::{self, KubernetesService};
use crate::events::Recorder;
use crate::garbage::Garbage;
use crate::inventory::Inventory;
use crate::job::Jobs;
use crate::kinds::{self, Kinds};
use crate::loadbalancer::pool::Pool as LoadBalancerPool;
use crate::loadbalancer::{self, LoadBalancers};
use crate::namespace::Namespaces;
use crate::nodes::{LEASES, Nodes};
use crate::objects::{Kind, Objects};
use crate::replicaset::ReplicaSets;
use crate::scheduler::Scheduler;
use crate::serviceaccount::ServiceAccounts;
use crate::statefulset::StatefulSets;

/// What the controllers need to know besides the API server.
#[derive(Clone, Debug)]
pub struct Options {
    /// The service `default/kubernetes`; `None` where the API server writes it by itself.
    pub kubernetes_service: Option<KubernetesService>,
    /// PEM text of the cluster's certificate, for the config map `kube-root-ca.crt` of every namespace.
    pub root_ca: String,
    /// Where names for the cluster's DNS server are written; `None`: nowhere.
    pub dns_records: Option<PathBuf>,
    /// Whether pods are given nodes; not where a scheduler does.
    pub scheduler: bool,
    /// Whether workloads become pods, services get endpoints, and what is deleted takes with it what it must; not where
    /// kube-controller-manager does.
    pub workloads: bool,
    /// Where services of type LoadBalancer get their addresses; `None` where somebody else gives them.
    pub load_balancer_pool: Option<LoadBalancerPool>,
    /// A node whose lease was not renewed for so long is not ready. Default: 40 s, as upstream until 1.31 (50 s since).
    pub node_grace: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            kubernetes_service: None,
            root_ca: String::new(),
            dns_records: None,
            scheduler: true,
            workloads: true,
            load_balancer_pool: None,
            node_grace: Duration::from_secs(40),
        }
    }
}

/// All controllers, running. They end when this is dropped.
#[derive(Debug)]
pub struct Controllers {
    tasks: JoinSet<()>,
    names: HashMap<Id, &'static str>,
    synced: watch::Receiver<bool>,
}

/// Runs all controllers until one of them ends, which none does by itself.
///
/// # Errors
///
/// [`Error::Stopped`] if a controller panicked. Everything else is retried.
pub async fn run(client: Client, options: Options) -> Result<(), Error> {
    Controllers::start(client, options).wait().await
}

impl Controllers {
    /// Starts all controllers. The API server need not answer yet: they wait for it.
    ///
    /// The client needs all rights. Must be called within a tokio runtime.
    #[must_use]
    pub fn start(client: Client, options: Options) -> Self {
        let (done, synced) = watch::channel(false);
        let mut start = Start { client, tasks: JoinSet::new(), names: HashMap::new(), syncing: Vec::new() };
        start.all(options);
        let syncing = std::mem::take(&mut start.syncing);
        start.spawn("caches", async move {
            futures::future::join_all(syncing).await;
            done.send_replace(true);
            // Keeps the sender, so that whoever asks later hears it too.
            done.closed().await;
            std::future::pending().await
        });
        Self { tasks: start.tasks, names: start.names, synced }
    }

    /// Waits until the first list of every kind has arrived.
    pub async fn synced(&self) {
        // An error means that the tasks are gone: `wait` tells why.
        let _ = self.synced.clone().wait_for(|synced| *synced).await;
    }

    /// Waits until a controller ends, which none does by itself; then stops the others.
    ///
    /// # Errors
    ///
    /// [`Error::Stopped`] with the controller's name.
    pub async fn wait(mut self) -> Result<(), Error> {
        loop {
            let (id, reason) = match self.tasks.join_next_with_id().await {
                None => return Ok(()),
                Some(Ok((id, ()))) if self.names.get(&id) == Some(&ONCE) => continue,
                Some(Ok((id, ()))) => (id, "it returned".to_owned()),
                Some(Err(error)) => (error.id(), error.to_string()),
            };
            let task = self.names.get(&id).copied().unwrap_or("unknown").to_owned();
            return Err(Error::Stopped { task, reason });
        }
    }

    /// Stops all controllers and waits until they ended.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

/// Name of tasks that may end.
const ONCE: &str = "once";

struct Start {
    client: Client,
    tasks: JoinSet<()>,
    names: HashMap<Id, &'static str>,
    syncing: Vec<futures::future::BoxFuture<'static, ()>>,
}

/// What several controllers look at.
#[derive(Clone)]
struct Common {
    events: Recorder,
    pods: Objects<Pod>,
    nodes: Objects<Node>,
    namespaces: Objects<Namespace>,
    services: Objects<Service>,
    slices: Objects<EndpointSlice>,
}

impl Start {
    fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let id = self.tasks.spawn(task).id();
        self.names.insert(id, name);
    }

    /// Watches what an API lists.
    fn watch<K: Kind>(&mut self, api: Api<K>) -> Objects<K> {
        let objects: Objects<K> = Objects::new(&self.client);
        self.spawn("watch", objects.cache.clone().watch(api, watcher::Config::default()));
        let cache = objects.cache.clone();
        self.syncing.push(Box::pin(async move { cache.synced().await }));
        objects
    }

    /// Watches a kind in all namespaces.
    fn everywhere<K: Kind>(&mut self) -> Objects<K> {
        let api = Api::all(self.client.clone());
        self.watch(api)
    }

    fn all(&mut self, options: Options) {
        let client = self.client.clone();
        let (events, writing) = Recorder::new(client.clone(), "controllers");
        self.spawn("events", writing);
        let common = Common {
            events,
            pods: self.everywhere(),
            nodes: self.everywhere(),
            namespaces: self.everywhere(),
            services: self.everywhere(),
            slices: self.everywhere(),
        };
        if let Some(file) = options.dns_records {
            let maps: Objects<ConfigMap> = self.watch(Api::namespaced(client.clone(), dns::NAMESPACE));
            let (services, slices, namespaces) =
                (common.services.clone(), common.slices.clone(), common.namespaces.clone());
            self.spawn("dns", Dns { services, slices, namespaces, maps, file }.run());
        }
        if let Some(pool) = options.load_balancer_pool {
            let balancers = LoadBalancers {
                services: common.services.clone(),
                pool,
                events: common.events.named(loadbalancer::COMPONENT),
                refused: Arc::default(),
            };
            self.spawn("load balancers", balancers.run());
        }
        if let Some(service) = options.kubernetes_service {
            self.spawn(ONCE, kubernetes::run(client.clone(), service));
        }
        if options.scheduler {
            let Common { pods, nodes, namespaces, events, .. } = common.clone();
            self.spawn("scheduler", Scheduler::new(client, pods, nodes, namespaces, events).run());
        }
        if options.workloads {
            self.workloads(common, options.root_ca, options.node_grace);
        }
    }

    /// What kube-controller-manager does.
    fn workloads(&mut self, common: Common, root_ca: String, node_grace: Duration) {
        let client = self.client.clone();
        let Common { events, pods, nodes, namespaces, services, slices } = common;
        let sets: Objects<ReplicaSet> = self.everywhere();
        let deployments: Objects<Deployment> = self.everywhere();
        let stateful: Objects<StatefulSet> = self.everywhere();
        let daemons: Objects<DaemonSet> = self.everywhere();
        let jobs: Objects<Job> = self.everywhere();
        let revisions: Objects<ControllerRevision> = self.everywhere();
        let legacy: Objects<Endpoints> = self.everywhere();
        let accounts: Objects<PartialObjectMeta<ServiceAccount>> = self.everywhere();
        let maps: Objects<PartialObjectMeta<ConfigMap>> = self.everywhere();
        let leases: Objects<Lease> = self.watch(Api::namespaced(client.clone(), LEASES));

        let inventory = Inventory::new();
        inventory.report(&pods.cache);
        inventory.report(&nodes.cache);
        inventory.report(&namespaces.cache);
        inventory.report(&sets.cache);
        inventory.report(&deployments.cache);
        inventory.report(&stateful.cache);
        inventory.report(&daemons.cache);
        inventory.report(&jobs.cache);
        inventory.report(&revisions.cache);
        inventory.report(&services.cache);
        inventory.report(&slices.cache);
        inventory.report(&legacy.cache);
        inventory.report(&accounts.cache);
        inventory.report(&maps.cache);
        let (send_kinds, kinds) = watch::channel(Kinds::new());
        self.spawn("kinds", kinds::follow(client.clone(), send_kinds));
        self.spawn("inventory", inventory.clone().run(client.clone(), kinds.clone()));
        self.spawn("garbage", Garbage { client: client.clone(), inventory: inventory.clone(), kinds }.run());
        self.spawn(
            "namespaces",
            Namespaces { client: client.clone(), namespaces: namespaces.clone(), inventory }.run(),
        );
        self.spawn(
            "service accounts",
            ServiceAccounts {
                client: client.clone(),
                namespaces: namespaces.clone(),
                accounts: accounts.cache,
                maps: maps.cache,
                root_ca,
            }
            .run(),
        );
        self.spawn(
            "nodes",
            Nodes {
                nodes: nodes.clone(),
                leases,
                pods: pods.clone(),
                events: events.named("node-controller"),
                grace: node_grace,
                heard: Arc::new(Mutex::new(HashMap::new())),
            }
            .run(),
        );
        self.spawn(
            "replica sets",
            ReplicaSets { sets: sets.clone(), pods: pods.clone(), events: events.named("replicaset-controller") }.run(),
        );
        self.spawn(
            "deployments",
            Deployments { deployments, sets, pods: pods.clone(), events: events.named("deployment-controller") }.run(),
        );
        self.spawn(
            "stateful sets",
            StatefulSets {
                client: client.clone(),
                sets: stateful,
                pods: pods.clone(),
                revisions: revisions.clone(),
                events: events.named("statefulset-controller"),
            }
            .run(),
        );
        self.spawn(
            "daemon sets",
            DaemonSets {
                sets: daemons,
                pods: pods.clone(),
                nodes,
                revisions,
                events: events.named("daemonset-controller"),
            }
            .run(),
        );
        self.spawn("jobs", Jobs { jobs, pods: pods.clone(), events: events.named("job-controller") }.run());
        self.spawn("endpoints", EndpointsController { services, pods, slices, legacy }.run());
    }
}
