//! A server for tests and for trying things out: with its own certificate, on loopback.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::future::BoxFuture;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::client::TlsStream;

use crate::{ApiServer, Config, KubeletDialer};

/// Why a server for tests could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No certificate.
    #[error("cannot make a certificate for the API server: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The certificate does not work.
    #[error("cannot set up TLS for the API server: {0}")]
    Tls(#[from] rustls::Error),
    /// No listener.
    #[error("cannot listen on loopback for the API server: {0}")]
    Listen(#[source] io::Error),
}

/// For clusters without nodes: every kubelet is unreachable.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoKubelets;

impl KubeletDialer for NoKubelets {
    fn dial(&self, node_address: IpAddr, port: u16) -> BoxFuture<'static, io::Result<TlsStream<TcpStream>>> {
        let text = format!("no way to the kubelet at {node_address}:{port}");
        Box::pin(async { Err(io::Error::new(io::ErrorKind::HostUnreachable, text)) })
    }
}

/// A running server, on a free port of loopback. Ends when dropped.
pub struct TestServer {
    /// The server, to serve more listeners.
    pub server: ApiServer,
    /// Where it listens.
    pub address: SocketAddr,
    /// The administrator's token.
    pub token: String,
    /// The server's certificate, which is its own authority, as PEM.
    pub certificate: String,
    task: JoinHandle<io::Result<()>>,
}

impl TestServer {
    /// Starts a server without kubelets.
    ///
    /// # Errors
    /// When there is no free port, or no certificate can be made.
    pub async fn start() -> Result<Self, Error> {
        Self::start_with(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), Arc::new(NoKubelets)).await
    }

    /// Starts a server at an address, with a way to kubelets.
    ///
    /// # Errors
    /// When the address is taken, or no certificate can be made.
    pub async fn start_with(address: SocketAddr, kubelets: Arc<dyn KubeletDialer>) -> Result<Self, Error> {
        let listener = TcpListener::bind(address).await.map_err(Error::Listen)?;
        let address = listener.local_addr().map_err(Error::Listen)?;
        let key = KeyPair::generate()?;
        let names = vec![address.ip().to_string(), "localhost".to_owned()];
        let certificate = CertificateParams::new(names)?.self_signed(&key)?;
        let tls = server_config(certificate.der().clone(), key.serialize_der())?;
        let token = format!("{:032x}", rand::random::<u128>());
        let server = ApiServer::new(Config { admin_token: token.clone(), tls: Arc::new(tls), kubelets });
        let task = tokio::spawn({
            let server = server.clone();
            async move { server.serve(listener).await }
        });
        Ok(Self { server, address, token, certificate: certificate.pem(), task })
    }

    /// A kubeconfig for the server, as YAML.
    pub fn kubeconfig(&self) -> String {
        let authority = STANDARD.encode(&self.certificate);
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: lab\n\
             clusters:\n- name: lab\n  cluster:\n    server: https://{}\n    certificate-authority-data: {authority}\n\
             users:\n- name: kubernetes-admin\n  user:\n    token: {}\n\
             contexts:\n- name: lab\n  context:\n    cluster: lab\n    user: kubernetes-admin\n    namespace: default\n",
            self.address, self.token
        )
    }

    /// Writes the kubeconfig, readable by its owner only.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_kubeconfig(&self, path: &Path) -> io::Result<()> {
        use std::io::Write;
        use std::os::unix::fs::OpenOptionsExt;
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.write_all(self.kubeconfig().as_bytes())
    }

    /// A client of the server.
    ///
    /// # Errors
    /// When the kubeconfig is not understood, which would be a mistake here.
    pub async fn client(&self) -> Result<kube::Client, kube::Error> {
        let invalid = |error: kube::config::KubeconfigError| kube::Error::Service(Box::new(error));
        let kubeconfig = kube::config::Kubeconfig::from_yaml(&self.kubeconfig()).map_err(invalid)?;
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.map_err(invalid)?;
        kube::Client::try_from(config)
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn server_config(certificate: CertificateDer<'static>, key: Vec<u8>) -> Result<rustls::ServerConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], PrivatePkcs8KeyDer::from(key).into())
}
