//! How the API server reaches node agents: from the control plane's network namespace, with a client certificate.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use udn_lab_apiserver::KubeletDialer;
use udn_lab_sys::netns::Netns;

/// The API server serves before there are nodes: a dial waits for the control plane's namespace.
pub(super) struct Dialer {
    pub(super) tls: Arc<ClientConfig>,
    pub(super) control_plane: watch::Receiver<Option<Netns>>,
}

impl KubeletDialer for Dialer {
    fn dial(&self, node_address: IpAddr, port: u16) -> BoxFuture<'static, io::Result<TlsStream<TcpStream>>> {
        let (tls, mut control_plane) = (self.tls.clone(), self.control_plane.clone());
        async move {
            let netns = control_plane.wait_for(Option::is_some).await.map_err(io::Error::other)?.clone();
            let netns = netns.ok_or_else(|| io::Error::other("the control plane is gone"))?;
            let socket =
                netns.run(|| if node_address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() })??;
            let stream = socket.connect(SocketAddr::new(node_address, port)).await?;
            stream.set_nodelay(true)?;
            TlsConnector::from(tls).connect(ServerName::IpAddress(node_address.into()), stream).await
        }
        .boxed()
    }
}
