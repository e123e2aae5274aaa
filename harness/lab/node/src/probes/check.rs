//! One attempt of a probe or hook. Network attempts start in the node's network namespace: a kubelet's vantage point.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, TCPSocketAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use rustix::process::Signal;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::container::job::{Job, Program};
use crate::container::spawn::Streams;
use crate::kubelet::Host;
use crate::node;
use crate::output;
use crate::pod::host_network;
use crate::pod::record::{PodCell, Run};

/// The most that is kept of what a command prints: a kubelet's limit, bytes.
const OUTPUT: usize = 10 * 1024;

/// Runs a command in the container; fails unless it ends with 0 in time. The error is what it printed.
pub(crate) async fn exec(host: &Host, run: &Arc<Run>, command: &[String], limit: Duration) -> Result<(), String> {
    let program = Program { argv: command.to_vec(), terminal: false, ..run.program.clone() };
    let attempt = async {
        let (mut reader, writer) = output::pipe_from_process()?;
        let streams = Streams { stdin: output::nothing()?, stdout: writer.try_clone()?, stderr: writer };
        let namespaces = run.process.namespaces()?;
        let started = host.spawner.spawn(Job::Join(program), namespaces, Some(streams)).await;
        let (process, _) = started.map_err(io::Error::other)?;
        let mut printed = Vec::new();
        let read = async {
            let mut chunk = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut chunk).await {
                printed.extend_from_slice(&chunk[..count.min(OUTPUT.saturating_sub(printed.len()))]);
            }
        };
        let finished = timeout(limit, async { tokio::join!(process.exited(), read).0 }).await;
        if finished.is_err() {
            process.signal(Signal::KILL);
        }
        io::Result::Ok((finished.ok(), String::from_utf8_lossy(&printed).into_owned()))
    };
    match attempt.await {
        Err(error) => Err(error.to_string()),
        Ok((None, _)) => Err(format!("command timed out: {command:?} timed out after {limit:?}")),
        Ok((Some(exit), _)) if exit.code == 0 => Ok(()),
        Ok((Some(_), printed)) => Err(printed),
    }
}

/// Asks for a page; a status from 200 to 399 is a success.
pub(crate) async fn http(
    host: &Host,
    pod: &PodCell,
    container: &Container,
    action: &HTTPGetAction,
    limit: Duration,
) -> Result<(), String> {
    if action.scheme.as_deref() == Some("HTTPS") {
        return Err("the lab's node agent does not probe HTTPS".to_owned());
    }
    let address = address(pod, container, action.host.as_deref(), &action.port)?;
    let path = action.path.as_deref().unwrap_or("/");
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let url = format!("http://{address}{path}");
    let worded = |error: String| format!("Get \"{url}\": {error}");
    let mut request = Request::get(&path).header(header::HOST, address.to_string());
    request = request.header(header::USER_AGENT, "kube-probe/1.33").header(header::ACCEPT, "*/*");
    for extra in action.http_headers.iter().flatten() {
        request = request.header(&extra.name, &extra.value);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| worded(error.to_string()))?;
    let attempt = async {
        let stream = connect(host, pod, address).await.map_err(|error| format!("dial tcp {address}: {error}"))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
            let status = response.status();
            // Reading to the end lets the server finish; what it says does not matter.
            let _ = response.into_body().collect().await;
            Ok(status)
        };
        tokio::pin!(exchange);
        tokio::select! {
            status = &mut exchange => status,
            _ = connection => exchange.await,
        }
    };
    match timeout(limit, attempt).await {
        Err(_) => Err(worded("context deadline exceeded (Client.Timeout exceeded while awaiting headers)".to_owned())),
        Ok(Err(error)) => Err(worded(error)),
        Ok(Ok(status)) if status.is_success() || status.is_redirection() => Ok(()),
        Ok(Ok(status)) => Err(format!("HTTP probe failed with statuscode: {}", status.as_u16())),
    }
}

/// Opens a connection.
pub(crate) async fn tcp(
    host: &Host,
    pod: &PodCell,
    container: &Container,
    action: &TCPSocketAction,
    limit: Duration,
) -> Result<(), String> {
    let address = address(pod, container, action.host.as_deref(), &action.port)?;
    match timeout(limit, connect(host, pod, address)).await {
        Err(_) => Err(format!("dial tcp {address}: i/o timeout")),
        Ok(Err(error)) => Err(format!("dial tcp {address}: {error}")),
        Ok(Ok(_)) => Ok(()),
    }
}

async fn connect(host: &Host, pod: &PodCell, address: SocketAddr) -> io::Result<TcpStream> {
    // A socket belongs to the namespace it was made in, wherever it is used.
    let socket = host.node.netns.run(|| match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    })??;
    if !host_network(&pod.arrival) && pod.record().ips.contains(&address.ip()) {
        // The network tells the kubelet from everything else on the node by this address. A network that needs no
        // such thing does not have it.
        let source = node::management_address(&host.node, address.is_ipv4());
        match socket.bind(SocketAddr::new(source, 0)) {
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {}
            result => result?,
        }
    }
    socket.connect(address).await
}

fn address(pod: &PodCell, container: &Container, host: Option<&str>, port: &IntOrString) -> Result<SocketAddr, String> {
    let ip: IpAddr = match host.filter(|host| !host.is_empty()) {
        Some(host) => host.parse().map_err(|_| format!("host \"{host}\" is not an address"))?,
        None => pod.record().ips.first().copied().ok_or_else(|| "the pod has no address".to_owned())?,
    };
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => container
            .ports
            .iter()
            .flatten()
            .find(|port| port.name.as_deref() == Some(name))
            .map(|port| port.container_port)
            .or_else(|| name.parse().ok()),
    };
    let port = number.and_then(|number| u16::try_from(number).ok());
    port.map(|port| SocketAddr::new(ip, port)).ok_or_else(|| "couldn't find the probe's port".to_owned())
}
