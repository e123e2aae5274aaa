//! A cluster for one test: an API server on loopback, the controllers, and a kubelet that runs nothing.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Event, Namespace, Pod};
use kube::api::{Api, ListParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::{Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use udn_lab_apiserver::testing::TestServer;
use udn_lab_controllers::{Controllers, KubernetesService, Options};

use crate::kubelet;

/// Everything is expected to happen within this.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A running cluster. It ends when this is dropped.
pub(crate) struct Cluster {
    pub(crate) client: Client,
    pub(crate) server: TestServer,
    pub(crate) controllers: Option<Controllers>,
    tasks: tokio::task::JoinSet<()>,
}

impl Cluster {
    /// Three ready nodes, all controllers.
    pub(crate) async fn start() -> Self {
        Self::with(options()).await
    }

    pub(crate) async fn with(options: Options) -> Self {
        let _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_test_writer()
            .try_init();
        let server = TestServer::start().await.unwrap();
        let client = server.client().await.unwrap();
        let mut tasks = tokio::task::JoinSet::new();
        for name in kubelet::NODES {
            kubelet::add_node(&client, name).await;
        }
        tasks.spawn(kubelet::run(client.clone()));
        let controllers = Controllers::start(client.clone(), options);
        within("the caches are filled", controllers.synced()).await;
        Self { client, server, controllers: Some(controllers), tasks }
    }

    /// Stops the kubelet: pods stay as they are.
    pub(crate) fn freeze_pods(&mut self) {
        self.tasks.abort_all();
    }

    pub(crate) fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Creates an object from JSON in a namespace.
    pub(crate) async fn create<K>(&self, namespace: &str, object: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned + Serialize + Clone + Debug,
    {
        let object: K = serde_json::from_value(object).unwrap();
        self.api(namespace).create(&PostParams::default(), &object).await.unwrap()
    }

    pub(crate) async fn namespace(&self, name: &str) {
        let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        let api: Api<Namespace> = Api::all(self.client.clone());
        api.create(&PostParams::default(), &namespace).await.unwrap();
    }

    /// All objects of a kind in a namespace.
    pub(crate) async fn list<K>(&self, namespace: &str) -> Vec<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned + Clone + Debug,
    {
        self.api(namespace).list(&ListParams::default()).await.unwrap().items
    }

    /// Pods of a namespace that are not being deleted, by name.
    pub(crate) async fn pods(&self, namespace: &str) -> Vec<Pod> {
        let mut pods: Vec<Pod> = self.list(namespace).await;
        pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
        pods.sort_by_key(|pod| pod.name_any());
        pods
    }

    /// Waits until a condition over an object holds.
    pub(crate) async fn until<K>(&self, namespace: &str, name: &str, what: &str, holds: impl Fn(&K) -> bool) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned + Clone + Debug,
    {
        let api: Api<K> = self.api(namespace);
        eventually(what, async || {
            let found = api.get_opt(name).await.unwrap();
            match found {
                Some(object) if holds(&object) => Ok(object),
                other => Err(format!("{other:#?}")),
            }
        })
        .await
    }

    /// Waits for an event with this reason whose message contains a text.
    pub(crate) async fn event(&self, namespace: &str, reason: &str, text: &str) -> Event {
        eventually(&format!("an event {reason} with {text:?}"), async || {
            let events: Vec<Event> = self.list(namespace).await;
            let fits = |event: &&Event| {
                event.reason.as_deref() == Some(reason) && event.message.as_deref().is_some_and(|m| m.contains(text))
            };
            let all = events.iter().map(|e| format!("{:?} {:?}", e.reason, e.message)).collect::<Vec<_>>();
            events.iter().find(fits).cloned().ok_or(format!("{all:#?}"))
        })
        .await
    }
}

/// Options with the lab's values.
pub(crate) fn options() -> Options {
    let service = KubernetesService { addresses: vec!["172.18.0.2".parse().unwrap()], ..KubernetesService::default() };
    Options { kubernetes_service: Some(service), root_ca: "PEM".into(), ..Options::default() }
}

/// Fails if something takes too long.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("not within {DEADLINE:?}: {what}"),
    }
}

/// Asks again every 5 ms until the answer is good; fails with the last bad one.
pub(crate) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Result<T, String>) -> T {
    let begin = Instant::now();
    loop {
        match ask().await {
            Ok(value) => return value,
            Err(last) if begin.elapsed() > DEADLINE => panic!("not within {DEADLINE:?}: {what}; last seen: {last}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

/// A pod template with one container.
pub(crate) fn template(app: &str, image: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": app}},
        "spec": {"containers": [{"name": "main", "image": image, "ports": [{"name": "http", "containerPort": 8080}]}]},
    })
}

/// A workload's `spec` with selector and template.
pub(crate) fn workload(name: &str, replicas: i32, more: Value) -> Value {
    let mut spec = json!({
        "replicas": replicas,
        "selector": {"matchLabels": {"app": name}},
        "template": template(name, "agnhost:1"),
    });
    merge(&mut spec, more);
    json!({"metadata": {"name": name}, "spec": spec})
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}
