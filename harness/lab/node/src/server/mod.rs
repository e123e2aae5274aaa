//! Exec, attach and logs over HTTPS, at a kubelet's paths.
//!
//! * [`exec`]: a new process in a container
//! * [`attach`]: the streams of the container's own process
//! * [`channels`]: what either of them and a client say to each other, whatever the wire
//! * [`upgrade`]: which wire a request asks for
//! * [`websocket`]: the one of today's clients
//! * [`spdy`]: SPDY/3.1, which older clients speak, and API servers before Kubernetes 1.36 whatever their client speaks
//! * [`logs`]: what a container has printed

mod attach;
mod channels;
mod exec;
mod logs;
mod spdy;
mod upgrade;
mod websocket;

use std::io;
use std::net::TcpListener;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::kubelet::Host;
use crate::pod::record::{PodCell, Run};

/// Serves until a listener fails.
pub(crate) async fn serve(host: Arc<Host>, listeners: Vec<TcpListener>, tls: Arc<ServerConfig>) -> io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(async || "ok"))
        .route("/pods", get(pods))
        .route("/exec/{namespace}/{pod}/{container}", get(exec::handle).post(exec::handle))
        .route("/attach/{namespace}/{pod}/{container}", get(attach::handle).post(attach::handle))
        .route("/containerLogs/{namespace}/{pod}/{container}", get(logs::handle))
        .with_state(host);
    let all = listeners.into_iter().map(|listener| serve_https(listener, Arc::clone(&tls), router.clone()));
    futures::future::try_join_all(all).await.map(drop)
}

/// Serves `router` over HTTP/1.1 and TLS, upgrades included, until the listener fails.
///
/// # Errors
/// When the listener can accept no more; trouble with single connections only ends those.
pub async fn serve_https(listener: TcpListener, tls: Arc<ServerConfig>, router: Router) -> io::Result<()> {
    let acceptor = TlsAcceptor::from(tls);
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                // One connection that went away too soon, or too many files open for a moment.
                Err(error) if is_passing(&error) => {
                    tracing::debug!(%error, "cannot accept a connection");
                    tokio::task::yield_now().await;
                    continue;
                }
                Err(error) => return Err(error),
            },
            Some(_) = connections.join_next() => continue,
        };
        let acceptor = acceptor.clone();
        let service = TowerToHyperService::new(router.clone());
        connections.spawn(async move {
            // Interactive sessions send small pieces.
            let _ = stream.set_nodelay(true);
            match acceptor.accept(stream).await {
                Ok(stream) => {
                    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                    if let Err(error) = connection.with_upgrades().await {
                        tracing::debug!(%error, "a connection for exec or logs ended badly");
                    }
                }
                Err(error) => tracing::debug!(%error, "a TLS handshake failed"),
            }
        });
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    ) || matches!(error.raw_os_error(), Some(23 | 24))
}

/// The pods of this node, as a kubelet's debugging endpoint lists them.
async fn pods(State(host): State<Arc<Host>>) -> Response {
    let items: Vec<serde_json::Value> =
        host.pods.all().iter().map(|pod| serde_json::to_value(&*pod.latest()).unwrap_or_default()).collect();
    axum::Json(serde_json::json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items }))
        .into_response()
}

/// A request's path: namespace, pod, container.
type Target = axum::extract::Path<(String, String, String)>;
/// A request's query; names may repeat.
type Query = axum::extract::Query<Vec<(String, String)>>;

fn flag(query: &[(String, String)], name: &str) -> bool {
    value(query, name).is_some_and(|value| matches!(value, "1" | "true" | "True" | "TRUE" | "t" | "T"))
}

fn value<'a>(query: &'a [(String, String)], name: &str) -> Option<&'a str> {
    query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

/// Why a request is not served.
type Refusal = (StatusCode, String);

/// The pod of a request, or the answer that there is none.
fn find_pod(host: &Host, namespace: &str, pod: &str) -> Result<Arc<PodCell>, Refusal> {
    host.pods.find(namespace, pod).ok_or_else(|| (StatusCode::NOT_FOUND, "pod does not exist\n".to_owned()))
}

/// The running container of a request, or the answer that there is none.
fn find_run(host: &Host, namespace: &str, pod: &str, container: &str) -> Result<Arc<Run>, Refusal> {
    let record = find_pod(host, namespace, pod)?.record();
    let found = record.containers.into_iter().find(|record| record.name == container);
    found.and_then(|record| record.run).ok_or_else(|| {
        // No newline, no colon: clients add their own words unless this reads as YAML.
        let message = format!("container not found (\"{container}\")");
        (StatusCode::INTERNAL_SERVER_ERROR, message)
    })
}
