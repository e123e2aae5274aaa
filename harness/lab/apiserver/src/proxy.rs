//! Exec, attach, port-forward and logs, through the kubelet of the pod's node.

use std::net::IpAddr;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tracing::debug;

use crate::json::{int, list, name, namespace, text};
use crate::request::{Options, Target};
use crate::server::Cluster;
use crate::status::Rejection;

/// Port of a kubelet that its node does not name.
const KUBELET_PORT: u16 = 10250;

/// Longest error text of a kubelet that is passed on.
const LONGEST_ERROR: usize = 64 * 1024;

/// A kubelet.
struct Place {
    address: IpAddr,
    port: u16,
}

fn pod(cluster: &Cluster, target: &Target) -> Result<std::sync::Arc<Value>, Rejection> {
    cluster
        .store
        .get("pods", target.namespace_key(), target.name_key())
        .ok_or_else(|| Rejection::not_found(&target.resource.in_texts(), target.name_key()))
}

/// The kubelet that runs a pod.
fn place(cluster: &Cluster, pod: &Value) -> Result<Place, Rejection> {
    let node_name = text(pod, &["spec", "nodeName"]);
    if node_name.is_empty() {
        return Err(Rejection::bad_request(format!("pod {} does not have a host assigned", name(pod))));
    }
    let nodes = crate::status::GroupResource { group: "", resource: "nodes" };
    let node = cluster.store.get("nodes", "", node_name).ok_or_else(|| Rejection::not_found(&nodes, node_name))?;
    let address = list(&node, &["status", "addresses"])
        .iter()
        .filter(|one| one["type"] == "InternalIP")
        .find_map(|one| text(one, &["address"]).parse().ok())
        .ok_or_else(|| {
            Rejection::internal(format!("no preferred addresses found; node {node_name} has no InternalIP"))
        })?;
    let port = int(&node, &["status", "daemonEndpoints", "kubeletEndpoint", "Port"])
        .and_then(|port| u16::try_from(port).ok())
        .filter(|port| *port != 0)
        .unwrap_or(KUBELET_PORT);
    Ok(Place { address, port })
}

/// The container that the call is about: the named one, or the only one, or the one that the pod's annotation prefers.
fn container(pod: &Value, options: &Options) -> Result<String, Rejection> {
    let names = |key: &str| list(pod, &["spec", key]).iter().map(|one| text(one, &["name"])).collect::<Vec<_>>();
    let own = names("containers");
    let init = names("initContainers");
    let ephemeral = names("ephemeralContainers");
    if let Some(wanted) = options.get("container") {
        if own.contains(&wanted) || init.contains(&wanted) || ephemeral.contains(&wanted) {
            return Ok(wanted.to_owned());
        }
        return Err(Rejection::bad_request(format!("container {wanted} is not valid for pod {}", name(pod))));
    }
    match own.as_slice() {
        [only] => Ok((*only).to_owned()),
        _ => {
            let init = if init.is_empty() {
                String::new()
            } else {
                format!(" or one of the init containers: [{}]", init.join(" "))
            };
            Err(Rejection::bad_request(format!(
                "a container name must be specified for pod {}, choose one of: [{}]{init}",
                name(pod),
                own.join(" ")
            )))
        }
    }
}

fn encode(part: &str) -> String {
    utf8_percent_encode(part, NON_ALPHANUMERIC).to_string()
}

/// Exec, attach and port-forward: the client's upgrade is handed to the kubelet, and then the bytes of both.
pub(crate) async fn stream(
    cluster: &Cluster,
    target: &Target,
    options: &Options,
    request: Request,
) -> Result<Response, Rejection> {
    if !matches!(*request.method(), Method::GET | Method::POST) {
        return Err(Rejection::method_not_allowed());
    }
    let pod = pod(cluster, target)?;
    let kind = target.subresource.as_deref().unwrap_or_default();
    let root = if kind == "portforward" { "portForward" } else { kind };
    let mut path = format!("/{root}/{}/{}", encode(namespace(&pod)), encode(name(&pod)));
    if kind != "portforward" {
        path += &format!("/{}", encode(&container(&pod, options)?));
    }
    if let Some(query) = request.uri().query() {
        path += &format!("?{query}");
    }
    upgrade(cluster, &place(cluster, &pod)?, &path, request).await
}

/// Hands the client's upgrade to a kubelet's path, and then the bytes of both.
async fn upgrade(cluster: &Cluster, place: &Place, path: &str, mut request: Request) -> Result<Response, Rejection> {
    if !request.headers().contains_key(header::UPGRADE) {
        return Err(Rejection::bad_request(format!(
            "unable to upgrade: missing upgrade headers in request: {:?}",
            request.headers().get(header::CONNECTION)
        )));
    }
    let client = hyper::upgrade::on(&mut request);
    let forwarded = forwarded(request.method(), path, request.headers(), place)?;
    let mut answer = send(cluster, place, forwarded).await?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let (parts, body) = answer.into_parts();
        return Ok(Response::from_parts(parts, Body::new(body)));
    }
    let kubelet = hyper::upgrade::on(&mut answer);
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = std::mem::take(answer.headers_mut());
    tokio::spawn(async move {
        let (client, kubelet) = match tokio::try_join!(client, kubelet) {
            Ok(both) => both,
            Err(error) => return debug!(%error, "an upgraded connection ended before it began"),
        };
        join(TokioIo::new(client), TokioIo::new(kubelet)).await;
    });
    Ok(response)
}

/// Carries bytes both ways until the kubelet has said everything. A kubelet that listens no more (its process ended
/// while the client still sends) may still have an answer on its way.
async fn join(client: impl AsyncRead + AsyncWrite, kubelet: impl AsyncRead + AsyncWrite) {
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_kubelet, mut to_kubelet) = tokio::io::split(kubelet);
    let up = async {
        let copied = tokio::io::copy(&mut from_client, &mut to_kubelet).await;
        debug!(?copied, "the client has said everything");
        // The kubelet learns of it; how it takes that shows in what it answers.
        let _ = to_kubelet.shutdown().await;
        std::future::pending::<()>().await;
    };
    let down = async {
        let copied = tokio::io::copy(&mut from_kubelet, &mut to_client).await;
        debug!(?copied, "the kubelet has said everything");
        let _ = to_client.shutdown().await;
    };
    tokio::select! {
        () = up => {}
        () = down => {}
    }
}

/// The client's request as the kubelet gets it: without the client's credentials.
fn forwarded(
    method: &Method,
    path: &str,
    headers: &HeaderMap,
    place: &Place,
) -> Result<http::Request<Empty<Bytes>>, Rejection> {
    let uri: Uri = path.parse().map_err(|error| Rejection::internal(format!("bad path {path:?}: {error}")))?;
    let mut request = http::Request::new(Empty::new());
    *request.method_mut() = method.clone();
    *request.uri_mut() = uri;
    for (name, value) in headers {
        if !matches!(*name, header::AUTHORIZATION | header::HOST | header::CONTENT_LENGTH | header::TRANSFER_ENCODING) {
            request.headers_mut().append(name, value.clone());
        }
    }
    let host = std::net::SocketAddr::new(place.address, place.port).to_string();
    if let Ok(host) = host.parse() {
        request.headers_mut().insert(header::HOST, host);
    }
    Ok(request)
}

async fn send(
    cluster: &Cluster,
    place: &Place,
    request: http::Request<Empty<Bytes>>,
) -> Result<http::Response<hyper::body::Incoming>, Rejection> {
    let Place { address, port, .. } = *place;
    let failed = |error: &dyn std::fmt::Display| {
        Rejection::internal(format!(
            "error dialing backend: kubelet at {}: {error}",
            std::net::SocketAddr::new(address, port)
        ))
    };
    let stream = cluster.config.kubelets.dial(address, port).await.map_err(|error| failed(&error))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
    tokio::spawn(connection.with_upgrades());
    sender.send_request(request).await.map_err(|error| failed(&error))
}

async fn refusal(answer: http::Response<hyper::body::Incoming>) -> Rejection {
    let status = answer.status();
    let body = http_body_util::Limited::new(answer.into_body(), LONGEST_ERROR).collect().await;
    let text = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).trim().to_owned()).unwrap_or_default();
    Rejection::upstream(status.as_u16(), text)
}

/// Options of logs that the kubelet takes under the same name.
const LOG_OPTIONS: &[&str] =
    &["follow", "previous", "sinceSeconds", "sinceTime", "timestamps", "tailLines", "limitBytes", "stream"];

/// Logs of a container.
pub(crate) async fn log(cluster: &Cluster, target: &Target, options: &Options) -> Result<Response, Rejection> {
    let pod = pod(cluster, target)?;
    let container = container(&pod, options)?;
    let place = match place(cluster, &pod) {
        Ok(place) => place,
        // Kubernetes answers for a pod without a node with an empty log.
        Err(rejection) if rejection.code == 400 => return Ok(Response::new(Body::empty())),
        Err(rejection) => return Err(rejection),
    };
    let query: Vec<String> = LOG_OPTIONS
        .iter()
        .filter_map(|option| options.get(option).map(|value| format!("{option}={}", encode(value))))
        .collect();
    let path = format!(
        "/containerLogs/{}/{}/{}?{}",
        encode(namespace(&pod)),
        encode(name(&pod)),
        encode(&container),
        query.join("&")
    );
    let request = forwarded(&Method::GET, &path, &HeaderMap::new(), &place)?;
    let answer = send(cluster, &place, request).await?;
    if !answer.status().is_success() {
        return Err(refusal(answer).await);
    }
    let mut response = Response::new(Body::new(answer.into_body()));
    response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain"));
    Ok(response)
}
