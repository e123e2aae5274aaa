//! Listeners, TLS, who may come in, and dispatch.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use http::header;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use crate::admission::Policies;
use crate::aggregation::Aggregated;
use crate::authorization::{Attributes, Caller};
use crate::config::Config;
use crate::identity::{Tokens, User};
use crate::request::Options;
use crate::resources::Registry;
use crate::services::Allocator;
use crate::status::Rejection;
use crate::store::Store;
use crate::{discovery, handlers, openapi};

/// Watches and requests that one HTTP/2 connection may have open at once; kubectl and Go clients share one connection.
const STREAMS_PER_CONNECTION: u32 = 2_000;

/// How long a client may take for the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long a connection may wait for its next request. Longer than any client keeps one to use it again (`kube` and Go: 90 s):
/// where the server is the first to close, a client may have just sent a request on it, which then is lost.
const IDLE: Duration = Duration::from_secs(180);

/// An API server. Clones share everything.
#[derive(Clone)]
pub struct ApiServer {
    pub(crate) state: Arc<Cluster>,
}

/// Everything that requests share.
pub(crate) struct Cluster {
    pub(crate) config: Config,
    pub(crate) store: Store,
    pub(crate) registry: Registry,
    pub(crate) policies: Policies,
    pub(crate) allocator: Allocator,
    pub(crate) tokens: Tokens,
    pub(crate) aggregated: Aggregated,
}

impl ApiServer {
    /// Makes a server with the namespaces and roles that every cluster has, and nothing else.
    pub fn new(config: Config) -> Self {
        let cluster = Cluster {
            config,
            store: Store::default(),
            registry: Registry::default(),
            policies: Policies::default(),
            allocator: Allocator::default(),
            tokens: Tokens::default(),
            aggregated: Aggregated::default(),
        };
        let server = Self { state: Arc::new(cluster) };
        handlers::bootstrap(&server.state);
        server
    }

    /// Serves clients of one listener until it fails. May be called for several listeners.
    ///
    /// # Errors
    /// When the listener can accept no more; trouble with single connections only ends those.
    pub async fn serve(&self, listener: TcpListener) -> io::Result<()> {
        let mut tls = (*self.state.config.tls).clone();
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let router = self.router();
        loop {
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) if is_transient(&error) => {
                    warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let (acceptor, router) = (acceptor.clone(), router.clone());
            tokio::spawn(async move {
                if let Err(error) = connection(acceptor, router, stream).await {
                    debug!(%peer, %error, "connection ended");
                }
            });
        }
    }

    fn router(&self) -> Router {
        let health = axum::routing::get(async || "ok");
        let open = Router::new()
            .route("/healthz", health.clone())
            .route("/healthz/{*rest}", health.clone())
            .route("/readyz", health.clone())
            .route("/readyz/{*rest}", health.clone())
            .route("/livez", health.clone())
            .route("/livez/{*rest}", health)
            .route("/version", axum::routing::get(discovery::version));
        let guarded = Router::new()
            .route("/api", axum::routing::get(discovery::core))
            .route("/apis", axum::routing::get(discovery::groups))
            .route("/apis/{group}", axum::routing::get(discovery::group))
            .route("/openapi/v2", axum::routing::get(openapi::old_document))
            .route("/openapi/v3", axum::routing::get(openapi::index))
            .route("/openapi/v3/{*group_version}", axum::routing::get(openapi::document))
            .fallback(handlers::dispatch)
            .layer(middleware::from_fn_with_state(self.state.clone(), admit))
            .with_state(self.state.clone());
        open.merge(guarded)
    }
}

fn is_transient(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    // 23, 24: no file descriptor is free at this moment.
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
        || matches!(error.raw_os_error(), Some(23 | 24))
}

async fn connection(
    acceptor: TlsAcceptor,
    router: Router,
    stream: TcpStream,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    stream.set_nodelay(true)?;
    let stream = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await??;
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(STREAMS_PER_CONNECTION);
    // Its time runs from the end of the last response, not from the first byte of a request: hyper's 30 s are too few.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(IDLE);
    builder.serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(router)).await
}

/// Lets those in whose token is known, to what they may do.
async fn admit(State(cluster): State<Arc<Cluster>>, mut request: Request, next: Next) -> Response {
    let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    // Browsers and some WebSocket clients can only send the token as a subprotocol; nobody here does.
    let token = given.and_then(|value| value.strip_prefix("Bearer ")).map(str::trim);
    let Some(user) = token.and_then(|token| cluster.user(token)) else {
        return Rejection::unauthorized().into_response();
    };
    // Only to those who may be everybody anyway: the right `impersonate` is not looked for.
    let user = match User::impersonated(request.headers()) {
        Some(other) if user.may_everything() => other,
        Some(_) => {
            return Rejection::no_right(None, "", "impersonation is for cluster administrators here").into_response();
        }
        None => user,
    };
    let options = match Options::of(request.uri()) {
        Ok(options) => options,
        Err(rejection) => return rejection.into_response(),
    };
    let attributes = Attributes::of_request(request.method(), request.uri().path(), &options);
    let caller = Arc::new(Caller { user, attributes });
    if let Err(rejection) = caller.check(&cluster) {
        return rejection.into_response();
    }
    request.extensions_mut().insert(caller);
    next.run(request).await
}
