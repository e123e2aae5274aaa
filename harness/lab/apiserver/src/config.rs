//! What the API server is given from outside.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// Connects to the kubelets of nodes, for `exec`, `attach`, `logs` and `port-forward`.
pub trait KubeletDialer: Send + Sync {
    /// Opens an authenticated TLS connection to the kubelet at `node_address:port`; HTTP/1.1 is spoken on it.
    ///
    /// # Errors
    /// Whatever keeps the connection from being established; the client of the API server gets its text.
    fn dial(&self, node_address: IpAddr, port: u16) -> BoxFuture<'static, io::Result<TlsStream<TcpStream>>>;
}

/// How an [`ApiServer`](crate::ApiServer) is set up.
#[derive(Clone)]
pub struct Config {
    /// Bearer token of `kubernetes-admin` in `system:masters`, who may do everything.
    pub admin_token: String,
    /// Certificate of the listeners. Its ALPN list is replaced: the server offers HTTP/2 and HTTP/1.1.
    pub tls: Arc<rustls::ServerConfig>,
    /// Way to the kubelets.
    pub kubelets: Arc<dyn KubeletDialer>,
}
