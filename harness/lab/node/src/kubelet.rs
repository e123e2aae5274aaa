//! One node: its tasks and what they share.

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;

use kube::Client;
use rustls::ServerConfig;
use udn_lab_sys::pod::PodNetwork;
use udn_lab_sys::site::{NodeSite, Site};

use crate::container::spawn::Spawner;
use crate::error::Error;
use crate::events::Events;
use crate::images::Images;
use crate::node::Registered;
use crate::node_pods::NodePods;
use crate::pod::Pods;
use crate::{node, pod, server};

/// The port of exec and logs on every node: a kubelet's default.
pub const KUBELET_PORT: u16 = 10250;

/// A node agent.
pub struct Kubelet {
    client: Client,
    node: NodeSite,
    site: Arc<Site>,
    network: Arc<dyn PodNetwork>,
    tls: Arc<ServerConfig>,
    pods: Pods,
    also: Option<(TcpListener, Reached)>,
}

/// Where an API server finds a node agent that cannot get to the node's own addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    /// The node's address of type `Hostname`, which API servers prefer.
    pub host: String,
    /// The port of exec and logs there.
    pub port: u16,
}

/// What the tasks of a node agent share.
pub(crate) struct Host {
    pub client: Client,
    pub node: NodeSite,
    pub site: Arc<Site>,
    pub network: Arc<dyn PodNetwork>,
    pub images: Images,
    pub spawner: Spawner,
    pub events: Events,
    /// The node's part of the scratch directory.
    pub directory: PathBuf,
    pub pods: Pods,
}

impl Kubelet {
    /// A node agent for `node`. `tls` is the server side of exec and logs; it says whose client certificates count.
    #[must_use]
    pub fn new(
        client: Client,
        node: NodeSite,
        site: Arc<Site>,
        network: Arc<dyn PodNetwork>,
        tls: Arc<ServerConfig>,
    ) -> Self {
        Self { client, node, site, network, tls, pods: Pods::default(), also: None }
    }

    /// The node's pods, for what else runs on the node.
    #[must_use]
    pub fn pods(&self) -> NodePods {
        NodePods::new(self.pods.clone())
    }

    /// Serves on another listener too, and tells API servers to come there.
    #[must_use]
    pub fn also_at(self, listener: TcpListener, reached: Reached) -> Self {
        Self { also: Some((listener, reached)), ..self }
    }

    /// Registers the node and runs its pods until something fails for good; does not return otherwise.
    ///
    /// `listener` is for exec and logs; the API server finds it at the node's address, port [`KUBELET_PORT`].
    /// This process becomes a "child subreaper" (`prctl(2)`): containers are reaped here.
    ///
    /// Dropping the future kills the containers.
    ///
    /// # Errors
    /// [`Error`]: the scratch directory cannot be used, the API server refuses the node, or the listener fails.
    pub async fn run(self, listener: TcpListener) -> Result<(), Error> {
        let Self { client, node, site, network, tls, pods, also } = self;
        let name = node.name.clone();
        let directory = site.scratch.join(&name);
        let prepare =
            |source| Error::Prepare { node: name.clone(), directory: directory.display().to_string(), source };
        let images = {
            let (site, node, directory) = (Arc::clone(&site), node.clone(), directory.join("images"));
            tokio::task::spawn_blocking(move || Images::prepare(&site, &node, &directory))
                .await
                .map_err(|error| prepare(std::io::Error::other(error)))?
                .map_err(prepare)?
        };
        let spawner = Spawner::new(site.program.clone()).map_err(prepare)?;
        let (events, write_events) = Events::new(client.clone(), name.clone());
        let host = Arc::new(Host {
            client: client.clone(),
            node: node.clone(),
            site,
            network,
            images,
            spawner,
            events,
            directory,
            pods,
        });
        let (also, reached) = also.unzip();
        let listeners: Vec<TcpListener> = [Some(listener), also].into_iter().flatten().collect();
        let serve = server::serve(Arc::clone(&host), listeners, tls);
        let registered = Registered { node: node.clone(), reached };
        node::register(&client, &registered)
            .await
            .map_err(|source| Error::Register { node: name.clone(), source: Box::new(source) })?;
        let ended = |task| Error::Ended { node: name.clone(), task, reason: "its stream ended".into() };
        tokio::select! {
            () = write_events => Err(ended("event")),
            () = node::keep_alive(client, registered) => Err(ended("lease")),
            () = pod::run(Arc::clone(&host)) => Err(ended("pod")),
            result = serve => {
                result.map_err(|source| Error::Serve { node: name.clone(), source })?;
                Err(ended("server"))
            }
        }
    }
}
