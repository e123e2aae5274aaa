//! The order of the bring-up: API and ground side by side, then network and controllers, then node agents.

use std::net::{Ipv4Addr, TcpListener};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::Client;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing_subscriber::EnvFilter;
use udn_lab_machines::Machines;
use udn_lab_network::Network;
use udn_lab_node::{KUBELET_PORT, Kubelet};
use udn_lab_sys::ground::Ground;
use udn_lab_sys::ground::links::Links;
use udn_lab_sys::netns::Netns;
use udn_lab_sys::sandbox::Event;
use udn_lab_sys::sandbox::channel::Channel;
use udn_lab_sys::site::{Site, Tools};

use super::answer::Answers;
use super::leave::leave;
use super::server::{AgentSide, Server};
use super::start::Start;
use super::{component, dns, objects};
use crate::control::Left;
use crate::error::Error;
use crate::pki::Authority;

/// How often memory is given back.
const TIDY: Duration = Duration::from_secs(2);

/// Runs the lab until its namespaces end. `listeners`: how many the parent hands over.
pub(crate) fn main(listeners: usize, tidy: fn()) -> ExitCode {
    let Ok(mut channel) = Channel::of_stdin() else { return ExitCode::FAILURE };
    let filter = EnvFilter::try_from_env("UDN_LAB_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    let result = runtime().and_then(|runtime| runtime.block_on(run(&mut channel, listeners, tidy)));
    if let Err(error) = result {
        let _ = channel.send(&Event::Failed { message: error.to_string() });
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Error::inside("start its runtime"))
}

/// Says to the parent what is done.
struct Steps<'a> {
    channel: &'a Channel,
    since: Instant,
}

impl Steps<'_> {
    fn at_ms(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn done(&self, step: &str) {
        // A parent that is gone takes the lab with it; nobody needs to be told.
        let _ = self.channel.send(&Event::Step { step: step.to_owned(), at_ms: self.at_ms() });
    }
}

async fn run(channel: &mut Channel, listeners: usize, tidy: fn()) -> Result<(), Error> {
    let since = Instant::now();
    let listeners: Vec<TcpListener> = (0..listeners)
        .map(|_| channel.receive_fd().map(TcpListener::from))
        .collect::<Result<_, _>>()
        .map_err(Error::inside("take over the host's listeners"))?;
    let start: Start = channel
        .receive()
        .and_then(|start| start.ok_or_else(|| std::io::Error::other("the parent is gone")))
        .map_err(Error::inside("hear what to do"))?;
    // The second of two installations is refused, and is the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let steps = Steps { channel, since };
    let (report, reported) = mpsc::unbounded_channel();

    let own = Netns::current("lab").map_err(Error::inside("look at its network namespace"))?;
    Links::open(&own)?.set_up(1).await?;
    let authority = Authority::new()?;
    let mut server = Server::start(&authority, &start.api, listeners, report.clone()).await?;
    let joined = server.joined();
    if let Err(error) = up(start, &authority, &mut server, &steps, report, reported).await {
        if let Some(client) = joined {
            let Left { kept, failed } = leave(client).await;
            kept.iter().chain(&failed).for_each(|what| tracing::warn!("stays at the API server: {what}"));
        }
        return Err(error);
    }
    let (at_ms, facts) = (steps.at_ms(), server.kubeconfig()?);
    channel.send(&Event::Ready { at_ms, facts }).map_err(Error::inside("say that it is ready"))?;
    // The end comes from outside, to the whole namespace at once.
    loop {
        sleep(TIDY).await;
        let _ = spawn_blocking(tidy).await;
    }
}

/// Brings up all that is behind the API server.
async fn up(
    start: Start,
    authority: &Authority,
    server: &mut Server,
    steps: &Steps<'_>,
    report: mpsc::UnboundedSender<String>,
    mut reported: mpsc::UnboundedReceiver<String>,
) -> Result<(), Error> {
    let client = server.client().clone();
    let step = |step: &str| steps.done(step);
    let ground = async { Ground::up(Tools { root: start.tools.clone() }, &step).await.map_err(Error::from) };
    let kinds = async {
        objects::cluster(&client).await?;
        steps.done("api");
        Ok(())
    };
    let (ground, ()) = tokio::try_join!(ground, kinds)?;
    let ground = Arc::new(ground);
    let site = ground.site();
    let Some(control_plane) = site.nodes.first() else {
        return Err(Error::inside("find its control plane")("no nodes"));
    };
    server.join(control_plane)?;

    let mut options =
        udn_lab_network::Options { api_server: server.endpoints(control_plane), ..udn_lab_network::Options::default() };
    if let Some(allowed) = &start.udn_allowed_default_services {
        options.allowed_default_services.clone_from(allowed);
    }
    let network = Network::start(client.clone(), site.clone(), options).await;
    let network = network.map_err(Error::inside("start the network"))?;
    steps.done("network");
    let records = dns::records(&site);
    let options = udn_lab_controllers::Options {
        dns_records: Some(records.clone()),
        ..server.controllers(authority, control_plane)
    };
    controllers(client.clone(), options, report.clone());
    let machines = nodes(authority, server, &start, &site, &network, &report)?;
    if server.offer(authority, machines.api(), report.clone()).await? {
        run_machines(machines, report.clone());
    }
    // A part that stops says more than the wait for what it should have done.
    tokio::select! {
        result = async {
            tokio::try_join!(objects::pods(&client, &site.nodes), dns::start(&client, &records)).map(drop)
        } => result?,
        Some(problem) = reported.recv() => return Err(Error::inside("start everything")(problem)),
    }
    server.reaches_node_agents().await?;
    steps.done("nodes");
    tokio::spawn(component::follow(client, ground.clone(), network, report));
    let looked_after = ground.clone();
    tokio::spawn(async move { looked_after.look_after().await });
    if let Some(problem) = ground.health().into_iter().next() {
        return Err(Error::inside("keep its daemons running")(problem));
    }
    Answers::serve(start, ground, server.joined(), steps.at_ms(), reported)
}

fn controllers(client: Client, options: udn_lab_controllers::Options, report: mpsc::UnboundedSender<String>) {
    tokio::spawn(async move {
        let result = udn_lab_controllers::run(client, options).await;
        let why = result.err().map_or_else(|| "without a word".into(), |error| error.to_string());
        let _ = report.send(format!("the controllers stopped: {why}"));
    });
}

/// Starts the node agents, and gets ready what runs virtual machines on their nodes.
fn nodes(
    authority: &Authority,
    server: &mut Server,
    start: &Start,
    site: &Arc<Site>,
    network: &Network,
    report: &mpsc::UnboundedSender<String>,
) -> Result<Machines, Error> {
    let client = server.client().clone();
    let mut kubelets = Vec::new();
    for node in &site.nodes {
        let AgentSide { tls, outside } = server.agent_side(authority, node)?;
        let kubelet = Kubelet::new(client.clone(), node.clone(), site.clone(), Arc::new(network.clone()), tls);
        kubelets.push(match outside {
            Some((listener, reached)) => kubelet.also_at(listener, reached),
            None => kubelet,
        });
    }
    let options = udn_lab_machines::Options {
        nodes: site.nodes.iter().zip(&kubelets).map(|(node, kubelet)| (node.name.clone(), kubelet.pods())).collect(),
        folder: site.scratch.join("machines"),
        courier: start.courier.clone(),
    };
    let machines = Machines::start(client, options);
    for (node, kubelet) in site.nodes.iter().zip(kubelets) {
        let bind = || TcpListener::bind((Ipv4Addr::UNSPECIFIED, KUBELET_PORT));
        let listener = node.netns.run(bind).and_then(|listener| listener);
        let listener = listener.map_err(Error::inside(format!("listen on {}:{KUBELET_PORT}", node.name)))?;
        let (name, report) = (node.name.clone(), report.clone());
        tokio::spawn(async move {
            if let Err(error) = kubelet.run(listener).await {
                let _ = report.send(format!("the node agent of {name} stopped: {error}"));
            }
        });
    }
    Ok(machines)
}

fn run_machines(machines: Machines, report: mpsc::UnboundedSender<String>) {
    tokio::spawn(async move {
        if let Err(error) = machines.run().await {
            let _ = report.send(error.to_string());
        }
    });
}
