//! The controllers survive what happens to connections, and start before the API server answers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use udn_lab_controllers::Controllers;

use crate::support::{Cluster, eventually, options, within, workload};

/// Forwards TCP connections until it is told to cut them.
struct Proxy {
    address: SocketAddr,
    refusing: Arc<AtomicBool>,
    generation: watch::Sender<u64>,
}

impl Proxy {
    async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let refusing = Arc::new(AtomicBool::new(false));
        let generation = watch::Sender::new(0);
        let (refuse, generations) = (Arc::clone(&refusing), generation.clone());
        tokio::spawn(async move {
            loop {
                let Ok((mut inward, _)) = listener.accept().await else { return };
                if refuse.load(Ordering::SeqCst) {
                    continue;
                }
                let mut cut = generations.subscribe();
                tokio::spawn(async move {
                    let Ok(mut outward) = TcpStream::connect(to).await else { return };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut inward, &mut outward) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Self { address, refusing, generation }
    }

    /// Ends all connections.
    fn cut(&self) {
        self.generation.send_modify(|generation| *generation += 1);
    }

    /// Refuses new connections, or takes them again.
    fn refuse(&self, refuse: bool) {
        self.refusing.store(refuse, Ordering::SeqCst);
    }
}

async fn client_through(cluster: &Cluster, proxy: &Proxy) -> Client {
    let kubeconfig = Kubeconfig::from_yaml(&cluster.server.kubeconfig()).unwrap();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    config.cluster_url = format!("https://{}", proxy.address).parse().unwrap();
    Client::try_from(config).unwrap()
}

/// A cluster whose controllers reach the API server through a proxy.
async fn proxied(refusing: bool) -> (Cluster, Proxy) {
    let mut cluster = Cluster::start().await;
    cluster.controllers.take().unwrap().stop().await;
    let proxy = Proxy::start(cluster.server.address).await;
    proxy.refuse(refusing);
    let client = client_through(&cluster, &proxy).await;
    cluster.controllers = Some(Controllers::start(client, options()));
    (cluster, proxy)
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_break_cost_nothing_but_time() {
    let (cluster, proxy) = proxied(false).await;
    within("synced", cluster.controllers.as_ref().unwrap().synced()).await;
    cluster.create::<Deployment>("default", workload("web", 6, json!({}))).await;
    cluster.create::<StatefulSet>("default", workload("db", 3, json!({"serviceName": "db"}))).await;
    cluster.until::<Pod>("default", "db-0", "there", |_| true).await;
    let api: Api<Deployment> = cluster.api("default");
    for replicas in [9, 3, 8, 2, 6] {
        proxy.cut();
        let scale = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        api.patch("web", &PatchParams::default(), &scale).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(30)).await;
    }
    proxy.refuse(true);
    proxy.cut();
    // Made while nobody listens.
    cluster.create::<Deployment>("default", workload("late", 2, json!({}))).await;
    cluster.api::<Pod>("default").delete("db-0", &DeleteParams::default()).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    proxy.refuse(false);
    eventually("everything is as wanted", async || {
        let pods = cluster.pods("default").await;
        let count = |app: &str| pods.iter().filter(|pod| pod.metadata.labels.as_ref().unwrap()["app"] == app).count();
        let bound = pods.iter().all(|pod| pod.spec.as_ref().unwrap().node_name.is_some());
        match (count("web"), count("late"), count("db"), bound) {
            (6, 2, 3, true) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    // It stays so.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(cluster.pods("default").await.len(), 11);
}

#[tokio::test(flavor = "multi_thread")]
async fn they_wait_for_an_api_server_that_is_not_there_yet() {
    let (cluster, proxy) = proxied(true).await;
    cluster.create::<Deployment>("default", workload("web", 2, json!({}))).await;
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert!(cluster.pods("default").await.is_empty());
    proxy.refuse(false);
    within("synced", cluster.controllers.as_ref().unwrap().synced()).await;
    eventually("two pods", async || match cluster.pods("default").await.len() {
        2 => Ok(()),
        other => Err(other.to_string()),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_set_of_controllers_takes_over() {
    let mut cluster = Cluster::start().await;
    cluster.create::<Deployment>("default", workload("web", 3, json!({}))).await;
    cluster.create::<StatefulSet>("default", workload("db", 2, json!({"serviceName": "db"}))).await;
    eventually("five pods", async || match cluster.pods("default").await.len() {
        5 => Ok(()),
        other => Err(other.to_string()),
    })
    .await;
    cluster.controllers.take().unwrap().stop().await;
    let before: Vec<_> = cluster.pods("default").await.iter().map(|pod| pod.metadata.uid.clone()).collect();
    let change = json!({"spec": {"replicas": 3}});
    let api: Api<StatefulSet> = cluster.api("default");
    api.patch("db", &PatchParams::default(), &Patch::Merge(change)).await.unwrap();
    let controllers = Controllers::start(cluster.client.clone(), options());
    cluster.until::<Pod>("default", "db-2", "the new set works", |_| true).await;
    let after: Vec<_> = cluster.pods("default").await.iter().map(|pod| pod.metadata.uid.clone()).collect();
    assert!(before.iter().all(|uid| after.contains(uid)), "nothing was made anew");
    controllers.stop().await;
}
