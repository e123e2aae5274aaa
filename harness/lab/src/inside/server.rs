//! The API server that the lab is behind: its own, or one that was there before.

use std::collections::VecDeque;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use axum::Router;
use kube::Client;
use rustls::ServerConfig;
use tokio::sync::mpsc;
use udn_lab_controllers::KubernetesService;
use udn_lab_machines::{API_GROUP, API_VERSION};
use udn_lab_node::Reached;
use udn_lab_sys::site::NodeSite;

use super::api::{self, Api};
use super::joined::Joined;
use super::objects::{EXTERNAL_NAMESPACE, EXTERNAL_POD};
use super::offer::offer;
use super::start::ApiSide;
use crate::error::Error;
use crate::pki::Authority;

/// One of both.
pub(super) enum Server {
    Own(Box<Api>),
    There {
        joined: Box<Joined>,
        /// For the node agents, in the order of their nodes, and last for the machines' API.
        listeners: VecDeque<(TcpListener, u16)>,
    },
}

/// What a node agent needs of the API server.
pub(super) struct AgentSide {
    /// Who may speak to it.
    pub(super) tls: Arc<ServerConfig>,
    /// Where it is reached besides its node's address.
    pub(super) outside: Option<(TcpListener, Reached)>,
}

impl Server {
    /// Starts the lab's own, or gets to know the other one.
    pub(super) async fn start(
        authority: &Authority,
        side: &ApiSide,
        listeners: Vec<TcpListener>,
        report: mpsc::UnboundedSender<String>,
    ) -> Result<Self, Error> {
        let mut listeners = listeners.into_iter();
        match side {
            ApiSide::Own { port } => {
                let host = listeners.next().ok_or_else(|| Error::inside("take over its listener")("there is none"))?;
                Api::start(authority, host, *port, report).await.map(|api| Self::Own(Box::new(api)))
            }
            ApiSide::Joined { server, relay, ports } => {
                let joined = Box::new(Joined::start((**server).clone(), relay.clone()).await?);
                Ok(Self::There { joined, listeners: listeners.zip(ports.iter().copied()).collect() })
            }
        }
    }

    /// For everything inside.
    pub(super) fn client(&self) -> &Client {
        match self {
            Self::Own(api) => &api.client,
            Self::There { joined, .. } => &joined.client,
        }
    }

    /// For what is to be removed again from a server that was there before.
    pub(super) fn joined(&self) -> Option<Client> {
        match self {
            Self::Own(_) => None,
            Self::There { joined, .. } => Some(joined.client.clone()),
        }
    }

    /// Whether it gets through to the node agents, once the external host's pod runs.
    pub(super) async fn reaches_node_agents(&self) -> Result<(), Error> {
        match self {
            // It is the lab's, as they are.
            Self::Own(_) => Ok(()),
            Self::There { joined, .. } => joined.reaches_node_agents(EXTERNAL_NAMESPACE, EXTERNAL_POD).await,
        }
    }

    /// For the host.
    pub(super) fn kubeconfig(&self) -> Result<serde_json::Value, Error> {
        let kubeconfig = match self {
            Self::Own(api) => &api.kubeconfig,
            Self::There { joined, .. } => &joined.existing.kubeconfig,
        };
        serde_json::to_value(kubeconfig).map_err(Error::inside("write its kubeconfig"))
    }

    /// Makes it reachable at the control plane node.
    pub(super) fn join(&self, control_plane: &NodeSite) -> Result<(), Error> {
        match self {
            Self::Own(api) => api.join(control_plane),
            Self::There { joined, .. } => joined.join(control_plane),
        }
    }

    /// Where services lead that are for the API server, if not where its endpoints say.
    pub(super) fn endpoints(&self, control_plane: &NodeSite) -> Vec<SocketAddr> {
        match self {
            Self::Own(_) => Vec::new(),
            Self::There { .. } => [control_plane.ipv4.into(), control_plane.ipv6.into()]
                .map(|address| SocketAddr::new(address, api::PORT))
                .into(),
        }
    }

    /// What the lab's controllers are to do: all that nobody else does.
    pub(super) fn controllers(&self, authority: &Authority, control_plane: &NodeSite) -> udn_lab_controllers::Options {
        let options = udn_lab_controllers::Options {
            load_balancer_pool: Some(udn_lab_controllers::LoadBalancerPool::default()),
            ..udn_lab_controllers::Options::default()
        };
        match self {
            Self::Own(_) => udn_lab_controllers::Options {
                kubernetes_service: Some(KubernetesService {
                    addresses: vec![control_plane.ipv4.into(), control_plane.ipv6.into()],
                    port: api::PORT,
                    ..KubernetesService::default()
                }),
                root_ca: authority.pem().to_owned(),
                ..options
            },
            Self::There { joined, .. } => udn_lab_controllers::Options {
                root_ca: joined.existing.authority(),
                scheduler: !joined.others.scheduler,
                workloads: !joined.others.controllers,
                ..options
            },
        }
    }

    /// What the agent of a node needs; to be asked once for each node, in their order.
    pub(super) fn agent_side(&mut self, authority: &Authority, node: &NodeSite) -> Result<AgentSide, Error> {
        match self {
            Self::Own(_) => {
                let tls = authority.private_server(&[&node.name], &[node.ipv4.into(), node.ipv6.into()])?;
                Ok(AgentSide { tls: Arc::new(tls), outside: None })
            }
            Self::There { joined, listeners } => {
                let tls = joined.node_agent(authority, node)?;
                let outside = listeners.pop_front();
                let reached = |(listener, port)| (listener, Reached { host: "localhost".into(), port });
                Ok(AgentSide { tls: Arc::new(tls), outside: outside.map(reached) })
            }
        }
    }

    /// Serves the machines' API behind the API server; returns whether that aggregates APIs at all.
    pub(super) async fn offer(
        &mut self,
        authority: &Authority,
        machines: Router,
        problems: mpsc::UnboundedSender<String>,
    ) -> Result<bool, Error> {
        match self {
            Self::Own(api) => {
                api.server.aggregate(API_GROUP, API_VERSION, machines);
                Ok(true)
            }
            Self::There { joined, listeners } => {
                let listener = listeners.pop_front();
                let listener =
                    listener.ok_or_else(|| Error::inside("serve the machines' API")("no listener is left"))?;
                offer(joined, authority, listener, machines, problems).await
            }
        }
    }
}
