//! The lab's own API server, its listeners, and our client of it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};
use std::sync::Arc;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::sync::{mpsc, watch};
use udn_lab_apiserver::ApiServer;
use udn_lab_sys::ground::NODES;
use udn_lab_sys::netns::Netns;
use udn_lab_sys::site::NodeSite;

use super::dialer::Dialer;
use crate::error::Error;
use crate::pki::Authority;

/// Port of the API server on the control plane and inside the lab's own namespace.
pub(super) const PORT: u16 = 6443;
/// Service `default/kubernetes`.
const SERVICE_V4: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// Service `default/kubernetes`.
const SERVICE_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 1);

/// The running API server.
pub(super) struct Api {
    /// To which others add groups.
    pub(super) server: ApiServer,
    control_plane: watch::Sender<Option<Netns>>,
    problems: mpsc::UnboundedSender<String>,
    /// For the host.
    pub(super) kubeconfig: Kubeconfig,
    /// For everything inside.
    pub(super) client: Client,
}

impl Api {
    /// Serves on `host`, a listener of the host's loopback, and on the lab's own loopback.
    pub(super) async fn start(
        authority: &Authority,
        host: TcpListener,
        port: u16,
        problems: mpsc::UnboundedSender<String>,
    ) -> Result<Self, Error> {
        let token = token().map_err(Error::inside("make a token"))?;
        let names = [
            "localhost",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
            NODES[0],
        ];
        let addresses: [IpAddr; 6] = [
            Ipv4Addr::LOCALHOST.into(),
            Ipv6Addr::LOCALHOST.into(),
            SERVICE_V4.into(),
            SERVICE_V6.into(),
            Ipv4Addr::new(172, 18, 0, 2).into(),
            Ipv6Addr::new(0xfc00, 0xf853, 0xccd, 0xe793, 0, 0, 0, 2).into(),
        ];
        let (control_plane, receiver) = watch::channel(None);
        let config = udn_lab_apiserver::Config {
            admin_token: token.clone(),
            tls: Arc::new(authority.server(&names, &addresses)?),
            kubelets: Arc::new(Dialer {
                tls: Arc::new(authority.client("kube-apiserver-kubelet-client")?),
                control_plane: receiver,
            }),
        };
        let server = ApiServer::new(config);
        let own =
            TcpListener::bind((Ipv4Addr::LOCALHOST, PORT)).map_err(Error::inside("listen on its own loopback"))?;
        let kubeconfig = |port| kubeconfig(authority.pem(), &token, port);
        let config = Config::from_custom_kubeconfig(kubeconfig(PORT)?, &KubeConfigOptions::default()).await;
        let client = Client::try_from(config.map_err(Error::inside("configure a client"))?)
            .map_err(Error::inside("make a client"))?;
        let api = Self { server, control_plane, problems, kubeconfig: kubeconfig(port)?, client };
        api.serve(host)?;
        api.serve(own)?;
        Ok(api)
    }

    /// Serves on the control plane node too, and reaches node agents from there.
    pub(super) fn join(&self, control_plane: &NodeSite) -> Result<(), Error> {
        // One socket for both families.
        let bind = || TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT));
        let listener = control_plane.netns.run(bind).and_then(|listener| listener);
        self.serve(listener.map_err(Error::inside(format!("listen on {}:{PORT}", control_plane.name)))?)?;
        self.control_plane.send_replace(Some(control_plane.netns.clone()));
        Ok(())
    }

    fn serve(&self, listener: TcpListener) -> Result<(), Error> {
        let prepare = || {
            listener.set_nonblocking(true)?;
            tokio::net::TcpListener::from_std(listener)
        };
        let listener = prepare().map_err(Error::inside("serve the API"))?;
        let (server, problems) = (self.server.clone(), self.problems.clone());
        tokio::spawn(async move {
            if let Err(error) = server.serve(listener).await {
                let _ = problems.send(format!("the API server stopped: {error}"));
            }
        });
        Ok(())
    }
}

/// 128 random bits.
fn token() -> io::Result<String> {
    let mut bytes = [0; 16];
    io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn kubeconfig(authority: &str, token: &str, port: u16) -> Result<Kubeconfig, Error> {
    let value = serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "udn-lab",
        "clusters": [{"name": "udn-lab", "cluster": {
            "server": format!("https://127.0.0.1:{port}"),
            "certificate-authority-data": base64(authority.as_bytes()),
        }}],
        "users": [{"name": "udn-lab-admin", "user": {"token": token}}],
        "contexts": [{"name": "udn-lab", "context": {"cluster": "udn-lab", "user": "udn-lab-admin"}}],
    });
    serde_json::from_value(value).map_err(Error::inside("write its kubeconfig"))
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
